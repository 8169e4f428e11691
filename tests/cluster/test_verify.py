"""The data of replicas against the primary's: equal, unlike, under writes, and interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import provider_of
from tests.support.broken import ready
from tests.support.lab import Lab
from tests.support.load import Load, create_table
from tests.support.mariadb import Node
from tests.support.scene import configured
from tests.support.wait import until

FLAVOURS = ("mysql",)


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, flavour: str) -> Iterator[Lab]:
    with Lab.start(3, provider=provider_of(flavour, request.config)) as started:
        ready(started)
        started.cluster.primary.sql("CREATE TABLE app.keyless (v VARCHAR(10))")
        started.cluster.primary.sql("INSERT INTO app.keyless VALUES ('a'), ('a'), (NULL)")
        started.cluster.await_synced()
        yield started


@contextlib.contextmanager
def changed(node: Node, statement: str, back: str) -> Iterator[None]:
    """For a ``with`` block the data of one server are not what they should be."""
    node.sql(f"SET STATEMENT sql_log_bin=0 FOR {statement}")
    try:
        yield
    finally:
        node.sql(f"SET STATEMENT sql_log_bin=0 FOR {back}")


def differences(lab: Lab, *words: str) -> list[dict[str, Any]]:
    status, value = lab.json("verify", *words)
    assert status == 7, value
    return [d for c in value["comparisons"] for d in c["comparison"]["differences"]]


def test_equal(lab: Lab) -> None:
    status, value = lab.json("verify")
    assert status == 0, value
    assert [c["comparison"]["replica"] for c in value["comparisons"]] == ["db2", "db3"]
    assert all(c["comparison"]["rows"] >= 203 for c in value["comparisons"])
    assert all(node.replicates() for node in lab.cluster if node.name != "db1")


@pytest.mark.parametrize(
    ("statement", "back", "table", "what"),
    [
        ("UPDATE app.t SET v='x' WHERE id=42", "UPDATE app.t SET v='row 42' WHERE id=42", "app.t", "1 changed (42)"),
        ("DELETE FROM app.u WHERE a=7", "INSERT INTO app.u VALUES (7, 'k7', 7/3)", "app.u", "1 missing (7, k7)"),
        ("INSERT INTO app.t VALUES (999, NULL)", "DELETE FROM app.t WHERE id=999", "app.t", "1 too many (999)"),
        ("DELETE FROM app.keyless WHERE v='a'", "INSERT INTO app.keyless VALUES ('a'), ('a')", "app.keyless", "3 rows"),
        ("CREATE TABLE app.more (id INT)", "DROP TABLE app.more", "app.more", "only db3 has it"),
    ],
    ids=["changed", "missing", "too many", "without a key", "a table"],
)
def test_a_difference_is_found(lab: Lab, statement: str, back: str, table: str, what: str) -> None:
    with changed(lab.cluster["db3"], statement, back):
        found = differences(lab)
    assert [(d["server"], d["table"]) for d in found] == [("db3", table)]
    assert what in found[0]["what"]


def test_one_server_and_one_table(lab: Lab) -> None:
    with changed(lab.cluster["db3"], "UPDATE app.t SET v='x' WHERE id=1", "UPDATE app.t SET v='row 1' WHERE id=1"):
        assert lab.run("verify", "--server", "db2").returncode == 0
        assert lab.run("verify", "--table", "app.u").returncode == 0
        assert len(differences(lab, "--server", "db3", "--table", "app.t")) == 1
    assert lab.run("verify", "--server", "db1").returncode == 3
    status, value = lab.json("verify", "--server", "db2", "--table", "app.t", "--table", "app.nowhere")
    (found,) = value["comparisons"]
    assert (status, found["verdict"], found["comparison"]["differences"]) == (7, "UNKNOWN", [])
    assert "app.nowhere: neither has such a table" in found["comparison"]["skipped"][0]


def test_an_account_that_does_not_see_the_tables_proves_nothing(lab: Lab) -> None:
    """The engine's own may not read them, so that to its eyes there are none."""
    with configured(lab, rejoin=None):
        done = lab.run("verify", "--server", "db2")
        assert done.returncode == 3, done.stdout + done.stderr
        assert "may not read every table" in " ".join(done.stderr.split())
        assert "rejoin.account" in done.stderr
        status, value = lab.json("verify")
    assert status == 7, value
    assert {c["verdict"] for c in value["comparisons"]} == {"UNKNOWN"}


def test_under_writes(lab: Lab) -> None:
    create_table(lab.cluster.primary)
    with Load.start(lab.write, writers=4, rate=50) as load:
        load.await_more(50)
        for _ in range(3):
            status, value = lab.json("verify")
            assert status == 0, [c["comparison"]["skipped"] for c in value["comparisons"]]
        load.await_more(10)
        load.stop()


def test_a_replica_that_cannot_be_brought_there_is_a_gap(lab: Lab) -> None:
    stopped = lab.cluster["db2"]
    stopped.sql("STOP SLAVE SQL_THREAD")
    status, value = lab.json("verify")
    assert status == 7
    assert "applier is stopped" in value["comparisons"][0]["comparison"]["skipped"][0]
    assert value["comparisons"][1]["verdict"] == "PROVEN"
    assert stopped.replication()["Slave_SQL_Running"] == "No", "it was not ours to start"
    stopped.sql("START SLAVE SQL_THREAD")


@pytest.mark.parametrize("point", ["verify.pause", "verify.advance"])
def test_killed_while_the_applier_stands_still(lab: Lab, point: str) -> None:
    """It goes on by itself: the server starts it again, or nobody owns the next GTID any more."""
    create_table(lab.cluster.primary)
    with Load.start(lab.write, writers=2, rate=50) as load:
        load.await_more(10)
        done = subprocess.run(
            lab.command("verify", "--server", "db2"),
            env={**os.environ, "PROXYROUTE_FAULT": f"engine/{point}:after"},
            capture_output=True,
            timeout=60,
        )
        load.stop()
    assert done.returncode in (-signal.SIGKILL, 0), done
    until(lab.cluster["db2"].replicates, "db2 to apply again", 40)
