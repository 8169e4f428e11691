"""A cluster manager is asked whether a host is fenced: its word counts when it is new and nothing is against it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute.config import ClusterConfig, load
from proxyroute.errors import TimedOut
from proxyroute.fenced import confirmation
from proxyroute.lease.pacemaker_cluster import ClusterNode, ClusterSight, Fencing
from proxyroute.model import Deadline
from tests.unit.test_config_lease import FILE

NOW = time.time()
OFF = Fencing("off", True, NOW - 5, "pacemaker-controld.7 at n2")
GONE = ClusterSight(
    "db2",
    quorate=True,
    fences=True,
    nodes={"db1": ClusterNode(False), "db2": ClusterNode(True), "n7": ClusterNode(False)},
)


class FakeCluster:
    def __init__(self, sight: ClusterSight | None, *fencings: Fencing) -> None:
        self._sight = sight
        self._fencings = fencings
        self.asked_of: list[str] = []

    def sight(self, deadline: Deadline) -> ClusterSight:
        if self._sight is None:
            raise TimedOut("the cluster manager does not answer")
        return self._sight

    def fencings(self, node: str, deadline: Deadline) -> tuple[Fencing, ...]:
        self.asked_of.append(node)
        return self._fencings


@pytest.fixture
def shop(tmp_path: Path) -> ClusterConfig:
    path = tmp_path / "proxyroute.yml"
    path.write_text(FILE.format(top="", inside="").replace('db2: "10.0.0.2"', "db2: {address: 10.0.0.2, node: n7}"))
    return load(path).cluster(None)


def test_a_fencing_that_ended_after_the_primary_was_last_seen_is_a_confirmation(shop: ClusterConfig) -> None:
    failed_before = replace(OFF, succeeded=False, at=NOW - 20)
    for last in (OFF, replace(OFF, action="reboot"), replace(OFF, at=NOW - 11)):
        found = confirmation(shop, "db1", NOW - 10, FakeCluster(GONE, last, failed_before), Deadline.after(1))
        assert found.finding is None
        assert found.by.startswith(f"pacemaker (db1: {last.action}, ")
        assert "pacemaker-controld.7 at n2" in found.by


def test_the_host_may_have_another_name_in_the_cluster(shop: ClusterConfig) -> None:
    cluster = FakeCluster(GONE, OFF)
    assert confirmation(shop, "db2", 0.0, cluster, Deadline.after(1)).by
    assert cluster.asked_of == ["n7"]


def without(**changes: object) -> ClusterSight:
    return replace(GONE, nodes={**GONE.nodes, "db1": replace(ClusterNode(False), **changes)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        (FakeCluster(None), "nobody knows whether db1 is fenced"),
        (FakeCluster(replace(GONE, quorate=False), OFF), "no quorum"),
        (FakeCluster(replace(GONE, nodes={"a": ClusterNode(True)}), OFF), "has no node db1; it has a"),
        (FakeCluster(without(online=True), OFF), "is a member of the cluster"),
        (FakeCluster(without(pending=True), OFF), "is a member of the cluster"),
        (FakeCluster(without(unclean=True), OFF), "nobody has confirmed yet"),
        (FakeCluster(GONE), "no fencing of db1 is on record"),
        (FakeCluster(GONE, replace(OFF, action="on")), "no fencing of db1 is on record"),
        (FakeCluster(GONE, replace(OFF, succeeded=False), replace(OFF, at=NOW - 7)), "has failed"),
        (FakeCluster(GONE, replace(OFF, at=NOW - 60)), "has been seen taking writes since"),
    ],
)
def test_everything_else_is_none(shop: ClusterConfig, cluster: FakeCluster, told: str) -> None:
    found = confirmation(shop, "db1", NOW - 10, cluster, Deadline.after(1))
    assert not found.by
    assert found.finding is not None
    assert (found.finding.code, found.finding.forceable) == ("failover.not_fenced", False)
    assert told in found.finding.text
    assert found.finding.cure


def test_one_that_is_long_past_says_nothing_of_now_when_nobody_has_seen_the_primary(shop: ClusterConfig) -> None:
    old = FakeCluster(GONE, replace(OFF, at=NOW - 3700))
    found = confirmation(shop, "db1", 0.0, old, Deadline.after(1))
    assert found.finding is not None
    assert "says nothing of now" in found.finding.text
