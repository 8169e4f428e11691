"""What a failover would do, and everything that speaks for and against it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from proxyroute.decided import Action, Diagnosis, FailoverElection, Plan
from proxyroute.errors import Refused
from proxyroute.failover import Orders
from proxyroute.failover_election import elect_failover, reference
from proxyroute.inspection import Event
from proxyroute.known import Known
from proxyroute.model import Finding, Severity, View
from proxyroute.moment import Moment
from proxyroute.policy import FailoverPolicy, Policy
from proxyroute.preflight import blocking
from proxyroute.salvage import APPLY, IGNORE, SAVE
from proxyroute.sight import Sightings

_FORCED = ("DeadPrimaryUnwitnessed", "HungPrimary", "DeadPrimary")
"""Diagnoses for which a person may take it upon himself that the primary is gone."""


@dataclass(frozen=True)
class Contingency:
    """A failover that could be made, or why it could not."""

    view: View
    diagnosis: Diagnosis
    election: FailoverElection | None
    plan: Plan | None
    orders: Orders
    findings: tuple[Finding, ...]
    go: bool = False
    dead_binlog: str = ""
    """What would be done with what only the old primary has, in words."""
    limits: tuple[Finding, ...] = ()
    """What forbids an *automatic* failover now, whatever a person may do."""

    @property
    def may_be_missing(self) -> tuple[str, ...]:
        """Why something acknowledged may be lost, as far as is known before anything is closed."""
        return (*self.orders.may_be_missing, *(f.text for f in self.findings if f.code == "failover.unfenced"))

    def plan_of(self, primary: str) -> Plan:
        """Returns the plan. Raises Refused when it is not about ``primary``: somebody may have acted since that was."""
        if self.plan is None or self.plan.primary != primary:
            raise Refused(f"{primary} is not the one that is gone any more; look again: proxyroute plan --failover")
        return self.plan


def foresee(
    sightings: Sightings,
    diagnosis: Diagnosis,
    rules: Policy,
    policy: FailoverPolicy,
    known: Known | None,
    *,
    target: str | None = None,
    force: bool = False,
    fenced_by: str = "",
    fenced_proxies: Sequence[str] = (),
    events: Sequence[Event] = (),
    hosts: Collection[str] = (),
    apply_dead_binlog: bool = False,
    more: Sequence[Finding] = (),
) -> Contingency:
    """Returns what a failover would do now. ``more`` are findings of others; ``events`` those of the old primary.

    ``hosts`` are the servers on whose hosts commands run; ``apply_dead_binlog`` asks for that, whatever is configured.
    """
    primary = diagnosis.primary
    view = sightings.view
    if primary is None:
        return Contingency(view, diagnosis, None, None, Orders(), (*_not_gone(diagnosis, force), *more))
    election = elect_failover(sightings, primary, rules, policy, known, target=target, force=force)
    # the receiver of one that is being rebuilt stands still already, and what it has does not count
    others = [s for s in view.seen if s.name != primary and s.name not in rules.rebuilt]
    participants = tuple(s.name for s in others if sightings.channel(s, primary) is not None)
    wanted = APPLY if apply_dead_binlog else policy.dead_binlog
    orders = Orders(
        fenced_by=fenced_by,
        fenced_proxies=tuple(fenced_proxies),
        participants=participants,
        fetch_from=election.fetch_from or "",
        patience=policy.apply,
        fetch_patience=policy.fetch,
        may_lack=force or policy.policy == "most_advanced",
        acknowledgers=_acknowledgers(primary, known),
        reference=reference(sightings, primary, known),
        may_be_missing=() if election.lossless else _doubts(election),
        seen_writing=known.moment if known is not None and known.primary == primary else None,
        in_sync_until=_in_sync_until(known),
        server_ids=dict(known.server_ids) if known is not None else {},
        events=tuple(events),
        event_scheduler=known is not None and known.primary == primary and known.event_scheduler,
        semi_sync=_waited(view, primary, known, participants),
        dead_binlog=wanted if primary in hosts else IGNORE,
        dead_binlog_time=policy.dead_binlog_time,
    )
    plan = None
    if election.winner is not None:
        rest = [n for n in view.servers if n not in (primary, election.winner)]
        moved = tuple(n for n in rest if n in participants or view.status(n) is None)
        plan = Plan(view.cluster, primary, election.winner, moved, policy=rules)
    if fenced_by:
        more = [f for f in more if f.code != "failover.unfenced"]
    own = {f.code for f in election.findings}
    blockers = tuple(f for f in diagnosis.blockers if f.code not in own)
    if wanted == APPLY and primary not in hosts:
        more = (_no_host(primary, Severity.ERROR if apply_dead_binlog else Severity.WARNING), *more)
    findings = (*_not_gone(diagnosis, force or bool(fenced_by)), *blockers, *election.findings, *more)
    go = plan is not None and not blocking(findings, force)
    told = _dead_binlog(primary, election.winner, orders, wanted)
    return Contingency(view, diagnosis, election, plan, orders, findings, go, told)


def _no_host(primary: str, severity: Severity) -> Finding:
    text = f"what only {primary} has cannot be applied: there is no way to its host"
    return Finding("failover.dead_binlog", severity, primary, text, f"configure servers.{primary}.host")


def _dead_binlog(primary: str, winner: str | None, orders: Orders, wanted: str) -> str:
    if wanted == IGNORE:
        return f"the binary log of {primary} is not read (failover.dead_binlog)"
    if orders.dead_binlog == IGNORE:
        return f"the binary log of {primary} is not read: servers.{primary}.host is not configured"
    if orders.dead_binlog == SAVE:
        return f"what only {primary} has is saved from its host, once {winner or 'another server'} takes writes"
    return (
        f"what only {primary} has is saved from its host and applied to {winner or 'the other server'} before that "
        f"takes writes, within {orders.dead_binlog_time:g} s; clients may have seen these writes fail"
    )


def _waited(view: View, primary: str, known: Known | None, participants: Sequence[str]) -> bool:
    """Whether the primary waited for acknowledgements; an engine that never saw it alive asks those who gave them."""
    if known is not None and known.primary == primary:
        return known.semi_sync is not None
    replicas = [view.status(name) for name in participants]
    return any(replica.semi_sync.replica_active for replica in replicas if replica is not None)


def _not_gone(diagnosis: Diagnosis, asked: bool) -> Iterator[Finding]:
    """A primary that is not known to be gone is not failed over; a person may insist where nobody hears it."""
    if Action.FAILOVER in (diagnosis.action, diagnosis.wanted):
        return
    lives = diagnosis.name not in _FORCED
    cure = {
        "NoProblem": "proxyroute switchover moves a primary that lives",
        "DeadPrimaryUnwitnessed": "when you know that it is gone: --force, or --fenced-by NAME once it is fenced",
    }.get(diagnosis.name, "look at 'proxyroute status'; docs/reference/diagnoses.md explains the diagnosis")
    severity = Severity.ERROR if lives or not asked else Severity.WARNING
    text = f"{diagnosis.name}: {diagnosis.text}"
    yield Finding("failover.diagnosis", severity, diagnosis.primary or "cluster", text, cure, forceable=not lives)


def _acknowledgers(primary: str, known: Known | None) -> tuple[str, ...]:
    if known is None or known.primary != primary or known.semi_sync is None:
        return ()
    return (*known.semi_sync.acknowledgers, *known.semi_sync.formerly)


def _in_sync_until(known: Known | None) -> Moment | None:
    sync = known.semi_sync if known is not None else None
    return sync.since.after(sync.timeout_seconds) if sync is not None and sync.since is not None else None


def _doubts(election: FailoverElection) -> tuple[str, ...]:
    told = [*election.missing, *(f.text for f in election.findings if f.text not in election.missing)]
    return tuple(told) or ("nobody can tell whether everything acknowledged was received by a replica",)
