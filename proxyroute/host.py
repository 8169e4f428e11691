"""Programs of a database server's, run here or on the server's own host, never through a shell of this machine.

A host is reached by an argv prefix, ``ssh -o BatchMode=yes root@10.0.0.1`` for one. ssh joins the words it is given and
hands them to a shell over there, so that they are quoted for it; any other prefix (``nsenter …``) gets them apart.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from proxyroute.argv import in_memory
from proxyroute.errors import ScriptFailed
from proxyroute.model import Deadline

_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSH_AUTH_SOCK")
_JOINING = frozenset({"ssh", "autossh"})
_LAST_BYTES = 2000
_CHUNK = 1 << 20
_STAY = 1.0
_POLL = 0.02

Watch = Callable[[int], None]
"""Is told how many bytes have gone through so far."""


@dataclass(frozen=True)
class Program:
    """A program to run. ``options`` is an option file that only it can read: passwords never stand in an argv."""

    argv: tuple[str, ...]
    options: str = field(default="", repr=False)
    stdin: bytes = field(default=b"", repr=False)

    @property
    def name(self) -> str:
        return Path(self.argv[0]).name


@dataclass(frozen=True)
class Host:
    """The host of one database server. ``start`` and ``stop`` are the commands for the server's service."""

    server: str
    shell: tuple[str, ...]
    data_dir: str = ""
    """Empty: it is asked for."""
    stop: tuple[str, ...] = ("systemctl", "stop", "mariadb")
    start: tuple[str, ...] = ("systemctl", "start", "mariadb")
    binlog_index: str = ""
    """The index file of its binary log. Empty: it is looked for."""

    @property
    def joins(self) -> bool:
        """Whether the prefix hands its words to a shell."""
        return any(Path(word).name in _JOINING for word in self.shell)

    def program(self, *words: str, stdin: bytes = b"") -> Program:
        """Returns ``words`` as a program on this host."""
        return Program((*self.shell, shlex.join(words)) if self.joins else (*self.shell, *words), stdin=stdin)

    def script(self, text: str, *arguments: str, stdin: bytes = b"") -> Program:
        """Returns a POSIX shell script on this host; ``arguments`` are its ``$1``, ``$2``…"""
        return self.program("sh", "-c", text, "proxyroute", *arguments, stdin=stdin)

    def ask(self, text: str, *arguments: str, deadline: Deadline) -> str:
        """Runs a script that only looks, and returns what it prints. Raises ScriptFailed."""
        return output(self.script(text, *arguments), deadline).decode(errors="replace")


@contextmanager
def started(
    program: Program, *, stdin: int | IO[bytes] | None = None, stdout: int | IO[bytes], stderr: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a program in a process group of its own, which is gone when the block is left.

    Raises ScriptFailed when it cannot be started.
    """
    argv = list(program.argv)
    handles: list[int] = []
    if program.options:
        handles.append(os.memfd_create("options"))
        os.fchmod(handles[0], 0o600)
        os.write(handles[0], program.options.encode())
        argv.insert(1, f"--defaults-file=/proc/self/fd/{handles[0]}")
    if program.stdin and stdin is None:
        spool = in_memory("stdin")  # closed below, when the child has it
        spool.write(program.stdin)
        spool.seek(0)
        stdin = spool
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout,
            stderr=stderr,
            env={name: os.environ[name] for name in _INHERITED if name in os.environ},
            start_new_session=True,
            pass_fds=handles,
        )
    except (OSError, ValueError) as error:
        raise ScriptFailed(f"{argv[0]} cannot be started: {error}") from error
    finally:
        for handle in handles:
            os.close(handle)
        if program.stdin and not isinstance(stdin, int) and stdin is not None:
            stdin.close()
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def output(program: Program, deadline: Deadline, *, most: int = 1 << 24) -> bytes:
    """Runs a program and returns what it writes, at most ``most`` bytes.

    Raises ScriptFailed when it cannot be started, exits non-zero, writes more, or does not end in time.
    """
    parts: list[bytes] = []
    size = 0

    def keep(part: bytes) -> None:
        nonlocal size
        size += len(part)
        if size > most:
            raise ScriptFailed(f"{program.name} writes more than {most} bytes")
        parts.append(part)

    stream(program, keep, deadline)
    return b"".join(parts)


def stream(program: Program, sink: Callable[[bytes], object], deadline: Deadline) -> None:
    """Runs a program and gives ``sink`` what it writes, piece by piece. Raises as :func:`output` does."""
    with in_memory("stderr") as errors, started(program, stdout=subprocess.PIPE, stderr=errors) as process:
        for part in _parts(process, program, deadline):
            sink(part)
        _require_end(process, program, errors, deadline)


def pump(
    source: Program,
    target: Program,
    deadline: Deadline,
    watch: Watch = lambda _: None,
    *,
    head: int = 0,
    hear: Callable[[bytes], bool] = lambda _: True,
) -> None:
    """Runs both, with the output of ``source`` as the input of ``target``.

    ``hear`` is given what has come so far, at most ``head`` bytes of it, until it returns True; what it raises ends
    both.

    Raises ScriptFailed with the words of the one that failed first: a target that gives up breaks its source's pipe.
    """
    kept = b""
    with (
        in_memory("stderr") as source_errors,
        in_memory("stderr") as target_errors,
        started(source, stdout=subprocess.PIPE, stderr=source_errors) as from_,
        started(target, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=target_errors) as to,
    ):
        assert to.stdin is not None
        total, heard = 0, head == 0
        try:
            for part in _parts(from_, source, deadline):
                if not heard:
                    kept += part[: head - len(kept)]
                    heard = hear(kept) or len(kept) == head
                _write(to.stdin, part, target, deadline)
                total += len(part)
                watch(total)
        except BrokenPipeError:
            _require_end(to, target, target_errors, deadline)
            raise ScriptFailed(f"{target.name} stopped reading") from None
        # the source first: a cut-off stream must not look like a whole one
        _require_end(from_, source, source_errors, deadline)
        to.stdin.close()
        _require_end(to, target, target_errors, deadline)


def _parts(process: subprocess.Popen[bytes], program: Program, deadline: Deadline) -> Iterator[bytes]:
    assert process.stdout is not None
    handle = process.stdout.fileno()
    poll = select.poll()
    poll.register(handle, select.POLLIN | select.POLLHUP)
    while True:
        if not _ready(poll, deadline):
            raise ScriptFailed(f"{program.name} did not end in time and was killed")
        part = os.read(handle, _CHUNK)
        if not part:
            return
        yield part


def _write(stream_: IO[bytes], part: bytes, program: Program, deadline: Deadline) -> None:
    handle = stream_.fileno()
    os.set_blocking(handle, False)
    poll = select.poll()
    poll.register(handle, select.POLLOUT)
    view = memoryview(part)
    while view:
        if not _ready(poll, deadline):
            raise ScriptFailed(f"{program.name} did not take what it was given in time and was killed")
        with contextlib.suppress(BlockingIOError):
            view = view[os.write(handle, view) :]


def _ready(poll: select.poll, deadline: Deadline) -> bool:
    """Waits until there is something to read or room to write; False when the deadline passes first."""
    while not poll.poll(deadline.slice * 1000):
        if deadline.passed:
            return False
    return True


def _require_end(process: subprocess.Popen[bytes], program: Program, errors: IO[bytes], deadline: Deadline) -> None:
    if deadline.gives_way:
        while process.poll() is None and not deadline.passed:
            time.sleep(min(deadline.slice, _POLL))
    try:
        status = process.wait(max(deadline.left, _STAY))
    except subprocess.TimeoutExpired:
        raise ScriptFailed(f"{program.name} did not end in time and was killed{_last_words(errors)}") from None
    if status < 0:
        raise ScriptFailed(f"{program.name} was ended by signal {-status}{_last_words(errors)}")
    if status > 0:
        raise ScriptFailed(f"{program.name} exited with status {status}{_last_words(errors)}")


def _last_words(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _LAST_BYTES))
    lines = errors.read().decode(errors="replace").strip().splitlines()[-5:]
    return f": {' | '.join(lines)}" if lines else ""


def option_file(section: str, values: Mapping[str, object]) -> str:
    """Returns an option file as the programs of MariaDB read it; True stands for an option without a value."""
    lines = [f"[{section}]"]
    for name, value in values.items():
        if value is True:
            lines.append(name)
        elif value not in (None, False, ""):
            text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            lines.append(f'{name}="{text}"')
    return "\n".join(lines) + "\n"


def prefix(shell: Sequence[str], user: str, address: str) -> tuple[str, ...]:
    """Returns the prefix of a host: ``shell`` as it is, or ssh as ``user`` to ``address``."""
    if shell:
        return tuple(shell)
    return ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", f"{user}@{address}")
