"""What is in the files of a dead server beyond those who live: kept, and applied to the one that takes its place.

A position of MariaDB knows the last transaction of each domain, and a replica has applied in that order; a position of
MySQL knows every single one. So what counts as had, and where a server must stand to go on, is decided by either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import cast

from proxyroute import room
from proxyroute.archive import Archive, begun, has, keep, making, ranges, read_file
from proxyroute.binlog import LogFile, Logged, together
from proxyroute.errors import Refused, ScriptFailed
from proxyroute.gtid import GTID, Containment, MariaDBPosition, MySQLPosition, Position
from proxyroute.model import Deadline
from proxyroute.ports_data import Heir, LogSource

_SHOWN = 3
_READING = 2 / 3
"""The part of the time in which files are read: to go through what was found takes half as long, at a stretch."""


# -- kept --


def save_left(
    source: LogSource,
    server_id: int,
    identity: int | str | None,
    stood: Position,
    now: Position,
    folder: Path,
    deadline: Deadline,
) -> Archive:
    """Keeps what is in the files of a dead server beyond a replica of it; returns the archive.

    The server has the id ``server_id``, and positions name it ``identity`` (``Status.identity``; None: nobody knows).
    The replica stood at ``stood`` when it followed nobody any more, and has had ``now`` since. One of MariaDB has
    applied in order, so that whatever is in the log before what it had last is there as well, if its own state knows it
    or not. When nothing is beyond, nothing is kept, and the archive has no transactions. Raises as
    :func:`proxyroute.archive.save` does, and Refused when the files are those of another server.
    """
    none, reading = stood.minus(stood), deadline.within(_READING * deadline.left)
    with making(source.name, folder) as aside:
        files: list[LogFile] = []
        logs = source.logs(deadline)
        for name in reversed(list(logs)):
            deadline.require(f"the binary log of {source.name}")
            room.require(folder, logs[name], f"{name} of {source.name}")
            files.insert(0, read_file(source.fetch_log(name, aside / "raw", deadline), reading))
            _require_its_own(files[0], source.name, server_id, stood.flavour)
            if not files[0].bare and stood.contains(files[0].before) is not Containment.NO:
                break
        start = begun(files, none)
        torn = next((n for n, f in enumerate(files) if f.cut), len(files))
        whole = files[: torn + 1]
        had = _had(whole, start, stood).merge(now)
        beyond = tuple(t for f in whole for t in f.transactions if not has(had, t))
        cut = files[torn].cut if torn < len(files) else ""
        if cut and torn < len(files) - 1:
            cut += f"; what is in {files[torn + 1].name} and after it is kept raw only"
        if lost := _lost_end(files, start, stood, identity):  # an old copy, or a disk that has lost its end
            cut += ("; " if cut else "") + f"it ends before {lost}, which was received from {source.name}"
        missing = _missing(start, stood)
        if not beyond:
            return Archive(folder, source.name, (), (), none, missing, had, {}, cut)
        return keep(aside, source, whole, beyond, missing, none, had, deadline, cut)


def _require_its_own(file: LogFile, name: str, server_id: int, flavour: str) -> None:
    if file.server_id != server_id and (file.server_id or not file.bare):
        text = f"{file.name} was written by the server with id {file.server_id}, and {name} has"
        raise Refused(f"{text} {server_id}; correct servers.{name}.host")
    if not file.bare and file.before.flavour != flavour:
        raise Refused(f"{file.name} was written by a server of another flavour; correct servers.{name}.host")


def _missing(start: Position, stood: Position) -> Position:
    """Returns what was logged before all files that are left, and is not at the replica."""
    if isinstance(start, MariaDBPosition):  # what its state does not know it may have all the same
        return MariaDBPosition(
            tuple(g for g in start.entries if stood.contains(MariaDBPosition((g,))) is Containment.NO)
        )
    return start.minus(stood)


def _lost_end(files: Sequence[LogFile], start: Position, stood: Position, identity: int | str | None) -> str:
    """Returns what the replica has received of the server's own that is after the end of its log, or nothing."""
    if identity is None:
        return ""
    own, logged = stood.by(identity), together((t for f in files for t in f.transactions), start)
    lacks = own.minus(logged)
    if isinstance(lacks, MySQLPosition):
        # one that has got its data anew has its earlier ones in no file
        last = {source: spans[-1][1] for source, spans in _mysql(logged.by(identity)).sets}
        after = ((s, tuple((max(a, last.get(s, 0) + 1), b) for a, b in spans)) for s, spans in lacks.sets)
        lacks = MySQLPosition(tuple((s, tuple((a, b) for a, b in spans if a <= b)) for s, spans in after))
    return "" if logged.contains(lacks) is not Containment.NO else str(lacks)


def _had(files: Sequence[LogFile], start: Position, stood: Position) -> Position:
    """Returns ``stood``; of MariaDB with all that is in ``files``, and before them, up to what it has last of each
    domain."""
    if not isinstance(stood, MariaDBPosition):
        return stood
    before, logged = _mariadb(start), _gtids(t for f in files for t in f.transactions)
    had = stood
    for last in stood.latest().entries:
        inside = [g for g in logged if g.domain == last.domain]
        if last in inside or last in before.entries:
            earlier = (*(g for g in before.entries if g.domain == last.domain), *inside[: _index(inside, last) + 1])
            had = had.merge(MariaDBPosition(earlier))
    return had


def _index(found: Sequence[GTID], wanted: GTID) -> int:
    return found.index(wanted) if wanted in found else -1


# -- applied --


def replay(archive: Archive, target: Heir, position: Callable[[], Position], deadline: Deadline) -> int:
    """Applies what ``archive`` keeps to ``target``, which must not replicate; returns how many transactions that were.

    ``position`` reads what the target has executed; what it has already is left out, so that this may be repeated.
    Raises Refused when the target does not stand where the archive begins, part of the history is missing (applied on
    top of something else these transactions would be others), or one is part of an XA transaction, which somebody
    would have to end; ScriptFailed when one fails. What is before that has been applied then.
    """
    executed = position()
    todo = [t for t in archive.transactions if not has(executed, t)]
    if not todo:
        return 0
    wrong = _elsewhere(archive, todo, executed)
    if not archive.missing.empty:
        wrong.append(f"lacks {archive.missing}")
    if wrong:
        text = f"{target.name} stands at {executed}, and what is kept in {archive.path}"
        raise Refused(f"{text} {' and '.join(wrong)}")
    plain = list(takewhile(lambda t: not t.xa, todo))
    for file, start, end in ranges(plain):
        deadline.require(f"{target.name} to apply {archive.path}")
        target.replay(archive.path / "raw" / file, start, end, deadline)
    reached = position() if plain else executed
    left = [t for t in plain if not has(reached, t)]
    if left:
        raise ScriptFailed(f"{target.name} still lacks {', '.join(str(t.gtid) for t in left[:_SHOWN])}")
    if len(plain) < len(todo):
        raise Refused(f"{todo[len(plain)].gtid} is part of an XA transaction, which somebody would have to end")
    return len(todo)


def _elsewhere(archive: Archive, todo: Sequence[Logged], executed: Position) -> list[str]:
    """Returns in words how a server that has ``executed`` does not stand where ``todo`` begins; none: it does."""
    left = {t.gtid for t in todo}
    done = together((t for t in archive.since if t.gtid not in left), archive.state)
    if isinstance(done, MariaDBPosition):
        domains = {gtid.domain for gtid in _gtids(todo)}
        stands, begins = (
            MariaDBPosition(tuple(g for g in _mariadb(p).entries if g.domain in domains)).latest()
            for p in (executed, done)
        )
        return [f"begins at {begins}"] if stands != begins else []
    lacks = done.minus(executed).minus(archive.missing)
    # what it had besides when it followed, another source's for one, was there when these would have come as well
    more = executed.minus(archive.known).minus(together(archive.transactions, done))
    return [f"begins {how} {p}" for how, p in (("after", lacks), ("before", more)) if not p.empty]


def _mariadb(position: Position) -> MariaDBPosition:
    assert isinstance(position, MariaDBPosition)
    return position


def _mysql(position: Position) -> MySQLPosition:
    assert isinstance(position, MySQLPosition)
    return position


def _gtids(transactions: Iterable[Logged]) -> tuple[GTID, ...]:
    found = tuple(t.gtid for t in transactions)
    assert all(isinstance(gtid, GTID) for gtid in found)
    return cast(tuple[GTID, ...], found)
