"""Replicas with something of their own: delayed, filtered, of several sources. Never elected unasked, kept as is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.lab import Lab
from tests.support.mariadb import LocalCluster, Node
from tests.support.scene import assert_order, books, configured, refused, switched
from tests.support.wait import until

FLAVOURS = ("mysql",)
SITE = {"n": 3, "policy": {"prove": "3s"}}


def elected(site: Lab) -> str | None:
    plan = site.json("plan")[1]["plan"]
    return plan["candidate"] if plan else None


def channels(node: Node) -> dict[int, bool]:
    """Returns, by the port of its source, whether each channel runs."""
    rows = node.replications()
    return {r["Master_Port"]: r["Slave_IO_Running"] == r["Slave_SQL_Running"] == "Yes" for r in rows}


def delay(node: Node, seconds: int) -> None:
    node.sql("STOP SLAVE")
    node.sql(f"CHANGE MASTER TO MASTER_DELAY={seconds}, MASTER_HEARTBEAT_PERIOD=1")
    node.sql("START SLAVE")
    until(node.replicates, "the delayed replica to follow")


def leave_out(node: Node, table: str) -> None:
    node.sql("STOP SLAVE")
    node.sql(f"SET GLOBAL replicate_ignore_table='{table}'")
    node.sql("START SLAVE")
    until(node.replicates, "the filtered replica to follow")


def follow_too(node: Node, source: Node) -> None:
    node.follow_too(source)
    until(lambda: node.sql("SHOW TABLES IN app LIKE 'elsewhere'"), "the second channel to deliver")


@pytest.fixture(scope="module")
def elsewhere(servers: type[LocalCluster]) -> Iterator[Node]:
    """A server of another cluster, with a domain of its own."""
    with servers.start(1, node_options={"db1": {"server_id": 77, "gtid_domain_id": 7}}) as cluster:
        cluster["db1"].sql("CREATE TABLE app.elsewhere (id INT AUTO_INCREMENT PRIMARY KEY)")
        yield cluster["db1"]


@pytest.fixture
def zoo(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    """db1 and db2 are ordinary, db3 is delayed, db4 leaves a table out."""
    with start_lab(4, policy={"prove": "3s"}) as lab:
        delay(lab.cluster["db3"], 3600)
        leave_out(lab.cluster["db4"], "app.secret")
        yield lab


def test_delayed_and_filtered_replicas_are_never_elected_and_kept_as_they_were(zoo: Lab) -> None:
    db1, db2, db3, db4 = zoo.cluster
    assert "delayed by 3600 s on purpose" in refused(zoo, "--to", "db3")["candidate.delay"]["text"]
    assert "through filters" in refused(zoo, "--to", "db4")["candidate.filters"]["text"]
    with configured(zoo, switchover={"never": ["db2"]}):
        assert elected(zoo) is None
    with configured(zoo, switchover={"never": ["db2"], "allow_filtered": True}):
        assert elected(zoo) == "db4"
    for name in ("secret", "plain"):
        db1.sql(f"CREATE TABLE app.{name} (id INT PRIMARY KEY)")

    switched(zoo)
    assert_order(zoo, "db2", aside=["db3"])
    db2.sql("CREATE TABLE app.after_it (id INT PRIMARY KEY)")

    assert (db3.source_port(), db3.replication()["SQL_Delay"], db3.replicates()) == (db2.port, 3600, True)
    assert db3.sql("SHOW TABLES IN app") == [], "it is still delayed"
    assert db4.replication()["Replicate_Ignore_Table"] == "app.secret"
    until(lambda: db4.sql("SHOW TABLES IN app LIKE 'after_it'"), "the filtered replica to go on")
    assert db4.sql("SHOW TABLES IN app LIKE 'secret'") == []


def test_a_replica_of_several_sources_is_never_elected_and_goes_on_with_each(
    start_lab: Callable[..., Lab], elsewhere: Node
) -> None:
    with start_lab(3, policy={"prove": "3s"}) as lab:
        _, db2, db3 = lab.cluster
        follow_too(db3, elsewhere)
        with configured(lab, switchover={"never": ["db2"]}):
            assert elected(lab) is None
        elsewhere.sql("INSERT INTO app.elsewhere VALUES ()")

        switched(lab)
        assert_order(lab, "db2", aside=["db3"])
        db2.sql("CREATE TABLE app.after_it (id INT PRIMARY KEY)")

        assert channels(db3) == {db2.port: True, elsewhere.port: True}
        goal = elsewhere.value("(SELECT COUNT(*) FROM app.elsewhere)")
        until(lambda: db3.value("(SELECT COUNT(*) FROM app.elsewhere)") == goal, "the other source to be heard")
        until(lambda: db3.sql("SHOW TABLES IN app LIKE 'after_it'"), "the new primary to be heard")


def test_a_delayed_replica_may_be_asked_for_by_policy(site: Lab) -> None:
    candidate = [node for node in site.cluster if node is not site.cluster.primary][-1]
    delay(candidate, 1)
    never = [node.name for node in site.cluster if node is not candidate]
    with configured(site, switchover={"never": never, "allow_delayed": True}), books(site):
        switched(site)
    assert_order(site, candidate.name)


def test_a_multi_source_replica_becomes_primary_when_it_is_named_and_keeps_its_other_source(
    start_lab: Callable[..., Lab], elsewhere: Node
) -> None:
    with start_lab(2) as lab:
        follow_too(lab.cluster["db2"], elsewhere)
        assert "replicates from 2 sources" in refused(lab)["candidate.none"]["text"]
        switched(lab, "--to", "db2")
        assert lab.cluster.primary.name == "db2"
        assert channels(lab.cluster["db2"]) == {elsewhere.port: True}
        elsewhere.sql("INSERT INTO app.elsewhere VALUES ()")
        goal = elsewhere.value("(SELECT COUNT(*) FROM app.elsewhere)")
        until(lambda: lab.cluster["db1"].value("(SELECT COUNT(*) FROM app.elsewhere)") == goal, "db1 to hear of it")
