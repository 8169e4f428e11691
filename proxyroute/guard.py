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
from proxyroute.assembly import build_lease, build_notifier, build_parts, permit_of
from proxyroute.config import from_snapshot
from proxyroute.config_secrets import keep
from proxyroute.config_values import ClusterConfig
from proxyroute.errors import Busy, LeaseLost, ProxyRouteError, SplitBrain, Superseded
from proxyroute.faults import act
from proxyroute.history import report_from
from proxyroute.model import Deadline
from proxyroute.notify import Delivery
from proxyroute.notify_message import Notice
from proxyroute.operation import plan_from_json, resume
from proxyroute.parts import Parts
from proxyroute.ports import Lease
from proxyroute.recovery import recover
from proxyroute.report import headline, level

_CONNECT = 5.0
_GIVE_UP = 60.0
_LEASE = 20.0
_RETRY = 0.5
_IDLE = 3600.0
_ATTEMPTS = 5
_NAME = "guard"
"""Who goes on with an operation, as its record says."""


class Guard:
    """The engine's end of the pipe. Implements :class:`proxyroute.ports.Sentinel`."""

    def __init__(self, journal_file: Path, lease: Lease) -> None:
        self._journal = journal_file
        self._lease = lease
        self._told = ""
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
                # a private /tmp goes with the unit of a dead engine, and the guard has programs to run then
                env={"TMPDIR": str(self._journal.parent), **os.environ},
            )

    def start(self, deadline: Deadline) -> None:
        """Starts the guard if need be, and waits until it is connected to the servers. Raises ProxyRouteError."""
        if self._process is None:
            self.begin()
        if self._answer(deadline) != "ready":
            self.dismiss()
            raise ProxyRouteError(f"the guard did not start; {self._log} says why")

    def expect(self, seconds: float) -> None:
        """Tells it to take over when it does not hear of us again in ``seconds``; does not wait.

        With the lease as it is now: a guard that goes on needs not wait until that of a dead engine has ended.
        """
        if self._process is not None and self._process.stdin is not None:
            ticket, told = self._lease.ticket(), self._told
            with contextlib.suppress(OSError):  # a dead guard is no reason to leave the cluster as it is
                if ticket != told:
                    self._process.stdin.write(f"lease {ticket}\n".encode())
                    self._told = ticket
                self._process.stdin.write(f"expect {seconds}\n".encode())
                self._process.stdin.flush()

    def leave(self) -> None:
        """Leaves the operation to it at once: it takes over as if we had ended, and we need not end for that."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

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
    keep(config)
    plan = plan_from_json(begin["plan"])
    lease = build_lease(config)
    watch = _Watch(engine)
    # while it only watches, its connections are the engine's: no lease is held here yet
    permit = permit_of(lease)
    parts = build_parts(config, continuous=True, permit=permit and (lambda: permit() if watch.over else None))
    waited_for = begin["operation_kind"] != "failover"  # nothing is frozen there: the engine goes on without us
    try:
        there = [n for n in parts.site.names if waited_for or n != plan.primary]
        errors = parts.site.connect(there, Deadline.after(_CONNECT))
        if waited_for and plan.primary in errors:
            raise errors[plan.primary]
        with contextlib.suppress(BrokenPipeError):  # it died before we were there: so much the more we are needed
            os.write(sys.stdout.fileno(), b"ready\n")
        if not watch.must_take_over():
            return 0
        patience = max(_GIVE_UP, 3 * config.lease.time)
        ended = _take_over(parts, file, lease, watch.ticket, Deadline.after(patience))
    finally:
        parts.site.close()
        parts.routes.close()
    _tell(config, file)
    return ended


def _tell(config: ClusterConfig, file: Path) -> None:
    """Tells the receivers of notices what became of the operation, if it was us who went on with it."""
    records = journal.read(file)
    resumed = [r["by"] for r in records if r["kind"] == "resumed"]
    if not config.notices or resumed[-1:] != [_NAME]:
        return

    def ended(delivery: Delivery) -> None:
        if delivery.error:
            _log(f"notice not sent: {delivery.receiver}: {delivery.error}")

    told = report_from(records, "its engine is gone, and the guard could not finish it")
    notifier = build_notifier(config, ended, _ATTEMPTS)
    notifier.send(Notice(config.name, "healed", headline(told), level(told), time.time(), {"report": told}))
    notifier.close(Deadline.after(_GIVE_UP))


class _Watch:
    """What the engine says, until it says no more."""

    def __init__(self, engine: int) -> None:
        self._engine = engine
        self.ticket = ""
        """The engine's lease, as it was when it said so last."""
        self.over = False

    def must_take_over(self) -> bool:
        """Returns True when the guard must take over, False when the operation is over."""
        must = self._listen()
        self.over = True
        return must

    def _listen(self) -> bool:
        until: Deadline | None = None
        while True:
            line = _read_line(sys.stdin.fileno(), until.left if until else _IDLE)
            if line is None and until is not None:
                _log("the engine is not done within every budget: ending it")
                with contextlib.suppress(ProcessLookupError), act("guard.end_engine"):
                    signal.pidfd_send_signal(self._engine, signal.SIGKILL)
                return True
            if line == "":
                return True
            if line == "done":
                return False
            if line is not None and line.startswith("lease "):
                self.ticket = line.removeprefix("lease ")
            if line is not None and line.startswith("expect "):
                until = Deadline.after(float(line.split()[1]))


def _take_over(parts: Parts, file: Path, lease: Lease, ticket: str, deadline: Deadline) -> int:
    """Goes on with the operation until it is closed, somebody else has it, or there is nothing more to be tried."""
    while True:
        try:
            if not (ticket and lease.adopt(ticket)):
                lease.acquire(_NAME, Deadline.after(_LEASE))
                if lease.distributed:  # somebody else may have had it in between
                    parts.site.end_others(Deadline.after(_CONNECT))
            ticket = ""
            op = resume(file, lease, _NAME)
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
                if not isinstance(error, Busy | LeaseLost):  # else it is for the one who has the lease now
                    _close_what_is_in_doubt(parts, file)
                return 1
        finally:
            lease.release()
        time.sleep(_RETRY)


def _close_what_is_in_doubt(parts: Parts, file: Path) -> None:
    """If the candidate may be open, the old primary must not take writes when nobody looks any more.

    Unless the operation was turned around: the old primary is the one that was opened then.
    """
    records = journal.read(file)
    decided = [r["kind"] for r in records if r["kind"] in ("opening", "turned")]
    if journal.outcome(records) is None and decided and decided[-1] == "opening":
        plan = plan_from_json(records[0]["plan"])
        with contextlib.suppress(ProxyRouteError):
            parts.site[plan.primary].refuse_writes(Deadline.after(_CONNECT))


def _log(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
