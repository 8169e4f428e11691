"""The failover, up to its commit: the primary is gone, and another server takes over. It reads like a runbook.

It closes before it opens: the old primary is fenced if that can be done, and the routes to it are closed and its
sessions cut, with an acknowledgement of each proxy, before another server is opened. Only receivers are stopped until
everything received is applied: relay logs are data. After ``op.commit()`` there is only :mod:`proxyroute.finish`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from proxyroute import salvage, topology
from proxyroute.decided import Undo
from proxyroute.errors import Refused, ScriptFailed, Unfinished
from proxyroute.failover_stock import keep_goal, take_stock
from proxyroute.gtid import Containment, Position
from proxyroute.holdings import by_order, forgotten
from proxyroute.inspection import Event
from proxyroute.model import Deadline, Peer, Receipt, ReceiptState, Receiver, RouteTable, View
from proxyroute.moment import Moment
from proxyroute.opening import APART, FEEDER, add_doubt
from proxyroute.operation import Operation, each
from proxyroute.parts import Parts, peer
from proxyroute.ports import Server
from proxyroute.recovery import end_uncommitted, finish_or_recover
from proxyroute.routing import bereaved

_LAST_LOOK = 0.2
"""Seconds beyond the others in which a primary that is not gone after all would answer."""
_ANSWER = 2.0
_STOP = 4.0
"""Seconds for a receiver to stop: while it connects to a primary that hangs, MySQL's looks every two if it shall."""
_STOP_AGAIN = 2.5
"""Seconds for one that could not be stopped before: who hangs still is waited for no longer, and nobody writes."""
_CLOSE = 5.0
_HOLD = 15.0
"""Seconds for which newcomers wait at the proxies; afterwards they are told that nobody takes writes."""
_MARGIN = 2.0
"""Seconds by which a proxy closes later than it says: half a one, and what a network disk is late in showing."""
_GUARD = 20.0


class Fencing(StrEnum):
    """What keeps the old primary from taking writes that nobody will ever see again."""

    FENCED = "fenced"
    """Something outside of it has made sure, and has said so: a power switch, a script, a person."""
    ROUTED_AWAY = "routed away"
    """No proxy sends anybody there any more. Clients that go there directly are not kept away."""
    NONE = "none"


@dataclass(frozen=True)
class Orders:
    """How a failover is to be done, beyond its plan."""

    fenced_by: str = ""
    """Who says that the old primary is fenced already, e.g. ``pacemaker``."""
    fenced_proxies: tuple[str, ...] = ()
    """Proxies of which somebody says that they are off, or cannot reach the old primary."""
    participants: tuple[str, ...] = ()
    """The servers whose events count: every replica of the old primary that could be read."""
    fetch_from: str = ""
    """A server that has more than the candidate and must not be promoted: its events are fetched first."""
    patience: float = 60.0
    """Seconds in which everything received must be applied."""
    fetch_patience: float = 30.0
    """Seconds in which what another one has more must be fetched."""
    may_lack: bool = False
    """The candidate may be opened although it lacks events that another server has received."""
    may_be_missing: tuple[str, ...] = ()
    """Why something that the old primary had acknowledged may be lost; nothing when it is not, if closed in time."""
    acknowledgers: tuple[str, ...] = ()
    """Who may have acknowledged what the old primary told its clients: what only such a one has must not be lost."""
    reference: Position | None = None
    """The best that is known of what the old primary has executed."""
    seen_writing: Moment | None = None
    """When the old primary was last seen well, taking writes. None: nobody knows."""
    in_sync_until: Moment | None = None
    """Until then the old primary certainly waited for acknowledgements; it must be closed by then. None: unknown."""
    server_ids: Mapping[str, int] = field(default_factory=dict)
    """As they were known before, for a primary that cannot tell its own any more."""
    events: tuple[Event, ...] = ()
    """The scheduled events of the old primary, as they were known."""
    event_scheduler: bool = False
    """They ran there: so they shall at the new one, whose scheduler may have been off as long as it was a replica."""
    dead_binlog: str = salvage.IGNORE
    """What to do with what only the old primary has: see ``FailoverPolicy``."""
    dead_binlog_time: float = 30.0
    """Seconds that may take."""
    accept_unfenced: bool = True
    """It may go on where nothing keeps clients away from the old primary: a person has seen that, or declared it."""
    semi_sync: bool = False
    """The old primary waited for acknowledgements: so will the new one, once somebody can give them."""


def failover(parts: Parts, op: Operation, orders: Orders) -> None:
    """Promotes ``op.plan.candidate`` in the place of a primary that is gone, and closes the record.

    Raises Refused (nothing was touched), Aborted (everything was undone, the routes go to the old primary again) or
    Unfinished (``proxyroute heal`` goes on).
    """
    try:
        table = _until_commit(parts, op, orders)
    except BaseException as error:
        parts.expect(2 * op.plan.policy.undo + _MARGIN)
        if end_uncommitted(parts, op, error):
            return
        raise
    finish_or_recover(parts, op, table=table)


def _until_commit(parts: Parts, op: Operation, orders: Orders) -> RouteTable:
    plan, site = op.plan, parts.site
    old, new = peer(parts, op, plan.primary), site[plan.candidate]
    _begin_blackout(op, orders)
    with op.step("last look") as note:
        view = _last_look(parts, op, orders)
        note.detail = f"{plan.primary} does not take writes"
    if parts.guard is not None:
        # not waited for: nothing is frozen, and from its first moment on it would notice our death
        parts.guard.begin()
        parts.expect(parts.hooks.seconds("fence") + 2 * _CLOSE + _GUARD)
    with op.step("fence") as note:
        fencing = _fence(parts, op, orders)
        note.detail = op.kept("fenced_by") or "there is no fence"
    with op.step("close routes") as note:
        op.on_abort(Undo("release_routes"))
        fencing, unshown = _close_routes(parts, op, orders, view, fencing)
        op.keep("fencing", str(fencing))
        op.keep("loss", list(_doubts(op, orders, fencing, unshown)), wait=True)
        shut = fencing is not Fencing.NONE
        note.detail = f"{plan.primary} is {fencing}" if shut else f"nothing keeps clients away from {plan.primary}"
    # each long step is told of before it begins: a guard that counted on less would end us in the midst of it
    parts.expect(_STOP + 2 * _ANSWER + orders.patience + _GUARD)
    with op.step("stop receivers") as note:
        for name in _receiving(op, view, orders):
            # the candidate is detached later: its applier has to be started as well
            op.on_abort(Undo("start_receiver", name, {"source": old.name, "applier": name == plan.candidate}))
        note.detail, restless = _stop_receivers(parts, op, old, orders.participants)
    with op.step("apply what was received") as note:
        goal = _received(parts, op, orders, view)
        _apply(parts, plan.candidate, orders.fetch_from, orders.patience)
        note.detail = f"{new.name} is at {new.position(Deadline.after(_ANSWER))}"
    if orders.fetch_from:
        with op.step("fetch") as note:
            op.on_abort(Undo("follow", new.name, {"source": old.name, "instead_of": orders.fetch_from}))
            op.keep("fetched_from", orders.fetch_from, wait=True)
            parts.expect(2 * _ANSWER + 2 * orders.fetch_patience + _GUARD)
            note.detail = _fetch(parts, op, old, orders, goal)
    parts.expect(2 * _CLOSE + _GUARD)
    with op.step("compare") as note:
        if restless:
            goal = goal.merge(_stop_again(parts, op, orders, restless, fencing))
        note.detail = _compare(parts, op, goal, orders)
    with op.step("detach"):
        new.detach(peer(parts, op, orders.fetch_from or old.name), Deadline.after(_ANSWER))
        op.keep("stood", new.position(Deadline.after(_ANSWER)).to_json())
    if salvage.to_apply(op):
        with op.step("apply what nobody received") as note:
            parts.expect(orders.dead_binlog_time + _GUARD)
            goal, note.detail = salvage.apply(parts, op, goal)
    parts.expect(_ANSWER + _MARGIN)
    table = parts.table(op, new.name, op.epoch, view)
    with op.step("commit"):
        op.commit(goal)
    return table


def _begin_blackout(op: Operation, orders: Orders) -> None:
    """It began after the last good sight of the primary taking writes; without one nobody knows, and we count from now.

    So what is measured is the most, or the least, for which writes stood still: the report says which. A sight of
    before this host's start is as good as none: only a clock that nobody sets can tell how long ago.
    """
    lead = orders.seen_writing.ago() if orders.seen_writing is not None else None
    op.mark("frozen", max(0.0, lead or 0.0))
    op.keep("blackout_lead", max(0.0, lead or 0.0))
    op.keep("blackout_from", "begun" if lead is None else "seen")


# -- it closes before it opens --


def _last_look(parts: Parts, op: Operation, orders: Orders) -> View:
    """A primary that is back is no case for a failover. Keeps what finish and heal need to know."""
    view = parts.site.look(Deadline.after(_ANSWER), spared=op.gone, grace=_LAST_LOOK)
    primary, candidate = view.status(op.plan.primary), view.status(op.plan.candidate)
    if primary is not None and primary.writable:
        raise Refused(f"{primary.name} answers and takes writes; to move it type: proxyroute switchover")
    if candidate is None:
        raise Refused(f"{op.plan.candidate} does not answer any more; look again: proxyroute plan --failover")
    at = parts.site[op.plan.primary].address
    ours = [s for s in candidate.sources if s.address == at]
    heard = [(op.plan.primary, s.source_id) for s in ours if s.source_id]
    if named := [s.source_uuid for s in ours if s.source_uuid]:
        op.keep(FEEDER, named[0])
    op.keep("server_ids", {**dict(heard), **orders.server_ids, **{s.name: s.server_id for s in view.seen}})
    salvage.begin(op, orders.dead_binlog, orders.dead_binlog_time)
    op.keep(APART, [op.plan.primary])
    op.keep("source_options", topology.options(view, candidate, op.plan.primary))
    op.keep("events", [vars(e) for e in orders.events])
    op.keep("event_scheduler", orders.event_scheduler)
    op.keep("semi_sync", orders.semi_sync)
    return view


def _fence(parts: Parts, op: Operation, orders: Orders) -> Fencing:
    """Runs the site's fence, unless somebody says that it is done. One that fails is no fence, and no hindrance."""
    if orders.fenced_by:
        op.keep("fenced_by", orders.fenced_by)
        return Fencing.FENCED
    if not parts.hooks.configured("fence"):
        return Fencing.NONE
    op.lease.check()  # whoever has it now may have made this very host the primary again
    try:
        parts.run_script("fence", op)
    except ScriptFailed as error:
        op.note(f"{op.plan.primary} is not fenced: {error}")
        return Fencing.NONE
    op.keep("fenced_by", "the script at fence")
    return Fencing.FENCED


def _close_routes(
    parts: Parts, op: Operation, orders: Orders, view: View, fencing: Fencing
) -> tuple[Fencing, tuple[str, ...]]:
    """Newcomers wait, sessions end, and every required proxy says that it sends nobody to the old primary.

    One that is silent is a danger only while the old primary is not fenced: then its declared silence is waited out,
    or somebody must say that it is off. Raises Unfinished, naming it, otherwise. Returns what keeps the old primary
    from taking writes, and the proxies of which nobody knows it: those that were declared absent and have not answered.
    """
    if fencing is Fencing.NONE and not parts.routes.required and not orders.accept_unfenced:
        raise Unfinished(
            f"nothing keeps clients away from {op.plan.primary}: no proxy could be closed, and no fence has succeeded; "
            "when it certainly takes no writes type: proxyroute failover --fenced-by NAME"
        )
    if not parts.routes:
        return fencing, ()
    parts.routes.hold(op.id, Deadline.after(_HOLD), Deadline.after(_ANSWER))
    closed = _closed(parts, op, view)
    receipts = parts.routes.settle(closed, Deadline.after(_CLOSE))
    # one that can never show what it does has acknowledged nothing either
    silent = parts.routes.missing(receipts, ReceiptState.DONE)
    if fencing is Fencing.FENCED:
        for receipt in silent:
            op.note(f"{receipt.proxy} has not closed its route to the fenced {op.plan.primary}: {receipt.detail}")
        return fencing, ()
    for receipt in (r for r in silent if r.proxy not in orders.fenced_proxies):
        said = _outwait(parts, op, receipt, closed) if receipt.state is ReceiptState.UNKNOWN else receipt
        if said is not None and said.state is not ReceiptState.DONE:
            raise Unfinished(
                f"{said.proxy} may still send writes to {op.plan.primary}: {said.detail or said.state}; when "
                f"that host is off or cut off type: proxyroute failover --proxy-fenced {said.proxy}"
            )
    unclosed = [r for r in receipts if r.state is not ReceiptState.DONE and r.proxy not in orders.fenced_proxies]
    absent = tuple(r.proxy for r in unclosed if not parts.routes.is_required(r.proxy))
    return (Fencing.NONE if len(absent) == len(receipts) else Fencing.ROUTED_AWAY), absent


def _outwait(parts: Parts, op: Operation, receipt: Receipt, closed: RouteTable) -> Receipt | None:
    """Returns what a proxy says that has not answered in time; None when it is silent, and has closed its writes.

    One that hears us is not silent, whatever it could not do: its timer does not run. Nor is one that was never told.
    """
    at = parts.routes.closes_at(receipt.proxy, closed)
    if at is None:
        return receipt
    until = Deadline(at + _MARGIN)
    op.note(f"{receipt.proxy} is silent; if it hears nothing it has closed its writes by itself in {until.left:.0f} s")
    parts.expect(until.left + _GUARD)
    return parts.routes.answer(receipt.proxy, closed, until)


def _doubts(op: Operation, orders: Orders, fencing: Fencing, unshown: Sequence[str]) -> Iterator[str]:
    """Yields why something that the old primary had acknowledged may be lost, once the ways to it are closed."""
    yield from orders.may_be_missing
    if fencing is Fencing.NONE:
        yield (
            f"nothing keeps clients away from {op.plan.primary}: where it lives and is only cut off from us, it goes "
            "on alone after its time-out, and acknowledges what nobody else has"
        )
    for proxy in unshown if fencing is not Fencing.NONE else ():
        yield f"{proxy} was declared absent and has not shown that it sends no writes to {op.plan.primary}"
    if orders.may_be_missing:
        return
    late = orders.in_sync_until.ago() if orders.in_sync_until is not None else None
    if late is None:
        yield (
            f"nobody can tell how long before it was closed {op.plan.primary} was last seen waiting for "
            "acknowledgements: it was seen once only, this host has been started since or does not name its start "
            "(/proc/sys/kernel/random/boot_id), or the record is of another host or version"
        )
    elif late > 0:
        yield (
            f"{op.plan.primary} was closed {late:.1f} s after the time until which it is known to have waited for "
            "acknowledgements"
        )


def _closed(parts: Parts, op: Operation, view: View) -> RouteTable:
    """Nobody gets the writes; reads go on at every replica that is there."""
    return bereaved(view, op.plan.primary, None, parts.policy(op), op.epoch, parts.site.endpoints)


# -- what was received is applied, not dropped --


def _receiving(op: Operation, view: View, orders: Orders) -> list[str]:
    """Returns whose receiver is to run again if this is undone: one that somebody had stopped stays as it was."""
    stopped = set()
    for status in view.seen:
        channels = [s for s in status.sources if s.source_id in (None, op.kept("server_ids", {}).get(op.plan.primary))]
        if channels and all(s.receiver is Receiver.STOPPED for s in channels):
            stopped.add(status.name)
    return [name for name in orders.participants if name == op.plan.candidate or name not in stopped]


def _stop_receivers(
    parts: Parts, op: Operation, old: Peer, participants: Collection[str], within: float = _STOP
) -> tuple[str, list[str]]:
    """A primary that comes back feeds nobody any more, in ``within`` seconds. Raises what went wrong at the candidate.

    Returns those who stopped, in words, and those of whom nobody knows it: what they have may still grow.
    """
    receivers = parts.site.pick(participants)
    outcomes = each(receivers, lambda s: s.stop_receiver(old, Deadline.after(within)), Deadline.after(within + 0.5))
    for name, found in outcomes.items():
        if found.error is not None and name == op.plan.candidate:
            found.get()
        if found.error is not None:
            op.note(f"the receiver of {name} could not be stopped: {found.error}")
    restless = [name for name, found in outcomes.items() if found.error is not None]
    return ", ".join(name for name in outcomes if name not in restless), restless


def _received(parts: Parts, op: Operation, orders: Orders, view: View) -> Position:
    """Returns, and keeps, everything that is left of the cluster's history, applied or not: nothing may be dropped.

    Raises Unfinished when somebody who may have what was acknowledged has fallen silent, or started anew and lost it,
    and nothing may be lacking.
    """
    # those that were silent when it began are not waited for again
    spared = [n for n in view.servers if view.status(n) is None and n not in orders.participants]
    found = take_stock(parts, op, orders.reference, spared)
    back = f"bring {op.plan.primary} back"
    for name in (n for n in orders.participants if n not in found.servers):
        op.note(f"{name} fell silent: what only it has received is not counted")
        if name in orders.acknowledgers:
            text = f"{name} may have acknowledged what nobody else has, and has fallen silent"
            _doubt(op, orders, text, f"{back}, or {name} if it has run all the time,")
    for name in (n for n in orders.acknowledgers if n in found.servers):
        if text := forgotten(found.servers[name], op.plan.primary, orders.seen_writing):
            _doubt(op, orders, text, back)
    return keep_goal(parts, op, found)


def _stop_again(parts: Parts, op: Operation, orders: Orders, restless: list[str], fencing: Fencing) -> Position:
    """Those whose receivers could not be stopped may have got more since, from a primary that is not gone after all.

    Returns, and keeps, what there is now. Raises Unfinished when one may go on to acknowledge what nobody else gets.
    """
    _, still = _stop_receivers(parts, op, peer(parts, op, op.plan.primary), restless, _STOP_AGAIN)
    spared = [n for n in parts.site.names if n not in orders.participants or n in still]
    for name in (n for n in still if n in orders.acknowledgers and fencing is not Fencing.FENCED):
        text = f"{name} goes on receiving: what {op.plan.primary} does when it wakes up would be acknowledged by it"
        _doubt(op, orders, text, f"stop {name}, or fence {op.plan.primary} (--fenced-by NAME)")
    return keep_goal(parts, op, take_stock(parts, op, orders.reference, spared))


def _doubt(op: Operation, orders: Orders, text: str, cure: str) -> None:
    """Something acknowledged may be lost after all. Raises Unfinished when that may not be; else it is told."""
    if not orders.may_lack:
        raise Unfinished(f"{text}; {cure} and type 'proxyroute failover' again; with --force it may be lost")
    add_doubt(op, text)


def _apply(parts: Parts, candidate: str, fetch_from: str, patience: float) -> None:
    """Waits until the candidate, and who gives it more, have applied what each has received itself.

    It never stops whom it waits for. Who only gives more is not waited for where nothing is applied, or with a delay:
    what it has executed is fetched.
    """
    deadline = Deadline.after(patience)

    def await_all(server: Server) -> None:
        for source in server.look(deadline.within(_ANSWER)).sources:
            if source.applies_now or server.name == candidate:
                server.wait_for(source.received, deadline)

    # both at once, for the time is the same one; and a moment longer, so that who is late can say for what
    names = [name for name in (candidate, fetch_from) if name]
    outcomes = each(parts.site.pick(names), await_all, Deadline.after(patience + _ANSWER))
    for name in names:
        outcomes[name].get()


def _fetch(parts: Parts, op: Operation, old: Peer, orders: Orders, goal: Position) -> str:
    """The candidate gets from a server that must not be promoted what that one has more."""
    new, ahead = parts.site[op.plan.candidate], parts.site[orders.fetch_from]
    has = ahead.position(Deadline.after(_ANSWER)).alongside(goal)
    new.detach(old, Deadline.after(_ANSWER))  # as a winner stops: a backup there gives way
    new.follow(
        peer(parts, op, ahead.name), Deadline.after(orders.fetch_patience), instead_of=old,
        source_has=lambda: ahead.position(Deadline.after(_ANSWER)),
        source_purged=lambda: ahead.purged(Deadline.after(_ANSWER)),
    )  # fmt: skip
    new.wait_for(has, Deadline.after(orders.fetch_patience))
    return f"{new.name} has what {ahead.name} had"


def _compare(parts: Parts, op: Operation, goal: Position, orders: Orders) -> str:
    """Says what the candidate lacks of everything that was received. Raises Unfinished when that may not be."""
    new = parts.site[op.plan.candidate].look(Deadline.after(_ANSWER))
    has, lacks = new.executed.contains(goal), goal.minus(new.executed)
    if has is Containment.UNKNOWN and by_order(orders.reference, new, new.executed, lacks):
        has = Containment.YES
    op.keep("reached", str(has))
    if has is Containment.YES:
        return "it has everything that was received"
    op.keep("missing", str(lacks), wait=True)
    text = f"{op.plan.candidate} lacks {lacks}, which another server has received"
    if not orders.may_lack:
        raise Unfinished(f"{text}; --force promotes it all the same, and they are lost")
    return text
