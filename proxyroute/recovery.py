"""What to do with an operation that did not end: look at the world, decide the way, go it.

The journal says what was meant; the servers say what is. :func:`way` puts the two together in one table, and nothing
here trusts the journal alone: every opening re-reads all other servers first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from enum import StrEnum

from proxyroute.decided import Undo
from proxyroute.errors import (
    Aborted,
    LeaseLost,
    LostReply,
    ProxyRouteError,
    Refused,
    SplitBrain,
    Superseded,
    TimedOut,
    Unfinished,
    Unreachable,
)
from proxyroute.finish import finish
from proxyroute.gtid import Containment, from_json
from proxyroute.inspection import WriteState
from proxyroute.model import Deadline, Epoch, Reader, ReceiptState, Receiver, RouteTable
from proxyroute.opening import Standing, must_answer, read_standing, refuse_unless_closed
from proxyroute.operation import Operation
from proxyroute.parts import LOOK, Parts, peer
from proxyroute.routes import highest_epoch
from proxyroute.routing import WEIGHTS, bereaved

_RETRY = 0.2
_EXPECT = 3
_RECOVER = 8
_SETTLE, _REPLICATES = "settle_replay", ("start_receiver", "follow")
_TRIES = 1.0
"""Seconds in which a receiver whose source is gone has begun to try to reach it."""
_ROUTES_BACK = 5.0
"""Seconds for the proxies when a failover is undone: one that was silent before is likely to be so again."""


class Way(StrEnum):
    FORWARD = "forward"
    BACK = "back"


def way(op: Operation, standing: Standing, lost: Collection[str] = (), *, continuous: bool = True) -> Way:
    """Returns which way leads to a legal state. Pure: decided from the journal and one reading of the servers.

    =========  ==============  =======================  ==========================================
    committed  new primary     old primary              way
    =========  ==============  =======================  ==========================================
    yes        open or beyond  any                      forward (closing is never dangerous)
    yes        closed          closed or locked         forward
    yes        closed          open, nothing holds it   back: the freeze is gone, nothing was opened
    yes        silent          any                      back if it was never told to open, or is lost (see below)
    failover   closed          back, open, complete     back: it has everything that anybody has received
    failover   closed          back, open, lacking      forward: it is closed first
    no         closed, silent  any                      back
    no         open or beyond  closed or locked         forward: somebody finished it
    failover   open            silent                   forward: somebody finished it
    failover   beyond, closed  silent                   back, if not committed: it may be fed by the old primary
    no         open            open, nothing holds it   nobody but a person: SplitBrain
    =========  ==============  =======================  ==========================================

    That it was never told is known to those who are ``continuous``: a power cut may have taken the record of it.
    Raises SplitBrain, and Unfinished when a server that decides is silent.
    """
    old, new = standing.states.get(op.plan.primary), standing.states.get(op.plan.candidate)
    if new is None:
        if not op.committed or op.plan.candidate in lost or (continuous and not op.may_have_opened):
            return Way.BACK
        raise Unfinished(
            f"{op.plan.candidate} was told to open and does not answer; when it is back type 'proxyroute heal', or, "
            f"when it is gone for good, 'proxyroute heal --declare-lost {op.plan.candidate}'"
        )
    # what the old primary has as well, it may have replicated from there
    known = op.goal if op.goal is None or old is None else op.goal.merge(old.position)
    opened = new.writable or standing.beyond(op.plan.candidate, known)
    if op.gone and old is None and not op.committed:
        # one that is only silent to us may be feeding the candidate: what that has received since is no sign
        opened = new.writable
    old_open = old is not None and old.writable and not old.holders
    if op.committed:
        old_open = old_open and old is not None and _complete(op, old)
        return Way.FORWARD if opened or not old_open else Way.BACK
    if not opened:
        return Way.BACK
    if new.writable and old_open:
        raise SplitBrain(
            f"{op.plan.primary} and {op.plan.candidate} both take writes, and {op.id} did not do that; "
            "make one of them read-only, then type 'proxyroute heal'"
        )
    return Way.BACK if old_open else Way.FORWARD


def _complete(op: Operation, old: WriteState) -> bool:
    """An old primary that came back may go on only with all that anybody has received; one that never left has it."""
    return not op.gone or op.goal is None or old.position.contains(op.goal) is Containment.YES


def finish_or_recover(
    parts: Parts, op: Operation, *, table: RouteTable | None = None, first: Callable[[], None] = lambda: None
) -> None:
    """Goes from the commit to the end: ``first``, then ``finish``; and when that fails what heal would do.

    Raises Aborted when everything had to be undone, and what ``recover`` raises.
    """
    try:
        first()
        finish(parts, op, table=table, lost=op.gone)
    except ProxyRouteError as error:
        if op.outcome is not None:
            raise
        parts.expect(_RECOVER * op.plan.policy.settle)
        try:
            recover(parts, op)  # the same that heal would do, while the locks are still held
        except LeaseLost as gone:
            raise Unfinished(_for_another(op, gone)) from error
        if op.outcome == "aborted":
            raise Aborted(_undone(op, error)) from error


def end_uncommitted(parts: Parts, op: Operation, error: BaseException) -> bool:
    """Undoes what was done before ``error`` and raises what describes the end.

    Returns True when the world had decided otherwise: the commit is on record after all, and it was finished.
    """
    if not op.undos:
        op.end("refused", str(error))
        if isinstance(error, ProxyRouteError) and not isinstance(error, Refused):
            raise Refused(str(error)) from error
        return False
    try:
        go_back(parts, op) if not op.committed else recover(parts, op)
        if op.outcome == "done":
            return True
    except LeaseLost as gone:
        raise Unfinished(_for_another(op, gone)) from error
    except ProxyRouteError as worse:
        raise Unfinished(f"{error or type(error).__name__}; and not everything could be undone: {worse}") from error
    raise Aborted(_undone(op, error)) from error


def _for_another(op: Operation, error: LeaseLost) -> str:
    return f"{error}; whoever gets it goes on with {op.id} by 'proxyroute heal'; look at 'proxyroute status'"


def _undone(op: Operation, error: BaseException) -> str:
    left = ", ".join(f"{verb} {server}" for verb, server in op.leftovers)
    what = f"it was undone but for: {left} (proxyroute heal takes that up)" if left else "everything was undone"
    now = "no server takes writes" if op.gone else f"{op.plan.primary} takes writes"
    return f"{what}, {now}: {str(error) or type(error).__name__}"


def recover(parts: Parts, op: Operation, lost: Collection[str] = ()) -> None:
    """Finishes or undoes ``op`` and closes its record.

    Raises Superseded when somebody with a higher epoch acted since, SplitBrain when a person must decide, Unfinished
    when it has to be tried again later, LeaseLost when it is not for us any more.
    """
    op.still_ours()
    lost = {*lost, *op.gone}
    standing = read_standing(parts, op, Deadline.after(LOOK))
    if op.outcome is not None:
        _stop_unless_it_still_holds(parts, op, standing)
        if op.outcome == "aborted":
            _undo_leftovers(parts, op)
        else:
            finish(parts, op, lost=lost)
        return
    _stop_if_superseded(parts, op, standing)
    if way(op, standing, lost, continuous=parts.continuous) is Way.BACK:
        go_back(parts, op, lost)
        return
    deadline = Deadline.after(op.plan.policy.freeze_budget)
    while True:
        try:
            finish(parts, op, lost=lost)
            return
        except (SplitBrain, Superseded):
            raise
        except ProxyRouteError as error:
            if op.outcome is not None:
                raise
            if _may_turn(parts, op, error):
                go_back(parts, op, lost)
                return
            if deadline.passed or not isinstance(error, TimedOut | LostReply | Unreachable):
                raise
        time.sleep(_RETRY)


def _may_turn(parts: Parts, op: Operation, reason: ProxyRouteError) -> bool:
    """Turns the operation around when the candidate provably never opened; see docs/decisions."""
    standing = read_standing(parts, op, Deadline.after(LOOK))
    new = standing.states.get(op.plan.candidate)
    closed = new is not None and not new.writable and not standing.beyond(op.plan.candidate, op.goal)
    never_told = new is None and not op.may_have_opened and parts.continuous
    old = standing.states.get(op.plan.primary)
    if not (closed or never_told) or old is None:
        return False
    if op.gone and not (old.writable and _complete(op, old)):
        return False
    if op.committed:
        op.turn(op.lease.claim(op.route_epoch, op.id), str(reason))
    return True


def _stop_if_superseded(parts: Parts, op: Operation, standing: Standing) -> None:
    """A higher epoch anywhere, or a third server that takes writes: somebody else acted. We touch nothing."""
    seen = max(highest_epoch(parts.routes.observe(Deadline.after(LOOK))), op.lease.highest(besides=op.id))
    ours = max(op.epoch, op.route_epoch)
    third = [
        name
        for name, state in standing.states.items()
        if state.writable and name not in (op.plan.primary, op.plan.candidate)
    ]
    if seen > ours:
        text = f"epoch {seen} has been seen, {op.id} had {ours}"
    elif third:
        text = f"{', '.join(third)} takes writes, and {op.id} did not do that"
    else:
        return
    op.end("superseded", text)
    raise Superseded(f"somebody else acted since: {text}; the record is closed and nothing was touched")


def _stop_unless_it_still_holds(parts: Parts, op: Operation, standing: Standing) -> None:
    """What an ended operation left to do is done only while the roles are those it ended with.

    Raises Superseded when they are not (the record is closed and nothing is touched), Unfinished when the server that
    should take writes is silent. That a failover was undone for may still be gone: then nobody takes writes.
    """
    primary, other = op.plan.candidate, op.plan.primary
    if op.outcome == "aborted":
        primary, other = other, primary
    gone = op.outcome == "aborted" and primary in op.gone and primary not in standing.states
    state = must_answer(standing, other if gone else primary)
    taking = [name for name, s in standing.states.items() if s.writable and name != primary]
    closed = not gone and not state.writable
    if closed or [name for name in taking if name != other] or (taking and op.outcome == "aborted"):
        text = f"{primary} was the primary when {op.id} ended, and it is not alone in taking writes now"
        op.end("superseded", text)
        raise Superseded(f"somebody else acted since: {text}; the record is closed and nothing was touched")
    seen = highest_epoch(parts.routes.observe(Deadline.after(LOOK)))
    if seen > op.route_epoch:  # published since, to the same primary
        op.back(op.lease.claim(seen, op.id))


# -- the way back --


def go_back(parts: Parts, op: Operation, lost: Collection[str] = ()) -> None:
    """Undoes everything that is registered, most urgent first, and closes the record.

    Raises Unfinished when the old primary's writes could not be restored, LeaseLost when it is not for us any more;
    whatever else fails becomes a leftover.
    """
    op.still_ours()
    parts.expect(_EXPECT * op.plan.policy.undo)
    deadline = Deadline.after(op.plan.policy.undo)
    for undo in op.undos:
        if undo.server in lost:
            op.note(f"{undo.server} is declared lost: nothing is undone there")
            continue
        with op.step(f"undo: {undo.verb.replace('_', ' ')}"):
            if undo.verb == "restore_writes":
                _restore_writes(parts, op, undo, deadline, lost)
            else:
                _try(parts, op, undo, deadline)
    told = f"{op.plan.primary} is declared lost, so no server takes writes" if op.plan.primary in lost else ""
    if op.gone:
        told = f"the routes go to {op.plan.primary} again, as before"
    op.end("aborted", told)


def _where(undo: Undo) -> str:
    account = undo.arguments.get("account")
    return f"{undo.server}/{account}" if account else undo.server


def _try(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    """Undoes one thing; what fails becomes a leftover. A replica that would begin at the wrong place is not started."""
    with op.attempt(undo.verb, _where(undo)):
        if undo.verb in _REPLICATES and (_SETTLE, undo.server) in op.leftovers:
            raise TimedOut(f"{undo.server} has transactions of its source that its replication position does not know")
        _UNDO[undo.verb](parts, op, undo, deadline)


def _undo_leftovers(parts: Parts, op: Operation) -> None:
    """What could not be undone when everything else was; writes were restored then."""
    deadline, aside = Deadline.after(op.plan.policy.undo), parts.set_aside(op)
    for undo in op.undos:
        if undo.server in aside and undo.verb in _REPLICATE:
            continue  # it is left alone, and this stays to do
        if (undo.verb, _where(undo)) in op.leftovers:
            with op.step(f"undo: {undo.verb.replace('_', ' ')}"):
                _try(parts, op, undo, deadline)
    op.end("aborted")


def _restore_writes(parts: Parts, op: Operation, undo: Undo, deadline: Deadline, lost: Collection[str]) -> None:
    """Opens the old primary again, if it is closed: after looking at everybody else, like every opening."""
    old, settings = parts.site[undo.server], undo.arguments
    was_open = str(settings["read_only"]).upper() in ("0", "OFF")
    while True:
        try:
            never_told = parts.continuous and not op.may_have_opened
            excused = {*parts.excused(op, lost), *((op.plan.candidate,) if never_told else ())}
            # those who may be silent must not keep writes waiting
            hurry = excused if parts.continuous else ()
            standing = read_standing(parts, op, deadline.within(LOOK), hurry=hurry)
            state = standing.states.get(old.name)
            if state is None:
                raise Unreachable(old.name, standing.silent.get(old.name, "does not answer"))
            if state.holders or not state.writable:
                goal = state.position.merge(op.goal) if op.goal is not None else state.position
                refuse_unless_closed(standing, old.name, goal, excused=excused, lost=lost)
            old.restore(settings, deadline)
            old.unblock_writes(op.id, deadline)  # disarms it; only then can nothing close it again
            if was_open and not old.write_state(deadline, op.id).writable:
                old.accept_writes(deadline)
            return
        except (LostReply, TimedOut, Unreachable) as error:
            if deadline.left < _RETRY:
                raise Unfinished(
                    f"{old.name} could not be made to take writes again ({error}); when it answers type "
                    "'proxyroute heal'; 'proxyroute status' shows what is left of the cluster"
                ) from error
            time.sleep(_RETRY)


def _release_routes(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    """The routes point at the old primary and nobody is held back, whatever has happened to them."""
    old = op.plan.primary
    if op.gone:  # nobody takes writes, whatever the routes say: no reason to keep a person from trying again
        deadline = deadline.within(_ROUTES_BACK)
    # one that can be read and leads nowhere was closed, or has lost its states: it is told again as well
    observed = [o for o in parts.routes.observe(deadline.within(LOOK)) if o.reachable]
    if any(o.primary != old for o in observed):
        epoch = _epoch_back(op, highest_epoch(observed))
        table = _table_back(parts, op, epoch)
        receipts = parts.routes.settle(table, deadline)
        wrong = parts.routes.missing(receipts, ReceiptState.DONE)
        wrong = [r for r in wrong if not (old in op.gone and r.evidence.get("awaits") == old)]
        if wrong:
            raise Unfinished("; ".join(f"{r.proxy}: {r.detail}" for r in wrong))
    failed = [r for r in parts.routes.release(deadline) if r.state is ReceiptState.FAILED]
    if failed:
        raise Unfinished("; ".join(f"{r.proxy}: {r.detail}" for r in failed))


def _table_back(parts: Parts, op: Operation, epoch: Epoch) -> RouteTable:
    """The routes to the old primary; while that is gone, its replicas go on serving reads.

    The candidate keeps its reads as well: that it follows again is undone next, or is left to do.
    """
    old, candidate = op.plan.primary, op.plan.candidate
    view = parts.site.look(Deadline.after(LOOK), spared=op.gone)
    if old in op.gone and view.status(old) is None:
        return bereaved(view, old, old, parts.policy(op), epoch, parts.site.endpoints)
    table = parts.table(op, old, epoch, view)
    readers = {r.name: r for r in table.readers if r.name != old}
    if view.status(candidate) is not None and any(u.verb == "follow" and u.server == candidate for u in op.undos):
        readers.setdefault(candidate, Reader(candidate, WEIGHTS[0][1]))
    return replace(table, readers=tuple(readers.values()) or table.readers)


def _epoch_back(op: Operation, seen: Epoch) -> Epoch:
    if op.route_epoch > op.epoch and op.route_epoch >= seen:
        return op.route_epoch
    epoch = op.lease.claim(max(op.route_epoch, seen), op.id)
    op.back(epoch)
    return epoch


def _restore_limit(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    parts.site[undo.server].restore(undo.arguments, deadline)


def _unlock_account(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    parts.site[undo.server].unlock_account(undo.arguments["account"], deadline)


def _address_up(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    parts.run_script("address_up", op, deadline, back=True)


def _start_events(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    parts.site[undo.server].start_events(deadline)


def _semi_sync(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    """A replica that waits for acknowledgements of its own is stuck: off, before it follows again."""
    parts.site[undo.server].semi_sync(deadline, primary=False)


def _semi_sync_back(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    """As it was before something was applied to it; last, because what is still applied would wait for nobody."""
    parts.site[undo.server].semi_sync(deadline, primary=True)


def _settle_replay(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    """Nothing is applied to it by us any more; what was stays: it is of the old primary, and was received."""
    if parts.salvage is not None:
        applied = undo.arguments.get("applied")
        parts.salvage.heir(undo.server).settle_replay(deadline, from_json(applied) if applied else None)


def _start_receiver(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    """It fetches again as soon as the old primary is there; that is not waited for."""
    source, applier = peer(parts, op, undo.arguments["source"]), bool(undo.arguments.get("applier"))
    parts.site[undo.server].start_receiver(source, deadline, applier=applier)


def _follow(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    """The candidate, or the replica that was moved below it, follows the old primary again.

    It is not waited for that one which is gone answers: its receiver goes on trying.
    """
    source, server = peer(parts, op, undo.arguments["source"]), parts.site[undo.server]
    left = peer(parts, op, undo.arguments["instead_of"]) if undo.arguments.get("instead_of") else None
    gone = source.name in op.gone
    try:
        server.follow(source, deadline.within(_TRIES) if gone else deadline, instead_of=left)
    except TimedOut:
        channels = (s for s in server.look(deadline).sources if s.address == source.address) if gone else ()
        if not any(s.applier and s.receiver is not Receiver.STOPPED for s in channels):
            raise


_REPLICATE = ("start_receiver", "follow")
_UNDO = {
    "restore_limit": _restore_limit,
    "release_routes": _release_routes,
    "unlock_account": _unlock_account,
    "address_up": _address_up,
    "start_events": _start_events,
    "semi_sync": _semi_sync,
    _SETTLE: _settle_replay,
    "start_receiver": _start_receiver,
    "follow": _follow,
    "semi_sync_back": _semi_sync_back,
}
