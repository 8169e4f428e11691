"""The way back: everything that an operation has registered is undone, most urgent first.

What opens the old primary looks at everybody else first, like every opening.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from proxyroute.decided import Undo
from proxyroute.errors import LostReply, ProxyRouteError, TimedOut, Unfinished, Unreachable
from proxyroute.gtid import from_json
from proxyroute.inspection import WriteState
from proxyroute.journal import first
from proxyroute.latecomers import look, own_doing
from proxyroute.model import Deadline, Epoch, Reader, ReceiptState, Receiver, RouteTable
from proxyroute.opening import ARMED, read_standing, refuse_unless_closed
from proxyroute.operation import Operation, each
from proxyroute.parts import LOOK, Parts, peer
from proxyroute.routes import highest_epoch
from proxyroute.routing import WEIGHTS, bereaved

_RETRY = 0.2
_EXPECT = 3
_JOIN = 0.5
"""Seconds beyond its budget in which whoever waits for a server has noticed that it is over."""
_SCRIPT = "address_up"
"""Takes the time that the site gives its scripts, and none of the server's."""
_LAST_LOOK = 1.0
"""Seconds, when the time for restoring writes is over, to see what has become of the two."""
_RESTORE = "restore_writes"
_SETTLE, _REPLICATES = "settle_replay", ("start_receiver", "follow")
_TRIES = 1.0
"""Seconds in which a receiver whose source is gone has begun to try to reach it."""
_ROUTES_BACK = 5.0
"""Seconds for the proxies when a failover is undone: one that was silent before is likely to be so again."""


def go_back(parts: Parts, op: Operation, lost: Collection[str] = ()) -> None:
    """Undoes everything that is registered, most urgent first, and closes the record.

    What is equally urgent is undone on all servers at once, each with a budget of its own: one that hangs costs nobody
    else anything. Raises Unfinished when the old primary's writes could not be restored, LeaseLost when it is not for
    us any more; whatever else fails becomes a leftover. So do its writes if it has died before the commit: then who is
    opened is for the diagnosis to say, and an open record would be in its way.
    """
    op.still_ours()
    budgets = _Budgets(op.plan.policy.undo)
    for verb, group in itertools.groupby(op.undos, lambda u: u.verb):
        undos = [u for u in group if u.server not in lost]
        for server in sorted({u.server for u in op.undos if u.verb == verb} & set(lost)):
            op.note(f"{server} is declared lost: nothing is undone there")
        if not undos:
            continue
        parts.expect(_EXPECT * op.plan.policy.undo + (parts.hooks.seconds(_SCRIPT) if verb == _SCRIPT else 0.0))
        with op.step(f"undo: {verb.replace('_', ' ')}"):
            if verb == _RESTORE:
                _restore_writes(parts, op, undos[0], Deadline.after(op.plan.policy.undo), lost)
            else:
                _undo_together(parts, op, undos, budgets)
    told = f"{op.plan.primary} is declared lost, so no server takes writes" if op.plan.primary in lost else ""
    if op.unrestored:
        told = f"{op.plan.primary} takes no writes; look at 'proxyroute status'; if it is gone: proxyroute failover"
    if op.gone:
        told = f"the routes go to {op.plan.primary} again, as before"
    op.end("aborted", told)


def undo_leftovers(parts: Parts, op: Operation) -> None:
    """What could not be undone when everything else was; writes were restored then."""
    budgets, aside, left = _Budgets(op.plan.policy.undo), parts.set_aside(op), op.leftovers
    # of a server that is left alone this stays to do
    todo = [u for u in op.undos if not (u.server in aside and u.verb in _REPLICATES) and (u.verb, _where(u)) in left]
    for verb, group in itertools.groupby(todo, lambda u: u.verb):
        with op.step(f"undo: {verb.replace('_', ' ')}"):
            _undo_together(parts, op, list(group), budgets)
    op.end("aborted")


class _Budgets:
    """How long undoing may take on each server; what others take meanwhile does not count."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._used: dict[str, float] = {}

    def of(self, server: str) -> Deadline:
        """Returns the deadline of ``server`` from now; with an empty name that of the proxies."""
        return Deadline.after(max(0.0, self._seconds - self._used.get(server, 0.0)))

    def use(self, server: str, seconds: float) -> None:
        """Takes from the time of ``server`` what was used there."""
        self._used[server] = self._used.get(server, 0.0) + seconds


@dataclass
class _Chain:
    """What is to be undone on one server, one after the other, and what became of it."""

    name: str
    undos: list[Undo]
    errors: dict[str, BaseException | None] = field(default_factory=dict)
    took: float | None = None
    """Seconds; None while it goes on."""

    def run(self, parts: Parts, op: Operation, deadline: Deadline) -> None:
        """Undoes them; one that fails is no reason to leave the next."""
        began = time.monotonic()
        for undo in self.undos:
            try:
                _UNDO[undo.verb](parts, op, undo, deadline)
            except (ProxyRouteError, OSError) as error:
                self.errors[_where(undo)] = error
            else:
                self.errors[_where(undo)] = None
        self.took = time.monotonic() - began


def _undo_together(parts: Parts, op: Operation, undos: Sequence[Undo], budgets: _Budgets) -> None:
    """Undoes what is equally urgent; what fails becomes a leftover, and nobody waits for whoever hangs but himself.

    A replica that would begin at the wrong place is not started.
    """
    chains: dict[str, _Chain] = {}
    for undo in undos:
        with op.attempt(undo.verb, _where(undo)):
            if undo.verb != _RESTORE and undo.server in _gone(op):
                raise TimedOut(f"the writes of {undo.server} are not restored yet")
            if undo.verb in _REPLICATES and (_SETTLE, undo.server) in op.leftovers:
                raise TimedOut(
                    f"{undo.server} has transactions of its source that its replication position does not know"
                )
            chains.setdefault(undo.server, _Chain(undo.server, [])).undos.append(undo)
    began, begun = time.monotonic(), {name: budgets.of(name) for name in chains}
    if len(chains) == 1:  # also what writes to the journal: that is for one thread alone
        for name, chain in chains.items():
            chain.run(parts, op, begun[name])
    else:
        last = Deadline(max((d.at for d in begun.values()), default=0.0) + _JOIN)
        for found in each(chains.values(), lambda c: c.run(parts, op, begun[c.name]), last).values():
            if found.error is not None and not isinstance(found.error, TimedOut):
                found.get()
    for chain in chains.values():
        if undos[0].verb != _SCRIPT:
            budgets.use(chain.name, time.monotonic() - began if chain.took is None else chain.took)
        for undo in chain.undos:
            late = TimedOut(f"{undo.server} did not answer in time")
            error = chain.errors.get(_where(undo), late)
            with op.attempt(undo.verb, _where(undo)):
                if error is not None:
                    raise error


def _where(undo: Undo) -> str:
    account = undo.arguments.get("account")
    return f"{undo.server}/{account}" if account else undo.server


def _restore_writes(parts: Parts, op: Operation, undo: Undo, deadline: Deadline, lost: Collection[str]) -> None:
    """Opens the old primary again, if it is closed: after looking at everybody else, like every opening.

    One that has died before the commit is left to do, and so is one that is back by now, and closed: it may have lost
    what others have received. Raises Unfinished when it could not be opened otherwise.
    """
    old, settings = parts.site[undo.server], undo.arguments
    committed = first(op.journal.records, "commit") is not None
    was_open = str(settings["read_only"]).upper() in ("0", "OFF")
    while True:
        try:
            never_told = parts.continuous and not op.may_have_opened
            excused = {*parts.excused(op, lost), *((op.plan.candidate,) if never_told else ())}
            # those who may be silent must not keep writes waiting
            hurry = excused if parts.continuous else ()
            standing = look(parts, op, deadline.within(LOOK), lost, hurry=hurry)
            state = standing.states.get(old.name)
            if state is None:
                raise Unreachable(old.name, standing.silent.get(old.name, "does not answer"))
            if was_open and not state.writable and not committed:
                refuse_unless_closed(standing, old.name, None, excused=parts.site.names)
                op.leftover(_RESTORE, old.name, f"{old.name} refuses writes, and nobody here has told it to")
                return
            if state.holders and _never_closed(op, state):
                # others may have what it still waits to have acknowledged, or be silent: that is no sign of an opening
                refuse_unless_closed(standing, old.name, None, excused=parts.site.names)
            elif state.holders or not state.writable:
                goal = state.position.merge(op.goal) if op.goal is not None else state.position
                if any(standing.beyond(n, goal) for n in standing.states if n != old.name):
                    # nothing may hold writes back yet: what was read a moment after it has more
                    goal = goal.merge(old.write_state(deadline, op.id).position)
                own = own_doing(parts, op)
                refuse_unless_closed(standing, old.name, goal, excused=excused, lost={*lost, *own})
                for name in (n for n in own if standing.beyond(n, goal)):
                    op.note(f"{name} has {standing.states[name].position.minus(goal)}, which {old.name} lacks")
            _let_go(parts, op, undo, deadline)  # only then can nothing close it again
            if was_open and not old.write_state(deadline, op.id).writable:
                old.accept_writes(deadline)
            if op.unrestored:
                op.leftover(_RESTORE, old.name, "")
            return
        except (LostReply, TimedOut, Unreachable) as error:
            if deadline.left >= _RETRY:
                time.sleep(_RETRY)
                continue
            if not committed and _gone_alone(parts, op):
                op.leftover(_RESTORE, old.name, str(error))
                return
            raise Unfinished(
                f"{old.name} could not be made to take writes again ({error}); when it answers type 'proxyroute heal', "
                f"or, when it is gone for good, 'proxyroute heal --declare-lost {old.name}'; 'proxyroute status' shows "
                "what is left of the cluster"
            ) from error


def _gone_alone(parts: Parts, op: Operation) -> bool:
    """Tells whether the old primary is silent, and nobody has been opened in its place: the candidate is seen closed.

    Without a commit the old primary has not been armed, nor told to refuse writes. What holds them back there ends by
    itself, so it may be left as it is until it answers.
    """
    hurry = set(parts.site.names) - {op.plan.primary, op.plan.candidate}
    states = read_standing(parts, op, Deadline.after(_LAST_LOOK), hurry=hurry).states
    return op.plan.primary not in states and op.plan.candidate in states and not states[op.plan.candidate].writable


def _let_go(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    """Nothing of the freeze is left on the server: what was lowered is back, and what held writes back is gone.

    As a leftover this is all: one that refuses writes does so because it has restarted, and whether it may be opened is
    not for the record of this operation to tell.
    """
    old = parts.site[undo.server]
    old.restore(undo.arguments, deadline)
    old.unblock_writes(op.id, deadline)  # disarms it as well


def _gone(op: Operation) -> frozenset[str]:
    """The old primary, when it is gone: that of a failover, or one whose writes could not be restored."""
    return op.gone | ({op.plan.primary} if op.unrestored else set())


def _never_closed(op: Operation, state: WriteState) -> bool:
    """Tells whether the old primary, in ``state``, has been open all the time, and the candidate never.

    The holder ``engine`` is a session's name, and says nothing of the write lock: that may never have been granted,
    because commits wait for an acknowledgement. If it was, it ends with its session, like writes that it made wait.
    """
    begun = op.goal is not None or op.committed or op.may_have_opened
    return state.writable and ARMED not in state.holders and not begun


def _release_routes(parts: Parts, op: Operation, undo: Undo, deadline: Deadline) -> None:
    """The routes point at the old primary and nobody is held back, whatever has happened to them."""
    old = op.plan.primary
    if _gone(op):  # nobody takes writes, whatever the routes say: no reason to keep a person from trying again
        deadline = deadline.within(_ROUTES_BACK)
    # one that can be read and leads nowhere was closed, or has lost its states: it is told again as well
    observed = [o for o in parts.routes.observe(deadline.within(LOOK)) if o.reachable]
    if any(o.primary != old for o in observed):
        epoch = _epoch_back(op, highest_epoch(observed))
        table = _table_back(parts, op, epoch, deadline.left / 2)  # the other half is for the proxies
        receipts = parts.routes.settle(table, deadline)
        wrong = parts.routes.missing(receipts, ReceiptState.DONE)
        wrong = [r for r in wrong if not (old in _gone(op) and r.evidence.get("awaits") == old)]
        if wrong:
            raise Unfinished("; ".join(f"{r.proxy}: {r.detail}" for r in wrong))
    failed = [r for r in parts.routes.release(deadline) if r.state is ReceiptState.FAILED]
    if failed:
        raise Unfinished("; ".join(f"{r.proxy}: {r.detail}" for r in failed))


def _table_back(parts: Parts, op: Operation, epoch: Epoch, seconds: float) -> RouteTable:
    """The routes to the old primary; while that is gone, its replicas go on serving reads.

    The candidate keeps its reads as well: that it follows again is undone next, or is left to do.
    """
    old, candidate = op.plan.primary, op.plan.candidate
    # an old primary that is gone is not waited for, nor a replica that hangs while the proxies hold clients back
    view = parts.glance(candidate if old in _gone(op) else old, min(LOOK, seconds))
    if old in _gone(op) and view.status(old) is None:
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
    parts.run_script(_SCRIPT, op, back=True)


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
        told = undo.arguments.get("applied")
        applied = from_json(told) if told else None  # older records tell none, and are all of MariaDB
        heir = parts.salvage.heir(undo.server, applied.flavour if applied else "mariadb")
        heir.settle_replay(deadline, applied)


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
    gone = source.name in _gone(op)
    try:
        server.follow(source, deadline.within(_TRIES) if gone else deadline, instead_of=left)
    except TimedOut:
        channels = (s for s in server.look(deadline).sources if s.address == source.address) if gone else ()
        if not any(s.applier and s.receiver is not Receiver.STOPPED for s in channels):
            raise


_UNDO = {
    _RESTORE: _let_go,
    "restore_limit": _restore_limit,
    "release_routes": _release_routes,
    "unlock_account": _unlock_account,
    _SCRIPT: _address_up,
    "start_events": _start_events,
    "semi_sync": _semi_sync,
    _SETTLE: _settle_replay,
    "start_receiver": _start_receiver,
    "follow": _follow,
    "semi_sync_back": _semi_sync_back,
}
