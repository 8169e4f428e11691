"""SIGKILL around what only engines that share a lease do: taking it, marking their sessions, ending those of others."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.swept import swept
from tests.chaos.test_sigkill_failover import OPTIONS, points_of, sweep
from tests.chaos.world import assert_legal, limits_of
from tests.support.engines import stopped_at
from tests.support.etcd import Etcd
from tests.support.lab import Lab
from tests.support.load import create_table
from tests.support.mariadb import LocalCluster
from tests.support.process import workspace

FLAVOURS = ("mysql",)
TIME = 4
POLICY = {"freeze_budget": "3s", "settle": "10s", "prove": "2s", "undo": "5s"}
ACTS = ("engine/lease.", "engine/mariadb.mark_session")


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd.start(workspace() / "etcd") as started:
        yield started


@contextlib.contextmanager
def site(etcd: Etcd, kind: str, servers: type[LocalCluster]) -> Iterator[Lab]:
    lease: dict[str, Any] = {"type": kind, "time": f"{TIME}s"}
    if kind == "etcd":
        lease["endpoints"] = etcd.endpoints
    more = {"lease": lease, "failover": {"profile": "aggressive"}}
    with Lab.start(3, policy=POLICY, semi_sync=True, options=OPTIONS, more=more, provider=servers) as lab:
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
        yield lab


WHERE = {"etcd": "in etcd", "database": "on the servers"}


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", WHERE)
def test_killed_around_taking_and_using_the_lease(
    etcd: Etcd, servers: type[LocalCluster], tmp_path: Path, kind: str
) -> None:
    with site(etcd, kind, servers) as lab:
        points = [p for p in points_of(lab, tmp_path / "trace") if p.startswith(ACTS)]
        swept(f"failover under a lease {WHERE[kind]}", points)
        sweep(lab, [(point, ("guard", "heal")[number % 2]) for number, point in enumerate(points)])


TAKING_OVER = ("engine/mariadb.end_other:before:1", "engine/mariadb.end_other:after:1")


@pytest.mark.full
@pytest.mark.timeout(600)
def test_killed_while_it_ends_the_sessions_of_an_engine_that_hangs(etcd: Etcd, servers: type[LocalCluster]) -> None:
    """Two engines are gone then, one of them not for good: the third one takes over, and nobody else changes anything.

    The first is stopped where it has sessions on every server.
    """
    swept("an engine that takes over", TAKING_OVER)
    with site(etcd, "etcd", servers) as lab:
        limits = limits_of(lab)
        for fault in TAKING_OVER:
            with stopped_at(lab, "mariadb.change_source:before", ("switchover", "--yes")) as first:
                killed = lab.run("heal", environment={"PROXYROUTE_FAULT": fault})
                assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
                healed = lab.run("heal")
                assert healed.returncode in (0, 7), healed.stdout + healed.stderr
                primary = assert_legal(lab, limits)
                os.kill(first.pid, signal.SIGCONT)
                said, _ = first.communicate(timeout=60)
                assert first.returncode != 0, said
            assert assert_legal(lab, limits) is primary, "the one that was stopped has changed something"
