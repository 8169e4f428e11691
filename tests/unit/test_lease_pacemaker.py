"""The lease by a resource of Pacemaker: ours where the cluster says so; unknown is no failure."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute.errors import Busy, LeaseLost, Refused, TimedOut
from proxyroute.lease import pacemaker
from proxyroute.lease.pacemaker import PacemakerLease
from proxyroute.lease.pacemaker_cluster import ClusterNode, ClusterSight, PacemakerCluster, Resource
from proxyroute.model import NO_EPOCH, Deadline
from tests.support.wait import until

HERE = ClusterSight(
    "n1",
    quorate=True,
    fences=True,
    nodes={"n1": ClusterNode(True), "n2": ClusterNode(True)},
    resources={"proxyroute": Resource("Started", True, ("n1",))},
)


def at(role: str, *nodes: str, managed: bool = True) -> ClusterSight:
    return replace(HERE, resources={"proxyroute": Resource(role, managed, nodes)})


class FakeCluster:
    """Says what it is told to; None: it does not answer."""

    def __init__(self) -> None:
        self.says: ClusterSight | None = HERE
        self.asked = 0

    def sight(self, deadline: Deadline) -> ClusterSight:
        self.asked += 1
        if self.says is None:
            raise TimedOut("the cluster manager does not answer")
        return self.says


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def lease(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PacemakerLease:
    monkeypatch.setattr(pacemaker, "_EVERY", 0.02)
    return PacemakerLease(cluster, "proxyroute", tmp_path, 10.0)


def soon() -> Deadline:
    return Deadline.after(5)


def lost(lease: PacemakerLease) -> str:
    """Returns why it is lost; empty while it is not."""
    try:
        lease.check()
    except LeaseLost as error:
        return str(error)
    return ""


@pytest.mark.parametrize("role", ["Started", "Starting"])
def test_it_is_had_where_the_resource_is(lease: PacemakerLease, cluster: FakeCluster, role: str) -> None:
    cluster.says = at(role, "n1")
    first = lease.acquire("test", soon())
    assert (lease.term, lease.acquire("again", soon())) == (first, first)
    lease.check()
    lease.commit("op", soon())
    lease.release()
    assert lease.term == 0
    with pytest.raises(LeaseLost):
        lease.check()


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (at("Started", "n2"), "is not started here, at n1: it is Started at n2"),
        (at("Stopped"), "it is Stopped"),
        (at("Stopping", "n1"), "it is Stopping"),
        (replace(HERE, quorate=False), "no quorum"),
        (replace(HERE, resources={}), "no resource proxyroute"),
        (None, "does not answer"),
    ],
)
def test_it_is_not_to_be_had_elsewhere_without_quorum_or_when_nobody_says(
    lease: PacemakerLease, cluster: FakeCluster, says: ClusterSight | None, told: str
) -> None:
    cluster.says = says
    with pytest.raises(Refused, match=told):
        lease.acquire("test", soon())
    assert lease.term == 0
    assert told in lease.findings(soon())[0].text


def test_one_process_of_a_node_at_a_time(lease: PacemakerLease, cluster: FakeCluster, tmp_path: Path) -> None:
    lease.acquire("switchover x", soon())
    other = PacemakerLease(cluster, "proxyroute", tmp_path, 10.0)
    with pytest.raises(Busy, match=f"switchover x by .*:{os.getpid()}"):
        other.acquire("test", Deadline.after(0.05))
    assert other.holding(soon()).purpose == "switchover x"
    lease.release()
    other.acquire("test", soon())
    other.release()


def test_terms_and_epochs_only_grow_on_every_node(lease: PacemakerLease, cluster: FakeCluster, tmp_path: Path) -> None:
    seen = [NO_EPOCH]
    for number in range(3):
        node = PacemakerLease(cluster, "proxyroute", tmp_path, 10.0)
        node.acquire("test", soon())
        seen += [node.claim(NO_EPOCH, f"op{number}") for _ in range(2)]
        node.release()
    assert seen == sorted(set(seen))


def test_it_is_lost_once_the_cluster_says_so(lease: PacemakerLease, cluster: FakeCluster) -> None:
    lease.acquire("test", soon())
    cluster.says = at("Stopping", "n1")
    asked = cluster.asked
    until(lambda: cluster.asked > asked + 1, "the cluster to be asked again")
    assert lost(lease) == ""  # until it is stopped, nobody else can be started
    cluster.says = at("Started", "n2")
    until(lambda: lost(lease), "the lease to be lost")
    assert "Started at n2" in lost(lease)
    assert lease.lost(soon())
    with pytest.raises(LeaseLost):
        lease.commit("op", soon())
    assert lease.ticket() == ""
    lease.release()


def test_no_answer_takes_nothing_away_before_its_time(
    lease: PacemakerLease, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease.acquire("test", soon())
    cluster.says = None
    asked = cluster.asked
    until(lambda: cluster.asked > asked + 1, "the cluster to be asked again")
    lease.check()
    assert not lease.lost(soon())
    later = pacemaker.now() + 5.0
    monkeypatch.setattr(pacemaker, "now", lambda: later)
    lease.check()
    with pytest.raises(TimedOut, match="nobody knows whose the lease is"):
        lease.commit("op", soon())
    monkeypatch.setattr(pacemaker, "now", lambda: later + 5.0)
    assert "has not confirmed" in lost(lease)
    assert not lease.lost(soon())
    monkeypatch.undo()
    lease.release()


def test_a_commit_asks_when_the_last_answer_is_old(
    lease: PacemakerLease, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacemaker, "_EVERY", 60.0)
    lease.acquire("test", soon())
    asked = cluster.asked
    lease.commit("op", soon())
    assert cluster.asked == asked
    later = pacemaker.now() + 3.0
    monkeypatch.setattr(pacemaker, "now", lambda: later)
    lease.commit("op", soon())
    assert cluster.asked == asked + 1
    cluster.says = at("Started", "n2")
    monkeypatch.setattr(pacemaker, "now", lambda: later + 3.0)
    with pytest.raises(LeaseLost, match="Started at n2"):
        lease.commit("op", soon())
    lease.release()


def test_a_guard_goes_on_under_the_same_term_also_while_the_resource_is_stopped(
    lease: PacemakerLease, cluster: FakeCluster, tmp_path: Path
) -> None:
    term = lease.acquire("switchover", soon())
    ticket = lease.ticket()
    lease.release()  # as by its death
    cluster.says = at("Stopping", "n1")
    guard = PacemakerLease(cluster, "proxyroute", tmp_path, 10.0)
    assert guard.adopt(ticket)
    assert guard.term == term
    guard.release()
    cluster.says = at("Started", "n2")
    assert not guard.adopt(ticket)
    assert guard.term == 0


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (HERE, ""),
        (replace(HERE, maintenance=True), "maintenance mode"),
        (at("Started", "n1", managed=False), "does not manage proxyroute"),
        (None, ""),
    ],
)
def test_maintenance_is_told_and_a_person_may_act_all_the_same(
    lease: PacemakerLease, cluster: FakeCluster, says: ClusterSight | None, told: str
) -> None:
    cluster.says = says
    assert told in lease.hands_off()
    assert bool(lease.hands_off()) is bool(told)
    if told:
        assert [f.code for f in lease.findings(soon())] == ["lease.maintenance"]
        lease.acquire("a person's switchover", soon())
        lease.release()


def test_whoever_asks_all_the_time_is_told_of_a_change_without_waiting(
    lease: PacemakerLease, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacemaker, "_LATELY", 0.05)
    assert lease.hands_off() == ""
    cluster.says = replace(HERE, maintenance=True)
    until(lease.hands_off, "the maintenance to be seen")
    cluster.says = HERE
    until(lambda: not lease.hands_off(), "its end to be seen")


def test_without_fencing_nothing_automatic_relies_on_it(lease: PacemakerLease, cluster: FakeCluster) -> None:
    assert lease.automatic
    cluster.says = replace(HERE, fences=False)
    assert [f.code for f in lease.findings(soon())] == ["lease.no_fencing"]
    assert not PacemakerLease(cluster, "proxyroute", Path("/nowhere"), 10.0).automatic


def test_who_has_it_is_told(lease: PacemakerLease, cluster: FakeCluster) -> None:
    assert lease.holding(soon()).holder == ""
    cluster.says = at("Started", "n2")
    assert lease.holding(soon()).holder == "n2"
    cluster.says = None
    assert "does not answer" in lease.holding(soon()).trouble


# -- what the cluster's programs say --------------------------------------------------------------------------------

MON = """\
<pacemaker-result api-version="2.25" request="crm_mon --one-shot --output-as=xml">
  <pacemakerd sys_from="pacemakerd" state="running" last_updated="2026-11-28 20:08:46Z"/>
  <summary>
    <current_dc present="true" version="2.1.5" name="n1" id="1" with_quorum="true" mixed_version="false"/>
    <cluster_options stonith-enabled="true" symmetric-cluster="true" no-quorum-policy="stop" maintenance-mode="false"/>
  </summary>
  <nodes>
    <node name="n1" id="1" online="true" maintenance="false" pending="false" unclean="false" type="member"/>
    <node name="n2" id="2" online="false" maintenance="false" pending="false" unclean="true" type="member"/>
  </nodes>
  <resources>
    <group id="site" number_resources="2">
      <resource id="vip" resource_agent="ocf:heartbeat:IPaddr2" role="Started" active="true" managed="true">
        <node name="n1" id="1" cached="true"/>
      </resource>
      <resource id="proxyroute" resource_agent="ocf:proxyroute:proxyroute" role="Starting" managed="false">
        <node name="n1" id="1" cached="true"/>
      </resource>
    </group>
  </resources>
  <status code="0" message="OK"/>
</pacemaker-result>
"""
DENIED = """\
<pacemaker-result api-version="2.25" request="crm_mon">
  <status code="4" message="Insufficient privileges">
    <errors><error>crm_mon: Connection to cluster failed: Permission denied</error></errors>
  </status>
</pacemaker-result>
"""
HISTORY = """\
<pacemaker-result api-version="2.25" request="stonith_admin --history=n2 --output-as=xml">
  <fence_event action="reboot" target="n2" client="stonith_admin.9" origin="n1" status="failed" completed="2026-11-28 20:10:00.000000Z"/>
  <fence_event action="off" target="n2" client="pacemaker-controld.7" origin="n1" delegate="n1" status="success" completed="2026-11-28 20:11:00.123456Z"/>
  <fence_event action="off" target="n2" client="x" origin="n1" status="pending"/>
  <status code="0" message="OK"/>
</pacemaker-result>
"""  # noqa: E501

Programs = Callable[..., None]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Makes programs of the cluster that say what they are told, and end with a status."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, text: str, status: int = 0) -> None:
        (folder / f"{name}.txt").write_text(text)
        (folder / name).write_text(f"#!/bin/sh\ncat {folder}/{name}.txt\nexit {status}\n")
        (folder / name).chmod(0o755)

    make("crm_node", "n1\n")
    return make


def test_what_the_cluster_says_is_understood(programs: Programs) -> None:
    programs("crm_mon", MON)
    sight = PacemakerCluster().sight(soon())
    assert (sight.here, sight.quorate, sight.fences, sight.maintenance) == ("n1", True, True, False)
    assert sight.nodes == {"n1": ClusterNode(True), "n2": ClusterNode(False, unclean=True)}
    assert sight.resources["proxyroute"] == Resource("Starting", False, ("n1",))


def test_quorum_may_be_done_without_where_the_cluster_is_told_so(programs: Programs) -> None:
    without = MON.replace('with_quorum="true"', 'with_quorum="false"')
    programs("crm_mon", without)
    assert not PacemakerCluster("n1").sight(soon()).quorate
    programs("crm_mon", without.replace('no-quorum-policy="stop"', 'no-quorum-policy="ignore"'))
    assert PacemakerCluster("n1").sight(soon()).quorate


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [
        (DENIED, 4, "in the group haclient"),
        ("", 102, "crm_mon ends with 102: it said nothing"),
        ("no document", 0, "no document"),
        (MON.replace('present="true"', 'present="false"'), 0, "no designated controller"),
        (MON.replace("cluster_options", "options"), 0, "there is no cluster_options"),
        (MON.replace('code="0"', 'code="1"'), 0, "does not say"),
    ],
)
def test_what_makes_no_sense_is_unknown(programs: Programs, text: str, status: int, told: str) -> None:
    programs("crm_mon", text, status)
    with pytest.raises(TimedOut, match=told):
        PacemakerCluster().sight(soon())


def test_an_answer_that_does_not_come_is_not_waited_for(programs: Programs, tmp_path: Path) -> None:
    programs("crm_mon", "")
    (tmp_path / "bin" / "crm_mon").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(TimedOut, match="does not answer"):
        PacemakerCluster("n1").sight(Deadline.after(0.3))


def test_a_host_without_pacemaker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("proxyroute.lease.pacemaker_cluster._PLACES", str(tmp_path))
    with pytest.raises(TimedOut, match="crm_node is not installed"):
        PacemakerCluster().sight(soon())


def test_fencings_are_told_the_latest_first_and_only_those_that_have_ended(programs: Programs) -> None:
    programs("stonith_admin", HISTORY)
    found = PacemakerCluster("n1").fencings("n2", soon())
    assert [(f.action, f.succeeded) for f in found] == [("off", True), ("reboot", False)]
    assert found[0].by == "pacemaker-controld.7 at n1"
    assert PacemakerCluster("n1").fencings("n3", soon()) == ()
