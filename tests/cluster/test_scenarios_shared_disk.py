"""Conformance, routing: what may become of the shared disk, by whole switchovers over a real network disk."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute.atomic import put
from tests.support.gluster import Gluster
from tests.support.hosts import ProxyHost
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.mariadb import LocalCluster
from tests.support.scene import assert_order, beat, books, in_its_midst, refused, switched, under_way
from tests.support.wait import until

FLAVOURS = ("mysql",)
PATIENT = {"freeze_budget": "4s", "drain": "200ms"}


@pytest.fixture(scope="module")
def disk() -> Iterator[Gluster]:
    try:
        started = Gluster.start(("engine", "edge1", "edge2"))
    except PermissionError as reason:
        pytest.skip(str(reason))
    with started:
        yield started


@pytest.fixture(scope="module")
def lab(disk: Gluster, servers: type[LocalCluster]) -> Iterator[Lab]:
    with Lab.start(3, provider=servers, hosts=2, shared=disk.mounts, policy=PATIENT) as started:
        yield started


@pytest.fixture
def site(lab: Lab, disk: Gluster) -> Iterator[Lab]:
    """Two hosts on the network disk, in order; after the test the disk is whole again, and all must be in order."""
    yield lab
    disk.thaw()
    disk.restore()
    in_reach(lab)
    lab.run("publish", check=True)  # as `proxyroute serve` does by itself: what is there is asserted again
    assert_order(lab)


def in_reach(lab: Lab) -> None:
    """Returns when every agent reads the disk again."""
    for host in lab.hosts:
        until(lambda h=host: h.status()["trouble"] == [], f"{host.name} to have no trouble")
    assert lab.shared is not None
    until(lambda: readable(lab.shared / CLUSTER_NAME / "current.json"), "the engine to read the disk")


def readable(file: Path) -> bool:
    with contextlib.suppress(OSError):
        return bool(file.read_bytes())
    return False


def troubled(host: ProxyHost, words: str) -> None:
    until(lambda: words in " ".join(host.status()["trouble"]), f"{host.name} to say {words!r}")


def current(lab: Lab) -> Path:
    assert lab.shared is not None
    return lab.shared / CLUSTER_NAME / "current.json"


def test_a_switchover_over_a_network_disk_loses_nothing_and_errs_once_for_each_session(site: Lab) -> None:
    with books(site, address=site.hosts[1].write):
        value = switched(site)
    assert_order(site, value["result"]["primary"])


def test_stale_release_from_an_older_epoch_is_not_followed(site: Lab) -> None:
    before = current(site).read_bytes()
    new = switched(site)["result"]["primary"]
    later = current(site).read_bytes()
    put(current(site), before)  # a stale engine, or a disk that was restored from a backup
    for host in site.hosts:
        troubled(host, "superseded")
    assert {beat(site, host.write) for host in site.hosts} == {new}
    put(current(site), later)
    in_reach(site)


@pytest.mark.parametrize("words", [("publish",), ("switchover", "--yes")])
def test_a_disk_that_was_restored_is_written_anew_by_whoever_comes_next(site: Lab, words: tuple[str, ...]) -> None:
    before = current(site).read_bytes()
    new = switched(site)["result"]["primary"]
    put(current(site), before)
    for host in site.hosts:
        troubled(host, "superseded")
    done = site.run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site.cluster.primary.name == new) is (words == ("publish",))
    in_reach(site)
    assert_order(site)


def test_torn_file(site: Lab) -> None:
    routes = [host.route() for host in site.hosts]
    whole = current(site).read_bytes()
    put(current(site), whole[: len(whole) // 2])
    for host in site.hosts:
        troubled(host, "cut off")
    assert [host.route() for host in site.hosts] == routes
    assert "cannot be believed" in str(site.json("status")[1]["proxies"])
    assert switched(site)["result"]["outcome"] == "done"  # an engine writes it anew


def test_disk_gone_before_anything_is_touched_refuses_by_the_names_of_the_hosts(site: Lab, disk: Gluster) -> None:
    disk.cut()
    for host in site.hosts:
        troubled(host, "not connected")
    found = refused(site)
    assert {f["subject"] for f in found.findings} == {"edge1", "edge2"}
    assert found.codes == {"proxy.not_prepared"}
    assert "not connected" in str(found.findings)
    beat(site)


def test_disk_frozen_before_anything_is_touched_refuses_in_time(site: Lab, disk: Gluster) -> None:
    disk.freeze()
    began = time.monotonic()
    found = refused(site)
    assert found.codes == {"proxy.not_prepared"}
    assert time.monotonic() - began < 60
    beat(site)


@contextlib.contextmanager
def stopped(lab: Lab, point: str, *, code: set[int]) -> Iterator[None]:
    """Runs a switchover whose engine is stopped at ``point`` for the ``with`` block; then it goes on to its end.

    The guard would end an engine that stands still, after some seconds more than it has for the step.
    """
    argv = lab.command("switchover", "--yes")
    environment = {**os.environ, "PROXYROUTE_FAULT": f"engine/{point}@STOP"}
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as command:
        stat = Path("/proc", str(command.pid), "stat")
        until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", f"the engine to stop at {point}")
        yield
        os.kill(command.pid, signal.SIGCONT)
        said, _ = command.communicate(timeout=90)
    assert command.returncode in code, said


def lose(disk: Gluster, how: str) -> None:
    if how == "cut":
        disk.cut()
    else:
        disk.freeze()


@pytest.mark.parametrize("how", [pytest.param("cut", marks=pytest.mark.full), "frozen"])
def test_disk_lost_at_the_hold_aborts_and_the_old_primary_takes_writes(site: Lab, disk: Gluster, how: str) -> None:
    old, routes = site.cluster.primary.name, [host.route() for host in site.hosts]
    with stopped(site, "share.publish:after:2", code={4}):
        lose(disk, how)
    assert [host.route() for host in site.hosts] == routes
    assert {beat(site, host.write) for host in site.hosts} == {old}  # also when a hold was heard: it ends by itself
    assert site.cluster.primary.name == old


@pytest.mark.parametrize("how", ["cut", pytest.param("frozen", marks=pytest.mark.full)])
def test_disk_lost_while_the_freeze_is_waited_for_is_no_reason_to_keep_anything_frozen(
    site: Lab, disk: Gluster, how: str
) -> None:
    old, routes = site.cluster.primary.name, [host.route() for host in site.hosts]
    with in_its_midst(site, code=4):
        lose(disk, how)
        until(lambda: under_way(site) is None, "everything to be undone", seconds=60)
    assert site.cluster.primary.name == old
    assert [host.route() for host in site.hosts] == routes
    assert {beat(site, host.write) for host in site.hosts} == {old}


@pytest.mark.parametrize("how", ["cut", pytest.param("frozen", marks=pytest.mark.full)])
def test_disk_lost_at_the_commit_is_unknown_and_the_route_settles_when_it_is_back(
    site: Lab, disk: Gluster, how: str
) -> None:
    old, routes = site.cluster.primary.name, [host.route() for host in site.hosts]
    with stopped(site, "mariadb.accept_writes:after", code={7}):
        lose(disk, how)
    assert site.cluster.primary.name != old  # there is one, the new one
    assert [host.route() for host in site.hosts] == routes  # the last good route, to a server that refuses writes
    disk.thaw()
    disk.restore()
    in_reach(site)
    done = site.run("heal")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {beat(site, host.write) for host in site.hosts} == {site.cluster.primary.name}


def test_agent_killed_before_its_receipt(site: Lab) -> None:
    first, second = site.hosts
    second.kill_agent()
    second.start_agent(PROXYROUTE_FAULT="agent/share.receipt:before:4")
    status, value = site.json("switchover", "--yes")
    assert status in (0, 3, 4, 7), value
    dead = second.agent
    assert dead is not None
    until(lambda: not dead.running, "the agent to die before a receipt")
    assert {beat(site, host.write) for host in site.hosts} == {site.cluster.primary.name}
    second.start_agent()
    in_reach(site)
    site.run("heal")
    assert first.route() == second.route()
