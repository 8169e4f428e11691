"""Runs a program of the site's owner: an argv, never a shell, never longer than its deadline."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO

from proxyroute.errors import ScriptFailed
from proxyroute.model import Deadline

_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_STDERR_LINES = 5
_STDERR_BYTES = 4096


def run_argv(argv: Sequence[str], environment: Mapping[str, str], deadline: Deadline) -> str:
    """Runs ``argv`` with ``environment`` and returns what it wrote to its standard output.

    Of our own environment the program sees only what any program needs (``PATH``, ``HOME``, the locale),
    because ours may hold passwords. It runs in a process group of its own, which is killed when the
    deadline passes. What it leaves in the background after a good exit is left alone.

    Raises ScriptFailed when it cannot be started, exits non-zero (with the status and the last lines of its
    standard error) or does not end in time.
    """
    if deadline.passed:
        raise ScriptFailed(f"{argv[0]} was not started: no time was left")
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # Files, not pipes: a child that stays in the background and keeps a pipe open would make us wait for it.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
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
            raise ScriptFailed(f"{argv[0]} did not end in time and was killed{_last_lines(stderr)}")
        status = process.returncode
        if status < 0:
            raise ScriptFailed(f"{argv[0]} was ended by signal {-status}{_last_lines(stderr)}")
        if status > 0:
            raise ScriptFailed(f"{argv[0]} exited with status {status}{_last_lines(stderr)}")
        stdout.seek(0)
        return stdout.read().decode(errors="replace")


def _ended(process: subprocess.Popen[bytes], deadline: Deadline) -> bool:
    """Waits for the end of ``process``; kills its group and returns False when the deadline passes first."""
    try:
        # Popen.wait with a time-out polls every 50 ms; a script may run while writes are blocked.
        descriptor = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if poll.poll(deadline.left * 1000):
                process.wait()
                return True
        finally:
            os.close(descriptor)
        return False
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _last_lines(stderr: IO[bytes]) -> str:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _STDERR_BYTES))
    lines = stderr.read().decode(errors="replace").strip().splitlines()[-_STDERR_LINES:]
    return f": {' | '.join(lines)}" if lines else ""
