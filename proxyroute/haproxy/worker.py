"""Access to a disk that may hang for ever: by a process of its own, never waited for longer than a deadline.

A thread would do to wait no longer. But one that sleeps in the kernel, because a FUSE file system does not answer,
cannot be killed, and its process then outlives SIGKILL with all it has open: locks, and the connections to the
servers. An engine that was killed would hold the primary frozen, and its guard would never learn of its death.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from typing import ClassVar, TypeVar, cast

from proxyroute import faults
from proxyroute.errors import DiskFailed, ShareError, TimedOut
from proxyroute.haproxy import frames
from proxyroute.model import Deadline

T = TypeVar("T")

_MOST_STUCK = 8
_REFUSED = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EEXIST}
)
"""What a disk says when it has not done what it was asked. After anything else nobody knows."""


class Worker:
    """Runs accesses to one disk. One that does not return is left behind; when many are, no more are begun."""

    def __init__(self, what: str) -> None:
        """``what`` names the disk in errors."""
        self._what = what
        self._stuck: set[Future[bytes]] = set()

    @property
    def stuck(self) -> int:
        """How many accesses have been given up and have still not returned."""
        self._stuck = {reply for reply in self._stuck if not reply.done()}
        return len(self._stuck)

    def start(self, deadline: Deadline) -> None:
        """Returns when the other process is up: its start is no slowness of the disk. Raises TimedOut."""
        self.call(os.getpid, deadline)

    def call(self, access: Callable[[], T], deadline: Deadline) -> T:
        """Returns what ``access`` returns, or raises what it raises; an OSError as ShareError or DiskFailed.

        It is done in another process: ``access`` and what comes back are pickled. Raises TimedOut when it has not come
        back by ``deadline``: then what it was to change is unknown.
        """
        deadline.require(self._what)
        if self.stuck >= _MOST_STUCK:
            raise TimedOut(f"{self._what} hangs: {self.stuck} accesses have not returned")
        reply = _Helper.of_this_process().begin(access)
        try:
            done, value = pickle.loads(reply.result(deadline.left))
        except Late:
            self._stuck.add(reply)
            raise TimedOut(f"{self._what} has not answered in time") from None
        except ConnectionError:
            raise TimedOut(f"{self._what}: the process that was to answer has ended") from None
        if done:
            return cast(T, value)
        if isinstance(value, OSError):
            kind = ShareError if value.errno in _REFUSED else DiskFailed
            raise kind(f"{value.filename or self._what}: {value.strerror or value}") from value
        raise value


class _Helper:
    """The other process. This one has one, however many disks there are."""

    _one: ClassVar[_Helper | None] = None
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        """Starts it; what it is told meanwhile it does as soon as it is up."""
        self._owner = os.getpid()
        self._channel, theirs = socket.socketpair()
        argv = [sys.executable, "-m", "proxyroute.haproxy.helper"]
        null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (1, 2)]
        with theirs:  # its output is not ours: whoever reads that to its end must not wait for the disk
            actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), *null]
            self._pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
        self._alone = threading.Lock()
        self._number = 0
        self._waiting: dict[int, Future[bytes]] = {}
        self._ended = False
        threading.Thread(target=self._receive, name="replies of the disk", daemon=True).start()

    @classmethod
    def of_this_process(cls) -> _Helper:
        """Returns the one that there is, or a new one if it has ended or belongs to the process we came from."""
        with cls._guard:
            if cls._one is None or cls._one._ended or cls._one._owner != os.getpid():
                cls._one = cls()
            return cls._one

    def begin(self, access: Callable[[], object]) -> Future[bytes]:
        """Has ``access`` made; returns what will be the reply, a ConnectionError when there will be none."""
        data = pickle.dumps((faults.role, access))
        reply: Future[bytes] = Future()
        with self._alone:
            self._number += 1
            self._waiting[self._number] = reply
            try:
                if self._ended:
                    raise BrokenPipeError
                frames.put(self._channel, self._number, data)
            except OSError:
                self._waiting.pop(self._number, None)
                reply.set_exception(ConnectionError())
        return reply

    def _receive(self) -> None:
        while (message := frames.get(self._channel)) is not None:
            with self._alone:
                reply = self._waiting.pop(message[0])
            reply.set_result(message[1])
        with self._alone:
            self._ended = True
            left, self._waiting = self._waiting, {}
            self._channel.close()
        for reply in left.values():
            reply.set_exception(ConnectionError())
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
