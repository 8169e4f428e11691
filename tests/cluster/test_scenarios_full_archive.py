"""No room for what only one server has: nothing is lost for it, and nothing is left half done."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxyroute import room
from tests.support.broken import archive_of, await_equal, diverge, ready
from tests.support.death import failed_over, remembered
from tests.support.disk import Disk, small_disk
from tests.support.lab import CLUSTER_NAME, Lab, printed_object
from tests.support.mariadb import Node
from tests.support.process import is_stopped
from tests.support.scene import configured
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")
FULL = ("mariadb-11.8",)
MIB = 1 << 20
SIZE = room.SPARE + 8 * MIB


@pytest.fixture
def lab(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    with start_lab(3, policy={"prove": "3s", "settle": "10s"}) as started:
        ready(started, hosts=True)
        yield started


@pytest.fixture
def disk(lab: Lab) -> Iterator[Disk]:
    """The archives of the site are on a small disk."""
    folder = _archives(lab)
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as ends:
        try:
            found = ends.enter_context(small_disk(folder, SIZE))
        except PermissionError as error:
            pytest.skip(str(error))
        yield found


def _archives(lab: Lab) -> Path:
    return lab.folder / "state" / CLUSTER_NAME / "archive"


def _kept(disk: Disk) -> list[str]:
    return [f.name for f in disk.folder.iterdir() if f.name != "filler"]


def _refused(lab: Lab, old: Node, method: str) -> str:
    """Asserts that nothing was changed, and returns why."""
    before = old.gtid()
    status, value = lab.json("rejoin", old.name, "--method", method, "--yes")
    assert status == 3, value
    assert (old.gtid(), old.is_writable(), old.replicates()) == (before, False, False)
    (finding,) = value["error"]["findings"]
    assert finding["code"] == "rejoin.room"
    return str(finding["text"])


def test_without_room_for_an_archive_nothing_is_undone_or_replaced(lab: Lab, disk: Disk) -> None:
    old, new = diverge(lab)
    disk.fill(leave=room.SPARE)
    for method in ("empty" if lab.cluster.flavour == "mysql" else "flashback", "reseed"):
        said = _refused(lab, old, method)
        assert "there is no room for binlog.0000" in said
        assert str(disk.folder) in said
    assert _kept(disk) == []
    disk.free()
    assert lab.run("rejoin", old.name, "--method", lab.cluster.undoing, "--yes").returncode == 0
    assert archive_of(lab).parent == disk.folder
    await_equal(old, new)


@contextlib.contextmanager
def _stopped_at(lab: Lab, point: str, *words: str) -> Iterator[dict[str, Any]]:
    """Runs a command that stands still at ``point`` while the block runs; what it printed is there afterwards."""
    argv = lab.command(*words, "--json")
    environment = {**os.environ, "PROXYROUTE_FAULT": f"engine/{point}@STOP"}
    ended: dict[str, Any] = {}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as running:
        until(lambda: is_stopped(running.pid) or running.poll() is not None, f"the command to reach {point}", 40)
        assert running.poll() is None, running.communicate()
        yield ended
        os.kill(running.pid, signal.SIGCONT)
        said, errors = running.communicate(timeout=100)
    ended["status"], ended["value"] = printed_object(
        subprocess.CompletedProcess(argv, running.returncode, said, errors)
    )


def test_a_disk_that_becomes_full_while_an_archive_is_made_leaves_nothing_there(lab: Lab, disk: Disk) -> None:
    old, _ = diverge(lab)
    before = old.gtid()
    with _stopped_at(lab, "archive.fetch:before", "rejoin", old.name, "--method", "reseed", "--yes") as ended:
        disk.fill()
    assert ended["status"] == 3, ended
    (finding,) = ended["value"]["error"]["findings"]
    assert finding["code"] == "rejoin.room"
    assert "became full" in finding["text"]
    assert _kept(disk) == []
    assert (old.gtid(), old.is_writable()) == (before, False)


@pytest.mark.parametrize("mode", ["save", "apply"])
def test_a_failover_goes_without_what_there_is_no_room_for(lab: Lab, disk: Disk, mode: str) -> None:
    old, *others = lab.cluster
    remembered(lab)
    disk.fill(leave=room.SPARE)
    assert "host.room" in {f["code"] for f in lab.json("check")[1]["findings"]}
    for node in others:
        node.sql("STOP SLAVE IO_THREAD")
    old.sql("INSERT INTO app.t VALUES (5000, 'nobody received it')")
    old.kill9()
    for node in others:
        node.sql("START SLAVE IO_THREAD")
    with configured(lab, failover={"policy": "most_advanced", "dead_binlog": mode, "dead_binlog_time": "10s"}):
        value = failed_over(lab, code=7)
    text = value["result"]["text"]
    assert f"the binary log of {old.name} could not be read: there is no room for binlog.0000" in text
    assert _kept(disk) == []
