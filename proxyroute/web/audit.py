"""The audit: every action, who asked for it, from where, what and why; one JSON line each, on disk before the act."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from proxyroute.atomic import sync_folder
from proxyroute.errors import JournalError

_LONGEST = 16 * 1024 * 1024
"""How many bytes from the end are read at most for those who look at it."""
_BLOCK = 64 * 1024


@dataclass(frozen=True)
class Actor:
    """Whoever asks over HTTP."""

    name: str
    """The name of his token."""
    address: str
    """From where."""
    scope: str = "read"
    how: str = "token"
    """``token`` or ``session``."""

    def __str__(self) -> str:
        return f"{self.name} from {self.address}"


@dataclass(frozen=True)
class Entry:
    """One line of the audit."""

    at: float
    """Unix time."""
    who: str
    address: str
    what: str
    """E.g. ``switchover``, ``switchover.ended``, ``switchover.refused`` (before it had begun), ``login``,
    ``login.failed``, ``reload``."""
    cluster: str = ""
    why: str = ""
    operation: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


class Audit:
    """The file of the audit. Any thread may write."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def write(
        self, actor: Actor, what: str, *, cluster: str = "", why: str = "", operation: str = "", **details: Any
    ) -> Entry:
        """Appends a line; it is on disk when this returns. Raises JournalError: what is not on record is not done."""
        entry = Entry(time.time(), actor.name, actor.address, what, cluster, why, operation, details)
        line = json.dumps(vars(entry), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            try:
                self._append(line)
            except OSError as error:
                raise JournalError(f"{self._file}: {error.strerror}; the audit must be writable") from error
        return entry

    def _append(self, line: bytes) -> None:
        """Puts ``line`` on disk whole, or not at all. Raises OSError.

        What a crash has torn ends without its line end; what comes next must not become part of it.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line
            try:
                if os.write(handle, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, size)  # what is refused must not be on record as done
                raise
        finally:
            os.close(handle)
        if not size:
            sync_folder(self._file.parent)

    def last(self, limit: int = 200, cluster: str | None = None, before: float | None = None) -> tuple[Entry, ...]:
        """Returns the latest entries, the latest first; of one cluster if it is named, older than the Unix time
        ``before`` if there is one."""
        wanted = (
            e
            for e in self.backwards()
            if (cluster is None or e.cluster == cluster) and (before is None or e.at < before)
        )
        return tuple(itertools.islice(wanted, limit))

    def backwards(self, longest: int = _LONGEST) -> Iterator[Entry]:
        """Yields the entries within the last ``longest`` bytes, the latest first; no more is read than is taken."""
        with contextlib.suppress(OSError), self._file.open("rb") as file:
            for line in _backwards(file, longest):
                with contextlib.suppress(ValueError, TypeError):  # torn, or written by another version
                    yield Entry(**json.loads(line))


def _backwards(file: BinaryIO, longest: int) -> Iterator[bytes]:
    """Yields the lines that are whole within the last ``longest`` bytes, the last first. Raises OSError."""
    at = file.seek(0, os.SEEK_END)
    first = max(0, at - longest)
    rest = b""
    while at > first:
        start = max(first, at - _BLOCK)
        file.seek(start)
        rest, *lines = (file.read(at - start) + rest).split(b"\n")
        yield from reversed(lines)
        at = start
    if first == 0:
        yield rest
