"""What must be true of a site after anything has happened to it and it was healed."""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

import pytest

from tests.support.lab import Lab, processes_of
from tests.support.mariadb import Node
from tests.support.wait import until

LIMIT = "@@global.max_connections"

EACH = (7, pytest.param(1, marks=pytest.mark.full))
"""Which moments a sweep takes: every seventh, before and after in turn, or all of them."""

PARTS = 6


def part_of(points: list[str], part: int) -> list[str]:
    """Returns one of ``PARTS`` parts of the points, each once.

    A point's own name tells its part: each part is run by itself, and no two runs pass exactly the same points.
    """
    return [point for point in dict.fromkeys(points) if zlib.crc32(point.encode()) % PARTS == part]


def healed_in_turn(points: list[str], twice: str) -> list[tuple[str, str]]:
    """Returns each point with guard or heal, in turn; points that begin with ``twice`` with both."""
    faults = []
    for number, point in enumerate(points):
        first, second = ("guard", "heal")[:: 1 if number % 2 == 0 else -1]
        faults.append((point, first))
        if point.startswith(twice):
            faults.append((point, second))
    return faults


def await_closed(lab: Lab, seconds: float = 30.0) -> None:
    """Returns when no process of the product works on the site any more: engine, guard, heal."""
    known = {node.name for node in lab.cluster}
    assert known

    def idle() -> bool:
        # first who begins: it may be ours a moment later
        return not _beginning() and not [pid for pid in processes_of(lab.folder) if _is_ours(pid)]

    until(idle, "the engine and its guard to end", seconds)


def _beginning() -> bool:
    """Whether some process has just got its program and not its words yet, as a guard that was started at last.

    That was seen for up to 30 ms after ``Popen``. Threads of the kernel and the dead have no words either, and no
    program.
    """
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if not (process / "cmdline").read_bytes() and (process / "exe").readlink():
                    return True
    return False


def _is_ours(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return b"proxyroute.guard" in words or any(word.endswith(b"/proxyroute") for word in words)


def assert_legal(lab: Lab, limits: dict[str, int]) -> Node:
    """Asserts a legal state and returns the primary: one writable, nothing frozen or lowered, all proxies there."""
    status = lab.look()
    writable = lab.cluster.writable
    assert len(writable) == 1, f"writable: {writable}"
    primary = lab.cluster[writable[0]]
    for node in lab.cluster:
        assert int(node.value(LIMIT)) == limits[node.name], f"{node.name} is left with a lowered limit"
        held = node.held_back()
        assert not held, f"{node.name} is left locked: {held}"
        if node is not primary:
            until(node.replicates, f"{node.name} to replicate")
            assert node.source_port() == primary.address.port, f"{node.name} follows somebody else"
    for proxy in status["proxies"]:
        assert proxy["primary"] == primary.name, proxy
        assert not proxy["held"], proxy
        assert not proxy["drift"], proxy
    assert not status["open_operations"], status["open_operations"]
    return primary


def limits_of(lab: Lab) -> dict[str, int]:
    """Returns the connection limit of each server."""
    return {node.name: int(node.value(LIMIT)) for node in lab.cluster}
