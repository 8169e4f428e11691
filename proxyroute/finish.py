"""Everything after the commit: idempotent, and run again until the world has converged.

Switchover, failover and heal all end here. Nothing in this room takes anything back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import replace

from proxyroute import salvage
from proxyroute.errors import LostReply, ProxyRouteError, TimedOut, Unfinished, Unreachable
from proxyroute.gtid import Containment, Position
from proxyroute.inspection import Event, WriteState
from proxyroute.latecomers import look
from proxyroute.logged import is_half_built
from proxyroute.model import Deadline, ReceiptState, RouteTable, View
from proxyroute.opening import ARMED, Standing, add_doubt, must_answer, refuse_unless_closed
from proxyroute.operation import Operation, each
from proxyroute.parts import LOOK, Parts, peer
from proxyroute.ports import Server
from proxyroute.proof import prove
from proxyroute.site import shut

_CLOSE = "close old primary"
_FIRST_WRITES = 0.25
_OPEN = 5.0
"""Seconds to open the new primary, while writes wait."""
_TELL = 2.0
"""Seconds for the proxies: one that hangs must not keep the others and the old primary waiting."""
_MARGIN = 3.0
_STEPS = 6
_CLOSE_TRIES = 3
_CLOSE_TIME = 10.0
_REFUSE = 3.0
"""Seconds in which an old primary refuses writes whose sessions are still ending."""
_LOOK_NOW = 1.0
"""Seconds for a reading while writes wait."""
_BACK = 0.3
"""Seconds in which a primary that is back would answer."""
_POLL = 0.005
_SETTLE_AGAIN = 2.0
_SETTLE_PAUSE = 0.2


def finish(parts: Parts, op: Operation, *, table: RouteTable | None = None, lost: Collection[str] = ()) -> None:
    """Opens the new primary, moves the routes, closes the old one, wires everybody up, proves it, closes the record.

    ``table`` is the prepared route, if there is one; ``lost`` names servers declared lost, which are neither asked nor
    waited for. Raises when the new primary could not be opened safely; what fails after that becomes a leftover.
    """
    plan, policy = op.plan, op.plan.policy
    parts.expect(_OPEN + _MARGIN)
    _open_new(parts, op, Deadline.after(_OPEN), lost, table)
    parts.expect(2 * _TELL + _MARGIN)
    _route(parts, op, table)
    # writes flow from here on; what hangs now costs only its own step
    script = parts.hooks.seconds("address_up")
    parts.expect(_CLOSE_TIME + 4 * _TELL + script + _STEPS * policy.settle + policy.prove + 3 * LOOK)
    if plan.primary not in lost and not op.has_done(_CLOSE):
        with op.attempt("close", plan.primary), op.step(_CLOSE) as note:
            note.detail = _close_surely(parts.site[plan.primary], op, Deadline.after(_CLOSE_TIME))
    op.mark("closed")
    _close_if_back(parts, op)
    closed = plan.primary in lost or op.has_done(_CLOSE)
    if not closed:  # its clients hang: the proxies can still cut them off
        with op.step("cut routes") as note:
            note.detail = _settle_routes(parts, op, Deadline.after(2 * _TELL))
    aside = lost if closed else {*lost, plan.primary}
    if plan.unacknowledged:
        op.still_ours()  # closing may have taken long
        _repoint_all(parts, op, aside, closed=closed)
    with op.step("address up"), op.attempt("address_up", plan.candidate):
        op.still_ours()  # closing may have taken long, and a script asks for no lease
        parts.run_script("address_up", op)
    if not plan.unacknowledged:
        _await_first_writes(parts, op)
        _repoint_all(parts, op, aside, closed=closed)
    with op.step("restore"):
        _restore(parts, op, Deadline.after(policy.settle), aside)
    with op.step("settle routes") as note:
        note.detail = _settle_routes(parts, op, Deadline.after(policy.settle))
    if salvage.to_save(op):
        with op.step("save what nobody received") as note:
            parts.expect(salvage.seconds(op) + _STEPS * policy.settle)
            note.detail = salvage.save(parts, op)
    _close_if_back(parts, op)
    with op.step("prove") as note:
        proof = prove(parts, op, Deadline.after(policy.prove), lost)
        op.prove(proof)
        note.detail = str(proof.verdict)
    op.end("done")


# -- inside the blackout --


def _open_new(parts: Parts, op: Operation, deadline: Deadline, lost: Collection[str], table: RouteTable | None) -> None:
    """With the old primary armed the new one opens first, and nobody meets an error but once.

    Otherwise the old primary refuses writes before the new one opens: a lock that a process holds is gone in the
    moment that process dies.
    """
    plan, new = op.plan, parts.site[op.plan.candidate]
    with op.step("open") as note:
        hurry = {*parts.excused(op, ()), *op.gone}
        standing = look(parts, op, deadline.within(_LOOK_NOW), lost, hurry=hurry)
        old = standing.states.get(plan.primary)
        if plan.primary in op.gone and old is not None and old.writable:
            back = standing.states.get(new.name)
            if back is not None and not back.writable:
                # what forbids to open the new one is found before the only one that takes writes is closed
                others = standing.without(plan.primary)
                refuse_unless_closed(others, new.name, op.goal, excused=parts.excused(op, lost), lost=lost)
            cut = shut(parts.site[plan.primary], deadline)
            note.detail = f"{plan.primary} is back and was closed, {cut} sessions ended; "
            standing = look(parts, op, deadline.within(_LOOK_NOW), lost, hurry=hurry)
            old = None
        if must_answer(standing, new.name).writable:
            op.mark("opened")
            return
        if old is not None and old.writable:
            if not old.holders:
                raise Unfinished(f"{plan.primary} is not frozen any more; nothing was opened")
            if ARMED not in old.holders:
                note.detail = _make_wait(parts, op, table, deadline)
                _end_sessions(parts.site[plan.primary], op, deadline)
                parts.site[plan.primary].refuse_writes(deadline)
                standing = look(parts, op, deadline.within(_LOOK_NOW), lost, hurry=hurry)
        refuse_unless_closed(standing, new.name, op.goal, excused=parts.excused(op, lost), lost=lost)
        _tell_what_was_fed(op, standing)
        op.lease.check()
        if plan.semi_sync:
            new.semi_sync(deadline, primary=True)
        _accept_writes(new, op, deadline)
        op.mark("opened")
        note.detail += f"{new.name} takes writes"


def _tell_what_was_fed(op: Operation, standing: Standing) -> None:
    """A replica whose receiver could not be stopped got more from an old primary that woke up: it is not waited for."""
    if op.goal is None:
        return
    new = must_answer(standing, op.plan.candidate)
    for name, more in standing.fed(op.goal.merge(new.position)).items():
        add_doubt(op, f"{name} has received {more} from {op.plan.primary} since, and may have acknowledged it")


def _make_wait(parts: Parts, op: Operation, table: RouteTable | None, deadline: Deadline) -> str:
    """Before the old primary refuses writes, closes the routes of proxies in which they then wait instead.

    One that does not do it keeps nobody waiting: its clients meet the refusal.
    """
    deadline = deadline.within(_LOOK_NOW)
    names = parts.routes.queueing(deadline)
    if not names:
        return ""
    op.still_ours()
    closed = replace(
        table or parts.table(op, op.plan.candidate, op.route_epoch, parts.glance(op.plan.candidate)), primary=None
    )
    done = [r for r in parts.routes.only(names).apply(closed, deadline) if r.state is ReceiptState.DONE]
    return f"writes wait at {', '.join(r.proxy for r in done)}; " if done else ""


def _accept_writes(new: Server, op: Operation, deadline: Deadline) -> None:
    op.opening()
    while True:
        try:
            new.accept_writes(deadline)
        except (LostReply, TimedOut):
            deadline.require(f"{new.name} to open")
        if new.write_state(deadline, op.id).writable:
            return
        deadline.require(f"{new.name} to open")
        time.sleep(_POLL)


def _route(parts: Parts, op: Operation, table: RouteTable | None) -> None:
    with op.step("route") as note:
        if not parts.routes:
            note.detail = "no proxies are configured"
            return
        op.still_ours()
        # clients wait for it; whoever hangs is looked at again before the routes settle
        table = table or parts.table(op, op.plan.candidate, op.route_epoch, parts.glance(op.plan.candidate))
        receipts = parts.routes.apply(table, Deadline.after(_TELL))
        parts.routes.release(Deadline.after(_TELL))
        note.detail = ", ".join(f"{r.proxy} {r.state}" for r in receipts)
        for receipt in parts.routes.missing(receipts, ReceiptState.DONE):
            op.note(f"{receipt.proxy} has not taken the route yet: {receipt.detail}")


def _close_surely(old: Server, op: Operation, deadline: Deadline) -> str:
    """A connection that breaks here is no reason to leave the old primary half closed."""
    tries = 0
    while True:
        try:
            return _close_old(old, op, deadline)
        except (LostReply, Unreachable):
            tries += 1
            if tries == _CLOSE_TRIES:
                raise


def _close_if_back(parts: Parts, op: Operation) -> None:
    """Of a failover: a primary that hung may have woken up since it was looked at, and who reaches it writes there.

    As who has the privilege does where one that was started again is only half closed.
    """
    if op.plan.primary not in op.gone:
        return
    old = parts.site[op.plan.primary]
    try:
        state = old.write_state(Deadline.after(_BACK), op.id)
        if not _to_close(state, old.name in parts.set_aside(op)):
            return
    except ProxyRouteError:
        return
    op.still_ours()  # whoever has the lease now may have made it the primary again
    with op.attempt("close", old.name):
        cut = shut(old, Deadline.after(_CLOSE_TIME))
        op.note(f"{old.name} is back and was closed, {cut} sessions ended")


def _to_close(state: WriteState, aside: bool) -> bool:
    """Whoever loads data has to get past read_only, also an engine whose journal is elsewhere."""
    return state.writable or (state.half_closed and not (aside or is_half_built(state.position)))


def _close_old(old: Server, op: Operation, deadline: Deadline) -> str:
    """Kills under the lock, so that no row is in doubt; then errors instead of waiting; then the lock ends."""
    state = old.write_state(deadline, op.id)
    if not state.holders:  # nothing makes them wait any more: errors first
        old.refuse_writes(deadline)
    killed, late = 0, ""
    try:
        killed = _end_sessions(old, op, deadline)
    except TimedOut as error:
        # taking back what a killed session wrote may last as long as writing it did; no commit gets past read_only
        late, deadline = f"; {error}", Deadline.after(_REFUSE)
    old.refuse_writes(deadline)
    if not late:
        killed += old.kill_clients(deadline)  # whoever came in between
    old.unblock_writes(op.id, deadline)
    if op.goal is not None and op.goal.contains(old.position(deadline)) is Containment.NO:
        op.note(f"{old.name} has executed events beyond the frozen position: {old.position(deadline)}")
    return f"{killed} sessions ended{late}"


def _end_sessions(old: Server, op: Operation, deadline: Deadline) -> int:
    old.keep_clients_out(op.plan.policy, deadline)
    return old.kill_clients(deadline)


# -- after the first writes flow --


def _await_first_writes(parts: Parts, op: Operation) -> None:
    """Repointing syncs files for tens of milliseconds: let the first writes through before the disk is busy."""
    with op.step("first writes") as note:
        deadline = Deadline.after(_FIRST_WRITES)
        note.detail = "none came"
        while not deadline.passed and op.goal is not None:
            try:
                if op.goal.contains(parts.site[op.plan.candidate].position(deadline)) is Containment.NO:
                    note.detail = "flowing"
                    return
            except ProxyRouteError:
                return
            time.sleep(_POLL)


def _repoint_all(parts: Parts, op: Operation, aside: Collection[str], *, closed: bool) -> None:
    with op.step("repoint") as note:
        if not closed:  # a replication statement under our own lock would hang, and take effect
            op.leftover("follow", op.plan.primary, "it could not be closed")
        note.detail = _repoint(parts, op, Deadline.after(op.plan.policy.settle), aside)


def _repoint(parts: Parts, op: Operation, deadline: Deadline, lost: Collection[str]) -> str:
    plan, site = op.plan, parts.site
    new, old_peer, new_peer = site[plan.candidate], peer(parts, op, plan.primary), peer(parts, op, plan.candidate)
    with op.attempt("forget_source", new.name):
        new.forget_source(old_peer, deadline)
        if op.kept("fetched_from"):
            new.forget_source(peer(parts, op, op.kept("fetched_from")), deadline)
    one_at_a_time = threading.Lock()

    def source_has() -> Position:
        with one_at_a_time:  # a server object is used by one thread at a time
            return new.position(deadline)

    def source_purged() -> Position | None:
        with one_at_a_time:
            return new.purged(deadline)

    def follow(server: Server) -> None:
        if server.name == plan.primary and plan.semi_sync:
            server.semi_sync(deadline, primary=False, replica=True)
        server.follow(
            new_peer, deadline, instead_of=old_peer, source_has=source_has, source_purged=source_purged,
            options=op.kept("source_options"),
        )  # fmt: skip

    names = [n for n in (plan.primary, *plan.replicas, *((plan.attach,) if plan.attach else ())) if n not in lost]
    aside = {n for n in parts.set_aside(op) if n in names and n != plan.primary}
    rebuilt = parts.rebuilt() if aside else ()
    for name in sorted(aside):
        op.leftover("follow", name, "it is being rebuilt" if name in rebuilt else "it is in maintenance")
    names = [n for n in names if n not in aside]
    outcomes = each(site.pick(dict.fromkeys(names)), follow, deadline)
    for name, found in outcomes.items():
        with op.attempt("follow", name):
            found.get()
    return ", ".join(f"{n} {'follows' if f.error is None else 'does not follow yet'}" for n, f in outcomes.items())


def _restore(parts: Parts, op: Operation, deadline: Deadline, lost: Collection[str]) -> None:
    """Events move, accounts and limits come back, and whoever is not the primary refuses writes."""
    plan, site = op.plan, parts.site
    new = site[plan.candidate]
    settings = op.kept("settings") or {}
    events = [Event(**event) for event in op.kept("events", ())]
    enabled = [e for e in events if e.status == "enabled"]
    with op.attempt("events", new.name):
        new.set_events(enabled, "enabled", deadline)
        # here they are disabled as on any replica; that would not tell them from those that should run
        new.set_events([e for e in events if e.status == "disabled"], "disabled", deadline)
        if settings.get("event_scheduler") == "ON" or op.kept("event_scheduler"):  # a failover reads no settings
            new.start_events(deadline)
    if op.kept("semi_sync"):  # of a failover: only now is there somebody to acknowledge
        with op.attempt("semi_sync", new.name):
            view = parts.site.look(deadline.within(LOOK), spared=op.gone)
            if told := _waits_in_vain(view, new.name):
                raise Unfinished(f"{told}, and every commit would wait for the whole time-out")
            new.semi_sync(deadline, primary=True)
    if plan.primary not in lost:
        old = site[plan.primary]
        with op.attempt("restore", old.name):
            if settings:
                old.restore(settings, deadline)
        for account in plan.lock_accounts:
            with op.attempt("unlock_account", f"{old.name}/{account}"):
                old.unlock_account(account, deadline)
        with op.attempt("events", old.name):
            old.set_events(enabled, "replica side", deadline)
            if settings.get("event_scheduler") == "ON":
                old.start_events(deadline)

    aside, soon = parts.set_aside(op), Deadline.after(LOOK)  # whatever was left of the time by one that hangs

    def refuse(server: Server) -> None:
        if _to_close(server.write_state(soon, op.id), server.name in aside):
            server.refuse_writes(soon)

    others = [s for s in site.others(new.name) if s.name not in lost]
    for name, found in each(others, refuse, soon).items():
        with op.attempt("refuse_writes", name):
            found.get()


def _waits_in_vain(view: View, primary: str) -> str:
    """Returns why a commit on the new primary would not be acknowledged, in words; nothing when it would be."""
    new = view.status(primary)
    there = [
        s.name
        for s in view.seen
        for source in s.sources
        if new is not None and s.semi_sync.replica_enabled and source.source_id == new.server_id and source.running
    ]
    if new is None or not there:
        return "no replica could acknowledge"
    wanted = new.semi_sync.wanted
    return f"{len(there)} of the {wanted} replicas that have to could acknowledge" if len(there) < wanted else ""


def _settle_routes(parts: Parts, op: Operation, deadline: Deadline) -> str:
    if not parts.routes:
        return "no proxies are configured"
    op.still_ours()
    table, again_until = parts.table(op, op.plan.candidate, op.route_epoch), deadline.within(_SETTLE_AGAIN)
    while True:
        receipts = parts.routes.settle(table, deadline)
        failed = [r for r in parts.routes.missing(receipts, ReceiptState.DONE) if r.state is ReceiptState.FAILED]
        if not failed or again_until.left < _SETTLE_PAUSE:
            break
        time.sleep(_SETTLE_PAUSE)  # a proxy that was reloaded by somebody else just now comes up with the old route
    for receipt in receipts:
        with op.attempt("route", receipt.proxy):
            todo = receipt.state in (ReceiptState.FAILED, ReceiptState.UNKNOWN) and not receipt.evidence.get("blind")
            if todo and parts.routes.is_required(receipt.proxy):
                raise Unfinished(receipt.detail)
    return ", ".join(f"{r.proxy} {r.state}" for r in receipts)
