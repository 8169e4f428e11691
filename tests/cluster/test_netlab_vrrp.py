"""The people's laboratory with an address that moves and a network disk: as told, and gone when it is down."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_netlab import LAB, assert_gone, lab, runs
from tests.support import netns
from tests.support.process import find_program
from tests.support.wait import until

UP = ("up", "--vrrp", "--disk", "--databases", "2")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """The file of a laboratory of the test's own; whatever is written there is down afterwards."""
    try:
        netns.require()
        for program in ("keepalived", "glusterfs", "glusterfsd"):
            find_program(program)
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except (netns.Unavailable, OSError) as reason:
        pytest.skip(f"no VRRP between hosts with a network disk: {reason}")
    file = tmp_path / "lab" / "state.json"
    yield file
    assert lab(file, "down").returncode == 0


def holders(kept: Path) -> str:
    """Returns what status says of the address."""
    found = re.search(r"^  vip +10\.77\.9\.1 +at (.*)$", lab(kept, "status").stdout, re.MULTILINE)
    assert found is not None
    return found[1]


def mounted(folder: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]


def test_the_address_moves_by_hand_and_status_says_where_it_is(kept: Path) -> None:
    up = lab(kept, *UP)
    assert up.returncode == 0, up.stderr
    told = json.loads(kept.read_text())
    folder = Path(told["folder"])
    assert len(mounted(folder)) == 3, "the engine's and each proxy's"
    holder = holders(kept)
    other = {"edge1": "edge2", "edge2": "edge1"}[holder]

    assert "PROVEN" in lab(kept, "run", "engine1", "proxyroute", "switchover", "--yes").stdout
    assert lab(kept, "sql", "vip", "SELECT @@server_id").stdout == "@@server_id\n2\n"

    assert lab(kept, "stop", holder, "haproxy").stdout == f"haproxy on {holder} has ended\n"
    assert lab(kept, "stop", holder, "haproxy").stdout == f"haproxy did not run on {holder}\n"
    until(lambda: holders(kept) == other, f"the address to be at {other}", 30, pause=0.2)
    assert lab(kept, "sql", "vip", "SELECT @@server_id").stdout == "@@server_id\n2\n"
    assert lab(kept, "start", holder, "haproxy").stdout == f"haproxy runs on {holder}\n"
    assert lab(kept, "start", holder, "haproxy").stdout == f"haproxy runs on {holder} already\n"
    check = ("proxyroute", "check", "--json")
    fit = lambda: holder not in lab(kept, "run", "engine1", *check).stdout  # noqa: E731
    until(fit, f"{holder} to follow again", 30, pause=0.2)

    assert lab(kept, "kill", other, "keepalived").returncode == 0
    both = "edge1 and edge2"
    until(lambda: holders(kept) == both, "both to have it: who is killed leaves it behind", 30, pause=0.2)
    assert lab(kept, "start", other, "keepalived").returncode == 0
    until(lambda: holders(kept) == holder, f"the address to be at {holder} alone", 30, pause=0.2)

    wrong = lab(kept, "kill", "db1", "haproxy")
    assert (wrong.returncode, wrong.stderr) == (2, "scripts/lab: there is no haproxy on db1; there is mariadbd\n")
    assert "there is no host db7" in lab(kept, "stop", "db7", "mariadbd").stderr

    assert lab(kept, "down").stdout == f"The laboratory in {folder} has ended.\n"
    assert_gone(told["mark"], folder)
    assert not mounted(folder)


def words_of(pid: int) -> bytes:
    """Returns the command line of a process, which may have ended since it was seen."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_crash_of_the_start_and_then_of_the_disk_leaves_nothing_after_down(kept: Path) -> None:
    environment = {**os.environ, "PROXYROUTE_LAB_STATE": str(kept)}
    with subprocess.Popen([LAB, *UP], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as child:
        until(kept.exists, "it to be written down", pause=0.001)
        told = json.loads(kept.read_text())
        started = lambda: runs(told["mark"], "keepalived") or child.poll() is not None  # noqa: E731
        until(started, "keepalived to start", 60, pause=0.001)
        child.kill()
    folder = Path(told["folder"])
    assert mounted(folder)
    disk = [pid for pid in netns.processes(told["mark"]) if b"glusterfsd" in words_of(pid)]
    netns.end_processes(disk, signal.SIGKILL)  # whoever reads a mount now waits for it, down as well
    assert "no laboratory is up" in lab(kept, "status").stderr
    assert lab(kept, "down").returncode == 0
    assert_gone(told["mark"], folder)
    assert not mounted(folder)
