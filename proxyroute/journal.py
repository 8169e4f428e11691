"""The journal: one append-only file of JSON lines per operation, a write-ahead log.

What an operation is about to do is on disk before it is done: an undo before the act it takes back, the commit record
before the first act that is not taken back. Each record is written by one ``write`` call and synced to disk. Records
that something depends on are waited for (``wait=True``); a progress record is in the kernel's hands when ``write``
returns, which survives our death, and is synced by a thread right afterwards, so that it costs the frozen cluster
nothing.

Format version 1. Every record has ``v`` (format version), ``n`` (1, 2, 3…), ``t`` (unix time) and ``kind``:

One file has one writer. Where a former writer may still be alive on another host (a distributed lease), whoever goes
on with its operation writes a *part* of its own beside the file, ``<operation>.<term>-<host>.jsonl``, which begins with
the number of the record after which it goes on. What the former writer appends after that record does not count, nor do
parts of those who have lost the lease: the part of the highest term is followed back to where it began, and so on.

``begin``     operation, kind of operation, cluster, epoch, plan, configuration snapshot, who and where
``step``      a step starts: ``name``
``stepped``   a step is over: ``name``, ``seconds``, ``detail``; ``error`` when it failed
``undo``      an act is about to happen and this takes it back: ``verb``, ``server``, ``arguments``
``keep``      a value a later heal needs: ``name``, ``value``
``commit``    the point of no return, with the frozen position
``opening``   the candidate is about to be told to take writes
``turned``    the candidate could not be opened: the way is back, under a new epoch
``back``      the routes go back to the old primary under a new epoch, for proxies may have seen ours
``leftover``  work that could not be done now and that heal picks up: ``verb``, ``server``, ``reason``
``part``      first in a part: ``file`` and record ``after`` which it goes on, ``term`` of the lease
``resumed``   another process goes on with this operation
``note``      something worth reading later: ``text``
``proof``     what was looked at afterwards, and the verdict
``end``       the operation is closed: ``outcome``
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from proxyroute import faults
from proxyroute.atomic import sync_folder
from proxyroute.errors import JournalError

FORMAT = 1
_TELLING = frozenset({"step", "stepped", "note", "leftover"})
_BALLAST = 64 * 1024
"""Bytes set aside on the journal's disk when an operation begins, so that one that has begun can be ended."""
_PART = re.compile(r"(.+?)\.(\d+)-[^/]+\.jsonl")
_written: set[Path] = set()
"""Files that this process has written and closed: nobody else writes them."""
Record = dict[str, Any]
Listener = Callable[[Record], None]


class Journal:
    """The journal of one operation, open for appending. Used by one thread at a time, but for the syncing one."""

    def __init__(self, path: Path, listener: Listener | None = None, *, term: int = 0) -> None:
        """Opens ``path``, created if need be; a torn last line, never a whole record, is cut off.

        With ``term``, that of a distributed lease, only what was begun in the same term is appended to: otherwise a new
        part is begun. Raises JournalError, naming the file, when it cannot be opened, or when there is a later part.
        """
        self._listener = listener
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.records, last = _chain(path) if path.exists() else ([], path)
            self.path, continued = last, False
            begun = _term(last, self.records)
            if term and begun > term:
                raise JournalError(
                    f"{last}: another engine has gone on with it under a later lease; nothing is written"
                )
            if self.records and term and begun != term:
                self.path = path.with_name(f"{path.stem}.{term}-{socket.gethostname()}.jsonl")
                continued = last == path or last not in _written
                if not continued:
                    os.rename(last, self.path)  # we wrote it, and go on in it: its name says since when it counts
            path = self.path
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._cut_torn_line()
            self._ballast = path.with_suffix(".ballast")
            if not self.records or continued:
                self._ballast.write_bytes(b"\0" * _BALLAST)
            sync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                path.with_suffix(".ballast").unlink()
            raise JournalError(f"{path}: {error.strerror}; the journal must be writable") from error
        self._unsynced = threading.Event()
        self._stop = False
        self._syncer = threading.Thread(target=self._sync_loop, name="journal-sync", daemon=True)
        self._syncer.start()
        if continued:
            self.write("part", file=last.name, after=self.records[-1]["n"], term=term)

    def _cut_torn_line(self) -> None:
        size = os.fstat(self._file).st_size
        whole = os.pread(self._file, size, 0).rfind(b"\n") + 1
        if whole != size:
            os.ftruncate(self._file, whole)

    def write(self, kind: str, *, wait: bool = True, **fields: Any) -> Record:
        """Appends a record and returns it. With ``wait`` it is on disk when this returns.

        Raises JournalError when it could not be written; then the file is as it was, unless it was the sync that
        failed: then the record may or may not be there. A record that only tells (``_TELLING``) is left out instead:
        a full disk must not keep anybody from undoing.
        """
        record: Record = {"v": FORMAT, "n": len(self.records) + 1, "t": time.time(), "kind": kind, **fields}
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        try:
            self._append(line)
        except OSError as error:
            if kind in _TELLING:
                return record
            raise JournalError(f"{self.path}: {error.strerror}; free space there") from error
        self.records.append(record)
        if wait:
            try:
                os.fsync(self._file)
            except OSError as error:
                raise JournalError(f"{self.path}: cannot sync: {error.strerror}") from error
        else:
            self._unsynced.set()
        faults.recorded()
        if self._listener is not None:
            self._listener({**record, "operation": self.path.stem})
        return record

    def _append(self, line: bytes) -> None:
        """Writes ``line`` whole or not at all. On a full disk the ballast goes first."""
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written == len(line):
                return
            error = OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes fitted")
        except OSError as raised:
            error = raised
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, size)
        if not self._ballast.exists():
            raise error
        self._ballast.unlink(missing_ok=True)
        self._append(line)

    def _sync_loop(self) -> None:
        while True:
            self._unsynced.wait()
            self._unsynced.clear()
            if self._stop:
                return
            with contextlib.suppress(OSError):  # the next waited-for record reports it
                os.fsync(self._file)

    def close(self) -> None:
        """Syncs and closes the file."""
        if self._stop:
            return
        self._stop = True
        self._unsynced.set()
        self._syncer.join(timeout=5.0)
        with contextlib.suppress(OSError):
            os.fsync(self._file)
            self._ballast.unlink(missing_ok=True)
        os.close(self._file)
        _written.add(self.path)


def read(path: Path) -> list[Record]:
    """Returns the records of a journal, with those of its parts that count; a torn last line is left out.

    Raises JournalError when a file cannot be read, a line in the middle is damaged, or the format is a newer one.
    """
    try:
        return _chain(path)[0]
    except FileNotFoundError as error:
        raise JournalError(f"{error.filename}: {error.strerror}") from error


def last_term(path: Path) -> int:
    """Returns the term of the lease under which a journal was gone on with last; 0 for a lease of one host."""
    records, last = _chain(path)
    return _term(last, records)


def _chain(path: Path) -> tuple[list[Record], Path]:
    """Returns the records that count, and the file that holds the last of them."""
    records: list[Record] = []
    file = path
    for part in sorted(_parts(path), key=_term, reverse=True):
        try:
            records, file = _lines(part), part
        except FileNotFoundError:  # renamed at this moment, by the one who goes on in it
            return _chain(path)
        if records:
            break
    if not records:
        return _lines(path), path
    last = file
    while file != path:
        begin = records[0]
        if begin["kind"] != "part":
            raise JournalError(f"{file} does not begin as a part of a journal; restore it from a copy")
        file, after = path.with_name(str(begin["file"])), int(begin["after"])
        earlier = _lines(file, until=after)
        if not earlier or earlier[-1]["n"] != after:
            raise JournalError(f"{file} ends before record {after}, after which another part goes on; restore it")
        records = earlier + records
    return records, last


def _lines(path: Path, until: int | None = None) -> list[Record]:
    """Returns the records of one file, no further than number ``until``. Raises FileNotFoundError, JournalError."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    records: list[Record] = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is empty or torn
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or "kind" not in record:
                raise ValueError("it has no kind")
        except ValueError as error:
            raise JournalError(f"{path}, line {number}: not a record ({error}); restore it from a copy") from error
        if record.get("v") != FORMAT:
            raise JournalError(
                f"{path}, line {number}: format {record.get('v')}, and this version reads {FORMAT}; "
                "use the version that wrote it"
            )
        records.append(record)
        if until is not None and record["n"] == until:
            break
    return records


def _parts(path: Path) -> list[Path]:
    """Returns the parts beside ``path``, whether they count or not. Raises JournalError."""
    found = ((file, _PART.fullmatch(file.name)) for file in _files(path.parent))
    return [file for file, part in found if part is not None and part[1] == path.stem]


def _term(file: Path, records: Sequence[Record] = ()) -> int:
    """Returns the term in which a file was begun: a part says it in its name, the first file in its first record."""
    found = _PART.fullmatch(file.name)
    if found:
        return int(found[2])
    return int(records[0].get("term", 0)) if records else 0


def first(records: list[Record], kind: str) -> Record | None:
    """Returns the first record of ``kind``, or None."""
    return next((r for r in records if r["kind"] == kind), None)


def outcome(records: list[Record]) -> str | None:
    """Returns how the operation ended, or None while it is open."""
    end = next((r for r in reversed(records) if r["kind"] == "end"), None)
    return None if end is None else str(end["outcome"])


def journals(folder: Path) -> list[Path]:
    """Returns all journals in ``folder`` without their parts, oldest first (their names begin with the time).

    Raises JournalError when the folder cannot be read.
    """
    return [file for file in _files(folder) if not _PART.fullmatch(file.name)]


def _files(folder: Path) -> list[Path]:
    """Returns all files of journals in ``folder``, by name; none while there is no folder. Raises JournalError."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:  # a glob would say that there are none
        raise unreadable(folder, error) from error
    return sorted(folder / name for name in names if name.endswith(".jsonl"))


def unreadable(path: Path, error: OSError) -> JournalError:
    """Returns what is to be raised because ``path`` cannot be read, with what to do about it."""
    may_not = isinstance(error, PermissionError)
    cure = "give it to the user of proxyroute serve, and type this as that one" if may_not else "it must be readable"
    return JournalError(f"{path}: {error.strerror}; {cure}")


def stamps(folder: Path) -> dict[Path, tuple[tuple[str, int, int], ...]]:
    """Returns each journal with what changes whenever it, a part of it, or who may read them does.

    Raises JournalError when the disk does not tell.
    """
    found: dict[str, list[tuple[str, int, int]]] = {}
    for file in _files(folder):
        part = _PART.fullmatch(file.name)
        with contextlib.suppress(FileNotFoundError):
            try:
                stat = file.stat()
            except FileNotFoundError:
                raise
            except OSError as error:
                raise unreadable(file, error) from error
            name = f"{part[1]}.jsonl" if part else file.name
            found.setdefault(name, []).append((file.name, stat.st_ctime_ns, stat.st_size))
    return {folder / name: tuple(found[name]) for name in sorted(found) if any(f == name for f, _, _ in found[name])}
