"""More than one engine for one site: on a host of another name, stopped in mid-act, gone with its guard."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from proxyroute import journal
from tests.chaos.world import await_closed
from tests.support.lab import CLUSTER_NAME, Lab, processes_of
from tests.support.process import is_stopped
from tests.support.wait import until

GUARD_DIES = "guard/guard.take_over:before"
"""What a host that is lost takes along: there is nobody left of it who could go on."""


def on_host(name: str) -> tuple[str, ...]:
    """Returns a launcher by which a program runs on a host called ``name``: this one, for all but its own eyes."""
    mine = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    return ("unshare", *mine, "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name)


def last_journal(site: Lab) -> Path:
    return journal.journals(site.folder / "state" / CLUSTER_NAME / "journal")[-1]


def parts_of(file: Path) -> list[Path]:
    """Returns the parts of a journal that others than its first holder have begun."""
    return [f for f in file.parent.glob("*.jsonl") if f != file and f.name.startswith(f"{file.stem}.")]


def _guard_of(site: Lab) -> int | None:
    """Returns the pid of the guard that is at work."""
    for pid in processes_of(site.folder):
        with contextlib.suppress(OSError):
            if b"proxyroute.guard" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
    return None


@contextlib.contextmanager
def stopped_at(
    site: Lab, point: str, words: Sequence[str], *, then: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A command that is stopped at ``point``, with its guard: what a host that hangs looks like to others.

    It is stopped there once, also when it comes there again; a number at the end of ``point`` says which time. Whoever
    lets it go on (:func:`go_on`) finds it stopped again at each of ``then``.
    """
    points = [p if p[-1].isdigit() else f"{p}:1" for p in (point, *then)]
    environment = {**os.environ, "PROXYROUTE_FAULT": ",".join(f"engine/{p}@STOP" for p in points)}
    argv = site.command(*words)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as engine:
        guard = None
        try:
            await_stopped(engine, point)
            guard = _guard_of(site)
            if guard is not None:
                os.kill(guard, signal.SIGSTOP)
            yield engine
        finally:
            for pid in (engine.pid, guard):
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
            engine.wait(60)
            await_closed(site)


def await_stopped(engine: subprocess.Popen[str], where: str) -> None:
    """Returns when the engine of :func:`stopped_at` stands still. Raises AssertionError when it has ended instead."""
    until(lambda: engine.poll() is not None or is_stopped(engine.pid), f"the engine to stop at {where}", 60)
    assert engine.returncode is None, f"it ended before {where}: {engine.communicate()[0]}"


def go_on(engine: subprocess.Popen[str]) -> None:
    """Lets the engine of :func:`stopped_at` go on."""
    os.kill(engine.pid, signal.SIGCONT)
