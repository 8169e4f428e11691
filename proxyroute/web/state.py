"""Everything that is shown of one cluster, joined from what was seen and what is on record. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from proxyroute.config_values import ClusterConfig
from proxyroute.election import elect, make_plan
from proxyroute.glance import Glance
from proxyroute.history import Summary, fenced, fencing_text, waiting_for_heal
from proxyroute.model import Finding, Observed, Severity, Status, View
from proxyroute.preflight import preflight, survey
from proxyroute.truth import truth

_UNREAD = frozenset({"account.unread"})
"""What only says that the dear part was not read; a plan reads it."""


@dataclass(frozen=True)
class Guarantee:
    """What would hold if the primary died now."""

    fenced: bool
    """Something makes sure that the old primary takes no writes."""
    fenced_text: str
    lossless: bool
    """Nothing acknowledged would be lost."""
    lossless_text: str


@dataclass(frozen=True)
class ClusterState:
    """One cluster at one moment."""

    config: ClusterConfig
    glance: Glance | None
    """What was seen; None until the first look is complete."""
    history: tuple[Summary, ...]
    truth: str
    """The one line of truth, with the cluster's name."""
    level: str
    """``good``, ``warn`` or ``bad``."""
    blocks_switchover: tuple[Finding, ...]
    """What would block a switchover now (errors), by what is read all the time; a plan looks at more."""
    blocks_failover: tuple[Finding, ...]
    """What would block an automatic failover now; with mode ``manual`` that a person decides."""
    guarantee: Guarantee
    unfinished: tuple[Summary, ...] = ()
    """Operations that wait for heal."""
    aside: tuple[Summary, ...] = ()
    """The last word on each server that could not rejoin."""
    served: bool = True
    """Our own keeper looks at it."""
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def view(self) -> View | None:
        return self.glance.view if self.glance else None

    @property
    def primary(self) -> Status | None:
        return self.glance.view.primary if self.glance else None

    @property
    def observed(self) -> tuple[Observed, ...]:
        return self.glance.observed if self.glance else ()

    @property
    def failover_possible(self) -> bool:
        """An automatic failover would be made if the primary died now."""
        return self.config.failover.mode == "automatic" and not self.blocks_failover


def state_of(config: ClusterConfig, seen: Glance | None, history: Sequence[Summary]) -> ClusterState:
    """Returns what is shown of a cluster."""
    unfinished = tuple(waiting_for_heal(history))
    if seen is None:
        return ClusterState(
            config, None, tuple(history), f"{config.name}: not looked at yet", "warn", (), (),
            Guarantee(False, "not known yet", False, "not known yet"), unfinished,
        )  # fmt: skip
    text, level = truth(seen.view, seen.observed, unfinished)
    return ClusterState(
        config=config,
        glance=seen,
        history=tuple(history),
        truth=text,
        level=level,
        blocks_switchover=blocks_switchover(config, seen.view, unfinished),
        blocks_failover=(*seen.limits, *(f for f in seen.blocks if f not in seen.limits)),
        guarantee=guarantee(config, seen),
        unfinished=unfinished,
        aside=tuple(s for s in fenced(history) if not _back(seen.view, s.candidate)),
    )


def blocks_switchover(config: ClusterConfig, view: View, unfinished: Sequence[Summary]) -> tuple[Finding, ...]:
    """Returns what would refuse a switchover to whom an election finds, by one cheap reading."""
    found = [
        Finding(
            "operation.open", Severity.ERROR, config.name, f"{s.kind} {s.operation} is not finished", "proxyroute heal"
        )
        for s in unfinished
        if s.outcome == "open"
    ]
    primary = view.primary
    election = elect(view, primary.name, config.policy) if primary is not None else None
    if primary is None or election is None or election.winner is None:
        told = survey(view, config.policy)
    else:
        told = preflight(view, make_plan(view, primary.name, election, config.policy))
    return (*found, *(f for f in told if f.severity is Severity.ERROR and f.code not in _UNREAD))


def guarantee(config: ClusterConfig, seen: Glance) -> Guarantee:
    """Returns what would hold if the primary died now."""
    fence = bool(config.scripts.moments.get("fence"))
    fenced_text = "a fence is configured" if fence else "no fence is configured; the old primary would be routed away"
    primary = seen.view.primary
    if primary is None:
        return Guarantee(fence, fenced_text, False, "there is no primary")
    semi = primary.semi_sync
    if not (semi.available and semi.primary_enabled):
        return Guarantee(fence, fenced_text, False, "semi-synchronous replication is off")
    if not semi.primary_active:
        return Guarantee(fence, fenced_text, False, "semi-synchronous replication has degraded to asynchronous")
    if semi.wait_point.upper() != "AFTER_SYNC":
        return Guarantee(fence, fenced_text, False, f"semi-synchronous, but {semi.wait_point or 'AFTER_COMMIT'}")
    return Guarantee(fence, fenced_text, True, f"semi-synchronous AFTER_SYNC, {semi.clients} replicas acknowledge")


def last_failover_text(state: ClusterState) -> str:
    """Returns in words what keeps the old primary of the last failover away; empty when there was none."""
    last = next((s for s in reversed(state.history) if s.kind == "failover" and s.outcome == "done"), None)
    return fencing_text(last.primary, last.fencing, last.fenced_by) if last is not None else ""


def _back(view: View, name: str) -> bool:
    """Tells whether a server replicates by now, or is the primary, whatever was said of it earlier."""
    server = view.status(name)
    return server is not None and (bool(server.sources) or server is view.primary)
