"""What one server has executed and another lacks, kept: the raw files of its binary log, and their text for people.

An archive is a folder that appears whole or not at all: ``raw/`` holds the files as the server wrote them,
``decoded.sql`` exactly the transactions in question, ``summary.json`` what is in them. Nothing is changed before it is
on disk.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from proxyroute.binlog import LogFile, Logged, Table, read_log
from proxyroute.errors import ProxyRouteError, Refused, ScriptFailed
from proxyroute.faults import act
from proxyroute.gtid import Containment, MariaDBPosition, Position
from proxyroute.model import Deadline
from proxyroute.ports import Rebuilder

_ROW = re.compile(rb"^### (INSERT INTO|UPDATE|DELETE FROM) `((?:[^`]|``)+)`\.`((?:[^`]|``)+)`", re.MULTILINE)
_VERBS = {b"INSERT INTO": "inserted", b"UPDATE": "updated", b"DELETE FROM": "deleted"}
_SHOWN = 3


@dataclass(frozen=True)
class Archive:
    """An archive on disk, and what its transactions did."""

    path: Path
    server: str
    transactions: tuple[Logged, ...]
    """Those that the other lacks, in the order of the log."""
    since: tuple[Logged, ...]
    """Everything the server has logged from the first of them on."""
    state: MariaDBPosition
    """What the server had executed before the first of them; the other has all of it."""
    missing: MariaDBPosition
    """What should be there as well, and is in no file any more: nobody can tell what it did. Empty: all is here."""
    rows: Mapping[str, Mapping[str, int]]
    """By table: how many rows were inserted, updated, deleted."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The raw files from the first of the transactions on."""
        return tuple(self.path / "raw" / name for name in dict.fromkeys(t.file for t in self.since))

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table with rows that were changed since the first of the transactions."""
        return tuple(sorted({table for t in self.since for table in t.tables}))

    def __str__(self) -> str:
        """What happened, in one line."""
        if not self.transactions:
            return "no transaction could be read"
        first, last = (_clock(self.transactions[n].time) for n in (0, -1))
        did = [
            f"{table}: " + ", ".join(f"{count} {verb}" for verb, count in verbs.items())
            for table, verbs in sorted(self.rows.items())
        ]
        others = sum(1 for t in self.transactions if not t.rows_only)
        did += [f"{others} that are not rows"] if others else []
        more = [f"and {len(did) - _SHOWN} more"] if len(did) > _SHOWN else []
        number = len(self.transactions)
        many = f"{number} transaction{'' if number == 1 else 's'}"
        return f"{many} from {first} to {last} ({'; '.join([*did[:_SHOWN], *more])})"


def save(source: Rebuilder, executed: Position, known: Position, folder: Path, deadline: Deadline) -> Archive:
    """Keeps everything ``source`` has in its binary log that is not in ``known``; returns the archive.

    ``executed`` is what it says to have executed. Raises ProxyRouteError or OSError when that could not be done; then
    nothing is left behind that looks like an archive.
    """
    if not isinstance(executed, MariaDBPosition) or not isinstance(known, MariaDBPosition):
        raise ProxyRouteError("only binary logs of MariaDB can be kept")
    name = f"{source.name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"
    making = folder / f".making-{name}"
    try:
        for old in folder.glob(f".making-{source.name}-*"):
            shutil.rmtree(old, ignore_errors=True)
        (making / "raw").mkdir(parents=True, mode=0o700)
        files, missing = _fetch(source, executed, known, making / "raw", deadline)
        errant = tuple(t for f in files for t in f.transactions if not _has(known, t))
        since, state = _since(files, errant)
        rows = _decode(source, errant, making, deadline)
        archive = Archive(folder / name, source.name, errant, since, state, missing, rows)
        (making / "summary.json").write_text(json.dumps(_summary(archive, executed), indent=1, ensure_ascii=False))
        twin = _twin(making, folder, source.name)
        if twin is not None:  # asked again, and nothing has happened since
            shutil.rmtree(making)
            return replace(archive, path=twin)
        _sync(making)
        with act("archive.write"):
            making.rename(folder / name)
        _sync_one(folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return archive


def replay(archive: Archive, target: Rebuilder, position: Callable[[], Position], deadline: Deadline) -> int:
    """Applies what ``archive`` keeps to ``target``, which must not replicate; returns how many transactions that were.

    ``position`` reads what the target has executed; what it has already is left out, so that this may be repeated.
    Raises Refused when the target does not stand where the archive begins, or part of the history is missing:
    applied on top of something else these transactions would be others.
    """
    executed = _mariadb(position())
    todo = [t for t in archive.since if not _has(executed, t)]
    if not todo:
        return 0
    done = archive.state.merge(MariaDBPosition(tuple(t.gtid for t in archive.since if _has(executed, t))))
    if not archive.missing.empty or executed.latest() != done.latest():
        raise Refused(
            f"{target.name} stands at {executed}, and what is kept in {archive.path} begins at {done.latest()}"
            + (f" and lacks {archive.missing}" if not archive.missing.empty else "")
        )
    names = [path.name for path in archive.files]
    target.replay(archive.files[names.index(todo[0].file) :], todo[0].start, deadline)
    left = [t.gtid for t in todo if not _has(_mariadb(position()), t)]
    if left:
        raise ScriptFailed(f"{target.name} still lacks {', '.join(map(str, left[:_SHOWN]))}")
    return len(todo)


def _mariadb(position: Position) -> MariaDBPosition:
    assert isinstance(position, MariaDBPosition)
    return position


def _twin(making: Path, folder: Path, server: str) -> Path | None:
    """Returns an archive of ``server`` that says the same as the one that is being made."""
    mine = (making / "summary.json").read_bytes()
    for other in sorted(folder.glob(f"{server}-*/summary.json")):
        if other.read_bytes() == mine:
            return other.parent
    return None


def _fetch(
    source: Rebuilder, executed: MariaDBPosition, known: MariaDBPosition, raw: Path, deadline: Deadline
) -> tuple[list[LogFile], MariaDBPosition]:
    """Copies files, the latest first, until one began where the other has everything; returns them, oldest first."""
    files: list[LogFile] = []
    for name in reversed(source.logs(deadline)):
        deadline.require(f"the binary log of {source.name}")
        path = source.fetch_log(name, raw, deadline)
        try:
            files.insert(0, read_log(path))
        except ValueError as error:
            raise ScriptFailed(str(error)) from error
        if known.contains(files[0].before) is Containment.YES:
            break
    seen = MariaDBPosition(tuple(t.gtid for f in files for t in f.transactions))
    start = files[0].before if files else MariaDBPosition()
    unread = executed.minus(known).minus(seen)
    return files, start.minus(known).merge(unread)


def _has(known: MariaDBPosition, transaction: Logged) -> bool:
    return known.contains(MariaDBPosition((transaction.gtid,))) is Containment.YES


def _since(files: Sequence[LogFile], errant: Sequence[Logged]) -> tuple[tuple[Logged, ...], MariaDBPosition]:
    if not errant:
        return (), MariaDBPosition()
    logged = [t for f in files for t in f.transactions]
    at = logged.index(errant[0])
    begun = next(f.before for f in files if f.name == errant[0].file)
    earlier = MariaDBPosition(tuple(t.gtid for t in logged[:at] if t.file == errant[0].file))
    return tuple(logged[at:]), begun.merge(earlier)


def _decode(source: Rebuilder, errant: Sequence[Logged], folder: Path, deadline: Deadline) -> dict[str, dict[str, int]]:
    rows: dict[str, Counter[str]] = {}
    with (folder / "decoded.sql").open("wb") as text:
        for file, start, end in _ranges(errant):
            parts = b"".join(source.decode(folder / "raw" / file, start, end, deadline))
            text.write(f"-- {file}, from {start} to {end}\n".encode() + parts)
            for verb, schema, table in _ROW.findall(parts):
                name = ".".join(part.replace(b"``", b"`").decode("utf-8", "replace") for part in (schema, table))
                rows.setdefault(name, Counter())[_VERBS[verb]] += 1
    return {table: dict(verbs) for table, verbs in rows.items()}


def _ranges(errant: Sequence[Logged]) -> Iterator[tuple[str, int, int]]:
    """Yields the stretches of the files in which nothing but ``errant`` is."""
    for file, transactions in groupby(errant, key=lambda t: t.file):
        start = end = -1
        for transaction in transactions:
            if transaction.start != end:
                if start >= 0:
                    yield file, start, end
                start = transaction.start
            end = transaction.end
        yield file, start, end


def _summary(archive: Archive, executed: Position) -> dict[str, Any]:
    return {
        "server": archive.server,
        "executed": str(executed),
        "before": str(archive.state),
        "missing": str(archive.missing),
        "rows": archive.rows,
        "told": str(archive),
        "transactions": [
            {
                "gtid": str(t.gtid),
                "time": _clock(t.time),
                "file": t.file,
                "start": t.start,
                "end": t.end,
                "tables": [str(table) for table in t.tables],
                "statements": list(t.statements),
            }
            for t in archive.transactions
        ],
    }


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _sync(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _sync_one(path)
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
