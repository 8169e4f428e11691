"""Shapes of clusters: chains, a replica that is away for a while, and topologies that are not ours."""

from __future__ import annotations

import pytest

from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.scene import assert_order, books, other, refused, standing, switched
from tests.support.wait import until

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
    assert site.json("heal") == (0, {"results": []}), "nothing is left to do"


def test_a_replica_down_gets_everything_by_itself_through_the_old_primary(site: Lab, odd: Node) -> None:
    odd.stop()
    old = site.cluster.primary
    switched(site, code=7)
    site.cluster.primary.sql("CREATE OR REPLACE TABLE app.after_it (id INT PRIMARY KEY)")
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
    odd.sql("SET GLOBAL read_only=0")
    found = refused(site)["topology.multi_primary"]
    assert {primary.name, odd.name} <= set(found["text"].replace(",", "").split())
    assert "topology.multi_primary" in refused(site, "--to", odd.name, "--force").codes
    odd.sql("SET GLOBAL read_only=1")
    odd.follow(primary)
