"""Engines that share a lease in etcd: one acts, one that was stopped may not any more, a guard goes on at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute import journal
from tests.chaos.world import await_closed
from tests.support.engines import last_journal, parts_of, stopped_at
from tests.support.etcd import Etcd
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.mariadb import LocalCluster
from tests.support.process import workspace
from tests.support.scene import assert_order, books, configured, in_its_midst, other, standing, state_in, switched
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
TIME = 4
POLICY = {"freeze_budget": "2s", "lock_pause": "20ms", "settle": "5s", "undo": "5s"}


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd.start(workspace() / "etcd") as started:
        yield started


@pytest.fixture(scope="module")
def shared(etcd: Etcd, servers: type[LocalCluster]) -> Iterator[Lab]:
    lease = {"type": "etcd", "endpoints": etcd.endpoints, "time": f"{TIME}s"}
    with Lab.start(3, policy=POLICY, more={"lease": lease}, provider=servers) as lab:
        yield lab


@pytest.fixture
def site(shared: Lab) -> Iterator[Lab]:
    yield shared
    assert_order(shared)


def switchover(target: str) -> tuple[str, ...]:
    return ("switchover", "--yes", "--to", target)


def test_a_switchover_under_the_lease_is_recorded_there_and_shown(site: Lab, etcd: Etcd) -> None:
    with books(site):
        done = switched(site)
    operation = done["result"]["operation"]
    assert f"/proxyroute/{CLUSTER_NAME}/commits/{operation}" in etcd.content()
    _, status = site.json("status")
    assert (status["lease"]["kind"], status["lease"]["holder"]) == ("etcd", "")
    assert "lease (etcd): free" in site.run("status").stdout
    assert not parts_of(last_journal(site))
    assert site.run("check").returncode == 0


@pytest.mark.parametrize("point", ["mariadb.block_writes:after", "mariadb.accept_writes:after"])
def test_the_guard_of_a_dead_engine_goes_on_under_the_same_lease(site: Lab, point: str) -> None:
    """It appends to the same file, which it may not after it has waited for the lease to end: that is another term."""
    old = site.cluster.primary.name
    with books(site):
        done = site.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": f"engine/{point}"})
        assert done.returncode == -signal.SIGKILL
        await_closed(site)
    records = journal.read(last_journal(site))
    assert "resumed" in [r["kind"] for r in records]
    assert not parts_of(last_journal(site))
    assert journal.outcome(records) == ("aborted" if "block" in point else "done")
    assert (site.cluster.primary.name == old) is ("block" in point)


full = pytest.mark.full
QUICK = ["mariadb.block_writes:after", "lease.commit:after", "mariadb.accept_writes:before"]
LONG = [
    "mariadb.block_writes:before",
    "lease.commit:before",
    "mariadb.arm:before",
    "mariadb.accept_writes:after",
    "mariadb.refuse_writes:before",
]


@pytest.mark.parametrize("point", [*QUICK, *(pytest.param(point, marks=full) for point in LONG)])
def test_stopped_between_check_and_act_another_takes_over_and_the_first_one_changes_nothing(
    site: Lab, point: str
) -> None:
    target = other(site)
    with books(site):
        with stopped_at(site, point, switchover(target)) as engine:
            file = last_journal(site)
            healed = site.run("heal")
            assert healed.returncode in (0, 7), healed.stdout + healed.stderr
            assert len(parts_of(file)) == 1, "what two hosts may write is two files"
            before, records = standing(site), journal.read(file)
            os.kill(engine.pid, signal.SIGCONT)
            said, _ = engine.communicate(timeout=60)
            assert engine.returncode != 0, said
            assert standing(site) == before, said
        assert standing(site) == before, "the guard has changed something"
    assert journal.read(file) == records, "what the first engine has still written counts"
    assert journal.outcome(records) in ("done", "aborted")
    assert_order(site, target if journal.outcome(records) == "done" else None)


@pytest.mark.parametrize(
    "point", [pytest.param("mariadb.block_writes:before", marks=full), "mariadb.block_writes:after"]
)
def test_stopped_and_another_engine_that_knows_nothing_of_its_journal_acts(
    site: Lab, tmp_path: Path, point: str
) -> None:
    target, third = other(site), other(site, other(site))
    with books(site):
        with stopped_at(site, point, switchover(target)) as engine:
            with state_in(site, tmp_path):

                def acted() -> bool:
                    return site.run("switchover", "--yes", "--to", third).returncode == 0

                until(acted, "the lease of the stopped engine to end", 4 * TIME)
            before = standing(site)
            os.kill(engine.pid, signal.SIGCONT)
            said, _ = engine.communicate(timeout=60)
            assert engine.returncode != 0, said
            assert standing(site) == before, said
        assert standing(site) == before, "the guard has changed something"
    site.run("heal")
    assert standing(site) == before
    assert_order(site, third)


def test_serve_on_another_host_heals_what_a_host_that_hangs_has_left_open(site: Lab) -> None:
    target = other(site)
    with books(site), stopped_at(site, "mariadb.accept_writes:before", switchover(target)) as engine:
        with serving(site) as served:
            served.await_told("healed", f"{target} is the primary now")
        before = standing(site)
        os.kill(engine.pid, signal.SIGCONT)
        said, _ = engine.communicate(timeout=60)
        assert engine.returncode == 5, said
        assert "whoever gets it goes on" in said
        assert standing(site) == before, said
    assert_order(site, target)


def test_two_engines_of_two_hosts_at_once(site: Lab, tmp_path: Path) -> None:
    target = other(site)
    with (
        configured(site, lease={"time": "60s"}),
        stopped_at(site, "journal:3", switchover(target)) as engine,
        state_in(site, tmp_path),
    ):
        second = site.run("switchover", "--yes", "--to", target)
        assert second.returncode == 6, second.stdout + second.stderr
        assert f"switchover {last_journal(site).stem} by " in second.stderr
        assert f":{engine.pid};" in second.stderr
        _, status = site.json("status")
        assert status["lease"]["holder"].endswith(f":{engine.pid}")


def test_etcd_is_lost_before_the_commit_and_everything_is_undone(site: Lab, etcd: Etcd) -> None:
    old = site.cluster.primary.name
    try:
        with books(site), in_its_midst(site, "--to", other(site), code=4):
            etcd.members[0].kill()
        before = standing(site)
        refused = site.run("switchover", "--yes")
        assert refused.returncode == 3, refused.stdout + refused.stderr
        assert "lease.unreachable" in site.run("plan", "--json").stdout
        assert standing(site) == before
        assert "nobody knows who holds it" in site.run("status").stdout
    finally:
        etcd.members[0].restart()
        until(lambda: "free" in site.run("status").stdout, "etcd, and the end of a lease that was not given back")
    assert_order(site, old)


def test_etcd_is_lost_after_the_commit_and_it_is_finished(site: Lab, etcd: Etcd) -> None:
    target = other(site)
    try:
        with books(site), stopped_at(site, "lease.commit:after", switchover(target)) as engine:
            etcd.members[0].kill()
            os.kill(engine.pid, signal.SIGCONT)
            said, _ = engine.communicate(timeout=60)
            assert engine.returncode == 0, said
    finally:
        etcd.members[0].restart()
        until(lambda: "free" in site.run("status").stdout, "etcd, and the end of a lease that was not given back")
    assert_order(site, target)
