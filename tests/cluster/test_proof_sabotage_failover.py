"""Somebody does harm before the proof of a failover or a rejoin: the verdict says so, and the evidence names where."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.support.broken import REBUILD, diverge, ready
from tests.support.death import brought_back, failed_over, remembered
from tests.support.lab import CLUSTER_NAME, Lab, printed_object
from tests.support.mariadb import Node
from tests.support.process import is_stopped
from tests.support.scene import assert_order, configured, other
from tests.support.wait import until

FLAVOURS = ("mysql",)
POLICY = {"prove": "300ms", "settle": "10s"}
MORE = {"failover": {"policy": "most_advanced"}}
SITE = {"n": 3, "more": MORE, "policy": POLICY}

HARM = """
import os, pymysql, sys
if os.environ["PROXYROUTE_PHASE"] == "settle" and os.environ.get("PROXYROUTE_PRIMARY_NAME"):
    session = pymysql.connect(unix_socket=sys.argv[1], user="root", password="lab-root", autocommit=True)
    for statement in sys.argv[2:]:
        session.cursor().execute(statement)
"""


@contextlib.contextmanager
def sabotaged(site: Lab, node: Node, *statements: str) -> Iterator[None]:
    """For a ``with`` block somebody runs ``statements`` on ``node`` when routes to a primary are settled.

    That is when everything is done, right before the proof.
    """
    argv = [sys.executable, "-c", HARM, str(node.socket_file), *node.past_read_only(*statements)]
    hook = {"type": "hook", "name": "saboteur", "set": argv, "absent": True}
    mine = yaml.safe_load(site.config.read_text())["clusters"][CLUSTER_NAME]["proxies"]
    with configured(site, proxies=[*mine, hook]):
        yield


def gaps(value: dict[str, Any]) -> dict[tuple[str, str], str]:
    """What is not proven, by subject and claim, but for what a failover without acknowledgements never proves."""
    found = {(e["subject"], e["claim"]): e["verdict"] for e in value["result"]["proof"]["evidence"]}
    usual = ("nothing that it acknowledged is lost", "refuses writes and follows")
    return {key: verdict for key, verdict in found.items() if verdict != "PROVEN" and key[1] not in usual}


@pytest.fixture
def dead(site: Lab) -> Iterator[Node]:
    """The primary, about to die; every server has a table of which a row can be taken away."""
    if REBUILD.user not in site.config.read_text():
        ready(site)
    old = site.cluster.primary
    old.sql("CREATE OR REPLACE TABLE app.t (id INT PRIMARY KEY)")
    old.sql("INSERT INTO app.t VALUES (1), (2), (3)")
    site.cluster.await_synced()
    remembered(site)
    yield old
    brought_back(site, old)


@pytest.mark.full
def test_without_sabotage_a_failover_has_no_gap_but_what_nobody_can_know(site: Lab, dead: Node) -> None:
    dead.kill9()
    value = failed_over(site, code=7)
    assert (value["verdict"], gaps(value)) == ("UNKNOWN", {})


def test_a_row_is_deleted_on_a_replica_before_the_proof_of_a_failover(site: Lab, dead: Node) -> None:
    new = other(site)
    replica = site.cluster[other(site, new)]
    dead.kill9()
    with sabotaged(site, replica, "DELETE FROM app.t WHERE id=2"):
        value = failed_over(site, "--to", new, code=7)
    assert value["verdict"] in ("NOT PROVEN", "UNKNOWN")
    assert (replica.name, f"has nothing that {new} lacks") in gaps(value), gaps(value)
    goal = site.cluster[new].gtid()
    with site.cluster[new].session() as session, session.cursor() as cursor:
        cursor.execute("SELECT * FROM proxyroute.probe")  # which the replica may not have been able to apply
        rows = [[*row.values()] for row in cursor.fetchall()]
        probed = [cursor.mogrify("REPLACE INTO proxyroute.probe VALUES %s", (row,)) for row in rows]
    replica.begin_anew(goal, "INSERT IGNORE INTO app.t VALUES (2)", *probed)
    assert_order(site, new)


@pytest.mark.full
def test_what_is_written_on_the_new_primary_is_lost_before_the_proof_of_a_failover(site: Lab, dead: Node) -> None:
    new = site.cluster[other(site)]
    dead.kill9()
    forget = [
        f"CREATE TRIGGER proxyroute.forget_{event} BEFORE {event} ON proxyroute.probe"
        " FOR EACH ROW SET NEW.operation='somebody else'"
        for event in ("INSERT", "UPDATE")
    ]
    with sabotaged(site, new, *forget):
        value = failed_over(site, "--to", new.name, code=7)
    assert value["verdict"] == "NOT PROVEN"
    assert gaps(value) == {(f"edge1 {site.read}", "the row is read back here"): "NOT PROVEN"}
    for event in ("INSERT", "UPDATE"):
        new.sql(f"DROP TRIGGER proxyroute.forget_{event}")
    assert_order(site, new.name)


@pytest.mark.parametrize("where", ["replica", pytest.param("new primary", marks=pytest.mark.full)])
def test_a_row_deleted_without_a_trace_is_found_by_verify_after_a_failover(site: Lab, dead: Node, where: str) -> None:
    """No position tells of it: that is what the comparison is for."""
    new = other(site)
    third = other(site, new)
    harmed = site.cluster[new if where == "new primary" else third]
    dead.kill9()
    with sabotaged(site, harmed, "SET sql_log_bin=0", "DELETE FROM app.t WHERE id=2"):
        failed_over(site, "--to", new, code=7)
    status, value = site.json("verify", "--server", third)
    assert status == 7, value
    (comparison,) = value["comparisons"]
    assert comparison["verdict"] == "NOT PROVEN"
    assert [d["table"] for d in comparison["comparison"]["differences"]] == ["app.t"]
    harmed.sql("SET STATEMENT sql_log_bin=0 FOR INSERT INTO app.t VALUES (2)")
    assert site.run("verify", "--server", third).returncode == 0
    assert_order(site, new)


# -- Rejoin -------------------------------------------------------------------------------------------------------

NO_FLASHBACK = pytest.mark.mariadb_only("there is no flashback")
BEFORE_THE_PROOF = "engine/verify.pause:before:1@STOP"


@pytest.mark.parametrize(
    ("method", "where"),
    [
        pytest.param("flashback", "who rejoins", marks=NO_FLASHBACK),
        pytest.param("reseed", "the primary", marks=pytest.mark.full),
        pytest.param("flashback", "the primary", marks=[pytest.mark.full, NO_FLASHBACK]),
        pytest.param("reseed", "who rejoins", marks=pytest.mark.full),
    ],
)
def test_a_row_is_deleted_before_the_proof_of_a_rejoin(start_lab: Callable[..., Lab], method: str, where: str) -> None:
    with start_lab(2, policy=POLICY) as lab:
        ready(lab)
        old, new = diverge(lab)
        harmed = new if where == "the primary" else old
        argv = lab.command("rejoin", old.name, "--method", method, "--yes", "--json")
        environment = {**os.environ, "PROXYROUTE_FAULT": BEFORE_THE_PROOF}
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as rejoin:
            until(lambda: is_stopped(rejoin.pid), "the rejoin to come to its proof", 40)
            harmed.sql("SET STATEMENT sql_log_bin=0 FOR DELETE FROM app.t WHERE id=77")
            os.kill(rejoin.pid, signal.SIGCONT)
            said, errors = rejoin.communicate(timeout=60)
        status, value = printed_object(subprocess.CompletedProcess(argv, rejoin.returncode, said, errors))
        assert status == 7, value
        assert value["verdict"] == "NOT PROVEN"
        (wrong,) = [e for e in value["result"]["proof"]["evidence"] if e["verdict"] != "PROVEN"]
        assert (wrong["subject"], wrong["claim"]) == (old.name, f"has the same data as {new.name}")
        assert "app.t" in wrong["seen"]
        assert "77" in wrong["seen"]
