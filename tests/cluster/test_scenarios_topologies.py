"""Shapes of clusters: chains, a replica that is away for a while, and topologies that are not ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.process import free_port
from tests.support.scene import assert_order, books, other, refused, standing, switched
from tests.support.wait import until

FLAVOURS = ("mysql",)
SITE = {"n": 4, "policy": {"prove": "3s"}}


@pytest.fixture
def odd(site: Lab) -> Node:
    """The last replica, to which something odd is done."""
    return [node for node in site.cluster if node is not site.cluster.primary][-1]


# -- Chains ---------------------------------------------------------------------------------------------------


def test_replica_below_a_replica_stays_attached_and_is_never_lost(site: Lab, odd: Node) -> None:
    above = site.cluster[other(site, other(site), odd.name)]
    odd.follow(above)
    old = site.cluster.primary
    new = other(site, above.name, odd.name)
    with books(site):
        switched(site, "--to", new)
        assert_order(site, new, below={odd.name: above.name})
        switched(site, "--to", above.name)
        assert_order(site, above.name, below={odd.name: above.name})
        switched(site, "--to", old.name)
    assert_order(site, old.name)


def test_a_replica_below_a_replica_does_not_qualify_and_the_way_out_is_named(site: Lab, odd: Node) -> None:
    above, primary = site.cluster[other(site, odd.name)], site.cluster.primary
    odd.follow(above)
    found = refused(site, "--to", odd.name)["candidate.chain"]
    assert found["text"] == f"is below {above.name}, not directly below {primary.name}"
    odd.follow(primary)


# -- Away for a while -----------------------------------------------------------------------------------------


def test_a_replica_down_joins_the_new_primary_after_heal(site: Lab, odd: Node) -> None:
    odd.kill9()
    with books(site):
        value = switched(site, code=7)
    assert value["verdict"] == "UNKNOWN", value
    assert any(left.startswith(f"follow {odd.name}") for left in value["result"]["leftovers"])
    primary = assert_order(site)
    odd.start()
    assert site.run("heal").returncode == 0
    until(odd.replicates, f"{odd.name} to follow")
    assert odd.source_port() == primary.port
    assert site.json("heal") == (0, {"results": [], "unread": []}), "nothing is left to do"


def test_a_replica_down_gets_everything_by_itself_through_the_old_primary(site: Lab, odd: Node) -> None:
    odd.stop()
    old = site.cluster.primary
    switched(site, code=7)
    site.cluster.primary.make_table("app.after_it", "id INT PRIMARY KEY")
    odd.start()
    until(lambda: odd.sql("SHOW TABLES IN app LIKE 'after_it'"), "the row that was written meanwhile")
    assert odd.source_port() == old.port
    assert site.run("heal").returncode == 0
    assert odd.source_port() == site.cluster.primary.port


# -- Topologies that are not ours -----------------------------------------------------------------------------


def test_a_ring_is_refused_by_name(site: Lab, odd: Node) -> None:
    primary = site.cluster.primary
    primary.follow(odd)
    before = standing(site)
    found = refused(site)["topology.ring"]
    assert {primary.name, odd.name} <= set(found["text"].replace(":", "").split())
    assert "topology.ring" in refused(site, "--to", odd.name, "--force").codes
    assert standing(site) == before
    primary.sql("STOP SLAVE")
    primary.sql("RESET SLAVE ALL")


def test_several_primaries_are_refused_by_name(site: Lab, odd: Node) -> None:
    primary = site.cluster.primary
    odd.sql("STOP SLAVE")
    odd.sql("RESET SLAVE ALL")
    odd.accept_writes()
    found = refused(site)["topology.multi_primary"]
    assert {primary.name, odd.name} <= set(found["text"].replace(",", "").split())
    assert "topology.multi_primary" in refused(site, "--to", odd.name, "--force").codes
    odd.refuse_writes()
    odd.follow(primary)


GALERA = Path("/usr/lib/galera/libgalera_smm.so")


@pytest.mark.mariadb_only("Galera is a library of MariaDB's")
@pytest.mark.skipif(not GALERA.exists(), reason="the library of Galera is not installed (Debian: galera-4)")
def test_galera_is_refused_by_name(start_lab: Callable[..., Lab]) -> None:
    """A real Galera node, alone in its cluster, with an ordinary replica below it."""
    with start_lab(2) as lab:
        port = free_port()
        node, replica = lab.cluster
        node.restart(
            wsrep_on="ON",
            wsrep_provider=str(GALERA),
            wsrep_cluster_address="gcomm://",
            wsrep_node_address="127.0.0.1",
            wsrep_provider_options=f"base_port={port};gmcast.listen_addr=tcp://127.0.0.1:{port};gcache.size=1M",
            innodb_autoinc_lock_mode=2,
            read_only=0,
        )
        until(replica.replicates, "the replica to follow again")
        assert node.sql("SHOW STATUS LIKE 'wsrep_cluster_status'")[0]["Value"] == "Primary"
        found = refused(lab)["topology.galera"]
        assert "db1 run Galera" in found["text"]
        assert "topology.galera" in refused(lab, "--to", "db2", "--force").codes


# -- The primary ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill9", "sigstop"])
def test_the_primary_is_down_or_hangs_a_switchover_is_refused_and_failover_is_proposed(site: Lab, how: str) -> None:
    primary = site.cluster.primary
    getattr(primary, how)()
    status, value = site.json("switchover", "--yes")
    try:
        assert status == 3, value
        (found,) = (f for f in value["error"]["findings"] if f["code"] == "primary.silent")
        assert found["subject"] == primary.name
        assert "proxyroute failover" in found["cure"]
        others = [node for node in site.cluster if node is not primary]
        assert not [node.name for node in others if node.is_writable()]
        assert {node.source_port() for node in others} == {primary.port}
    finally:
        if how == "kill9":
            primary.start()
            primary.accept_writes()
        else:
            primary.sigcont()
    until(lambda: all(node.replicates() for node in site.cluster if node is not primary), "everybody to follow again")
    assert_order(site, primary.name)
