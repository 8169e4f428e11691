"""Failovers of engines that share a lease: the holder dies with the primary, or hangs; the lease cannot be had."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from proxyroute import journal
from tests.support.death import (
    LOSSLESS,
    await_back,
    brought_back,
    failed_over,
    mourning,
    nothing_of_its_own,
    remembered,
    waits_for_acknowledgements,
)
from tests.support.engines import GUARD_DIES, last_journal, parts_of, stopped_at
from tests.support.etcd import Etcd
from tests.support.lab import Lab
from tests.support.load import create_table
from tests.support.mariadb import LocalCluster, Node
from tests.support.process import workspace
from tests.support.scene import assert_order, beat, configured, standing
from tests.support.serving import Serving, serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
TIME = 4
FAILOVER = ("failover", "--yes", "--force")
AUTOMATIC = {"mode": "automatic", "quiet_period": "0s", "per_day": 100, "policy": "lossless"}
full = pytest.mark.full


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd.start(workspace() / "etcd", 3) as started:
        yield started


@pytest.fixture(scope="module", params=["etcd", "database"])
def shared(etcd: Etcd, servers: type[LocalCluster], request: pytest.FixtureRequest) -> Iterator[Lab]:
    lease: Mapping[str, Any] = {"type": request.param, "time": f"{TIME}s"}
    if request.param == "etcd":
        lease = {**lease, "endpoints": etcd.endpoints}
    serve = {"period": "200ms", "proxies_period": "400ms"}
    with Lab.start(
        3,
        semi_sync=True,
        options=LOSSLESS,
        policy={"prove": "3s", "settle": "10s", "undo": "5s"},
        more={"lease": lease, "serve": serve, "failover": AUTOMATIC},
        provider=servers,
    ) as lab:
        yield lab


@pytest.fixture
def site(shared: Lab) -> Iterator[Lab]:
    """The primary waits for acknowledgements, and what the cluster is like is known."""
    until(lambda: waits_for_acknowledgements(shared.cluster), "somebody to acknowledge")
    create_table(shared.cluster.primary)
    shared.cluster.await_synced()
    remembered(shared)
    yield shared
    assert_order(shared)


only_etcd = pytest.mark.parametrize("shared", ["etcd"], indirect=True)
only_database = pytest.mark.parametrize("shared", ["database"], indirect=True)


def killed(site: Lab) -> Node:
    """Kills the primary under load, so that it can follow again as it is; returns it."""
    with nothing_of_its_own(site.cluster) as primary:
        primary.kill9()
    return primary


@contextlib.contextmanager
def two_engines(site: Lab, fault: str) -> Iterator[tuple[Serving, Serving]]:
    """Both serve, on one disk; whoever comes to ``fault`` first dies there, with its guard."""
    environment = {"PROXYROUTE_FAULT": f"serve/{fault},{GUARD_DIES}"}
    both = [Serving(site, environment=environment, host=host) for host in ("one", "two")]
    try:
        for served in both:
            served.await_told("state")
        yield both[0], both[1]
    finally:
        for served in both:
            served.end()


# -- the holder dies with the primary -----------------------------------------------------------------------------


DEATHS = [
    ("etcd", "mariadb.stop_receiver:after", "aborted"),
    ("database", "mariadb.accept_writes:before", "done"),
]
MORE_DEATHS = [
    ("etcd", "mariadb.accept_writes:before", "done"),
    ("etcd", "mariadb.change_source:after", "done"),
    ("database", "mariadb.stop_receiver:after", "aborted"),
    ("database", "mariadb.change_source:after", "done"),
]


@pytest.mark.parametrize(
    ("shared", "fault", "outcome"),
    [*DEATHS, *(pytest.param(*case, marks=full) for case in MORE_DEATHS)],
    indirect=["shared"],
)
def test_the_holder_dies_with_the_primary_and_the_other_engine_takes_over(site: Lab, fault: str, outcome: str) -> None:
    """Within twice the time of the lease it goes on with what is open; then somebody takes writes, and it rejoins."""
    with mourning(site) as mourners, two_engines(site, fault) as both:
        old = killed(site)
        until(lambda: not all(served.daemon.running for served in both), f"one of them to die at {fault}", 30)
        left, dead = sorted(both, key=lambda served: not served.daemon.running)
        file = last_journal(site)
        until(lambda: journal.outcome(journal.read(file)), "the other one to go on", 2 * TIME)
        assert journal.outcome(journal.read(file)) == outcome
        assert len(parts_of(file)) == 1, "what two hosts may write is two files"
        left.await_told("healed" if outcome == "done" else "acted", "is the primary now", 30)
        mourners.await_writes()
        old.start()
        await_back(site, old)
        assert not dead.texts("acted")
    assert not mourners.verdict.lost, mourners.verdict


# -- it hangs between a check and an act --------------------------------------------------------------------------

QUICK = [("etcd", "mariadb.accept_writes:before")]
LONG = [
    ("etcd", "mariadb.stop_receiver:before"),
    ("etcd", "haproxy.runtime:before"),
    ("etcd", "mariadb.stop_replica:before"),
    ("etcd", "lease.commit:before"),
    ("etcd", "lease.commit:after"),
    ("etcd", "mariadb.change_source:before"),
    ("database", "haproxy.runtime:before"),
    ("database", "mariadb.stop_receiver:before"),
    ("database", "mariadb.stop_replica:before"),
    ("database", "mariadb.accept_writes:before"),
    ("database", "mariadb.change_source:before"),
]


@pytest.mark.parametrize(
    ("shared", "point"), [*QUICK, *(pytest.param(*case, marks=full) for case in LONG)], indirect=["shared"]
)
def test_stopped_between_check_and_act_another_takes_over_and_the_first_one_changes_nothing(
    site: Lab, point: str
) -> None:
    with mourning(site, writers=2) as mourners:
        old = killed(site)
        with stopped_at(site, point, FAILOVER) as engine:
            file = last_journal(site)
            healed = site.run("heal")
            assert healed.returncode in (0, 7), healed.stdout + healed.stderr
            assert len(parts_of(file)) == 1, "what two hosts may write is two files"
            if not site.cluster.writable:
                failed_over(site)
            before, records = standing(site), journal.read(file)
            os.kill(engine.pid, signal.SIGCONT)
            said, _ = engine.communicate(timeout=60)
            assert engine.returncode != 0, said
            assert standing(site) == before, said
        assert standing(site) == before, "the guard has changed something"
        assert journal.read(file) == records, "what the first engine has still written counts"
        brought_back(site, old)
    assert not mourners.verdict.lost, mourners.verdict


@only_etcd
def test_serve_that_was_stopped_in_mid_failover_finds_it_done_and_goes_on(site: Lab) -> None:
    with mourning(site, writers=2) as mourners, two_engines(site, "mariadb.stop_receiver:before:1@STOP") as both:
        old = killed(site)
        asleep = until(lambda: next((s for s in both if s.daemon.stopped), None), "one of them to be stopped", 30)
        awake = next(served for served in both if served is not asleep)
        awake.await_told("acted", "is the primary now", 60)
        mourners.await_writes()
        before, told = standing(site), len(asleep.told)
        asleep.daemon.go_on()
        until(lambda: any("takes writes" in n["text"] for n in asleep.told[told:] if n["kind"] == "state"), "it to see")
        assert standing(site) == before
        assert not asleep.texts("acted")
        old.start()
        await_back(site, old)
    assert not mourners.verdict.lost, mourners.verdict


# -- etcd is gone, wholly or in part ------------------------------------------------------------------------------


@only_etcd
def test_a_member_is_lost_and_nothing_else_and_without_a_quorum_nobody_does_anything(site: Lab, etcd: Etcd) -> None:
    first, second, _ = etcd.members
    try:
        with serving(site) as served:
            first.kill()
            old = site.cluster.primary
            old.kill9()
            served.await_told("acted", "is the primary now", 60)
            old.start()
            await_back(site, old)
            until(lambda: waits_for_acknowledgements(site.cluster), "somebody to acknowledge")
            second.kill()
            new = site.cluster.primary
            assert "nobody knows who holds it" in site.run("status").stdout
            assert beat(site) == new.name, "nobody is demoted for that"
            new.kill9()
            assert "the lease cannot be had" in served.await_told("blocked", "", 60)
            refused = site.run(*FAILOVER)
            assert refused.returncode == 3, refused.stdout + refused.stderr
            assert "the lease cannot be had" in refused.stderr
            assert site.cluster.writable == ()
            second.restart()
            until(lambda: site.cluster.writable, "the failover that is possible now", 60)
            new.start()
            await_back(site, new)
    finally:
        for member in (first, second):
            member.restart()
        until(lambda: "free" in site.run("status").stdout, "etcd, and the end of a lease that was not given back")


@only_etcd
@pytest.mark.parametrize("point", [pytest.param("lease.commit:before", marks=full), "lease.commit:after"])
def test_etcd_is_lost_in_mid_failover(site: Lab, etcd: Etcd, point: str) -> None:
    """Before the commit everything is undone, and nobody takes writes; after it, it is finished."""
    committed = point.endswith("after")
    try:
        with mourning(site, writers=2) as mourners:
            old = killed(site)
            with stopped_at(site, point, FAILOVER) as engine:
                for member in etcd.members[:2]:
                    member.kill()
                os.kill(engine.pid, signal.SIGCONT)
                said, _ = engine.communicate(timeout=60)
                assert engine.returncode == (0 if committed else 4), said
            assert bool(site.cluster.writable) is committed
            for member in etcd.members[:2]:
                member.restart()
            until(lambda: "free" in site.run("status").stdout, "etcd, and the end of a lease that was not given back")
            if not committed:
                assert following(site, old), "the receivers were started again"
                failed_over(site)
            brought_back(site, old)
        assert not mourners.verdict.lost, mourners.verdict
    finally:
        for member in etcd.members[:2]:
            if not member.daemon.running:
                member.restart()


def following(site: Lab, source: Node) -> bool:
    return all(node.source_port() == source.port for node in site.cluster if node is not source)


# -- too few servers for a lease of their own ---------------------------------------------------------------------


@only_database
def test_without_a_majority_of_the_servers_nobody_does_anything(site: Lab) -> None:
    old = site.cluster.primary
    away = next(node for node in site.cluster if node is not old)
    with configured(site, failover={"policy": "most_advanced"}), serving(site) as served:
        away.kill9()
        until(lambda: beat(site) == old.name, "the primary to go on", 10)
        old.kill9()
        assert "the lease cannot be had" in served.await_told("blocked", "", 60)
        assert site.cluster.writable == ()
        away.start()
        until(lambda: site.cluster.writable, "the failover that is possible now", 60)
        old.start()
        await_back(site, old)
