"""What one server has executed and another lacks, kept: the raw files of its binary log, and their text for people.

An archive is a folder that appears whole or not at all: ``raw/`` holds the files as the server wrote them,
``decoded.sql`` exactly the transactions in question, ``summary.json`` what is in them; for MySQL ``empty.sql`` the
empty transactions that could stand for them. Nothing is changed before it is
on disk.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from proxyroute import room
from proxyroute.binlog import LogFile, Logged, MySQLGTID, Table, empty_statements, read_log, together
from proxyroute.errors import ScriptFailed
from proxyroute.faults import act
from proxyroute.gtid import Containment, Position
from proxyroute.model import Deadline
from proxyroute.ports_data import LogSource

_ROW = re.compile(rb"^### (INSERT INTO|UPDATE|DELETE FROM) `((?:[^`]|``)+)`\.`((?:[^`]|``)+)`", re.MULTILINE)
_VERBS = {b"INSERT INTO": "inserted", b"UPDATE": "updated", b"DELETE FROM": "deleted"}
_SHOWN = 3
_LONGEST = 1 << 20
"""Bytes of a line that may still name a table: no names are that long."""
EMPTY = "empty.sql"
"""The file of an archive with the empty transactions that stand for those in it (MySQL)."""
_making: set[Path] = set()
"""Folders in which this process makes archives."""


@dataclass(frozen=True)
class Archive:
    """An archive on disk, and what its transactions did."""

    path: Path
    server: str
    transactions: tuple[Logged, ...]
    """Those that the other lacks, in the order of the log."""
    since: tuple[Logged, ...]
    """Everything the server has logged from the first of them on."""
    state: Position
    """What the server had executed before the first of them; the other has all of it."""
    missing: Position
    """What should be there as well, and is in no file any more: nobody can tell what it did. Empty: all is here."""
    known: Position
    """What the other had when this was made."""
    rows: Mapping[str, Mapping[str, int]]
    """By table: how many rows were inserted, updated, deleted."""
    cut: str = ""
    """Where the log stops telling, in words: cut off as the server died, or damaged, with nobody knows what behind."""

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


def save(source: LogSource, executed: Position, known: Position, folder: Path, deadline: Deadline) -> Archive:
    """Keeps everything ``source`` has in its binary log that is not in ``known``; returns the archive.

    ``executed`` is what it says to have executed. Raises ProxyRouteError or OSError when that could not be done, NoRoom
    where a disk is too small or becomes full; then nothing is left behind that looks like an archive.
    """
    with making(source.name, folder) as aside:
        files, missing = _fetch(source, executed, known, aside / "raw", deadline)
        errant = tuple(t for f in files for t in f.transactions if not has(known, t))
        return keep(aside, source, files, errant, missing, executed, known, deadline, _hole(files, executed))


@contextmanager
def making(server: str, folder: Path) -> Iterator[Path]:
    """A folder for an archive in the making. What is there when the block is left is no archive, and is removed.

    Raises NoRoom for what goes wrong in the block because the disk became full.
    """
    aside = folder / f".making-{server}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"
    try:
        with room.told_apart(folder):
            for old in _given_up(server, folder):
                shutil.rmtree(old, ignore_errors=True)
            _making.add(aside)
            (aside / "raw").mkdir(parents=True, mode=0o700)
            yield aside
    finally:
        _making.discard(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _given_up(server: str, folder: Path) -> Iterator[Path]:
    """Yields what somebody who is there no more has begun for ``server``, and not for another whose name begins so.

    In a container each process may have the number of the one before it: what has ours and is not ours was its own.
    """
    made = re.compile(rf"\.making-{re.escape(server)}-\d{{8}}T\d{{6}}-(\d+)")
    for path in folder.glob(f".making-{server}-*"):
        found = made.fullmatch(path.name)
        mine = found is not None and int(found[1]) == os.getpid()
        if found is not None and path not in _making and (mine or not Path("/proc", found[1]).exists()):
            yield path


def keep(
    aside: Path,
    source: LogSource,
    files: Sequence[LogFile],
    errant: tuple[Logged, ...],
    missing: Position,
    executed: Position,
    known: Position,
    deadline: Deadline,
    cut: str = "",
) -> Archive:
    """Makes an archive of what was fetched into ``aside``, and puts it into place; returns it.

    One that says the same as an earlier one is that one. ``errant`` is what the other, who has ``known``, lacks of what
    is in ``files``. Raises ScriptFailed when the text cannot be made.
    """
    folder, name = aside.parent, aside.name.removeprefix(".making-")
    again = sum(1 for _ in folder.glob(f"{name}*"))  # another one, made in the same second
    name += f"-{again}" if again else ""
    since, state = _since(files, errant, executed.minus(executed))
    rows = _decode(source, errant, aside, deadline)
    errant = tuple(_unpacked(source, t, aside / "raw", deadline) if t.packed else t for t in errant)
    since = tuple(_named(errant, t) for t in since)
    _write_empty(errant, aside)
    archive = Archive(folder / name, source.name, errant, since, state, missing, known, rows, cut)
    (aside / "summary.json").write_text(json.dumps(_summary(archive, executed), indent=1, ensure_ascii=False))
    twin = _twin(aside, folder, source.name)
    if twin is not None:  # asked again, and nothing has happened since
        return replace(archive, path=twin)
    _sync(aside)
    with act("archive.write"):
        aside.rename(folder / name)
    _sync_one(folder)
    return archive


def _twin(aside: Path, folder: Path, server: str) -> Path | None:
    """Returns an archive of ``server`` that says the same as the one that is being made."""
    mine = (aside / "summary.json").read_bytes()
    for other in sorted(folder.glob(f"{server}-*/summary.json")):
        if other.read_bytes() == mine:
            return other.parent
    return None


def _fetch(
    source: LogSource, executed: Position, known: Position, raw: Path, deadline: Deadline
) -> tuple[list[LogFile], Position]:
    """Copies files, the latest first, until one began where the other has everything; returns them, oldest first."""
    files: list[LogFile] = []
    logs = source.logs(deadline)
    for name in reversed(list(logs)):
        deadline.require(f"the binary log of {source.name}")
        room.require(raw, logs[name], f"{name} of {source.name}")
        path = source.fetch_log(name, raw, deadline)
        files.insert(0, read_file(path, deadline))
        if not files[0].bare and known.contains(files[0].before) is Containment.YES:
            break
    none = known.minus(known)
    seen = together((t for f in files for t in f.transactions), none)
    unread = executed.minus(known).minus(seen)
    return files, begun(files, none).minus(known).merge(unread)


def _hole(files: Sequence[LogFile], executed: Position) -> str:
    """Returns behind what nobody can tell what was logged, in words; empty: the log tells all up to ``executed``.

    A file that a crash has cut off is whole when the next one says that it began with no more than what was read; so is
    one of which nothing is there.
    """
    read = executed.minus(executed)
    for n, file in enumerate(files):
        after = next((f.before for f in files[n + 1 :] if not f.bare), executed)
        if not file.bare:
            read = together(file.transactions, file.before)
        if file.cut and (after.empty or read.contains(after) is not Containment.YES):
            return file.cut
    return ""


def begun(files: Sequence[LogFile], none: Position) -> Position:
    """Returns what the server had when the first of ``files`` was begun, as far as they tell; else ``none``."""
    return next((f.before for f in files if not f.bare), none)


def read_file(path: Path, deadline: Deadline) -> LogFile:
    """Returns what is in a copied file. Raises ScriptFailed when nobody can tell, TimedOut."""
    try:
        return read_log(path, deadline)
    except ValueError as error:
        raise ScriptFailed(str(error).removeprefix(f"{path.parent}/")) from error
    except (IndexError, struct.error) as error:  # an event without a checksum, of which a part is not what it was
        raise ScriptFailed(f"{path.name} is damaged: {error}") from error


def has(known: Position, transaction: Logged) -> bool:
    """Tells whether ``transaction`` is in ``known``."""
    return known.contains(transaction.position) is Containment.YES


def _since(files: Sequence[LogFile], errant: Sequence[Logged], none: Position) -> tuple[tuple[Logged, ...], Position]:
    if not errant:
        return (), none
    logged = [t for f in files for t in f.transactions]
    at = logged.index(errant[0])
    start = next(f.before for f in files if f.name == errant[0].file)
    return tuple(logged[at:]), together((t for t in logged[:at] if t.file == errant[0].file), start)


def _decode(source: LogSource, errant: Sequence[Logged], folder: Path, deadline: Deadline) -> dict[str, dict[str, int]]:
    """Writes the text, and returns how many rows were changed, as :class:`Archive` does. Never all of it in memory."""
    rows: dict[str, Counter[str]] = {}
    with (folder / "decoded.sql").open("wb") as text:
        for file, start, end in ranges(errant):
            text.write(f"-- {file}, from {start} to {end}\n".encode())
            left = b""

            def take(part: bytes) -> None:
                nonlocal left
                text.write(part)
                whole, newline, rest = (left + part).rpartition(b"\n")
                _count(rows, whole + newline)
                left = rest if len(rest) < _LONGEST else b"-"  # the values of a row, in one long line

            source.decode(folder / "raw" / file, start, end, take, deadline)
            _count(rows, left)
    return {table: dict(verbs) for table, verbs in rows.items()}


def _count(rows: dict[str, Counter[str]], text: bytes) -> None:
    for verb, schema, table in _ROW.findall(text):
        rows.setdefault(f"{_name(schema)}.{_name(table)}", Counter())[_VERBS[verb]] += 1


def _unpacked(source: LogSource, transaction: Logged, folder: Path, deadline: Deadline) -> Logged:
    """Returns a compressed transaction with its tables, and whether all of it are rows, from its text."""
    found, left = set[Table](), b""

    def take(part: bytes) -> None:
        nonlocal left
        whole, newline, rest = (left + part).rpartition(b"\n")
        found.update(Table(_name(schema), _name(table)) for _, schema, table in _ROW.findall(whole + newline))
        left = rest if len(rest) < _LONGEST else b"-"

    source.decode(folder / transaction.file, transaction.start, transaction.end, take, deadline)
    # what was typed stands beside rows as comments; other statements stand alone
    return replace(transaction, tables=tuple(sorted(found)), rows_only=bool(found))


def _named(errant: Sequence[Logged], transaction: Logged) -> Logged:
    return next((t for t in errant if t.gtid == transaction.gtid), transaction) if transaction.packed else transaction


def _name(quoted: bytes) -> str:
    return quoted.replace(b"``", b"`").decode("utf-8", "replace")


def _write_empty(errant: Sequence[Logged], folder: Path) -> None:
    """For MySQL: the statements by which a server counts these transactions as done, without what they did."""
    gtids = [t.gtid for t in errant if isinstance(t.gtid, MySQLGTID)]
    if gtids:
        (folder / EMPTY).write_text("".join(f"{statement};\n" for statement in empty_statements(gtids)))


def ranges(transactions: Sequence[Logged]) -> Iterator[tuple[str, int, int]]:
    """Yields the stretches of the files in which nothing but ``transactions`` is: file, first byte, one after it."""
    for file, inside in groupby(transactions, key=lambda t: t.file):
        start = end = -1
        for transaction in inside:
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
        "cut": archive.cut,
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
