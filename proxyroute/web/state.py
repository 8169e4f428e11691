"""Everything that is shown of one cluster, joined from what was seen and what is on record. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from proxyroute.config_values import ClusterConfig
from proxyroute.election import elect, make_plan
from proxyroute.glance import Glance, good_for
from proxyroute.history import Summary, fenced, rebuilt, waiting_for_heal
from proxyroute.model import Finding, Observed, Severity, Status, View
from proxyroute.preflight import preflight, survey
from proxyroute.truth import truth
from proxyroute.web.guarantee import Guarantee, guarantee_of, last_failover
from proxyroute.words import roughly

_UNREAD = frozenset({"account.unread"})
"""What only says that the dear part was not read; a plan reads it."""


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
    unfinished: tuple[Summary, ...] = ()
    """Operations that wait for heal."""
    aside: tuple[Summary, ...] = ()
    """The last word on each server that could not rejoin."""
    guarantee: Guarantee | None = None
    """What would hold if the primary died now; None until the first look is complete."""
    unread: bool = False
    """Nobody can read what is on record, so that nothing is said of it."""
    old: str = ""
    """For how long it was not looked at, in words; empty while what was seen counts."""

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


def unread(config: ClusterConfig, seen: Glance | None, why: str) -> ClusterState:
    """Returns what is shown of a cluster of which nobody can read what is on record: what is seen, and that."""
    shown = state_of(config, seen, ())
    what, _, cure = why.partition("; ")
    told = Finding("journal.damaged", Severity.ERROR, config.name, f"what is on record cannot be read: {what}", cure)
    more = f"{told.text}; {cure}" if cure else told.text
    return replace(
        shown,
        truth=f"{shown.truth}; {more}",
        level="bad",
        blocks_switchover=(told, *shown.blocks_switchover),
        unread=True,
    )


def state_of(config: ClusterConfig, seen: Glance | None, history: Sequence[Summary]) -> ClusterState:
    """Returns what is shown of a cluster."""
    unfinished = tuple(waiting_for_heal(history))
    if seen is None:
        return ClusterState(
            config, None, tuple(history), f"{config.name}: not looked at yet", "warn", (), (), unfinished
        )
    text, level = truth(seen.view, seen.observed, unfinished, seen.standing)
    last = last_failover(tuple(history))
    return ClusterState(
        config=config,
        glance=seen,
        history=tuple(history),
        truth=text,
        level=level,
        blocks_switchover=blocks_switchover(config, seen, unfinished),
        blocks_failover=(*seen.limits, *(f for f in seen.blocks if f not in seen.limits)),
        unfinished=unfinished,
        aside=tuple(s for s in fenced(history) if not _back(seen.view, s.candidate)),
        guarantee=guarantee_of(config, seen, tuple(history), last is not None and _back(seen.view, last.primary)),
    )


def outdated(config: ClusterConfig, seen: Glance | None, now: float) -> bool:
    """Tells whether what was seen does not count any more at the Unix time ``now``.

    Whoever keeps the cluster looks once in a period, or sooner; later only while it moves the primary, or is stuck.
    """
    return seen is not None and now - seen.at > good_for(config) + config.serve.period


def aged(state: ClusterState, now: float) -> ClusterState:
    """Returns ``state`` as it is to be shown at the Unix time ``now``: what was seen long ago is not good any more."""
    if state.glance is None or not outdated(state.config, state.glance, now):
        return state
    old = f"not looked at for {roughly(now - state.glance.at)}"
    return replace(
        state, truth=f"{state.truth}; {old}", level="warn" if state.level == "good" else state.level, old=old
    )


def blocks_switchover(config: ClusterConfig, seen: Glance, unfinished: Sequence[Summary]) -> tuple[Finding, ...]:
    """Returns what would refuse a switchover to whom an election finds, by one cheap reading."""
    found = [
        Finding(
            "operation.open", Severity.ERROR, config.name, f"{s.kind} {s.operation} is not finished", "proxyroute heal"
        )
        for s in unfinished
        if s.outcome == "open"
    ]
    view, policy = seen.view, seen.standing.policy(config.policy, rebuilt(unfinished))
    primary = view.primary
    election = elect(view, primary.name, policy) if primary is not None else None
    if primary is None or election is None or election.winner is None:
        told = survey(view, policy)
    else:
        told = preflight(view, make_plan(view, primary.name, election, policy))
    return (*found, *(f for f in told if f.severity is Severity.ERROR and f.code not in _UNREAD))


def _back(view: View, name: str) -> bool:
    """Tells whether a server replicates by now, or is the primary, whatever was said of it earlier."""
    server = view.status(name)
    return server is not None and (bool(server.sources) or server is view.primary)
