"""What a switchover would do, before it does anything: who would take over, each step with its acts, how long."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proxyroute.decided import Election, Plan, PlannedStep
from proxyroute.election import elect, make_plan
from proxyroute.errors import Refused
from proxyroute.model import Deadline, Finding, View
from proxyroute.parts import LOOK, Parts
from proxyroute.policy import Policy
from proxyroute.preflight import blocking, preflight, survey

WAITED_FOR = "transaction.long"
"""This finding does not refuse a switchover: it waits for these first, and refuses when they do not end."""

_FREEZE_TRIPS = {"primary": 9, "candidate": 6}
"""Round trips to each inside the blackout: lock, name, limit, position, states, kill, read_only, unlock …"""
_THREADS = 0.003
"""Seconds it takes a replica to stop its two threads (STOP SLAVE, measured 1–4 ms on MariaDB 10.11)."""
_HISTORY = 10


@dataclass(frozen=True)
class Prospect:
    """A plan with everything that speaks for and against it."""

    view: View
    plan: Plan | None
    election: Election | None
    findings: tuple[Finding, ...]
    steps: tuple[PlannedStep, ...] = ()
    predicted_seconds: float | None = None
    prediction_basis: str = ""
    go: bool = False
    unchanged: bool = False
    """The named server is the primary already: nothing to do."""

    def plan_of(self, primary: str) -> Plan:
        """Returns the plan. Raises Refused when it is not about ``primary``: somebody may have acted since that was."""
        if self.plan is None or self.plan.primary != primary:
            raise Refused(f"{primary} is not the primary any more; look again: proxyroute plan")
        return self.plan


def foresee(
    view: View,
    policy: Policy,
    target: str | None,
    *,
    force: bool,
    parts: Parts,
    sync_seconds: float,
    past: Sequence[float] = (),
    more: Sequence[Finding] = (),
) -> Prospect:
    """Returns the prospect of a switchover to ``target``, or to whom an election finds.

    ``sync_seconds`` is how long the journal takes to be on disk, ``past`` the blackouts of earlier operations in
    seconds, ``more`` findings about anything else (proxies, open operations).
    """
    primary = view.primary
    if primary is None:
        return Prospect(view, None, None, (*survey(view, policy, target), *more))
    if target == primary.name:
        return Prospect(view, None, None, (), unchanged=True)
    election = elect(view, primary.name, policy, target, force=force)
    if election.winner is None:
        return Prospect(view, None, election, (*survey(view, policy, target), *more))
    plan = make_plan(view, primary.name, election, policy, force=force)
    findings = (*preflight(view, plan), *more)
    predicted, basis = _predict(view, plan, sync_seconds, past)
    return Prospect(
        view,
        plan,
        election,
        findings,
        tuple(_steps(view, plan, parts)),
        predicted,
        basis,
        go=not [f for f in blocking(findings, force) if f.code != WAITED_FOR],
    )


def _predict(view: View, plan: Plan, sync_seconds: float, past: Sequence[float]) -> tuple[float, str]:
    """The sum of what happens inside the blackout; with enough history the median of what it really took."""
    if len(past) >= 3:
        last = past[-_HISTORY:]
        return statistics.median(last), f"median of the last {len(last)} operations here"
    trips = {"primary": view.status(plan.primary), "candidate": view.status(plan.candidate)}
    seconds = sum(_FREEZE_TRIPS[role] * s.round_trip_seconds for role, s in trips.items() if s is not None)
    return seconds + sync_seconds + _THREADS, "from measured round trips and the journal's disk"


def _steps(view: View, plan: Plan, parts: Parts) -> Iterator[PlannedStep]:
    """Every step that the operation will show, with its acts, in order."""
    policy, old, new = plan.policy, parts.site[plan.primary], parts.site[plan.candidate]
    old_peer, new_peer = view.peer(plan.primary), view.peer(plan.candidate)
    proxies = ", ".join(a.name for a in parts.routes.all)

    def on_old(*verbs: str) -> tuple[str, ...]:
        return tuple(f"{old.name}: {s}" for verb in verbs for s in old.statements(verb, policy, new_peer))

    def on_new(*verbs: str) -> tuple[str, ...]:
        return tuple(f"{new.name}: {s}" for verb in verbs for s in new.statements(verb, policy, old_peer))

    yield PlannedStep("preflight", "look at everything again and refuse what does not hold any more")
    yield PlannedStep("long transactions", f"wait at most {policy.long_wait:g} s for writers to end")
    yield PlannedStep("prepare routes", f"validate and stage the new routes at {proxies or 'no proxy'}")
    yield PlannedStep("guard", "start the process that heals should this one die")
    yield PlannedStep("connect", "open every connection that will be needed")
    yield PlannedStep("warm up", f"let {new.name} catch up while writes flow, at most {policy.warm_up:g} s")
    if plan.attach:
        replica = parts.site[plan.attach]
        verbs = ("stop_receiver", "follow")
        acts = tuple(f"{replica.name}: {s}" for verb in verbs for s in replica.statements(verb, policy, new_peer))
        what = f"{new.name} reaches what {replica.name} has received, which receives from it before it opens"
        yield PlannedStep("attach semi-sync replica", what, acts)
    for account in plan.lock_accounts:
        yield PlannedStep(
            f"lock account {account}", "this privileged account writes past read-only", on_old("lock_account")
        )
    primary = view.status(plan.primary)
    if primary is not None and primary.event_scheduler:
        yield PlannedStep("stop events", "no scheduled event starts in between", on_old("stop_events"))
    if parts.hooks.configured("address_down"):
        yield PlannedStep("address down", "run the site's script", (" ".join(parts.hooks.configured("address_down")),))
    yield PlannedStep("hold", f"newcomers wait at {proxies or 'no proxy'}")
    yield PlannedStep("drain", f"short sessions end by themselves, at most {policy.drain:g} s")
    yield PlannedStep("freeze", f"writes wait; budget {policy.freeze_budget:g} s", on_old("block_writes"))
    yield PlannedStep("catch up", f"{new.name} reaches exactly the frozen position", on_new("wait_for"))
    yield PlannedStep("detach", f"{new.name} stops replicating", on_new("detach"))
    yield PlannedStep("commit", "the point of no return, on disk")
    if policy.arms:
        yield PlannedStep("arm", f"{old.name} will refuse writes by itself should everything here die", on_old("arm"))
    opened = on_new(*(["semi_sync"] if plan.semi_sync else []), "accept_writes")
    if policy.arms:
        yield PlannedStep("open", f"{new.name} takes writes", opened)
    else:
        queueing = parts.routes.queueing(Deadline.after(LOOK))
        waits = f"writes wait at {', '.join(queueing)}, which has no primary for a moment; " if queueing else ""
        refused = on_old("keep_clients_out", "kill_clients", "refuse_writes")
        yield PlannedStep("open", f"{waits}{old.name} refuses writes, then {new.name} takes them", (*refused, *opened))
    yield PlannedStep("route", f"new sessions go to {new.name} at {proxies or 'no proxy'}")
    yield PlannedStep(
        "close old primary",
        "old sessions end, then writes are refused",
        on_old("keep_clients_out", "kill_clients", "refuse_writes", "unblock_writes"),
    )
    repointed = [*plan.replicas, plan.primary]
    acts = tuple(f"{n}: {s}" for n in repointed for s in parts.site[n].statements("follow", policy, new_peer))
    follow = PlannedStep("repoint", f"{', '.join(repointed)} follow {new.name}", (*on_new("forget_source"), *acts))
    if plan.unacknowledged:  # whoever writes waits for these, a script that tries it as well
        yield follow
    if parts.hooks.configured("address_up"):
        yield PlannedStep("address up", "run the site's script", (" ".join(parts.hooks.configured("address_up")),))
    if not plan.unacknowledged:
        yield PlannedStep("first writes", "let them flow before anything else is done")
        yield follow
    yield PlannedStep("restore", "events, accounts, limits; everybody else refuses writes", on_old("restore"))
    yield PlannedStep("settle routes", "routes are lasting, no session is left elsewhere")
    yield PlannedStep("prove", "read everything again and give the verdict")
