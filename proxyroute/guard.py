"""The guard: a detached process that heals when the engine dies in mid-operation.

It is started before anything is touched, and told through a pipe when the operation is over. End-of-file without that
word means that the engine is gone: then the guard goes on with the operation as ``proxyroute heal`` would. An engine
that hangs while writes are blocked is ended by the guard, through a handle on the process that cannot mean another one.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from proxyroute import faults, journal
from proxyroute.assembly import build_lease, build_parts
from proxyroute.config import from_snapshot
from proxyroute.errors import ProxyRouteError, SplitBrain, Superseded
from proxyroute.faults import act
from proxyroute.model import Deadline
from proxyroute.operation import plan_from_json, resume
from proxyroute.parts import Parts
from proxyroute.ports import Lease
from proxyroute.recovery import recover

_CONNECT = 5.0
_GIVE_UP = 60.0
_LEASE = 20.0
_RETRY = 0.5
_IDLE = 3600.0


class Guard:
    """The engine's end of the pipe. Implements :class:`proxyroute.ports.Sentinel`."""

    def __init__(self, journal_file: Path) -> None:
        self._journal = journal_file
        self._log = journal_file.with_suffix(".guard.log")
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Starts the guard process; ``start`` waits for it."""
        with self._log.open("ab") as errors, act("guard.start"):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "proxyroute.guard", str(self._journal)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd="/",
                start_new_session=True,
            )

    def start(self, deadline: Deadline) -> None:
        """Starts the guard if need be, and waits until it is connected to the servers. Raises ProxyRouteError."""
        if self._process is None:
            self.begin()
        if self._answer(deadline) != "ready":
            self.dismiss()
            raise ProxyRouteError(f"the guard did not start; {self._log} says why")

    def expect(self, seconds: float) -> None:
        """Tells it to take over when it does not hear of us again in ``seconds``; does not wait."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # a dead guard is no reason to leave the cluster as it is
                self._process.stdin.write(f"expect {seconds}\n".encode())
                self._process.stdin.flush()

    def dismiss(self) -> None:
        """The operation is over, or was never begun. Waits for its end, at most two seconds."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.write(b"done\n")
            process.stdin.close()
        try:
            process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _answer(self, deadline: Deadline) -> str:
        """Returns the next line from the guard, or nothing when it is dead or silent."""
        if self._process is None or self._process.stdout is None:
            return ""
        line = _read_line(self._process.stdout.fileno(), deadline.left)
        return line or ""


def _read_line(handle: int, seconds: float) -> str | None:
    """Returns one line without its end; an empty string at the end of the file; None when nothing comes in time."""
    until, text = time.monotonic() + seconds, b""
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([handle], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return None
        more = os.read(handle, 1)
        if not more:
            return ""
        text += more
    return text.decode().strip()


# -- the other process --


def main(arguments: list[str]) -> int:
    """Runs the guard of the journal named in ``arguments``. Returns its exit status."""
    faults.role = "guard"
    file, engine = Path(arguments[0]), os.pidfd_open(os.getppid())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    begin = journal.read(file)[0]
    config = from_snapshot(begin["config"])
    plan = plan_from_json(begin["plan"])
    parts = build_parts(config, continuous=True)
    waited_for = begin["operation_kind"] != "failover"  # nothing is frozen there: the engine goes on without us
    try:
        there = [n for n in parts.site.names if waited_for or n != plan.primary]
        errors = parts.site.connect(there, Deadline.after(_CONNECT))
        if waited_for and plan.primary in errors:
            raise errors[plan.primary]
        with contextlib.suppress(BrokenPipeError):  # it died before we were there: so much the more we are needed
            os.write(sys.stdout.fileno(), b"ready\n")
        if not _watch(engine):
            return 0
        return _take_over(parts, file, build_lease(config))
    finally:
        parts.site.close()
        parts.routes.close()


def _watch(engine: int) -> bool:
    """Returns True when the guard must take over, False when the operation is over."""
    until: Deadline | None = None
    while True:
        line = _read_line(sys.stdin.fileno(), until.left if until else _IDLE)
        if line is None and until is not None:
            _log("the engine is not done within every budget: ending it")
            with contextlib.suppress(ProcessLookupError), act("guard.end_engine"):
                signal.pidfd_send_signal(engine, signal.SIGKILL)
            return True
        if line == "":
            return True
        if line == "done":
            return False
        if line is not None and line.startswith("expect "):
            until = Deadline.after(float(line.split()[1]))


def _take_over(parts: Parts, file: Path, lease: Lease) -> int:
    """Goes on with the operation until it is closed, somebody else has it, or there is nothing more to be tried."""
    deadline = Deadline.after(_GIVE_UP)
    while True:
        try:
            lease.acquire("guard", Deadline.after(_LEASE))
            op = resume(file, lease, "guard")
            if op is None:
                return 0
            with act("guard.take_over"):
                recover(parts, op)
            return 0
        except (SplitBrain, Superseded) as error:
            _log(str(error))
            return 1
        except Exception as error:  # noqa: BLE001 - nobody else is left to try again
            _log(f"{type(error).__name__}: {error}")
            if deadline.left < _RETRY:
                _close_what_is_in_doubt(parts, file)
                return 1
        finally:
            lease.release()
        time.sleep(_RETRY)


def _close_what_is_in_doubt(parts: Parts, file: Path) -> None:
    """If the candidate may be open, the old primary must not take writes when nobody looks any more."""
    records = journal.read(file)
    if journal.outcome(records) is None and journal.first(records, "opening") is not None:
        plan = plan_from_json(records[0]["plan"])
        with contextlib.suppress(ProxyRouteError):
            parts.site[plan.primary].refuse_writes(Deadline.after(_CONNECT))


def _log(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
