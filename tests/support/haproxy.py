"""A private HAProxy in master-worker mode, in a folder of its own, started and stopped by the tests."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.process import find_program

_START_SECONDS = 10.0


class LocalHAProxy:
    """One HAProxy master with its workers; ``folder`` takes its sockets and its log.

    It ends with the thread that starts it, by the kernel's hand if need be, unless it is to ``outlive`` that one. A
    ``launcher`` is an argv that becomes the program it is followed by.
    The runtime socket and everything else is named by the configuration; ``runtime_socket`` is merely the
    place where a test's configuration should put it.
    """

    def __init__(
        self, folder: Path, binary: str = "haproxy", *, outlive: bool = False, launcher: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.binary = shutil.which(binary) or binary
        self.master_socket = folder / "master.sock"
        self.runtime_socket = folder / "admin.sock"
        self.log_file = folder / "haproxy.log"
        ends_with_us = () if outlive else (find_program("setpriv"), "--pdeathsig", "KILL", "--")
        self._wrapper = (*ends_with_us, *launcher)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The master's pid. Raises RuntimeError when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"haproxy does not run; {self.log_file} says: {self.log()}")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def argv(self, config_file: Path) -> list[str]:
        """What starts it, on whichever host."""
        return [self.binary, "-W", "-S", f"{self.master_socket},level,admin", "-f", str(config_file)]

    def log(self) -> str:
        """What HAProxy has written to its standard error so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def start(self, config_file: Path) -> None:
        """Starts HAProxy with ``config_file``; returns when a worker serves.

        Raises RuntimeError, with HAProxy's words, when it ends or does not answer.
        """
        if self.running:
            raise RuntimeError("haproxy runs already")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.master_socket.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._wrapper, *self.argv(config_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ends = time.monotonic() + _START_SECONDS
        while not self.workers():
            if not self.running:
                raise RuntimeError(f"haproxy ended with status {self._process.returncode}: {self.log()}")
            if time.monotonic() > ends:
                self.kill9()
                raise RuntimeError(f"haproxy does not answer: {self.log()}")
            time.sleep(0.005)

    def workers(self) -> list[int]:
        """Pids of the current workers as the master tells them; empty when it does not answer."""
        pids = []
        for line in self._ask_master("show proc").splitlines():
            if line.startswith("# old workers"):
                break
            fields = line.split()
            if len(fields) >= 2 and fields[1] == "worker":
                pids.append(int(fields[0]))
        return pids

    def ask(self, command: str) -> str:
        """Types a command at the runtime socket, as somebody at a terminal would, and returns the answer."""
        return _ask(self.runtime_socket, command)

    def ask_master(self, command: str) -> str:
        """Types a command at the master socket."""
        return _ask(self.master_socket, command)

    def _ask_master(self, command: str) -> str:
        try:
            return self.ask_master(command)
        except OSError:
            return ""

    def stop(self) -> None:
        """Ends the master and all workers, old ones included; done when nothing of them is left."""
        self._end(signal.SIGTERM)

    def kill9(self) -> None:
        """Ends everything at once, as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # The group holds the master and its workers, and nothing else: it was made by start().
        descriptors = [os.pidfd_open(pid) for pid in self._family(process.pid)]
        for attempt in (number, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, attempt)
            if self._all_ended(descriptors, 3.0):
                break
        process.wait()
        for descriptor in descriptors:
            os.close(descriptor)

    @staticmethod
    def _family(master: int) -> list[int]:
        children = Path(f"/proc/{master}/task/{master}/children")
        with contextlib.suppress(OSError):
            return [master, *(int(pid) for pid in children.read_text().split())]
        return []

    @staticmethod
    def _all_ended(descriptors: list[int], seconds: float) -> bool:
        ends = time.monotonic() + seconds
        for descriptor in descriptors:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(max(0.0, ends - time.monotonic()) * 1000):
                return False
        return True


def _ask(path: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5.0)
        client.connect(str(path))
        client.sendall(command.encode() + b"\n")
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while part := client.recv(65536):
            answer += part
        return answer.decode()
