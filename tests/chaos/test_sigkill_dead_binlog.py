"""SIGKILL while a failover saves, and applies, what only the dead primary has: all of it arrives once, or is kept.

Replication is asynchronous, and each round the primary dies with rows that nobody received. Where they are to be
applied, the failover that was killed, or the one after it, has applied all of them, on every server; the old primary
follows without an undo. Where they are only saved there is an archive of exactly these rows, whoever came to it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.swept import swept
from tests.chaos.test_sigkill_failover import FAILOVER, MISSED, assert_moved, die_at, heal, put_in_order
from tests.chaos.world import EACH, assert_legal, limits_of
from tests.support.broken import ready
from tests.support.death import semi_sync
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.load import create_table
from tests.support.mariadb import LocalCluster, Node
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")
FULL = ("mariadb-11.8",)
ROWS = 3


ACKNOWLEDGED = {"rpl_semi_sync_master_wait_point": "AFTER_SYNC", "rpl_semi_sync_master_timeout": 200}
"""Of servers that wait for an acknowledgement, though not for long: the dying one is to go on alone."""


@contextlib.contextmanager
def site(mode: str, servers: type[LocalCluster], **options: Any) -> Iterator[Lab]:
    failover = {"profile": "aggressive", "policy": "most_advanced", "dead_binlog": mode}
    policy = {"settle": "10s", "prove": "2s"}
    with Lab.start(3, policy=policy, more={"failover": failover}, provider=servers, **options) as lab:
        ready(lab, hosts=True)
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
        yield lab


def dies_alone(lab: Lab, number: int) -> Node:
    """The primary writes rows of writer ``number`` that nobody receives, and dies; returns it."""
    old = lab.cluster.primary
    lab.cluster.await_synced()
    replicas = [node for node in lab.cluster if node is not old]
    if acknowledged(lab):
        until(lambda: semi_sync(old)["master_status"] == "ON", f"{old.name} to wait for acknowledgements")
        for node in replicas:  # as option files have it that are alike; a rejoin has switched it off
            node.sql("SET GLOBAL rpl_semi_sync_master_enabled=1")
    for node in replicas:
        node.sql("STOP SLAVE IO_THREAD")
    for n in range(ROWS):
        old.sql("INSERT INTO app.load_rows VALUES (%s, %s, %s)", (number, n, old.server_id))
    old.kill9()
    for node in replicas:
        node.sql("START SLAVE IO_THREAD")
    return old


def acknowledged(lab: Lab) -> bool:
    """Whether commits wait for acknowledgements on this site."""
    return any("semi-sync" in name and "wait-point" in name for node in lab.cluster for name in node.options)


def assert_waits(node: Node) -> None:
    """Asserts that semi-sync is on at a server, or comes back: it rests while something is applied to a candidate."""
    assert node.value("@@global.rpl_semi_sync_master_enabled") == 1, f"{node.name} does not wait for acknowledgements"


def rows_of(node: Node, number: int) -> list[int]:
    return [row["n"] for row in node.sql("SELECT n FROM app.load_rows WHERE writer=%s ORDER BY n", (number,))]


def points_of(lab: Lab, trace: Path) -> list[str]:
    """Returns the points of an undisturbed failover from shortly before the first that is about the binary log.

    Up to and with the last one of these, or the opening, whichever is later.
    """
    old = dies_alone(lab, 0)
    done = lab.run(*FAILOVER, environment={"PROXYROUTE_FAULT_TRACE": str(trace)})
    assert done.returncode in (0, 7), done.stdout + done.stderr
    come_back(lab, old)
    points = [line for line in trace.read_text().splitlines() if line.startswith("engine/")]
    ours = [n for n, point in enumerate(points) if point.startswith(("engine/archive.", "engine/salvage."))]
    opened = next(n for n, point in enumerate(points) if point.startswith("engine/mariadb.accept_writes:after"))
    return points[ours[0] - 4 : max(ours[-1], opened) + 4]


def come_back(lab: Lab, old: Node) -> None:
    """The old primary follows: by itself where it is contained, else it gets rid of what was saved."""
    old.start()
    done = lab.run("rejoin", old.name)
    if done.returncode == 3:
        done = lab.run("rejoin", old.name, "--yes", "--method", lab.cluster.undoing)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-500:]
    until(old.replicates, f"{old.name} to follow")
    lab.cluster.await_synced()


def in_order(lab: Lab, old: Node, number: int, mode: str) -> None:
    """Nobody is left in the middle, and no row of ``number`` is lost or only half there."""
    if not lab.cluster.writable:
        for node in (n for n in lab.cluster if n is not old and acknowledged(lab)):
            assert_waits(node)
        again = lab.run(*FAILOVER)
        assert again.returncode in (0, 7), f"the second failover: {again.stdout[-300:]}{again.stderr[-500:]}"
    assert_moved(lab, old)
    if acknowledged(lab):
        assert_waits(lab.cluster.primary)
    wanted = list(range(ROWS)) if mode == "apply" else []
    lab.cluster.await_synced()
    for node in lab.cluster:
        if node is not old:
            assert rows_of(node, number) == wanted, node.name
    assert archived(lab, old) == ROWS
    folder = lab.folder / "state" / CLUSTER_NAME / "archive"
    old.start()
    back = lab.run("rejoin", old.name)
    assert back.returncode == (0 if mode == "apply" else 3), back.stdout[-300:] + back.stderr[-500:]
    if mode == "save":
        done = lab.run("rejoin", old.name, "--yes", "--method", lab.cluster.undoing)
        assert done.returncode == 0, done.stdout[-300:] + done.stderr[-500:]
    until(old.replicates, f"{old.name} to follow")
    assert not list(folder.glob(".making-*")), "half an archive is left"
    lab.cluster.await_synced()
    assert rows_of(old, number) == wanted


def archived(lab: Lab, old: Node) -> int:
    """Returns how many transactions the latest archive of ``old`` has."""
    folders = (lab.folder / "state" / CLUSTER_NAME / "archive").glob(f"{old.name}-*")
    latest = max(folders, key=lambda f: f.stat().st_mtime)
    return len(json.loads((latest / "summary.json").read_text())["transactions"])


def sweep(lab: Lab, faults: Sequence[str], mode: str) -> None:
    limits, wrong, missed = limits_of(lab), [], []
    for number, fault in enumerate(faults, 1):
        healer = ("guard", "heal")[number % 2]
        old = dies_alone(lab, number)
        trouble = die_at(lab, fault, healer)
        if trouble == MISSED:
            missed.append(fault)
            trouble = ""
        elif healer == "heal" and not trouble:
            trouble = heal(lab)
        try:
            in_order(lab, old, number, mode)
            assert_legal(lab, limits)
        except Exception as error:  # noqa: BLE001 - collected, so that one run shows every point that is wrong
            trouble = f"{trouble} {error}"
        if trouble:
            wrong.append(f"{fault}, healed by {healer}: {trouble}")
            put_in_order(lab, old)
    assert not wrong, "\n".join(wrong)
    assert len(missed) <= 1 + len(faults) // 20, f"never reached: {missed}"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("each", EACH)
@pytest.mark.parametrize("mode", ["apply", "save"])
def test_killed_around_the_binary_log_of_the_dead(
    servers: type[LocalCluster], tmp_path: Path, mode: str, each: int
) -> None:
    with site(mode, servers) as lab:
        points = points_of(lab, tmp_path / "trace")
        if mode == "apply":
            there = ", on MySQL" if lab.cluster.flavour == "mysql" else ""
            swept(f"failover with what only the dead has{there}", points)
        else:
            assert any(point.startswith("engine/archive.write") for point in points)
            assert not any(point.startswith("engine/archive.replay") for point in points)
        sweep(lab, points[::each], mode)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("each", [7, 1])
def test_killed_while_semi_sync_rests_it_is_on_in_the_end(
    servers: type[LocalCluster], tmp_path: Path, each: int
) -> None:
    """The candidate is a semi-synchronous primary by its options, and nobody acknowledges what is applied to it."""
    with site("apply", servers, semi_sync=True, options=ACKNOWLEDGED) as lab:
        points = points_of(lab, tmp_path / "trace")
        rests = [n for n, point in enumerate(points) if point.startswith("engine/mariadb.semi_sync")]
        opened = next(n for n, point in enumerate(points) if point.startswith("engine/mariadb.accept_writes:after"))
        replayed = next(n for n, point in enumerate(points) if point.startswith("engine/archive.replay"))
        assert rests, "it never rested"
        assert rests[0] < replayed < opened, points
        sweep(lab, points[rests[0] - 3 : opened + 2 : each], "apply")
