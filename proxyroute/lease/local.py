"""A lease for engines that share one state folder: a file lock, a counter of terms, claimed epochs as folders.

The kernel releases the lock when its holder dies, however it dies, so a dead holder never blocks anybody. Two hosts
with two state folders do not see each other: that is what the distributed leases are for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from proxyroute.errors import Busy, JournalError, LeaseLost
from proxyroute.lease.claims import Claims
from proxyroute.model import Deadline, Epoch, Finding, Holding


class LocalLease:
    """One operation per cluster at a time, across the processes that use ``folder``."""

    distributed = False
    automatic = False

    def __init__(self, folder: Path, name: str = "lease.lock") -> None:
        """``name`` is that of the lock file in ``folder``."""
        self._folder = folder
        self._lock = folder / name
        self._claims = Claims(folder / "epochs")
        self._file: int | None = None
        self._term = 0

    @property
    def term(self) -> int:
        return self._term if self._file is not None else 0

    def acquire(self, purpose: str, deadline: Deadline) -> int:
        """Returns the new term. Raises Busy, naming the holder, when it is not free by ``deadline``."""
        if self._file is not None:
            return self._term
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"{self._folder}: {error.strerror}; state_dir must be writable") from error
        try:
            while not _try_lock(file):
                if deadline.passed:
                    raise Busy(f"the cluster is busy: {_holder(file)}; wait for it, or see 'proxyroute status'")
                time.sleep(min(0.02, deadline.left))
            self._term = max(_number(file), self.highest().term) + 1
            text = {"term": self._term, "holder": f"{socket.gethostname()}:{os.getpid()}", "purpose": purpose}
            os.pwrite(file, json.dumps(text).encode().ljust(512), 0)
            os.fsync(file)
        except OSError as error:
            os.close(file)
            raise JournalError(f"{self._folder}: {error.strerror}; state_dir must be writable") from error
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return self._term

    def check(self) -> None:
        """Raises LeaseLost when the lock file is not the one we hold any more."""
        if self._file is None:
            raise LeaseLost("the lease is not held")
        with contextlib.suppress(OSError):
            mine = os.fstat(self._file)
            now = self._lock.stat()
            if (mine.st_dev, mine.st_ino) == (now.st_dev, now.st_ino):
                return
        raise LeaseLost(f"{self._lock} was replaced or removed while it was held")

    def lost(self, deadline: Deadline) -> bool:
        """Never: a file that was replaced is a person's doing, and what has begun is still for us to undo."""
        return False

    def commit(self, decision: str, deadline: Deadline) -> None:
        """Only looks: the kernel gives the lock to nobody else while we live."""
        self.check()

    def claim(self, above: Epoch, operation: str) -> Epoch:
        """Returns a fresh epoch of this term for ``operation``, higher than ``above`` and every claimed one."""
        self.check()
        epoch = self._claims.claim(self._term, above, operation)
        self._term = epoch.term
        return epoch

    def highest(self, besides: str = "") -> Epoch:
        """Returns the highest epoch claimed here; with ``besides`` only those that other operations own."""
        return self._claims.highest(besides)

    def ticket(self) -> str:
        """Nothing: whoever goes on can take the lock as soon as we are dead."""
        return ""

    def adopt(self, ticket: str) -> bool:
        return False

    def holding(self, deadline: Deadline) -> Holding:
        """Returns who holds it, by trying to take the lock for a moment."""
        try:
            file = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return Holding("local")
        try:
            if self._file is None and _try_lock(file):
                return Holding("local")
            text = _text(file)
            return Holding("local", str(text.get("holder", "")), str(text.get("purpose", "")))
        finally:
            os.close(file)

    def hands_off(self) -> str:
        return ""

    def findings(self, deadline: Deadline) -> Sequence[Finding]:
        return ()

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _text(file: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(file, 512, 0) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(file: int) -> int:
    term = _text(file).get("term", 0)
    return term if isinstance(term, int) else 0


def _holder(file: int) -> str:
    text = _text(file)
    return f"{text.get('purpose', 'an operation')} by {text.get('holder', 'another process')}"
