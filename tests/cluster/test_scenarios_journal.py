"""The journal: its disk full or filling up, its last line torn, nothing to heal, and what it tells afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.world import await_closed
from tests.support.disk import PAGE, Disk
from tests.support.lab import Lab
from tests.support.scene import assert_order, books, configured, in_its_midst, other, state_in, switched

FLAVOURS = ("mysql",)
SITE = {"n": 3, "policy": {"freeze_budget": "8s", "lock_pause": "20ms"}}
KILLED = "engine/journal:20,guard/guard.take_over:before"
"""Engine and guard die together, in the middle of it."""


# -- The disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(site: Lab, tmp_path: Path, small_disk: Disk) -> Iterator[Disk]:
    """The engine's state is on a disk of 256 kB for the time of the test."""
    with state_in(site, tmp_path):
        yield small_disk


def test_the_journals_disk_is_full_refused_or_aborted_and_nothing_is_lost(site: Lab, disk: Disk) -> None:
    ended = set()
    with books(site) as kept:
        for pages in (0, 8, 17, 18, 20):
            disk.fill(leave=pages * PAGE)
            done = site.run("switchover", "--yes")
            ended.add(done.returncode)
            assert done.returncode in (0, 3, 4, 7), done.stdout + done.stderr
            assert len(site.cluster.writable) == 1, f"with {pages} pages left"
            kept.go_on()
            disk.free()
            assert site.run("heal").returncode == 0
            assert_order(site)
    assert {0, 3} <= ended


@pytest.mark.parametrize("pages", [0, 1])
def test_the_journals_disk_fills_up_in_the_midst(site: Lab, disk: Disk, pages: int) -> None:
    new = other(site)
    with books(site), in_its_midst(site, "--to", new):
        disk.fill(leave=pages * PAGE)
    disk.free()
    assert site.run("heal").returncode == 0
    assert_order(site, new)


# -- What it tells --------------------------------------------------------------------------------------------


def die(site: Lab, fault: str) -> Path:
    """Kills a switchover at ``fault``; returns its journal."""
    done = site.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": fault})
    assert done.returncode < 0, done.stdout + done.stderr
    await_closed(site)
    return max((site.folder / "state").rglob("*.jsonl"))


@pytest.mark.parametrize(
    "torn",
    [
        pytest.param(b'{"v":1,"n":99,"t":1.0,"ki', id="half"),
        pytest.param(b"\0\0\0\0", id="zeros", marks=pytest.mark.full),
        pytest.param(b'{"v":1}', id="no end", marks=pytest.mark.full),
    ],
)
def test_the_journals_last_line_is_torn_and_heal_works(site: Lab, torn: bytes) -> None:
    with books(site):
        journal = die(site, KILLED)
        with journal.open("ab") as file:
            file.write(torn)
        assert site.json("history")[1]["operations"][0]["outcome"] in ("open", "begun")
        assert site.run("heal").returncode in (0, 7)
    assert_order(site)
    assert torn not in journal.read_bytes()


def test_heal_with_nothing_open_says_so_and_touches_nothing(site: Lab) -> None:
    journals = {file: file.read_bytes() for file in (site.folder / "state").rglob("*.jsonl")}
    done = site.run("heal")
    assert (done.returncode, done.stdout) == (0, "nothing is open\n")
    assert {file: file.read_bytes() for file in (site.folder / "state").rglob("*.jsonl")} == journals


def test_history_and_show_list_what_happened(site: Lab) -> None:
    old, new = site.cluster.primary.name, other(site)
    operation = switched(site, "--to", new)["result"]["operation"]
    with configured(site, scripts={"address_down": ["false"]}):
        switched(site, code=4)
    aborted, done = site.json("history")[1]["operations"][:2]
    assert (done["operation"], done["primary"], done["candidate"]) == (operation, old, new)
    assert (done["outcome"], done["verdict"], aborted["outcome"]) == ("done", "PROVEN", "aborted")
    assert 0 < done["blackout_seconds"] < done["seconds"]
    listed = site.run("history").stdout.splitlines()
    assert [line for line in listed if operation in line]
    shown = site.run("show", operation).stdout
    assert shown.index("freeze") < shown.index("from here on nothing is taken back") < shown.index("PROVEN")
    assert "undo: " in site.run("show", aborted["operation"]).stdout
    assert site.run("show", "nonsense").returncode == 3
