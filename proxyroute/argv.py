"""Runs a program of the site's owner: an argv, never a shell, never longer than its deadline."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from proxyroute.errors import ScriptFailed
from proxyroute.model import Deadline

_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_STDERR_LINES = 5
_MOST_BYTES = 1 << 20
_DYING = 1.0
"""Seconds for a program that was killed to be gone."""


@dataclass(frozen=True)
class Finished:
    """How a program ended. ``status`` is below zero when a signal ended it: minus its number."""

    status: int
    stdout: str
    stderr: str


def in_memory(name: str) -> IO[bytes]:
    """Returns a new file that is in no folder: a guard outlives the /tmp of its unit. Raises ScriptFailed."""
    try:
        return os.fdopen(os.memfd_create(name), "w+b")
    except OSError as error:
        raise ScriptFailed(f"there is no room for what a program writes: {error.strerror}") from error


def run_argv(argv: Sequence[str], environment: Mapping[str, str], deadline: Deadline) -> str:
    """Runs ``argv`` as :func:`run` does and returns what it wrote to its standard output.

    Raises ScriptFailed as well when it exits non-zero, with the status and the last lines of its standard error.
    """
    done = run(argv, environment, deadline)
    if done.status < 0:
        raise ScriptFailed(f"{argv[0]} was ended by signal {-done.status}{_last_lines(done.stderr)}")
    if done.status > 0:
        raise ScriptFailed(f"{argv[0]} exited with status {done.status}{_last_lines(done.stderr)}")
    return done.stdout


def run(argv: Sequence[str], environment: Mapping[str, str], deadline: Deadline) -> Finished:
    """Runs ``argv`` with ``environment`` to its end, whatever its exit status.

    Of our own environment the program sees only what any program needs (``PATH``, ``HOME``, the locale), because
    ours may hold passwords. It runs in a process group of its own, which is killed when the deadline passes. What
    it leaves in the background after its end is left alone.

    Raises ScriptFailed when it cannot be started or does not end in time; it says when it could not be killed either.
    """
    if deadline.passed:
        raise ScriptFailed(f"{argv[0]} was not started: no time was left")
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # Files, not pipes: a child that stays in the background and keeps a pipe open would make us wait for it.
    with in_memory("stdout") as stdout, in_memory("stderr") as stderr:
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=inherited | dict(environment),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ScriptFailed(f"{argv[0]} cannot be started: {error}") from error
        if not _ended(process, deadline):
            goes_on = "cannot be killed: it is another user's, or hangs on a disk that is gone"
            became = "was killed" if process.returncode is not None else goes_on
            raise ScriptFailed(f"{argv[0]} did not end in time and {became}{_last_lines(_text(stderr))}")
        return Finished(process.returncode, _text(stdout), _text(stderr))


def _ended(process: subprocess.Popen[bytes], deadline: Deadline) -> bool:
    """Waits for the end of ``process``; kills its group and returns False when the deadline passes first."""
    try:
        # Popen.wait with a time-out polls every 50 ms; a script may run while writes are blocked.
        descriptor = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            while not poll.poll(deadline.slice * 1000):
                if deadline.passed:
                    return False
            process.wait()
            return True
        finally:
            os.close(descriptor)
    finally:
        if process.returncode is None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the process group that ``process`` leads, and waits a moment for its end.

    One that is still there then, because it is another user's (``sudo``) or hangs in the kernel, is left to itself and
    to a thread that waits for its end: whoever ran it has no more time for it.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(_DYING)
    except subprocess.TimeoutExpired:
        threading.Thread(target=process.wait, name=f"end of {process.pid}", daemon=True).start()


def _text(stream: IO[bytes]) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _MOST_BYTES))
    return stream.read().decode(errors="replace")


def _last_lines(stderr: str) -> str:
    lines = stderr.strip().splitlines()[-_STDERR_LINES:]
    return f": {' | '.join(lines)}" if lines else ""
