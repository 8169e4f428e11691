"""A failover on a host whose clock jumps, whose disk is full or fills up: one writable primary, or a word why not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chaos.world import await_closed
from tests.support.death import (
    LOSSLESS,
    await_back,
    brought_back,
    failed_over,
    mourning,
    nothing_of_its_own,
    remembered,
    table_locked,
    waits_for_acknowledgements,
)
from tests.support.disk import PAGE, Disk
from tests.support.lab import Lab
from tests.support.load import create_table
from tests.support.mariadb import Node
from tests.support.scene import assert_order, configured, state_in
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
SITE = {
    "n": 3,
    "semi_sync": True,
    "options": LOSSLESS,
    "more": {"serve": {"period": "200ms", "proxies_period": "400ms"}},
    "policy": {"prove": "3s", "settle": "10s"},
}
FAILOVER = ("failover", "--yes")


@pytest.fixture
def acknowledged(site: Lab) -> Lab:
    """The primary waits for acknowledgements, whoever it has become."""
    until(lambda: waits_for_acknowledgements(site.cluster), "somebody to acknowledge")
    return site


# -- The clock ----------------------------------------------------------------------------------------------------

JUMPING = """
import itertools, time
_real, _jumps = time.time, itertools.cycle((0, 86400, -86400, 7200, -3600))
time.time = lambda: _real() + next(_jumps)
"""


@pytest.fixture
def jumping(tmp_path: Path) -> dict[str, str]:
    """The environment of a program whose wall clock jumps by hours and days each time it looks."""
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    return {"PYTHONPATH": str(tmp_path)}


def test_the_clock_jumps_by_hours_and_days_during_a_failover(acknowledged: Lab, jumping: dict[str, str]) -> None:
    site, old = acknowledged, acknowledged.cluster.primary
    remembered(site)
    with mourning(site) as mourners:
        old.kill9()
        done = site.run(*FAILOVER, environment=jumping)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "PROVEN" in done.stdout, "what is known of acknowledgements is no matter of the wall clock"
        mourners.await_writes()
    assert not mourners.verdict.lost, mourners.verdict
    assert_order(site)
    assert site.run("heal").returncode == 0
    brought_back(site, old)


@pytest.mark.full
def test_the_clock_jumps_while_serve_watches_and_fails_over(acknowledged: Lab, jumping: dict[str, str]) -> None:
    """No failover of a primary that lives, and one of a primary that is dead, by the rules for how often it may."""
    site, old = acknowledged, acknowledged.cluster.primary
    automatic = {"mode": "automatic", "single_engine": True, "quiet_period": "0s", "per_day": 100}
    with (
        configured(site, failover=automatic),
        mourning(site) as mourners,
        serving(site, environment=jumping) as served,
    ):
        mourners.await_writes(40)
        assert served.texts("acted") == served.texts("blocked") == []
        old.kill9()
        assert "PROVEN" in served.await_told("acted", "failover", 60)
        mourners.await_writes()
        old.start()
        await_back(site, old)
        assert served.texts("trouble") == []
    assert not mourners.verdict.lost, mourners.verdict
    assert_order(site)


# -- The disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(acknowledged: Lab, tmp_path: Path, small_disk: Disk) -> Iterator[Disk]:
    """The engine's state is on a disk of 256 kB for the time of the test."""
    with state_in(acknowledged, tmp_path):
        yield small_disk


def ended(site: Lab, old: Node, done: subprocess.CompletedProcess[str]) -> None:
    """Nobody writes and the reason is told, or one server takes writes."""
    said = done.stdout + done.stderr
    assert done.returncode in (0, 3, 4, 5, 7), said
    await_closed(site)
    if done.returncode in (3, 4):
        assert site.cluster.writable == (), said
    assert len(site.cluster.writable) <= 1, said
    if done.returncode in (3, 4, 5):
        assert "No space left on device" in said, said


def mended(site: Lab, old: Node, disk: Disk) -> None:
    """With room on the disk all comes to its end."""
    disk.free()
    healed = site.run("heal")
    assert healed.returncode in (0, 7), healed.stdout + healed.stderr
    if not site.cluster.writable:
        failed_over(site)
    old.start()
    disk.fill()
    refused = site.run("rejoin", old.name)
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert "No space left on device" in refused.stderr
    disk.free()
    brought_back(site, old)
    assert_order(site)
    until(lambda: waits_for_acknowledgements(site.cluster), "somebody to acknowledge")


PAGES = (0, 18, 30)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("pages", [PAGES, pytest.param(range(24), marks=pytest.mark.full)], ids=["some", "each"])
def test_the_disk_is_full_when_the_primary_dies(acknowledged: Lab, disk: Disk, pages: tuple[int, ...]) -> None:
    site, codes = acknowledged, set()
    with mourning(site, writers=2) as mourners:
        for left in pages:
            remembered(site)
            old = site.cluster.primary
            with nothing_of_its_own(site.cluster):  # there would be no room to keep that
                disk.fill(leave=left * PAGE)
                old.kill9()
            done = site.run(*FAILOVER)
            codes.add(done.returncode)
            ended(site, old, done)
            mended(site, old, disk)
            mourners.await_writes()
            for file in disk.folder.rglob("*.jsonl"):  # they are over, and would fill this small disk by themselves
                file.unlink()
    assert not mourners.verdict.lost, mourners.verdict
    assert {0, 3} <= codes


@pytest.mark.full
@pytest.mark.parametrize("pages", [0, 1])
def test_the_disk_fills_up_in_the_midst_of_a_failover(acknowledged: Lab, disk: Disk, pages: int) -> None:
    """While it waits until what was received is applied: from then on it can write down nothing."""
    site, old = acknowledged, acknowledged.cluster.primary
    first, second = (node for node in site.cluster if node is not old)
    create_table(old)
    site.cluster.await_synced()
    remembered(site)
    with table_locked(first), table_locked(second):
        old.sql("INSERT INTO app.load_rows VALUES (1, 1, 1)")
        goal = old.gtid()
        until(lambda: all(n.replication()["Gtid_IO_Pos"] == goal for n in (first, second)), "both to have received it")
        old.kill9()
        command = subprocess.Popen(site.command(*FAILOVER), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        until(lambda: "apply what was received" in journal(site), "the failover to wait for the appliers")
        disk.fill(leave=pages * PAGE)
    said, _ = command.communicate(timeout=100)
    ended(site, old, subprocess.CompletedProcess(command.args, command.returncode, said, ""))
    mended(site, old, disk)
    assert [row["n"] for row in site.cluster.primary.sql("SELECT n FROM app.load_rows")] == [1]


def journal(site: Lab) -> str:
    """Returns the latest journal, wherever the engine's state is just now."""
    state = Path(yaml.safe_load(site.config.read_text())["state_dir"])
    files = sorted(state.rglob("*.jsonl"), key=lambda f: f.stat().st_mtime)
    return files[-1].read_text() if files else ""
