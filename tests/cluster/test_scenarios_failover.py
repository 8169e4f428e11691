"""``proxyroute failover``: the primary is gone, and a person decides."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.support.death import (
    ENDS,
    brought_back,
    count,
    evidence,
    failed_over,
    gone_for_good,
    no_failover,
    remembered,
    steps,
    table_locked,
)
from tests.support.lab import Lab
from tests.support.load import create_table
from tests.support.mariadb import Node
from tests.support.scene import assert_order, configured, other
from tests.support.wait import until

ADVANCED = {"policy": "most_advanced"}
FLAVOURS = ("mysql", "mariadb-11.8")
SITE = {"n": 3, "more": {"failover": ADVANCED}, "policy": {"prove": "3s", "settle": "10s"}}


def rows(node: Node, begin: int, number: int) -> None:
    values = ", ".join(f"({begin + n}, 1, 1)" for n in range(number))
    node.sql(f"INSERT INTO app.load_rows VALUES {values}")


# -- However it ends, and with how many replicas ------------------------------------------------------------------


@pytest.mark.parametrize("end", ENDS)
def test_a_primary_that_is_gone_is_replaced_and_comes_back_as_a_replica(site: Lab, end: str) -> None:
    old = site.cluster.primary
    remembered(site)
    ENDS[end](old)
    value = failed_over(site, code=7)  # without semi-sync nobody can say that nothing acknowledged is lost
    assert value["verdict"] == "UNKNOWN"
    assert value["plan"]["diagnosis"]["name"] == ("HungPrimary" if end == "hung" else "DeadPrimary")
    assert f"{old.name} did not wait for acknowledgements" in evidence(value)
    assert "routed away; clients that go to it directly are not kept away" in evidence(value)
    gone_for_good(old)
    assert_order(site, value["plan"]["plan"]["candidate"])
    brought_back(site, old)


@pytest.mark.parametrize(
    ("n", "end"), [(n, end) if n == 2 and end == "killed" else pytest.param(n, end, marks=pytest.mark.full)
                   for n in (2, 5) for end in ENDS]
)  # fmt: skip
def test_with_one_replica_and_with_four(start_lab: Callable[..., Lab], n: int, end: str) -> None:
    with start_lab(n, more={"failover": ADVANCED}, policy={"prove": "3s"}) as lab:
        old = lab.cluster.primary
        remembered(lab)
        ENDS[end](old)
        value = failed_over(lab, code=7)
        gone_for_good(old)
        assert_order(lab, value["plan"]["plan"]["candidate"])
        brought_back(lab, old)
        assert_order(lab)


# -- No failover --------------------------------------------------------------------------------------------------


def test_a_primary_that_lives_is_not_failed_over(site: Lab) -> None:
    found = no_failover(site)["failover.diagnosis"]
    assert found["text"].startswith("NoProblem")
    assert "proxyroute switchover" in found["cure"]
    assert no_failover(site, "--force").codes == {"failover.diagnosis"}, "nobody forces that"


def test_replicas_whose_receivers_somebody_stopped_tell_nothing(site: Lab) -> None:
    old = site.cluster.primary
    remembered(site)
    for node in site.cluster:
        if node is not old:
            node.sql("STOP SLAVE IO_THREAD")
    old.kill9()
    found = no_failover(site)["failover.diagnosis"]
    assert found["text"].startswith("DeadPrimaryUnwitnessed")
    assert "its receiver was stopped by somebody" in found["text"]
    assert "--fenced-by" in found["cure"]
    value = failed_over(site, "--fenced-by", "a person", code=7)
    assert "fenced by a person" in evidence(value)
    assert_order(site)
    brought_back(site, old)


def test_replicas_without_a_binary_log_cannot_take_over(start_lab: Callable[..., Lab]) -> None:
    options = {"db2": {"skip_log_bin": None, "log_slave_updates": 0}}
    with start_lab(2, more={"failover": ADVANCED}, node_options=options) as lab:
        remembered(lab)
        lab.cluster["db1"].kill9()
        text = no_failover(lab, "--force")["failover.candidate"]["text"]
        assert "db2" in text
        assert "binary log" in text, text


def test_only_the_appliers_are_stopped_the_primary_lives(site: Lab) -> None:
    replicas = [node for node in site.cluster if node is not site.cluster.primary]
    for node in replicas:
        node.sql("STOP SLAVE SQL_THREAD")
    found = no_failover(site, "--force")["failover.diagnosis"]
    assert found["text"].startswith("AllAppliersStopped")
    for node in replicas:
        node.sql("START SLAVE SQL_THREAD")


def test_a_replica_whose_applier_stopped_with_an_error_is_never_promoted_for_being_first(site: Lab) -> None:
    old = site.cluster.primary
    first, second = (node for node in site.cluster if node is not old)
    create_table(old)
    site.cluster.await_synced()
    remembered(site)
    first.sql("SET STATEMENT sql_log_bin=0 FOR DROP TABLE app.load_rows")
    old.sql("INSERT INTO app.load_rows VALUES (1, 1, 1)")
    until(lambda: first.replication()["Last_SQL_Errno"], "the applier to fail")
    until(lambda: count(second) == 1, "the other replica to have the row")
    with configured(site, switchover={"prefer": [first.name]}):
        old.kill9()
        refusal = no_failover(site, "--to", first.name, "--force")["failover.candidate"]["text"]
        assert first.name in refusal
        value = failed_over(site, code=7)
        (rejected,) = (r for r in value["plan"]["election"]["ranking"] if not r["qualified"])
        assert rejected["name"] == first.name
    assert site.cluster.primary is second
    columns = "(writer INT, n INT, server INT, PRIMARY KEY (writer, n))"
    first.sql(f"SET STATEMENT sql_log_bin=0 FOR CREATE TABLE app.load_rows {columns}")
    first.sql("START SLAVE")
    assert site.run("heal").returncode in (0, 7)
    brought_back(site, old)


@pytest.mark.full
def test_filtered_and_delayed_replicas_are_not_promoted(site: Lab) -> None:
    old = site.cluster.primary
    first, second = (node for node in site.cluster if node is not old)
    remembered(site)
    first.sql("STOP SLAVE")
    first.sql("CHANGE MASTER TO MASTER_DELAY=3600, MASTER_HEARTBEAT_PERIOD=1")
    first.sql("START SLAVE")
    second.sql("STOP SLAVE")
    second.sql("SET GLOBAL replicate_ignore_table='app.secret'")
    second.sql("START SLAVE")
    until(lambda: first.replicates() and second.replicates(), "both to replicate")
    old.kill9()
    text = no_failover(site, "--force")["failover.candidate"]["text"]
    assert first.name in text
    assert second.name in text
    second.sql("STOP SLAVE")
    second.sql("SET GLOBAL replicate_ignore_table=''")
    second.sql("START SLAVE")
    until(lambda: second.replication()["Last_IO_Errno"], "the receiver to have lost the primary again")
    failed_over(site, code=7)
    assert site.cluster.primary is second
    assert first.replication()["SQL_Delay"] == 3600, "a delayed replica stays delayed"
    first.sql("STOP SLAVE")
    first.sql("CHANGE MASTER TO MASTER_DELAY=0, MASTER_HEARTBEAT_PERIOD=1")
    first.sql("START SLAVE")
    brought_back(site, old)


# -- Everything received is applied -------------------------------------------------------------------------------


def test_appliers_held_back_at_the_moment_of_the_kill_nothing_in_a_relay_log_is_dropped(site: Lab) -> None:
    old = site.cluster.primary
    first, second = (node for node in site.cluster if node is not old)
    create_table(old)
    site.cluster.await_synced()
    remembered(site)
    with table_locked(first), table_locked(second):
        for begin in range(0, 2000, 100):
            rows(old, begin, 100)
        goal = old.gtid()
        until(lambda: all(n.replication()["Gtid_IO_Pos"] == goal for n in (first, second)), "both to have received all")
        old.kill9()
        command = subprocess.Popen(site.command("failover", "--yes"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        until(lambda: begun(site, "apply what was received"), "the failover to wait for the appliers")
        for node in (first, second):
            assert node.replication()["Slave_SQL_Running"] == "Yes", "nobody stops whom he waits for"
            assert node.replication()["Gtid_IO_Pos"] == goal, "the relay log is kept"
            assert node.source() == old.address, "siblings are not touched before the new primary is open"
            assert count(node) == 0
        assert command.poll() is None
    said, _ = command.communicate(timeout=60)
    assert command.returncode == 7, said
    new = assert_order(site)
    assert {node.name: count(node) for node in (first, second)} == {first.name: 2000, second.name: 2000}
    assert new in (first, second)
    brought_back(site, old)
    assert count(old) == 2000


def begun(site: Lab, step: str) -> bool:
    files = sorted((site.folder / "state").rglob("*.jsonl"), key=lambda f: f.stat().st_mtime)
    return bool(files) and f'"name":"{step}"' in files[-1].read_text().replace('": "', '":"')


def test_the_wait_for_an_applier_has_a_deadline_says_for_what_and_does_not_block_its_retry(site: Lab) -> None:
    old = site.cluster.primary
    first, second = (node for node in site.cluster if node is not old)
    create_table(old)
    site.cluster.await_synced()
    remembered(site)
    with configured(site, failover={"apply": "1s"}), table_locked(first), table_locked(second):
        rows(old, 0, 100)
        goal = old.gtid()
        until(lambda: all(n.replication()["Gtid_IO_Pos"] == goal for n in (first, second)), "both to have received all")
        old.kill9()
        status, value = site.json("failover", "--yes")
        assert status == 4, value
        told = value["error"]["text"]
        assert "no server takes writes" in told
        assert first.name in told or second.name in told, told
        assert goal in told, told
        for node in (first, second):
            assert node.replication()["Gtid_IO_Pos"] == goal, "the relay log is kept"
            assert node.replication()["Slave_SQL_Running"] == "Yes"
    failed_over(site, code=7)
    assert_order(site)
    assert count(first) == count(second) == 100
    brought_back(site, old)


def test_what_only_a_replica_has_that_may_not_be_promoted_is_fetched_first(site: Lab) -> None:
    old = site.cluster.primary
    first, second = (node for node in site.cluster if node is not old)
    create_table(old)
    site.cluster.await_synced()
    remembered(site)
    with configured(site, switchover={"never": [second.name]}):
        first.sql("STOP SLAVE IO_THREAD")
        rows(old, 0, 50)
        until(lambda: count(second) == 50, "one replica to have the rows")
        old.kill9()
        first.sql("START SLAVE IO_THREAD")  # it meets a dead primary: a witness again
        value = failed_over(site, code=7)
        assert value["plan"]["diagnosis"]["name"] == "DeadPrimarySiblingAhead"
        assert value["plan"]["fetch_from"] == second.name
        assert f"{first.name} has what {second.name} had" in steps(site, value["result"]["operation"])["fetch"]
        assert_order(site, first.name)
        assert count(first) == 50
        brought_back(site, old)


# -- What is known of it ------------------------------------------------------------------------------------------


def test_never_seen_alive_is_refused_under_lossless_and_told_otherwise(site: Lab) -> None:
    old = site.cluster.primary
    for file in (site.folder / "state").rglob("known.json"):
        file.unlink()
    with configured(site, failover={"policy": "lossless"}):
        old.kill9()
        refusal = no_failover(site)
        assert f"{old.name} was never seen alive from here" in refusal["failover.unseen"]["text"]
        code, plan = site.json("plan", "--failover")
        assert (code, plan["go"]) == (3, False)
        assert [f["code"] for f in plan["findings"]] == ["failover.unseen"]
        assert all(f["cure"] for f in plan["findings"])
    value = failed_over(site, code=7)
    assert "was never seen alive from here" in evidence(value)
    assert_order(site)
    brought_back(site, old)


def test_a_server_that_is_named_takes_over_and_one_that_may_not_is_refused(site: Lab) -> None:
    old = site.cluster.primary
    named, never = other(site, other(site)), other(site)
    remembered(site)
    old.kill9()
    with configured(site, switchover={"never": [never]}):
        assert never in no_failover(site, "--to", never)["failover.candidate"]["text"]
    failed_over(site, "--to", named, code=7)
    assert_order(site, named)
    brought_back(site, old)
