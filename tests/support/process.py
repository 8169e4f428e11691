"""Daemons that belong to a test, and the folders they live in: both end with the test, however it ends."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.wait import until

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_LONGEST_FOLDER = 78
"""A socket's path has at most 107 characters, and a host's folder and what HAProxy adds while it binds come in it."""
_OWNED = re.compile(r"proxyroute-(\d+)-")


def search_path() -> str:
    """Returns where programs are looked for: in PATH, and where daemons live."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))


def find_program(*names: str) -> str:
    """Returns the path of the first program that exists, looked for where daemons live as well as in PATH.

    Raises FileNotFoundError, saying what to type, when there is none.
    """
    for name in names:
        found = shutil.which(name, path=search_path())
        if found:
            return found
    raise FileNotFoundError(f"{' or '.join(names)} is not installed; run scripts/setup --for test")


def free_port(*hosts: str) -> int:
    """Returns a TCP port that nobody listens on at any of ``hosts``, by default 127.0.0.1.

    It lies below the range from which the kernel takes the ports of outgoing connections, so that no client
    can sit on a server's port while that server is down.
    """
    for _ in range(200):
        port = random.randrange(15000, 32000)
        if all(_is_free(host, port) for host in hosts or ("127.0.0.1",)):
            return port
    raise OSError(f"no free port between 15000 and 32000 on {', '.join(hosts) or '127.0.0.1'}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def workspace(base: Path | None = None, *, disk: bool = False, outlive: bool = False) -> Path:
    """Makes a folder for one cluster, in memory if that is possible and ``disk`` is not asked for.

    Folders left by processes that are no more are removed on the way, unless they were meant to ``outlive`` them.
    Raises OSError when the path is too long for the sockets that will be in it.
    """
    if base is None:
        memory = Path("/dev/shm")
        base = memory if not disk and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    for folder in base.glob("proxyroute-*-*"):
        match = _OWNED.match(folder.name)
        if match and not Path(f"/proc/{match[1]}").exists() and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"proxyroute-{'kept' if outlive else os.getpid()}-", dir=base))
    if len(str(folder)) > _LONGEST_FOLDER:
        folder.rmdir()
        raise OSError(f"{folder} is too long a path for the sockets in it; set TMPDIR to a shorter one")
    return folder


def is_stopped(pid: int) -> bool:
    """Tells whether a process stands still by SIGSTOP."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


class Daemon:
    """A child process in a session of its own, so that Ctrl-C at a terminal reaches us and not it.

    The kernel kills it when the thread that started it ends, unless ``outlive``: start daemons from a thread
    that lives as long as they should. A ``launcher`` is an argv that becomes the program it is followed by, with the
    same pid: ``nsenter`` for one that is to run on another host.
    """

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        outlive: bool = False,
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        self.argv = tuple(argv)
        wrapper = () if outlive else (find_program("setpriv"), "--pdeathsig", "KILL", "--")
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                (*wrapper, *launcher, *argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=None if environment is None else {**os.environ, **environment},
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; nothing happens when the process has ended."""
        self._child.send_signal(number)

    @property
    def stopped(self) -> bool:
        """Whether it has got a SIGSTOP and does nothing."""
        return self.running and is_stopped(self.pid)

    def stop(self) -> None:
        """SIGSTOP: it has its connections and does nothing."""
        self.send(signal.SIGSTOP)

    def go_on(self) -> None:
        self.send(signal.SIGCONT)

    def wait(self, seconds: float = 20.0) -> int:
        """Returns the exit status. Raises subprocess.TimeoutExpired."""
        return self._child.wait(seconds)

    def kill(self) -> None:
        """Ends the process at once (SIGKILL), stopped or not, and waits until it is gone."""
        self._child.kill()
        self._child.wait()

    def terminate(self, seconds: float = 20.0) -> None:
        """Asks the process to end (SIGTERM) and waits; kills it when it does not."""
        self._child.terminate()
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()


class Found:
    """A process that somebody else has started, by its ``pid``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def running(self) -> bool:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; nothing happens when the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the process at once (SIGKILL), and waits until it is gone."""
        self.send(signal.SIGKILL)
        until(lambda: not self.running, f"process {self.pid} to be gone")

    def terminate(self, seconds: float = 20.0) -> None:
        """Asks the process to end (SIGTERM) and waits."""
        self.send(signal.SIGTERM)
        until(lambda: not self.running, f"process {self.pid} to end", seconds)
