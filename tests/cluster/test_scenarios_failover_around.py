"""What stands around a failover: the fence, scheduled events, replicas with something of their own, what is left."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.death import brought_back, evidence, failed_over, remembered, steps
from tests.support.lab import Lab
from tests.support.mariadb import LocalCluster, Node
from tests.support.scene import assert_order, configured, other
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
SITE = {
    "n": 3,
    "more": {"failover": {"policy": "most_advanced"}, "serve": {"period": "200ms"}},
    "policy": {"prove": "3s", "settle": "10s"},
    "scheduler": True,
}
FENCE = """
import json, os, sys, time
told = {k: v for k, v in os.environ.items() if k.startswith("PROXYROUTE_")}
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(told) + "\\n")
time.sleep(float(sys.argv[3]))
sys.exit(int(sys.argv[2]))
"""


def fence(site: Lab, status: int, seconds: float = 0.0) -> dict[str, Any]:
    """The configuration of a fence that writes down what it is told, and ends with ``status``."""
    told(site).unlink(missing_ok=True)
    return {"timeout": "1s", "fence": [sys.executable, "-c", FENCE, str(told(site)), str(status), str(seconds)]}


def told(site: Lab) -> Path:
    return site.folder / "fence-told"


# -- The fence ----------------------------------------------------------------------------------------------------


def test_the_fence_is_run_once_before_anything_is_opened_and_told_in_the_report(site: Lab) -> None:
    old = site.cluster.primary
    remembered(site)
    old.kill9()
    with configured(site, scripts=fence(site, 0)):
        value = failed_over(site, code=7)
    assert "fenced by the script at fence" in evidence(value)
    (asked,) = (json.loads(line) for line in told(site).read_text().splitlines())
    assert asked["PROXYROUTE_MOMENT"] == "fence"
    assert asked["PROXYROUTE_KIND"] == "failover"
    assert (asked["PROXYROUTE_OLD_PRIMARY"], asked["PROXYROUTE_OLD_PRIMARY_PORT"]) == (old.name, str(old.port))
    assert asked["PROXYROUTE_NEW_PRIMARY"] == site.cluster.primary.name
    order = list(steps(site, value["result"]["operation"]))
    assert order.index("fence") < order.index("close routes") < order.index("open"), order
    assert_order(site)
    brought_back(site, old)


@pytest.mark.parametrize(("status", "seconds"), [(3, 0.0), (0, 30.0)], ids=["status 3", "hangs"])
def test_a_fence_that_fails_is_no_fence_and_no_hindrance(site: Lab, status: int, seconds: float) -> None:
    old = site.cluster.primary
    remembered(site)
    old.kill9()
    with configured(site, scripts=fence(site, status, seconds)):
        value = failed_over(site, code=7)
    assert "routed away; clients that go to it directly are not kept away" in evidence(value)
    assert "fenced by" not in evidence(value)
    shown = site.run("show", value["result"]["operation"]).stdout
    assert f"{old.name} is not fenced" in shown
    assert_order(site)
    brought_back(site, old)


def test_check_tells_of_a_fence_that_cannot_be_run(site: Lab) -> None:
    with configured(site, scripts={"fence": ["/nowhere/fence"]}):
        said = site.run("check").stdout
    assert "/nowhere/fence does not exist" in said
    assert "scripts.fence" in said


# -- What survives ------------------------------------------------------------------------------------------------


def test_scheduled_events_run_on_the_new_primary_and_only_there(site: Lab) -> None:
    """The scheduler ran on the primary only: whoever takes over has to start it."""
    old = site.cluster.primary
    old.sql("SET GLOBAL event_scheduler=ON")
    schedule = "ON SCHEDULE EVERY 1 HOUR STARTS '2037-01-01 00:00:00'"
    old.sql(f"CREATE EVENT app.runs {schedule} ENABLE DO SELECT 1")
    old.sql(f"CREATE EVENT app.rests {schedule} DISABLE DO SELECT 1")
    site.cluster.await_synced()
    with serving(site):  # it keeps what a dead primary cannot tell any more
        until(lambda: '"runs"' in known(site), "the events to be kept")
    old.kill9()
    value = failed_over(site, code=7)
    new = site.cluster[value["plan"]["plan"]["candidate"]]
    assert events(new) == {"runs": "ENABLED", "rests": "DISABLED"}
    running = {node.name: node.value("@@global.event_scheduler") for node in site.cluster if node is not old}
    assert {name for name, state in running.items() if state == "ON"} == {new.name}
    brought_back(site, old)
    until(lambda: events(old).get("runs") == old.event_aside, "the event to rest on the old primary")
    for name in ("runs", "rests"):
        new.sql(f"DROP EVENT app.{name}")
    new.sql("SET GLOBAL event_scheduler=OFF")
    site.cluster.await_synced()


def known(site: Lab) -> str:
    return "".join(file.read_text() for file in (site.folder / "state").rglob("known.json"))


def events(node: Node) -> dict[str, str]:
    rows = node.sql("SELECT EVENT_NAME AS name, STATUS AS status FROM information_schema.EVENTS")
    return {row["name"]: row["status"] for row in rows}


@pytest.fixture
def elsewhere(servers: type[LocalCluster]) -> Iterator[Node]:
    """A server of another cluster, with a domain of its own."""
    with servers.start(1, node_options={"db1": {"server_id": 77, "gtid_domain_id": 7}}) as cluster:
        cluster["db1"].sql("CREATE TABLE app.elsewhere (id INT AUTO_INCREMENT PRIMARY KEY)")
        yield cluster["db1"]


def test_delayed_filtered_and_multi_source_replicas_are_not_elected_and_stay_as_they_were(
    start_lab: Callable[..., Lab], elsewhere: Node
) -> None:
    with start_lab(5, more=SITE["more"], policy={"prove": "3s"}) as lab:
        old, second, delayed, filtered, several = lab.cluster
        anew(delayed, "CHANGE MASTER TO MASTER_DELAY=3600, MASTER_HEARTBEAT_PERIOD=1")
        anew(filtered, "SET GLOBAL replicate_ignore_table='app.secret'")
        several.follow_too(elsewhere)
        until(lambda: several.sql("SHOW TABLES IN app LIKE 'elsewhere'"), "the second channel to deliver")
        old.sql("CREATE TABLE app.ours (id INT PRIMARY KEY)")
        for node in (second, several):
            until(lambda at=node: at.sql("SHOW TABLES IN app LIKE 'ours'"), f"{node.name} to have it")  # type: ignore[misc]
        remembered(lab)
        old.kill9()
        value = failed_over(lab, code=7)
        assert value["plan"]["plan"]["candidate"] == second.name
        assert value["result"]["leftovers"] == []
        assert value["plan"]["election"]["fetch_from"] is None
        assert not second.sql("SHOW TABLES IN app LIKE 'elsewhere'"), "another cluster's history is not fetched"
        assert elsewhere.own_gtids not in second.gtid()
        assert_order(lab, second.name, aside=[delayed.name])
        assert delayed.source() == second.address
        assert delayed.replication()["SQL_Delay"] == 3600
        assert filtered.replication()["Replicate_Ignore_Table"] == "app.secret"
        ports = {r["Master_Port"]: (r["Slave_IO_Running"], r["Slave_SQL_Running"]) for r in several.replications()}
        assert ports == {second.port: ("Yes", "Yes"), elsewhere.port: ("Yes", "Yes")}


def anew(node: Node, statement: str) -> None:
    for step in ("STOP SLAVE", statement, "START SLAVE"):
        node.sql(step)
    until(node.replicates, f"{node.name} to follow")


# -- What is left -------------------------------------------------------------------------------------------------


def test_a_replica_that_is_down_as_well_is_left_to_do_and_taken_up_when_it_is_back(site: Lab) -> None:
    old, down = site.cluster.primary, site.cluster[other(site)]
    remembered(site)
    down.stop()
    old.kill9()
    value = failed_over(site, code=7)
    assert value["plan"]["diagnosis"]["name"] == "DeadPrimaryAndSomeReplicas"
    assert any(down.name in left for left in value["result"]["leftovers"])
    status = site.json("status")[1]
    assert [s["operation"] for s in status["open_operations"]] == [value["result"]["operation"]]
    down.start()
    assert site.run("heal").returncode in (0, 7)
    until(down.replicates, "the replica to follow the new primary")
    brought_back(site, old)
    assert site.json("status")[1]["open_operations"] == []
    assert_order(site)


def test_status_and_plan_say_what_blocks_and_what_cures_it(site: Lab) -> None:
    old = site.cluster.primary
    remembered(site)
    with configured(
        site, failover={"policy": "lossless"}, switchover={"never": [n.name for n in site.cluster if n is not old]}
    ):
        old.kill9()
        done = site.run("plan", "--failover")
        assert done.returncode == 3
        assert done.stdout.startswith("NO-GO"), done.stdout
        assert "DeadPrimary" in done.stdout
        assert "never" in done.stdout
        said = site.run("status").stdout
        assert "no server takes writes" in said
    with configured(site, failover={"policy": "most_advanced"}):
        done = site.run("plan", "--failover")
        assert done.returncode == 0
        assert done.stdout.startswith("GO  failover demo: "), done.stdout
        assert "What may be lost" in done.stdout
    failed_over(site, code=7)
    brought_back(site, old)
    assert_order(site)
