"""What would hold if the primary died now: whether anything acknowledged could be lost, who would take over, and what
keeps the old one away. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxyroute.config_values import ClusterConfig
from proxyroute.failover_election import elect_failover
from proxyroute.glance import Glance
from proxyroute.history import Summary, fencing_text, rebuilt
from proxyroute.known import primary_of, remember
from proxyroute.model import Finding, Severity
from proxyroute.sight import Sightings

_OF_THE_DAY = frozenset({"failover.lost", "failover.unfetchable", "failover.history"})
"""What a living primary is always a moment ahead in; it counts once it is gone."""


@dataclass(frozen=True)
class Guarantee:
    """What may be relied on now."""

    primary: str | None
    """Whom it is about; None when nobody can tell who the primary is."""
    winner: str | None
    """Who would take over from it by an election now."""
    lossless: bool
    """Nothing that was acknowledged to a client would be missing, by the election's own judgement."""
    doubts: tuple[Finding, ...]
    """Why not."""
    obstacles: tuple[Finding, ...]
    """Errors that would stand in the way of a failover, by the same election."""
    fence: tuple[str, ...]
    """The program that makes sure that an old primary takes no writes; empty without one."""
    kept_away: str = ""
    """Of the last failover, if nothing has moved the primary since: what keeps the old primary away, in words."""
    kept_surely: bool = True
    """That is a fence, or the old primary follows again."""


def guarantee_of(config: ClusterConfig, seen: Glance, history: tuple[Summary, ...], back: bool) -> Guarantee:
    """Returns what may be relied on, by what is seen and on record.

    ``back``: the old primary of the last failover follows again.
    """
    sightings = Sightings.of(seen.view, 0.0, seen.known.server_ids if seen.known is not None else None)
    known = remember(sightings, seen.known, 0.0, seen.at)
    primary = primary_of(sightings, known)
    fence = tuple(config.scripts.moments.get("fence", ()))
    last = last_failover(history)
    kept = fencing_text(last.primary, last.fencing, last.fenced_by) if last is not None and not back else ""
    surely = last is None or back or last.fencing == "fenced"
    if primary is None:
        return Guarantee(None, None, False, (), (), fence, kept, surely)
    policy = seen.standing.policy(config.policy, rebuilt(history))
    election = elect_failover(sightings, primary, policy, config.failover, known)
    server = seen.view.status(primary)
    lives = server is not None and server.writable
    told = tuple(f for f in election.findings if not (lives and f.code in _OF_THE_DAY))
    lossless = election.winner is not None and not told and (lives or election.lossless)
    return Guarantee(
        primary=primary,
        winner=election.winner,
        lossless=lossless,
        doubts=() if lossless else told,
        obstacles=tuple(f for f in told if f.severity is Severity.ERROR),
        fence=fence,
        kept_away=kept,
        kept_surely=surely,
    )


def last_failover(history: tuple[Summary, ...]) -> Summary | None:
    """Returns the last failover, if nothing has moved the primary since."""
    last = next((s for s in reversed(history) if s.ended_with is not None), None)
    return last if last is not None and last.kind == "failover" and last.outcome == "done" else None
