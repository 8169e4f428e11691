"""The planned switchover, up to its commit: it reads like the workflow in a runbook.

Every undo is on disk before the act that it takes back. After ``op.commit()`` there is only :mod:`proxyroute.finish`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from proxyroute import topology
from proxyroute.decided import Undo
from proxyroute.errors import Refused, ServerError, TimedOut, Unfinished
from proxyroute.gtid import Containment
from proxyroute.inspection import Transaction
from proxyroute.latecomers import keep_present, look_again
from proxyroute.model import Deadline, Finding, Receipt, ReceiptState, RouteTable, Severity, View
from proxyroute.opening import APART
from proxyroute.operation import Operation
from proxyroute.parts import LOOK, Parts
from proxyroute.ports import Server
from proxyroute.preflight import blocking, preflight
from proxyroute.recovery import end_uncommitted, finish_or_recover
from proxyroute.routes import highest_epoch

_PREPARE = 20.0
_ANSWER = 2.0
_GRACE = 2.0
"""Seconds beyond the freeze budget after which an engine that has not been heard of hangs."""
_POLL = 0.005
_LONG_POLL = 0.25
_ROOM = 10
"""Connections that the engine and its guard need on the old primary, and some to spare."""
_POLISH = 1.0
_AT_ONCE = 0.003
"""Seconds; about what a wait that is over at once takes on a busy machine."""


def switchover(parts: Parts, op: Operation, *, force: bool = False, kill_long: bool = False) -> None:
    """Moves the primary as ``op.plan`` says and closes the record.

    Raises Refused (nothing was touched), Aborted (everything was undone) or Unfinished (``proxyroute heal`` goes on).
    Until the commit ``op.called_off`` is heeded.
    """
    try:
        with op.revocable():
            table = _until_commit(parts, op, force=force, kill_long=kill_long)
    except BaseException as error:
        parts.expect(2 * op.plan.policy.undo + _GRACE)
        if end_uncommitted(parts, op, error):
            return
        raise
    finish_or_recover(parts, op, table=table, first=lambda: _arm(parts, op))


def _until_commit(parts: Parts, op: Operation, *, force: bool, kill_long: bool) -> RouteTable:
    plan, policy, site, routes = op.plan, op.plan.policy, parts.site, parts.routes
    old, new = site[plan.primary], site[plan.candidate]

    with op.step("preflight"):
        view = _preflight(parts, op, force=force)
    with op.step("long transactions") as note:
        note.detail = _await_long_transactions(old, op, kill=kill_long)
    with op.step("prepare routes") as note:
        target = parts.table(op, new.name, op.epoch, view)
        # what a proxy loads now may not be of our epoch: under that it will be told to go to the new primary
        published = highest_epoch(parts.routes.observe(Deadline.after(LOOK)))
        note.detail = _prepare(parts, target, parts.table(op, old.name, published, view))
    _make_room(old, op, view)
    # long before the drain: whoever is here now and is still here then is no short session that was caught in between
    pooled = old.client_sessions(Deadline.after(_ANSWER))
    with op.step("guard"):
        if parts.guard is not None:
            parts.guard.start(Deadline.after(_PREPARE))
        parts.expect(2 * policy.warm_up + 2 * _PREPARE)
    with op.step("connect"):
        _connect(parts, op, view)
    if view.silent:
        with op.step("look again") as note:
            note.detail = look_again(parts, op, view)
    with op.step("warm up") as note:
        note.detail = _warm_up(old, new, op)
    if plan.attach:
        with op.step("attach semi-sync replica") as note:
            op.on_abort(Undo("follow", plan.attach, {"source": old.name, "instead_of": new.name}))
            _attach(site[plan.attach], new, view, op)
            note.detail = f"{plan.attach} receives from {new.name}"
    parts.expect((len(plan.lock_accounts) + 2) * _ANSWER + parts.hooks.seconds("address_down") + _PREPARE + _GRACE)
    for account in plan.lock_accounts:
        with op.step(f"lock account {account}"):
            op.on_abort(Undo("unlock_account", old.name, {"account": account}))
            old.lock_account(account, Deadline.after(_ANSWER))
    if op.kept("settings", {}).get("event_scheduler") == "ON":
        with op.step("stop events"):
            op.on_abort(Undo("start_events", old.name))
            old.stop_events(Deadline.after(_ANSWER))
    if parts.hooks.configured("address_down"):
        with op.step("address down"):
            op.on_abort(Undo("address_up", old.name))
            parts.run_script("address_down", op)
    with op.step("hold") as note:
        op.on_abort(Undo("release_routes"))
        op.on_abort(Undo("follow", new.name, {"source": old.name}))
        candidate = view.status(new.name)
        if plan.semi_sync and candidate is not None and not candidate.semi_sync.primary_enabled:
            op.on_abort(Undo("semi_sync", new.name))
        op.on_abort(Undo("restore_writes", old.name, op.kept("settings")))
        until = Deadline.after(policy.drain + policy.freeze_budget + 2 * _ANSWER)
        parts.expect(until.left + _GRACE)
        note.detail = _receipts(parts, routes.hold(op.id, until, Deadline.after(_ANSWER)))
    with op.step("drain") as note:
        note.detail = _drain(old, pooled, op)

    budget = Deadline.after(policy.freeze_budget)
    with op.step("freeze") as note:
        parts.expect(policy.freeze_budget + _GRACE)
        op.mark("frozen")  # while the lock is pending writes stall already
        old.block_writes(op.id, budget, policy)
        goal = old.position(budget)
        op.keep("goal", goal.to_json())
        note.detail = f"at {goal}"
    with op.step("catch up"):
        new.wait_for(goal, budget)
        reached = new.position(budget)
        if candidate is not None and len(candidate.sources) > 1:
            reached = reached.alongside(goal, view.identities)  # the other source goes on meanwhile
        exact = reached.equals(goal)
        op.keep("reached", str(exact))
        if exact is Containment.NO or (exact is Containment.UNKNOWN and not force):
            raise Unfinished(f"{new.name} is at {reached}, which is not exactly the frozen position {goal}")
    with op.step("detach"):
        new.detach(view.peer(old.name), budget)
    with op.step("commit"):
        budget.require("the commit")
        op.commit(goal, budget)
    return target


def _arm(parts: Parts, op: Operation) -> None:
    """From here on the old primary refuses writes in the end, whoever dies: the new one may open before it does."""
    policy, old = op.plan.policy, parts.site[op.plan.primary]
    if not policy.arms:
        return
    parts.expect(_ANSWER + _GRACE)
    with op.step("arm") as note:
        try:
            old.arm(op.id, policy.freeze_budget, Deadline.after(_ANSWER))
        except (ServerError, TimedOut) as error:
            note.detail = f"not armed, so writes are refused before the new primary opens: {error}"


# -- before anything is touched --


def _preflight(parts: Parts, op: Operation, *, force: bool) -> View:
    """Looks again, refuses what does not hold any more, and keeps what finish and heal need to know."""
    plan = op.plan
    view = parts.site.look(Deadline.after(LOOK))
    view = parts.site.inspect(view, plan.policy, Deadline.after(LOOK))
    findings = [f for f in preflight(view, plan) if f.code != "transaction.long"]  # those are waited for, next
    refuse_if(blocking(findings, force))
    op.keep("server_ids", {s.name: s.server_id for s in view.seen})
    op.keep(APART, _apart(view))
    keep_present(op, (s.name for s in view.seen))
    op.keep("source_options", topology.options(view, view.status(plan.candidate), plan.primary))
    op.keep("settings", dict(parts.site[plan.primary].write_settings(Deadline.after(LOOK))))
    inspection = view.inspections.get(plan.primary)
    events = inspection.events if inspection is not None else ()
    op.keep("events", [vars(e) for e in events if e.status in ("enabled", "disabled")], wait=True)
    return view


def _apart(view: View) -> list[str]:
    """Servers that have something the primary lacks, before anybody has touched anything."""
    if view.primary is None:
        return []
    top, has = view.primary, view.primary.executed
    ahead = [s for s in view.seen if has.contains(s.executed) is Containment.NO]
    return [s.name for s in ahead if not topology.on_its_way(top, s, s.executed.minus(has))]


def refuse_if(findings: Iterable[Finding]) -> None:
    """Raises Refused with ``findings``, unless there are none."""
    found = tuple(findings)
    if found:
        raise Refused("; ".join(f"{f.subject}: {f.text}" for f in found), found)


def _attach(replica: Server, new: Server, view: View, op: Operation) -> None:
    """Lets ``replica`` receive from the candidate, which need not have come as far as that one has."""
    old, until = view.peer(op.plan.primary), Deadline.after(op.plan.policy.warm_up)
    replica.stop_receiver(old, until)
    for source in replica.look(until).sources:
        if source.address == old.address:
            new.wait_for(source.received, until)
    replica.follow(
        view.peer(new.name), until, instead_of=old, source_has=lambda: new.position(Deadline.after(LOOK)),
        source_purged=lambda: new.purged(Deadline.after(LOOK)),
    )  # fmt: skip


def _await_long_transactions(old: Server, op: Operation, *, kill: bool) -> str:
    """Waits for writing transactions that are older than the limit; readers block nothing and are left alone."""
    policy, deadline, killed = op.plan.policy, Deadline.after(op.plan.policy.long_wait), set[int]()
    while True:
        op.heed()
        found = [
            t for t in old.inspect(Deadline.after(LOOK), policy).transactions if _is_long(t, policy.long_transaction)
        ]
        if not found:
            return f"{len(killed)} ended by us" if killed else "none"
        if kill:
            for transaction in found:
                old.kill_session(transaction.session, Deadline.after(LOOK))
                killed.add(transaction.session)
        if deadline.passed:
            refuse_if(_long_findings(old.name, found, policy.long_wait))
        time.sleep(min(_LONG_POLL, deadline.left or _POLL))


def _is_long(transaction: Transaction, limit: float) -> bool:
    return transaction.writes and transaction.age_seconds >= limit


def _long_findings(server: str, found: Iterable[Transaction], waited: float) -> list[Finding]:
    return [
        Finding(
            "transaction.long",
            Severity.ERROR,
            server,
            f"{t.kind} of {t.user}@{t.host}, session {t.session}, has been writing for {t.age_seconds:.0f} s "
            f"({t.rows_modified} rows modified) and did not end in {waited:g} s: {t.statement}",
            "wait for it, or end it by 'proxyroute switchover --kill-long'",
        )
        for t in found
    ]


def _prepare(parts: Parts, target: RouteTable, abort: RouteTable) -> str:
    if not parts.routes:
        return "no proxies are configured"
    receipts = parts.routes.prepare(target, abort, Deadline.after(_PREPARE))
    refuse_if(
        Finding(
            "proxy.not_prepared", Severity.ERROR, r.proxy, r.detail or "did not prepare the route", "proxyroute check"
        )
        for r in parts.routes.missing(receipts, ReceiptState.PREPARED)
    )
    return ", ".join(f"{r.proxy} {r.state}" for r in receipts)


def _make_room(old: Server, op: Operation, view: View) -> None:
    """Where clients have taken all connections there is one for us, and we need a few."""
    status = view.status(old.name)
    if status is None or status.connections + _ROOM <= status.connections_limit:
        return
    with op.step("make room") as note:
        op.on_abort(Undo("restore_limit", old.name, op.kept("settings")))
        old.limit_connections(status.connections_limit + _ROOM, Deadline.after(_ANSWER))
        note.detail = f"{status.connections} of {status.connections_limit} connections were taken"


def _connect(parts: Parts, op: Operation, view: View) -> None:
    parts.site[op.plan.primary].connect(Deadline.after(_ANSWER), op.id)
    errors = parts.site.connect([s.name for s in view.seen], Deadline.after(_ANSWER))
    for name, error in errors.items():
        if name in (op.plan.primary, op.plan.candidate):
            raise error
        op.note(f"{name} fell silent: {error}")


# -- while writes still flow --


def _warm_up(old: Server, new: Server, op: Operation) -> str:
    """The candidate reaches a position that the primary has now: a slow one shows while writes still flow.

    Then again for a while, until it is there at once; one that keeps up, but never at once, goes on all the same.
    """
    deadline = op.patience(op.plan.policy.warm_up)
    polish: Deadline | None = None
    while True:
        op.heed()
        goal = old.position(deadline)
        started = time.monotonic()
        try:
            new.wait_for(goal, deadline)
        except TimedOut as error:
            op.heed()
            raise Refused(f"{new.name} did not catch up while writes were flowing: {error}") from error
        behind = time.monotonic() - started
        polish = polish or deadline.within(_POLISH)
        if behind <= _AT_ONCE or polish.passed:
            return f"{behind * 1000:.1f} ms behind"


def _receipts(parts: Parts, receipts: Iterable[Receipt]) -> str:
    missing = parts.routes.missing(receipts, ReceiptState.DONE)
    if missing:  # also one of which nothing is known: it would send newcomers to a server that makes them wait
        raise Refused("; ".join(f"{r.proxy}: {r.detail}" for r in missing))
    return ", ".join(f"{r.proxy}: {r.detail or r.state}" for r in receipts) or "no proxies are configured"


def _drain(old: Server, pooled: frozenset[int], op: Operation) -> str:
    """Sessions that came lately are short ones: they end by themselves now that newcomers wait at the proxy."""
    deadline = Deadline.after(op.plan.policy.drain)
    while True:
        op.heed()
        short = old.client_sessions(Deadline.after(_ANSWER)) - pooled
        if not short:
            return "quiet"
        if deadline.left <= _POLL:
            return f"{len(short)} sessions did not end by themselves"
        time.sleep(_POLL)
