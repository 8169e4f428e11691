"""Cables are cut: from the engine only, from the replicas only, from everybody; a proxy loses the shared folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import netns
from tests.support.death import await_back, brought_back, failed_over, no_failover, remembered
from tests.support.hosts import ProxyHost
from tests.support.lab import run_to_end
from tests.support.load import create_table
from tests.support.mariadb import LocalCluster
from tests.support.netlab import NetLab
from tests.support.network import Network
from tests.support.scene import assert_order, beat, configured, served_by
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
AUTOMATIC = {"mode": "automatic", "single_engine": True, "policy": "most_advanced", "quiet_period": "0s"}
MORE = {"serve": {"period": "200ms", "proxies_period": "400ms"}, "failover": {**AUTOMATIC, "per_day": 100}}


@pytest.fixture(autouse=True)
def possible() -> None:
    try:
        netns.require()
    except netns.Unavailable as reason:
        pytest.skip(str(reason))


def _disk(network: Network) -> Mapping[str, Path]:
    """Every host sees the shared folder through a link of its own: without the link, it is cut off from the disk."""
    shared = network.folder / "shared"
    shared.mkdir(exist_ok=True)
    links = network.folder / "mounts"
    links.mkdir()
    for host in network.hosts:
        (links / host).symlink_to(shared)
    return {host: links / host for host in network.hosts}


@contextlib.contextmanager
def without_disk(lab: NetLab, host: ProxyHost) -> Iterator[None]:
    """For a ``with`` block a proxy host does not see the shared folder."""
    host.shared.unlink()
    host.shared.symlink_to(lab.folder / "nowhere")
    try:
        yield
    finally:
        host.shared.unlink()
        host.shared.symlink_to(lab.folder / "shared")


@pytest.fixture(scope="module")
def kept() -> Iterator[list[NetLab]]:
    """One site for the module, as long as it is left in order."""
    sites: list[NetLab] = []
    yield sites
    for lab in sites:
        lab.close()


@pytest.fixture
def net(possible: None, kept: list[NetLab], servers: type[LocalCluster]) -> Iterator[NetLab]:
    if not kept:
        policy = {"prove": "2s", "settle": "4s"}
        kept.append(NetLab.start(3, more=MORE, policy=policy, shared=_disk, provider=servers))
    lab = kept[0]
    yield lab
    try:
        in_order(lab)
    except BaseException:
        kept.clear()
        lab.close()
        raise


def in_order(lab: NetLab, primary: str | None = None) -> None:
    with lab.inside("client1"):
        assert_order(lab, primary)


def test_cut_off_from_the_engine_only_it_lives(net: NetLab) -> None:
    cut_from_engine(net)


def cut_from_engine(net: NetLab) -> None:
    old = net.cluster.primary
    with serving(net) as served:
        net.cut(old.name, "engine1")
        told = served.await_told("diagnosis", "UnreachablePrimary", 60)
        assert "but it lives" in told
        with net.inside("client1"):
            assert beat(net) == old.name
        found = no_failover(net, "--force")["failover.diagnosis"]
        assert "UnreachablePrimary" in found["text"], "nobody forces that"
        assert served.texts("acted") == []
        net.mend(old.name, "engine1")
        served.await_told("diagnosis", "NoProblem", 60)
    in_order(net, old.name)


def test_an_engine_whose_own_cable_is_cut_knows_that_it_is_cut_off_and_does_nothing(net: NetLab) -> None:
    old = net.cluster.primary
    with serving(net) as served:
        net.cut("engine1")
        served.await_told("diagnosis", "CutOff", 60)
        found = no_failover(net, "--force")["failover.diagnosis"]
        assert found["text"].startswith("CutOff"), "nobody forces that"
        with net.inside("client1"):
            assert beat(net) == old.name
        assert served.texts("acted") == []
        net.mend("engine1")
        served.await_told("diagnosis", "NoProblem", 60)
        assert served.texts("acted") == []
    in_order(net, old.name)


def test_cut_off_from_the_replicas_only_it_lives(net: NetLab) -> None:
    cut_from_replicas(net)


def cut_from_replicas(net: NetLab) -> None:
    old = net.cluster.primary
    with serving(net) as served:
        for node in net.cluster:
            if node is not old:
                net.cut(old.name, node.name)
        several = len(net.cluster) > 2
        served.await_told(
            "diagnosis", "AllReplicasNotReplicating" if several else "PrimarySingleReplicaNotReplicating", 60
        )
        with net.inside("client1"):
            assert beat(net) == old.name
        assert served.texts("acted") == []
        net.mend()
        served.await_told("diagnosis", "NoProblem", 60)
    in_order(net, old.name)


@pytest.mark.full
@pytest.mark.parametrize("n", [2, 5])
def test_cut_off_from_some_with_one_replica_and_with_four(n: int, servers: type[LocalCluster]) -> None:
    with NetLab.start(n, more=MORE, policy={"prove": "3s"}, proxies=1, provider=servers) as lab:
        cut_from_engine(lab)
        cut_from_replicas(lab)


def test_cut_off_from_everybody_it_is_replaced_and_closed_when_it_is_back(net: NetLab) -> None:
    old = net.cluster.primary
    create_table(old)
    net.cluster.await_synced()
    with serving(net) as served:
        net.cut(old.name)
        served.await_told("acted", "failover", 60)
        assert old.is_writable(), "nobody could tell it"
        new = next(node for node in net.cluster if node is not old and node.is_writable())
        for host in net.hosts:
            with net.inside("client1"):
                assert beat_at(net, host) == new.name
        net.mend()
        told = served.await_told("acted", f"{old.name} was closed", 60)
        assert f"{new.name} is the primary" in told
        await_back(net, old)
    in_order(net, new.name)


def beat_at(net: NetLab, host: ProxyHost) -> str:
    return beat(net, host.write)


def partition(net: NetLab, name: str) -> None:
    """A server is gone for everybody but the host edge2."""
    for other in net.network.hosts:
        if other not in (name, "edge2", "client1"):
            net.cut(name, other)


@pytest.mark.full
def test_a_proxy_without_the_disk_that_reaches_the_old_primary_is_waited_for_and_named(net: NetLab) -> None:
    old, edge2 = net.cluster.primary, net.hosts[1]
    with net.inside("engine1"):
        remembered(net)
    with without_disk(net, edge2):
        partition(net, old.name)
        status, value = net.json("failover", "--yes")
        assert status == 4, value
        assert_named(net, value["error"]["text"])
        old.sql("SET GLOBAL read_only=1")  # somebody has switched the host off
        failed_over(net, "--proxy-fenced", "edge2", code=7)
    after(net)


@pytest.mark.full
def test_an_automatic_failover_waits_for_a_proxy_and_a_person_can_step_in(net: NetLab) -> None:
    old, edge2 = net.cluster.primary, net.hosts[1]
    with serving(net) as served, without_disk(net, edge2):
        partition(net, old.name)
        assert_named(net, served.await_told("blocked", "edge2", 90))
        old.sql("SET GLOBAL read_only=1")
        failed_over(net, "--proxy-fenced", "edge2", code=7)
    after(net)


@pytest.mark.full
def test_a_fence_that_succeeded_lets_it_go_past_a_proxy_that_is_silent_and_that_host_is_named(net: NetLab) -> None:
    """The fence is a power switch: what edge2 still sends to the old primary arrives nowhere."""
    old, edge2 = net.cluster.primary, net.hosts[1]
    switch = ["/bin/sh", "-c", f"kill -9 {old.process.pid}"]
    with configured(net, scripts={"fence": switch}), serving(net) as served, without_disk(net, edge2):
        partition(net, old.name)
        served.await_told("acted", "failover", 90)
        assert not old.running
        assert served.texts("blocked") == []
    (done, *_) = net.json("history")[1]["operations"]
    assert (done["kind"], done["outcome"]) == ("failover", "done")
    shown = " ".join(run_to_end(net.command("show", done["operation"])).stdout.split())
    assert f"edge2 has not closed its route to the fenced {old.name}" in shown, shown
    assert "fenced by the script at fence" in shown, shown
    with net.inside("client1"):
        assert beat_at(net, net.hosts[0]) == net.cluster.primary.name
    old.start()
    after(net)


def assert_named(net: NetLab, told: str) -> None:
    """The host that may still send writes is named, it still does, and nobody else was opened."""
    assert "edge2 may still send writes" in told, told
    assert "proxyroute failover --proxy-fenced edge2" in told, told
    (old,) = (node for node in net.cluster if node.is_writable())
    with net.inside("client1"):
        assert served_by(net, net.hosts[1].write) == old.name, "that is the danger"


def after(net: NetLab) -> None:
    """All cables and disks are well again: what was left to do is done, and whoever was gone follows."""
    net.mend()
    new = net.cluster.primary
    until(lambda: run_to_end(net.command("heal")).returncode in (0, 7), "nothing to be open", 60)
    for node in net.cluster:
        if node is not new and not node.replicates():
            brought_back(net, node)
    with net.inside("client1"):
        until(lambda: through(net, net.hosts[1]), "edge2 to follow again", 60)
    in_order(net, new.name)


@pytest.mark.full
def test_a_proxy_that_closes_by_itself_when_it_hears_nothing_is_waited_for(net: NetLab) -> None:
    old, edge2 = net.cluster.primary, net.hosts[1]
    create_table(old)
    edge2.kill_agent()
    edge2.write_agent_file(on_silence="close_writes", silence=4)
    edge2.start_agent()
    until(lambda: edge2.status(), "the agent to be up")
    assert run_to_end(net.command("publish")).returncode == 0
    net.cluster.await_synced()
    with serving(net) as served:
        with without_disk(net, edge2):
            partition(net, old.name)
            served.await_told("acted", "failover", 120)
            with net.inside("client1"), pytest.raises(Exception, match=r"\(20\d\d"):
                beat_at(net, edge2)
            assert served.texts("blocked") == []
        net.mend()
        await_back(net, old)
        with net.inside("client1"):
            until(lambda: through(net, edge2), "edge2 to open again", 60)
    in_order(net)


def through(net: NetLab, host: ProxyHost) -> bool:
    with contextlib.suppress(Exception):
        return beat_at(net, host) == net.cluster.primary.name
    return False


@pytest.mark.full
@pytest.mark.parametrize("n", [2, 5])
def test_cut_off_from_everybody_with_one_replica_and_with_four(n: int, servers: type[LocalCluster]) -> None:
    with NetLab.start(n, more=MORE, policy={"prove": "3s"}, proxies=1, provider=servers) as lab:
        old = lab.cluster.primary
        with serving(lab) as served:
            lab.cut(old.name)
            served.await_told("acted", "failover", 60)
            lab.mend()
            served.await_told("acted", f"{old.name} was closed", 60)
            await_back(lab, old)
        in_order(lab)
