"""Network namespaces of ours: made, entered, and ended with everything that runs in them.

A name begins with a mark that tells whose it is: ``proxyroute-PID.START-…`` belongs to a process, which its pid and the
moment it started name for good, ``proxyroute-kept.TOKEN-…`` to whoever has written the token down. What belongs to a
process that is no more is a leftover, and :func:`sweep` removes it. The machine's own namespace is only ever left.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import re
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import find_program, search_path
from tests.support.wait import until

FOLDER = Path("/run/netns")
"""Where ``ip netns`` keeps the names."""
_CLONE_NEWNET = 0x40000000
_OWNED = re.compile(r"proxyroute-(\d+)\.(\d+)-")
_ANY = re.compile(r"proxyroute-[a-z0-9.]+-")
_numbers = itertools.count(1)


class Unavailable(Exception):
    """Namespaces, or what joins them, cannot be had here; the text says why, and what to do."""


def mark() -> str:
    """Returns a new beginning of names for this process: what bears it goes when the process is no more."""
    return f"proxyroute-{os.getpid()}.{_started(os.getpid())}-{next(_numbers)}"


def kept_mark() -> str:
    """Returns a new beginning of names that nobody sweeps; it must be on disk before it is used."""
    return f"proxyroute-kept.{secrets.token_hex(4)}"


def _started(pid: int) -> int:
    """When a process started, in ticks since the boot. Raises OSError when there is none, ended ones included."""
    state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if state in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[18])


# -- What can be had ----------------------------------------------------------------------------------------------


def require() -> None:
    """Returns when namespaces can be joined here. Raises Unavailable with the first reason against it."""
    reason = _missing()
    if reason:
        raise Unavailable(f"no hosts with a network of their own can be had here: {reason}")


@functools.cache
def _missing() -> str:
    if os.getuid() != 0:
        return "only root makes network namespaces; type it as root, or with sudo"
    for program in ("ip", "tc", "nft", "nsenter", "unshare"):
        try:
            find_program(program)
        except FileNotFoundError as error:
            return str(error)
    # tried out of the way, in a namespace that goes with the command
    trial = (
        "ip link add name br9 type bridge && ip link add name t9 type veth peer name u9 && nft add table bridge t"
        " && tc qdisc add dev t9 root tbf rate 1mbit burst 10kb latency 50ms"
    )
    done = subprocess.run(
        [find_program("unshare"), "--net", "sh", "-ec", trial],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": search_path()},
    )
    words = (done.stderr or done.stdout).strip() or f"status {done.returncode}"
    return f"the kernel does not let us: {words}" if done.returncode else ""


# -- Life ---------------------------------------------------------------------------------------------------------


def path_of(name: str) -> Path:
    return FOLDER / name


def names(beginning: str) -> list[str]:
    """Returns the namespaces that bear a mark."""
    if not FOLDER.is_dir():
        return []
    return sorted(file.name for file in FOLDER.iterdir() if file.name.startswith(f"{beginning}-"))


def marks() -> set[str]:
    """Returns the mark of every namespace that is ours in the widest sense: any owner's, alive or not."""
    found = set()
    if FOLDER.is_dir():
        for file in FOLDER.iterdir():
            if _ANY.match(file.name):
                found.add(file.name.rpartition("-")[0])
    return found


def launcher(name: str) -> tuple[str, ...]:
    """Returns what stands before an argv to run it in a namespace: nothing but its network is another there.

    ``ip netns exec`` would give it mounts of its own as well, and what it mounts would be seen by nobody else.
    """
    return (find_program("nsenter"), f"--net={path_of(name)}", "--")


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """For a ``with`` block: this thread, and what it starts, is in a namespace; its sockets stay there for good."""
    with open("/proc/thread-self/ns/net", "rb") as before, path_of(name).open("rb") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(before.fileno())


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"a network namespace cannot be entered: {os.strerror(number)}")


@dataclass(frozen=True)
class Place:
    """Where a server listens, and the namespace it runs in; port 0 stands for a free one."""

    host: str = "127.0.0.1"
    port: int = 0
    namespace: str = ""

    @property
    def launcher(self) -> tuple[str, ...]:
        """What stands before an argv that is to run there."""
        return launcher(self.namespace) if self.namespace else ()

    def inside(self) -> AbstractContextManager[None]:
        """For a ``with`` block this thread is there."""
        return inside(self.namespace) if self.namespace else contextlib.nullcontext()


def command(argv: Sequence[str], text: str | None = None, *, namespace: str = "") -> str:
    """Runs one of the network's programs to its end and returns its output. Raises OSError with its words."""
    full = [*(launcher(namespace) if namespace else ()), find_program(argv[0]), *argv[1:]]
    done = subprocess.run(full, input=text, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise OSError(f"{' '.join(argv)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


# -- The end ------------------------------------------------------------------------------------------------------


def processes(beginning: str) -> list[int]:
    """Returns the processes in namespaces that bear a mark, and those on their way there: their command line names it.

    Never this one.
    """
    on_its_way = f"{FOLDER}/{beginning}-".encode()
    return _processes({_inode(name) for name in names(beginning)}, on_its_way)


def processes_in(name: str) -> list[int]:
    """Returns the processes in one namespace. Never this one."""
    return _processes({_inode(name)})


def _inode(name: str) -> int:
    try:
        return path_of(name).stat().st_ino
    except OSError:
        return 0


def _processes(inodes: set[int], word: bytes = b"") -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                named = word and word in (folder / "cmdline").read_bytes()
                if named or (folder / "ns/net").stat().st_ino in inodes:
                    found.append(int(folder.name))
    return sorted(found)


def remove(beginning: str) -> None:
    """Ends every process in the namespaces that bear a mark, and removes them. Done when nothing is left.

    Raises AssertionError when something does not go. It may be run again, and by several at once.
    """

    def ended() -> bool:
        end_processes(processes(beginning))
        return not processes(beginning)

    # the names last: without them what runs there could not be found any more
    until(ended, f"what runs in {beginning}-* to end", 30)
    for name in names(beginning):
        with contextlib.suppress(OSError):  # somebody else was quicker
            command(["ip", "netns", "del", name])
    until(lambda: not names(beginning), f"the namespaces {beginning}-* to go", 30)


def end_processes(pids: Sequence[int], number: signal.Signals = signal.SIGKILL, seconds: float = 10.0) -> bool:
    """Sends a signal to each, and returns whether all have ended within ``seconds``; ours need a wait yet."""
    descriptors = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptors.append(os.pidfd_open(pid))
    try:
        for descriptor in descriptors:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
        return _all_ended(descriptors, time.monotonic() + seconds)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def signal_processes(pids: Sequence[int], number: signal.Signals) -> None:
    """Sends a signal to each that is still there, and does not wait."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _all_ended(descriptors: Sequence[int], end: float) -> bool:
    for descriptor in descriptors:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            return False
    return True


def sweep() -> list[str]:
    """Removes what processes that are no more have left. Returns the marks that were removed."""
    removed = []
    for found in sorted(marks()):
        match = _OWNED.match(f"{found}-")
        if match and not _lives(int(match[1]), int(match[2])):
            remove(found)
            removed.append(found)
    return removed


def _lives(pid: int, started: int) -> bool:
    try:
        return _started(pid) == started
    except OSError:
        return False
