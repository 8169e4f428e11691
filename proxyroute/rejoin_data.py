"""What a rejoin does to the data of a server: its own transactions undone, or everything replaced, and history anew.

Each step that has no word of its end in the journal looks at what is there, and is then done or done again.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from proxyroute.archive import Archive, save
from proxyroute.binlog import HALF_BUILT, HALF_BUILT_HERE, together
from proxyroute.errors import (
    Busy,
    Diverged,
    LeaseLost,
    LostReply,
    PutOff,
    Refused,
    ScriptFailed,
    ServerError,
    StatementError,
    TimedOut,
    Unfinished,
    Unreachable,
)
from proxyroute.gtid import Containment, MariaDBPosition, Position, from_json
from proxyroute.model import Deadline
from proxyroute.operation import Operation
from proxyroute.parts import LOOK, Parts
from proxyroute.ports import Lease
from proxyroute.ports_data import Rebuilder
from proxyroute.rejoin_dump import stop_events
from proxyroute.rejoin_look import Means, find_primary, reseed_way
from proxyroute.site import shut

_BRIEF, _UNDO, _EMPTY = 30.0, 3600.0, 600.0
_COPY = 7 * 86400.0
_KEEP = 300.0
_TELL_EVERY = 5.0
_REGAIN, _CLAIM = 60.0, 10.0
_POLL = 0.2
_PUT_OFF = 3
"""How often a clone is refused for what may pass until it is no way any more."""


# -- flashback --


def flashback_values(archive: Archive) -> dict[str, Any]:
    return {
        "files": [str(path) for path in archive.files],
        "start": archive.since[0].start,
        "state": archive.state.to_json(),
        "tables": [list(table) for table in archive.tables],
    }


def flashback(means: Means, op: Operation, name: str, primary: str, *, keep_lease: bool) -> str:
    """Returns whom to follow: unless ``keep_lease``, the lease is free while rows are undone."""
    values, server = op.kept("flashback"), means.rebuild[name]
    state = from_json(values["state"])
    if not op.kept("undone"):
        with op.step("undo rows") as note:
            if not op.kept("whole") and not (more := _since_archived(means, op, name)).empty:
                text = f"{name} has executed {more} since its transactions were archived"
                op.end("aborted", f"{text}; nothing was changed")
                raise Refused(f"{text}: somebody writes there past read_only; end that, and try again")
            if not keep_lease:
                # the claim keeps others from this server; who fails over must not wait until all is undone
                let_go(means.parts, op.lease)
            note.detail = _undo(op, server, values)
            if not keep_lease:
                primary = regain(means, op, name, "has its rows undone")
    if not op.kept("begun"):
        with op.step("begin history") as note:
            _begin_history(means, op, name, primary, state, state, lambda: _nothing_more(means, op, name))
            note.detail = f"at {state}"
    return primary


def _nothing_more(means: Means, op: Operation, name: str) -> None:
    """Its own history goes now, and with it the only trace of what it has executed since. Raises Unfinished."""
    if not (more := _since_archived(means, op, name)).empty:
        raise Unfinished(
            f"{name} has executed {more} since its transactions were archived, and nobody has kept that; it "
            f"can be kept and replaced: proxyroute rejoin {name} --method reseed"
        )


def _since_archived(means: Means, op: Operation, name: str) -> Position:
    """Returns what server ``name`` has executed beyond what was there when it was archived.

    Raises Unfinished when that is not on record: an earlier version did not keep it, and nobody can tell.
    """
    archived = op.kept("archived")
    if archived is None:
        raise Unfinished(
            f"nobody can tell whether {name} has executed more since its transactions were archived; they are archived "
            f"again by: proxyroute rejoin {name} --method reseed"
        )
    return means.parts.site[name].position(Deadline.after(LOOK)).minus(from_json(archived))


def _undo(op: Operation, server: Rebuilder, values: Mapping[str, Any]) -> str:
    deadline = Deadline.after(_UNDO)
    if server.undo_pending(op.id, deadline):
        op.keep("whole", True, wait=True)
        server.commit_undo(op.id, deadline)
        op.keep("undone", True, wait=True)
        return "what was prepared is committed"
    if op.kept("whole"):  # it was, and waits no more: committed
        op.keep("undone", True, wait=True)
        return "was done already"
    try:
        statements = server.undo_statements([Path(f) for f in values["files"]], values["start"], deadline)
        server.undo(op.id, statements, lambda: op.keep("whole", True, wait=True), deadline)
    except (StatementError, ScriptFailed) as error:
        if op.kept("whole"):
            raise
        op.end("aborted", f"the rows could not be undone: {error}; nothing was changed")
        raise Refused(
            f"the rows of {server.name} could not be undone ({error}); nothing was changed, and it is left read-only. "
            f"Type: proxyroute rejoin {server.name} --method reseed"
        ) from error
    op.keep("undone", True, wait=True)
    return f"{len(statements) - 1} changes"


def _begin_history(
    means: Means,
    op: Operation,
    name: str,
    primary: str,
    position: Position,
    state: Position,
    still: Callable[[], None],
) -> None:
    known = means.parts.site[primary].position(Deadline.after(LOOK))
    if known.contains(position) is not Containment.YES:
        raise Diverged(name, f"would stand at {position}, and it cannot be shown that {primary} has all of that")
    _end_clients(means, name)
    means.rebuild[name].begin_history(position, state, Deadline.after(_BRIEF), op.kept("channel"), still=still)
    op.keep("begun", True, wait=True)


def _end_clients(means: Means, name: str) -> None:
    """Whoever writes past read_only is cut off, so that the lock which follows is to be had at once."""
    with contextlib.suppress(Unreachable):  # a server that is down has none
        shut(means.parts.site[name], Deadline.after(_BRIEF))


# -- empty transactions --


def empty_values(archive: Archive) -> dict[str, Any]:
    gtids = together(archive.transactions, archive.state.minus(archive.state))
    return {"transactions": gtids.to_json(), "tables": [list(table) for table in archive.tables]}


def count_as_done(means: Means, op: Operation, name: str, primary: str) -> None:
    """The one method that changes the primary: it has an empty transaction then for each that only the server had."""
    if op.kept("counted"):
        return
    with op.step("empty transactions") as note:
        if not (more := _since_archived(means, op, name)).empty:
            text = f"{name} has executed {more} since its transactions were archived"
            op.end("aborted", f"{text}; nothing was changed")
            raise Refused(f"{text}: somebody writes there past read_only; end that, and try again")
        op.lease.check()
        made = means.rebuild[primary].make_empty(from_json(op.kept("empty")["transactions"]), Deadline.after(_EMPTY))
        op.keep("counted", True, wait=True)
        note.detail = f"{made} on {primary}"


# -- reseed --


def keep_more(means: Means, op: Operation, name: str, primary: str, loaded: Position) -> None:
    """Archives what server ``name`` has executed since it was archived; it goes now. Nobody can write there meanwhile.

    What came with the new data, up to ``loaded``, is not its own. Raises what ``archive.save`` raises.
    """
    executed = means.parts.site[name].position(Deadline.after(LOOK))
    known = means.parts.site[primary].position(Deadline.after(LOOK)).merge(loaded)  # read after
    if (archived := op.kept("archived")) is not None:
        known = known.merge(from_json(archived))
    if isinstance(executed, MariaDBPosition):  # that it is half built is no transaction
        executed = MariaDBPosition(tuple(g for g in executed.entries if g.domain != HALF_BUILT))
    else:
        executed = executed.minus(HALF_BUILT_HERE)
    more = executed.minus(known)
    if more.empty:
        return
    archive = save(means.rebuild[name], executed, known, means.archive, Deadline.after(_KEEP))
    op.note(f"{name} has executed {more} since its transactions were archived: {archive}, kept in {archive.path}")
    op.keep("archived", executed.merge(from_json(archived)).to_json() if archived else executed.to_json(), wait=True)


def reseed(means: Means, op: Operation, name: str, primary: str) -> str:
    """Returns whom to follow: the lease is free while data are copied, and the primary may be another one then."""
    values = op.kept("reseed")
    if op.kept("loaded") is None and values["way"] != "dump" and (failed := op.kept("failed")):
        values = _another_way(means, op, name, values, failed)
    source, target = means.rebuild[values["source"]], means.rebuild[name]
    way = values["way"]
    beside = way == "copy"
    if op.kept("loaded") is None:
        before = means.parts.site[values["source"]].position(Deadline.after(LOOK))
        total = source.data_size(Deadline.after(_BRIEF), physical=way != "dump")
        if not beside:
            _keep_channel(means, op, name)
        if way == "dump":
            stop_events(means.parts.site[name], op, Deadline.after(_BRIEF))
        with op.step("dump and load" if way == "dump" else way) as note:
            watch = Progress(op, total)
            deadline = Deadline.after(_COPY)
            # the lease is not needed to fill a fenced server, and whoever fails over must not wait for hours
            let_go(means.parts, op.lease)
            if way == "dump":
                position = target.load_from(source, watch, deadline)
            else:
                still = functools.partial(keep_more, means, op, name, values["source"], before)
                with _remembering_failure(op, way):
                    position = target.copy_from(source, watch, deadline, still)
            if way == "clone":  # it was restarted, and a lease on the servers themselves may have needed it
                means.parts.site[name].close()
                _claim_again(means, op, target)
            else:
                still_claimed(means)
            note.detail = f"{_size(watch.done)} from {values['source']}, at {position}"
        state = _state_at(before, position)
        op.keep("loaded", {"position": position.to_json(), "state": state.to_json()}, wait=True)
        primary = regain(means, op, name)
    loaded = op.kept("loaded")
    if beside and op.kept("old_data") is None:
        with op.step("swap") as note:
            at = from_json(loaded["position"])
            _end_clients(means, name)
            old = target.swap_in(op.id, Deadline.after(_BRIEF * 10), lambda: keep_more(means, op, name, primary, at))
            means.parts.site[name].close()
            op.keep("old_data", old, wait=True)
            note.detail = f"the old data are kept in {old}"
        # a lease on the servers themselves may have needed the one that was stopped for a moment
        _claim_again(means, op, target)
        primary = regain(means, op, name)
    if not op.kept("begun"):
        with op.step("begin history") as note:
            position, state = from_json(loaded["position"]), from_json(loaded["state"])
            own = state.merge(position)  # what a copy has brought along
            _begin_history(means, op, name, primary, position, state, lambda: keep_more(means, op, name, primary, own))
            note.detail = f"at {position}"
    return primary


@contextlib.contextmanager
def _remembering_failure(op: Operation, way: str) -> Iterator[None]:
    """What a server has answered it would answer again: whoever goes on takes another way, if there is one.

    What may be over soon it has to answer several times, for a dump takes much longer than waiting for that.
    """
    try:
        yield
    except ServerError as error:
        if way != "clone" or isinstance(error, (LostReply, Unreachable)):
            raise
        put_off = op.kept("put_off", 0) + 1
        if isinstance(error, PutOff) and put_off < _PUT_OFF:
            op.keep("put_off", put_off, wait=True)
            op.note(f"the clone may go through when it is tried again; after {_PUT_OFF} times a dump is loaded")
        else:
            op.keep("failed", str(error), wait=True)
        raise


def _another_way(means: Means, op: Operation, name: str, values: dict[str, Any], failed: str) -> dict[str, Any]:
    """Returns how new data come after ``values["way"]`` has failed: by a dump, where there can be one."""
    told = f"the {values['way']} of {name} has failed: {failed}"
    try:
        down = not means.parts.site[name].look(Deadline.after(LOOK)).server_id
    except Unreachable:
        down = True
    way, _, obstacles = reseed_way(means, name, values["source"], down=down, failed=told)
    if obstacles:
        op.note(f"{told}; it is tried again: {'; '.join(finding.text for finding in obstacles[1:])}")
        return values
    op.note(f"{told}; a {way} is loaded instead")
    values = {**values, "way": way}
    op.keep("reseed", values, wait=True)
    return values


def let_go(parts: Parts, lease: Lease) -> None:
    """Gives the lease back, if it is held, as for what takes long; a claim on a server stays."""
    if lease.distributed:
        parts.site.close()  # what was permitted under this lease must not be there under a later one
    lease.release()


def still_claimed(means: Means) -> None:
    """Returns once it is sure that nobody else has worked on the server meanwhile. Raises LeaseLost."""
    deadline = Deadline.after(_CLAIM)
    while True:
        try:
            means.claim.check()
            return
        except LeaseLost:
            if deadline.passed:
                raise
        time.sleep(_POLL)


def _keep_channel(means: Means, op: Operation, name: str) -> None:
    """On disk before the channel is forgotten: its delay and its filters belong to the server. Once, for good."""
    if op.kept("channel") is not None:
        return
    try:
        channels = means.parts.site[name].look(Deadline.after(LOOK)).sources
        filters = [dict(each) for each in means.rebuild[name].filters(Deadline.after(LOOK))]
    except Unreachable as error:  # a clone starts it
        op.note(f"if its channel had a delay, or filters that no option file has, they are not kept: {error}")
        return
    if channels or filters:
        name_of, options = (channels[0].channel, dict(channels[0].options)) if channels else (None, {})
        op.keep("channel", {"name": name_of, "options": options, "filters": filters}, wait=True)


def _claim_again(means: Means, op: Operation, target: Rebuilder) -> None:
    """A claim on the servers themselves may have ended with the one that we have stopped: it is taken again.

    Between the two anybody might have had it: the host says whether somebody has. Raises LeaseLost when it is so.
    """
    try:
        means.claim.commit(f"{op.id}-restarted", Deadline.after(_CLAIM))
        return
    except (LeaseLost, TimedOut):
        pass
    try:
        means.claim.release()
        means.claim.acquire(f"rejoin {op.id}", Deadline.after(_CLAIM))
        target.still_ours(Deadline.after(_BRIEF))
    except (Busy, Refused, ScriptFailed) as error:
        raise LeaseLost(f"{target.name} was restarted, and its claim could not be had again: {error}") from error


def regain(means: Means, op: Operation, name: str, done: str = "has its data") -> str:
    """Has the lease, again if need be; returns whom ``name`` should follow now. Raises Unfinished, LeaseLost, Busy.

    ``done`` says what has been done at it so far.
    """
    still_claimed(means)
    try:
        op.lease.acquire(f"rejoin {op.id}", Deadline.after(_REGAIN))
        if op.lease.distributed:
            means.parts.site.end_others(Deadline.after(LOOK))
        means.settled()
        return find_primary(means, means.parts.site.look(Deadline.after(LOOK)), name)
    except Refused as error:
        raise Unfinished(f"{name} {done}, and cannot follow yet: {error}; type: proxyroute rejoin {name}") from error


def _state_at(before: Position, position: Position) -> Position:
    """What had been executed at ``position``, when ``before`` was read a moment earlier."""
    if not isinstance(before, MariaDBPosition):
        return position
    assert isinstance(position, MariaDBPosition)
    highest = {gtid.domain: gtid.sequence for gtid in position.entries}
    earlier = tuple(g for g in before.entries if g.sequence <= highest.get(g.domain, -1))
    return MariaDBPosition(earlier).merge(position)


class Progress:
    """Tells how much is done, how quickly, and how long it may take, every few seconds."""

    def __init__(self, op: Operation, total: int) -> None:
        self.done = 0
        self._op = op
        self._total = total
        self._started = self._told = time.monotonic()

    def __call__(self, done: int) -> None:
        self.done = done
        now = time.monotonic()
        if now - self._told < _TELL_EVERY:
            return
        self._told = now
        rate = done / (now - self._started)
        left = max(0, self._total - done) / rate if rate else 0.0
        self._op.note(f"{_size(done)} of about {_size(self._total)}, {_size(rate)}/s, about {left:.0f} s left")


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.2f} TB"
