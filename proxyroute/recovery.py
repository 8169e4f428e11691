"""What to do with an operation that did not end: look at the world, decide the way, go it.

The journal says what was meant; the servers say what is. :func:`way` puts the two together in one table, and nothing
here trusts the journal alone: every opening re-reads all other servers first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from enum import StrEnum

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
from proxyroute.gtid import Containment
from proxyroute.inspection import WriteState
from proxyroute.latecomers import received
from proxyroute.model import Deadline, RouteTable
from proxyroute.opening import Standing, must_answer, read_standing
from proxyroute.operation import Operation
from proxyroute.parts import LOOK, Parts
from proxyroute.routes import highest_epoch
from proxyroute.undoing import go_back, undo_leftovers

_RETRY = 0.2
_RECOVER = 8


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
    if op.unrestored:
        now = f"{op.plan.primary} takes no writes (proxyroute status; if it is gone: proxyroute failover)"
    return f"{what}, {now}: {str(error) or type(error).__name__}"


def recover(parts: Parts, op: Operation, lost: Collection[str] = ()) -> None:
    """Finishes or undoes ``op`` and closes its record.

    Raises Superseded when somebody with a higher epoch acted since, SplitBrain when a person must decide, Unfinished
    when it has to be tried again later, LeaseLost when it is not for us any more.
    """
    op.still_ours()
    lost = {*lost, *op.gone}
    standing = _reading(parts, op)
    if op.outcome is not None:
        _stop_unless_it_still_holds(parts, op, standing)
        if op.outcome == "aborted":
            undo_leftovers(parts, op)
        else:
            finish(parts, op, lost=lost)
        return
    standing = _stop_if_superseded(parts, op, standing, lost)
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


def _reading(parts: Parts, op: Operation) -> Standing:
    """Reads every server; a bystander that hangs keeps nobody who waits for writes waiting."""
    return read_standing(parts, op, Deadline.after(LOOK), hurry=parts.excused(op, ()))


def _may_turn(parts: Parts, op: Operation, reason: ProxyRouteError) -> bool:
    """Turns the operation around when the candidate provably never opened; see docs/decisions."""
    standing = _reading(parts, op)
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


def _stop_if_superseded(parts: Parts, op: Operation, standing: Standing, lost: Collection[str]) -> Standing:
    """A higher epoch anywhere, or a third server that takes writes: somebody else acted. We touch nothing.

    Returns the reading with those judged that were silent when it was planned; only they are closed if they are open.
    """
    seen = max(highest_epoch(parts.routes.observe(Deadline.after(LOOK))), op.lease.highest(besides=op.id))
    ours = max(op.epoch, op.route_epoch)
    if seen <= ours:
        standing = received(parts, op, standing, Deadline.after(LOOK), lost=lost)
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
        return standing
    op.end("superseded", text)
    raise Superseded(f"somebody else acted since: {text}; the record is closed and nothing was touched")


def _stop_unless_it_still_holds(parts: Parts, op: Operation, standing: Standing) -> None:
    """What an ended operation left to do is done only while the roles are those it ended with.

    Raises Superseded when they are not (the record is closed and nothing is touched), Unfinished when the server that
    should take writes is silent. That a failover was undone for may still be gone: then nobody takes writes. One that
    died under a freeze and is back may refuse them, and is not opened here: it may have lost what others have.
    """
    primary, other = op.plan.candidate, op.plan.primary
    if op.outcome == "aborted":
        primary, other = other, primary
    gone = op.outcome == "aborted" and primary in op.gone and primary not in standing.states
    state = must_answer(standing, other if gone else primary)
    taking = [name for name, s in standing.states.items() if s.writable and name != primary]
    closed = not gone and not state.writable
    if closed and op.unrestored and not taking:
        raise Unfinished(
            f"{primary} is back and refuses writes, as it is configured to; 'proxyroute status' says whether anybody "
            f"has what it lacks; if nobody has, on {primary}: SET GLOBAL read_only=0; then type 'proxyroute heal'"
        )
    if closed or [name for name in taking if name != other] or (taking and op.outcome == "aborted"):
        text = f"{primary} was the primary when {op.id} ended, and it is not alone in taking writes now"
        op.end("superseded", text)
        raise Superseded(f"somebody else acted since: {text}; the record is closed and nothing was touched")
    seen = highest_epoch(parts.routes.observe(Deadline.after(LOOK)))
    if seen > op.route_epoch:  # published since, to the same primary
        op.back(op.lease.claim(seen, op.id))
