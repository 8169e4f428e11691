"""The two command sockets of HAProxy. What a command says is never proof: whoever changes something reads it back."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from proxyroute.errors import AdapterError, TimedOut
from proxyroute.faults import act
from proxyroute.model import Deadline

_READS = re.compile(r"(@!\d+ )?(show|get) [^;\n]*")
_CHUNK = 65536
_REBIND_PAUSE = 0.01
_REBIND_SECONDS = 1.0


class Runtime:
    """The runtime socket of the process that serves now.

    Each command connects anew (0.05 ms): a kept connection would go on talking to the old process after a reload.
    """

    def __init__(self, proxy: str, path: Path) -> None:
        self.proxy = proxy
        self.path = path

    def ask(self, command: str, deadline: Deadline) -> str:
        """Returns the answer to a ``show`` or ``get``. Raises AdapterError when there is none in time."""
        if not _READS.fullmatch(command):
            raise ValueError(f"ask() was given a command that may change something: {command}")
        try:
            return _exchange(self.proxy, self.path, command, deadline, f"set socket_user: {_us()}")
        except TimedOut as error:
            raise AdapterError(self.proxy, str(error)) from None

    def tell(self, command: str, deadline: Deadline) -> str:
        """Runs a command that changes something and returns its answer, usually an empty one.

        Raises AdapterError when it was not sent, TimedOut when it was and no answer came: the outcome is unknown.
        """
        with act("haproxy.runtime"):
            return _exchange(self.proxy, self.path, command, deadline, f"set socket_user: {_us()}")


@dataclass(frozen=True)
class Worker:
    """A process that serves, or served, clients."""

    pid: int
    old: bool
    """It has been replaced and ends when its last session does."""


@dataclass(frozen=True)
class Processes:
    """What the master says about its workers."""

    master: int
    workers: tuple[Worker, ...]
    reloads: int
    failed: int
    """Reloads since the last good one."""

    @property
    def current(self) -> tuple[int, ...]:
        return tuple(w.pid for w in self.workers if not w.old)

    @property
    def all(self) -> tuple[int, ...]:
        """The pids of everything, the master included."""
        return (self.master, *(w.pid for w in self.workers))

    @property
    def old(self) -> tuple[int, ...]:
        return tuple(w.pid for w in self.workers if w.old)


class Master:
    """The master socket: the processes, and the only way to those that have been replaced."""

    def __init__(self, proxy: str, path: Path) -> None:
        self._proxy = proxy
        self.path = path

    def processes(self, deadline: Deadline, patience: float = _REBIND_SECONDS) -> Processes:
        """Returns the workers. Raises AdapterError when the master does not answer within ``patience`` seconds."""
        return _parse_processes(self._proxy, self._ask("show proc", deadline, patience))

    def ask(self, pid: int, command: str, deadline: Deadline) -> str:
        """Returns the answer of worker ``pid`` to a ``show`` or ``get``. Raises AdapterError when there is none."""
        return self._ask(f"@!{pid} {command}", deadline)

    def tell(self, pid: int, command: str, deadline: Deadline) -> str:
        """Runs a changing command in worker ``pid``. Raises AdapterError or, when the outcome is unknown, TimedOut."""
        with act("haproxy.master"):
            return self._patiently(f"@!{pid} {command}", deadline, (_NotListeningError,))

    def reload(self, deadline: Deadline) -> str:
        """Asks for a reload and returns what was said about it: nothing up to HAProxy 2.6, the result from 3.0 on.

        Raises AdapterError when it was not sent, TimedOut when no answer came.
        """
        with act("haproxy.master"):
            return self._patiently("reload", deadline, (_NotListeningError,))

    def _ask(self, command: str, deadline: Deadline, patience: float = _REBIND_SECONDS) -> str:
        if not _READS.fullmatch(command):
            raise ValueError(f"ask() was given a command that may change something: {command}")
        try:
            return self._patiently(command, deadline, (_NotListeningError, _CutOffError), patience)
        except TimedOut as error:
            raise AdapterError(self._proxy, str(error)) from None

    def _patiently(
        self,
        command: str,
        deadline: Deadline,
        again: tuple[type[Exception], ...],
        patience: float = _REBIND_SECONDS,
    ) -> str:
        """During a reload the master starts itself anew: for some 60 ms it refuses, or cuts off whom it has let in."""
        until = deadline.within(patience)
        cure = f"start haproxy with -S {self.path},user,{_us()},mode,600 (Debian: EXTRAOPTS in /etc/default/haproxy)"
        while True:
            try:
                return _exchange(self._proxy, self.path, command, deadline, cure)
            except again:
                if until.passed:
                    raise
                time.sleep(_REBIND_PAUSE)


class _NotListeningError(AdapterError):
    """The socket is there and nobody listens: nothing was sent."""


class _CutOffError(TimedOut):
    """The connection ended without an answer."""


def _us() -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return str(os.geteuid())


def _exchange(proxy: str, path: Path, command: str, deadline: Deadline, cure: str) -> str:
    """Sends one command and returns the answer, read to its end. ``cure`` is for a socket that is not for us."""
    if deadline.passed:
        raise AdapterError(proxy, f"out of time before {path} was asked: {command}")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(max(0.001, deadline.left))
        try:
            client.connect(str(path))
            client.sendall(command.encode() + b"\n")
            client.shutdown(socket.SHUT_WR)  # the master socket waits for more without it
        except FileNotFoundError:
            raise AdapterError(proxy, f"there is no socket {path}: haproxy does not run, or is told another") from None
        except ConnectionRefusedError:
            raise _NotListeningError(proxy, f"nobody listens at {path}: haproxy does not run") from None
        except PermissionError:
            raise AdapterError(proxy, f"no permission to use {path}: run as its owner, or {cure}") from None
        except OSError as error:
            raise AdapterError(proxy, f"cannot reach haproxy at {path}: {error}") from None
        parts = []
        try:
            while part := client.recv(_CHUNK):
                parts.append(part)
                client.settimeout(max(0.001, deadline.left))
        except ConnectionResetError:
            raise _CutOffError(f"{proxy}: {path} ended the connection at {command!r}") from None
        except OSError as error:
            raise TimedOut(f"{proxy}: no answer from {path} to {command!r}: {error}") from None
    if not parts and _READS.fullmatch(command):
        raise _CutOffError(f"{proxy}: {path} ended the connection at {command!r}")
    return b"".join(parts).decode(errors="replace")


def _parse_processes(proxy: str, answer: str) -> Processes:
    workers: list[Worker] = []
    master = reloads = failed = 0
    old = False
    for line in answer.splitlines():
        old = line.startswith("# old") or (old and not line.startswith("#"))
        fields = line.split()
        if len(fields) < 3 or not fields[0].isdigit():
            continue
        if fields[1] == "worker":
            workers.append(Worker(int(fields[0]), old))
        elif fields[1] == "master":
            master, reloads = int(fields[0]), int(fields[2])
            found = re.search(r"\[failed: (\d+)\]", line)
            failed = int(found[1]) if found else 0
    if not any(line.startswith("#<PID>") for line in answer.splitlines()):
        raise AdapterError(proxy, f"this is not the master socket of haproxy: it answers {answer.strip()[:80]!r}")
    return Processes(master, tuple(workers), reloads, failed)
