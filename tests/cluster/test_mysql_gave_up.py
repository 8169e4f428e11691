"""A receiver of MySQL gives its source up after ten vain attempts, by default: whoever is back finds nobody behind."""

from __future__ import annotations

import pytest

from tests.support.death import brought_back, failed_over
from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.mysql import MySQLCluster
from tests.support.scene import assert_order, other
from tests.support.serving import serving
from tests.support.wait import until

pytestmark = pytest.mark.matrix


def impatient(node: Node) -> None:
    """Lets the receiver of ``node`` try once a second, and twice at most."""
    for words in ("STOP REPLICA", "CHANGE REPLICATION SOURCE TO SOURCE_RETRY_COUNT=2, SOURCE_CONNECT_RETRY=1"):
        node.sql(words)
    node.sql("START REPLICA")
    until(node.replicates, f"{node.name} to follow")


def gave_up(node: Node) -> bool:
    told = node.sql("SHOW REPLICA STATUS")[0]
    return told["Replica_IO_Running"] == "No" and int(told["Last_IO_Errno"]) == 2003


def test_a_replica_that_gave_its_primary_up_follows_it_again_once_it_is_back() -> None:
    # nobody acknowledges, so that nobody takes over: the primary is opened again when it is back
    more = {"serve": {"period": "200ms"}, "failover": {"mode": "automatic", "single_engine": True}}
    with Lab.start(3, provider=MySQLCluster, more=more) as site:
        old, patient = site.cluster.primary, site.cluster[other(site)]
        (left,) = (node for node in site.cluster if node not in (old, patient))
        with serving(site) as served:
            served.await_told("state")
            impatient(left)
            old.kill9()
            until(lambda: gave_up(left), f"{left.name} to give {old.name} up")
            assert patient.replication()["Slave_IO_Running"] == "Connecting"
            old.start()
            served.await_told("acted", f"{left.name} follows {old.name}", 60)
            until(left.replicates, f"{left.name} to follow")
        assert_order(site)


def test_a_channel_that_is_made_anew_tries_on_for_days() -> None:
    """With nobody beside it whose settings it could take."""
    with Lab.start(2, provider=MySQLCluster, more={"failover": {"policy": "most_advanced"}}) as site:
        old = site.cluster.primary
        old.kill9()
        failed_over(site, code=7)
        brought_back(site, old)
        told = old.sql("SHOW REPLICA STATUS")[0]
        assert (told["Connect_Retry"], told["Source_Retry_Count"]) == (5, 86400)
