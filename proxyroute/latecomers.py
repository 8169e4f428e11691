"""Servers that were silent when a switchover was planned, and answer in its midst: nobody has judged them yet.

What such a one has executed is no sign that somebody opened it since: it may have had that for months. And one that
takes writes is an old primary that came back, not a new one: the record says who the primary was. Neither may keep
everybody closed until a person comes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from proxyroute.errors import Unfinished
from proxyroute.gtid import Containment, Position
from proxyroute.model import Deadline, Status, View
from proxyroute.opening import APART, Standing, read_standing
from proxyroute.operation import Operation, each
from proxyroute.parts import Parts
from proxyroute.site import shut
from proxyroute.topology import ONE_FLAVOUR, mixed, on_its_way

_PRESENT = "present"
"""Under this name a switchover keeps the servers that were judged before anybody was touched."""
_AGAIN = 1.0
"""Seconds for those that were silent a moment ago, while writes still flow."""
_SHUT = 1.5
"""Seconds to close one that takes writes; nobody else does meanwhile."""


def keep_present(op: Operation, names: Iterable[str]) -> None:
    """Keeps which servers the preflight of a switchover has judged."""
    op.keep(_PRESENT, sorted({*op.kept(_PRESENT, ()), *names}))


def look_again(parts: Parts, op: Operation, view: View) -> str:
    """Asks those once more that were silent in ``view``, while writes still flow; returns who is back, in words.

    One that is back and closed is judged like all others from here on. Raises Unfinished for one that takes writes.
    """
    silent = parts.site.pick(s.name for s in view.silent)
    outcomes = each(silent, lambda s: s.look(Deadline.after(_AGAIN)), Deadline.after(_AGAIN))
    found = [o.value for o in outcomes.values() if o.value is not None]
    for status in (s for s in found if s.writable):
        raise Unfinished(
            f"{status.name}, which was silent, is back and takes writes; 'proxyroute status' shows it: make it "
            "read-only, then try again"
        )
    for status in found:
        _join(parts, op, status)
    return ", ".join(f"{s.name} is back" for s in found) or "nobody is back"


def _join(parts: Parts, op: Operation, status: Status) -> None:
    op.keep("server_ids", {**op.kept("server_ids", {}), status.name: status.server_id})
    top = parts.site[op.plan.primary].look(Deadline.after(_AGAIN))  # read after: it must not look behind
    if told := mixed({top.name: top.flavour, status.name: status.flavour}):
        raise Unfinished(f"{status.name}, which was silent, is back, and {told}: {ONE_FLAVOUR}")
    extra = status.executed.minus(top.executed)
    if top.executed.contains(status.executed) is Containment.NO and not on_its_way(top, status, extra):
        _set_apart(op, status.name, extra)
    keep_present(op, (status.name,))


def look(
    parts: Parts, op: Operation, deadline: Deadline, lost: Collection[str], *, hurry: Collection[str] = ()
) -> Standing:
    """Reads every server as :func:`read_standing` does, and judges those that come late: see :func:`received`."""
    return received(parts, op, read_standing(parts, op, deadline, hurry=hurry), deadline, lost=lost)


def received(
    parts: Parts, op: Operation, standing: Standing, deadline: Deadline, *, lost: Collection[str] = ()
) -> Standing:
    """Returns ``standing`` with those judged that were silent when it was planned and answer now.

    Closed: what it has is kept as its own, and reported; it is left as it is, for a rejoin. Open: it is closed, for the
    one that we move was the primary. Only in a switchover, and for those who have been there since it began: otherwise
    that server may be the work of somebody who promoted it where we could not see. Raises TimedOut, ServerError or
    LeaseLost when it could not be closed.
    """
    present = op.kept(_PRESENT)
    if not parts.continuous or op.gone or present is None:
        return standing
    known = {*present, *lost, op.plan.primary, op.plan.candidate}
    for name in [n for n in standing.states if n not in known]:
        state = standing.states[name]
        if state.writable and not state.holders and not _overtaken(op):
            op.lease.check()
            cut = shut(parts.site[name], deadline.within(_SHUT))
            op.note(f"{name}, which was silent, came back taking writes and was closed, {cut} sessions ended")
            state = parts.site[name].write_state(deadline, op.id)
            standing = replace(standing, states={**standing.states, name: state})
        if standing.beyond(name, _known(op, standing)):
            _set_apart(op, name, state.position.minus(_known(op, standing) or state.position))
            standing = replace(standing, apart=standing.apart | {name})
    return standing


def _overtaken(op: Operation) -> bool:
    return op.lease.highest(besides=op.id) > max(op.epoch, op.route_epoch)


def _known(op: Operation, standing: Standing) -> Position | None:
    """Everything that the cluster has: the goal, and what the two servers have that may have been open since."""
    known = op.goal
    for name in (op.plan.primary, op.plan.candidate):
        if (state := standing.states.get(name)) is not None:
            known = state.position if known is None else known.merge(state.position)
    return known


def _set_apart(op: Operation, name: str, more: Position) -> None:
    op.keep(APART, [*op.kept(APART, ()), name], wait=True)
    op.note(
        f"{name} was silent when this began, and has {more}, which {op.plan.primary} lacks; it is left as it is: "
        f"proxyroute rejoin {name}"
    )


def own_doing(parts: Parts, op: Operation) -> frozenset[str]:
    """Returns whose additional transactions do not keep the old primary of a switchover closed on the way back.

    The old primary has been held by us since the goal was read, and nobody else is open: what an account with
    privileges does on a replica meanwhile is an errant transaction there, and no reason for an outage.
    """
    if not parts.continuous or op.gone:
        return frozenset()
    return frozenset(parts.site.names) - {op.plan.primary, op.plan.candidate}
