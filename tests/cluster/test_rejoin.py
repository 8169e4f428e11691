"""A server comes back: cleanly, by undoing what only it has, or not at all, with the reasons."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.broken import ERRANT, archive_of, await_equal, diverge, ready
from tests.support.lab import Lab, printed_object
from tests.support.mariadb import LocalCluster, Node
from tests.support.process import is_stopped
from tests.support.scene import assert_order
from tests.support.wait import until

NO_FLASHBACK = (
    "it has no flashback: what only a server has is kept, and given up with new data or by empty transactions"
)


FLAVOURS = ("mysql", "mariadb-11.8")


@pytest.fixture
def lab(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    with start_lab(3) as started:
        ready(started)
        yield started


def rejoined(lab: Lab, server: Node, *words: str) -> dict[str, Any]:
    """Asserts that ``rejoin`` brings the server back, and returns what it printed."""
    status, value = lab.json("rejoin", server.name, *words)
    assert status == 0, value
    assert value["result"]["outcome"] == "done"
    assert value["verdict"] == "PROVEN", value["result"]["proof"]
    return value


def refused(lab: Lab, server: Node, *words: str) -> dict[str, str]:
    """Asserts that ``rejoin`` is refused and leaves the server fenced; returns the findings' texts by code."""
    before = server.gtid()
    status, value = lab.json("rejoin", server.name, *words)
    assert status == 3, value
    assert not server.is_writable()
    assert not server.replicates()
    assert server.gtid() == before
    return {f["code"]: f["text"] for f in value["error"]["findings"]} | {"": value["error"]["text"]}


def test_clean(lab: Lab) -> None:
    old, new = diverge(lab, [])
    rejoined(lab, old)
    await_equal(old, new)
    assert old.replicates()
    assert old.replication()["Connect_Retry"] == 1, "as the other replica has it, not a minute"
    _, again = lab.json("rejoin", old.name)
    assert again["result"]["outcome"] == "done", "asked again it says so"
    assert_order(lab, new.name)


@pytest.mark.full
def test_one_that_only_follows_is_not_waited_for_until_it_has_caught_up(lab: Lab) -> None:
    """A long way to go must not keep the cluster from a failover meanwhile: the lease is held."""
    old, new = diverge(lab, [])
    with old.session() as session, session.cursor() as cursor:
        cursor.execute("LOCK TABLES app.t WRITE")
        status, value = lab.json("rejoin", old.name)
        assert status == 0, value
        assert value["result"]["outcome"] == "done", value
        assert "still has to catch up" in lab.run("show", value["result"]["operation"]).stdout
    await_equal(old, new)


def test_a_returning_primary_that_takes_writes_is_closed(lab: Lab) -> None:
    old, new = diverge(lab, [])
    old.sql("SET GLOBAL read_only=0")
    rejoined(lab, old)
    assert not old.is_writable()
    await_equal(old, new)


def test_the_primary_itself_is_refused(lab: Lab) -> None:
    status, value = lab.json("rejoin", "db1")
    assert status == 3
    assert "is the primary" in value["error"]["text"]


def test_errant_transactions_are_kept_and_shown_and_nothing_is_changed(lab: Lab) -> None:
    old, new = diverge(lab)
    findings = refused(lab, old)
    archive = archive_of(lab)
    assert str(archive) in findings["rejoin.errant"]
    assert "4 transactions" in findings["rejoin.errant"]
    summary = json.loads((archive / "summary.json").read_text())
    assert summary["rows"]["app.t"] == {"inserted": 1, "updated": 3, "deleted": 2}
    assert [t["statements"][0] for t in summary["transactions"]][:3] == list(ERRANT[:3])
    decoded = (archive / "decoded.sql").read_text()
    assert "### INSERT INTO `app`.`t`" in decoded
    assert "overwritten" in decoded
    assert "row 99" not in decoded, "what both have is not in it"
    raw, log = ((folder / "binlog.000001").read_bytes() for folder in (archive / "raw", old.folder / "data"))
    assert raw[old.varying :] == log[old.varying :], "the files as the server wrote them"
    aside = lab.json("status")[1]["not_rejoined"]
    assert [s["candidate"] for s in aside] == [old.name]
    assert str(archive) in aside[0]["told"]
    assert lab.run("check").returncode in (0, 3)
    assert new.value("(SELECT COUNT(*) FROM app.t)") == 120
    refused(lab, old)
    assert archive_of(lab) == archive, "asked again there is no second one"
    assert len(list(archive.parent.iterdir())) == 1


@pytest.mark.mariadb_only(NO_FLASHBACK)
def test_flashback(lab: Lab) -> None:
    old, new = diverge(lab, [*ERRANT[:2], "FLUSH BINARY LOGS", *ERRANT[2:]])
    rejoined(lab, old, "--method", "flashback", "--yes")
    await_equal(old, new)
    assert old.value("@@global.gtid_binlog_state") == new.value("@@global.gtid_binlog_state")
    assert old.sql("XA RECOVER") == []
    assert lab.json("status")[1]["not_rejoined"] == []
    assert lab.run("verify", check=True), "and all that verify compares is equal"
    assert_order(lab, new.name)
    assert lab.run("switchover", "--yes", "--to", old.name).returncode == 0, "it can be the primary again"


@pytest.mark.mariadb_only("nobody writes past super_read_only, and it has no flashback")
def test_what_is_written_after_the_archive_was_made_is_not_erased(lab: Lab) -> None:
    """Whoever may write past read_only does so while rows are undone: no archive has that, and no history loses it."""
    primary = lab.cluster.primary
    primary.sql("CREATE TABLE app.late (id INT AUTO_INCREMENT PRIMARY KEY)")
    primary.sql("CREATE EVENT app.tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO app.late VALUES ()")
    lab.cluster.await_synced()
    old, new = diverge(lab)
    old.sql("SET GLOBAL event_scheduler=ON")  # its events are of an account that writes past read_only
    argv = lab.command("rejoin", old.name, "--method", "flashback", "--yes", "--json")
    environment = {**os.environ, "PROXYROUTE_FAULT": "engine/rejoin.undo:before:1@STOP"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as rejoin:
        until(lambda: is_stopped(rejoin.pid), "the rejoin to undo rows", 40)
        assert [e["STATUS"] for e in old.sql("SELECT STATUS FROM information_schema.EVENTS")] == ["SLAVESIDE_DISABLED"]
        old.sql("INSERT INTO app.u VALUES (4711, 'late', 1)")
        os.kill(rejoin.pid, signal.SIGCONT)
        said, errors = rejoin.communicate(timeout=60)
    status, value = printed_object(subprocess.CompletedProcess(argv, rejoin.returncode, said, errors))
    assert status == 5, value
    assert "since its transactions were archived" in value["error"]["text"]
    assert "--method reseed" in value["error"]["text"]
    assert old.value("(SELECT COUNT(*) FROM app.u WHERE a=4711)") == 1
    rejoined(lab, old, "--method", "reseed", "--yes")
    await_equal(old, new)
    assert "4711" in "".join(file.read_text() for file in archive_of(lab).parent.rglob("decoded.sql"))


@pytest.mark.mariadb_only(NO_FLASHBACK)
@pytest.mark.parametrize(
    ("setup", "errant", "reason"),
    [
        ((), ("ALTER TABLE app.t ADD COLUMN w INT",), "changed a definition"),
        pytest.param(
            ("CREATE TABLE app.m (id INT PRIMARY KEY) ENGINE=MyISAM",),
            ("INSERT INTO app.m VALUES (1)",),
            "not transac",
            marks=pytest.mark.full,
        ),
        pytest.param(
            (),
            ("SET SESSION binlog_row_image=MINIMAL; UPDATE app.t SET v='x' WHERE id=1",),
            "all columns",
            marks=pytest.mark.full,
        ),
        pytest.param(
            (),
            ("SET SESSION binlog_format=STATEMENT; UPDATE app.t SET v='x' WHERE id=1",),
            "as a statement",
            marks=pytest.mark.full,
        ),
        (
            (
                "CREATE TABLE app.child (id INT PRIMARY KEY, t INT, FOREIGN KEY (t) REFERENCES app.t (id)"
                " ON DELETE CASCADE)",
                "INSERT INTO app.child VALUES (1, 1)",
            ),
            ("DELETE FROM app.t WHERE id=1",),
            "cascades from app.t",
        ),
    ],
    ids=["definition", "not transactional", "row image", "statement", "cascade"],
)
def test_what_cannot_be_undone_is_refused(
    lab: Lab, setup: tuple[str, ...], errant: tuple[str, ...], reason: str
) -> None:
    for statement in setup:
        lab.cluster.primary.sql(statement)
    old, _ = diverge(lab, errant)
    findings = refused(lab, old, "--method", "flashback", "--yes")
    assert reason in findings["rejoin.flashback"]
    assert "rejoin.errant" in findings


def test_purged_binary_logs_are_unknown_and_never_clean(lab: Lab) -> None:
    old, _ = diverge(lab, [*ERRANT, "FLUSH BINARY LOGS", "INSERT INTO app.t VALUES (1001, 'later')"])
    old.sql("PURGE BINARY LOGS TO 'binlog.000002'")
    findings = refused(lab, old)
    assert findings["rejoin.unknown"].startswith("UNKNOWN")
    assert "rejoin.flashback" in refused(lab, old, "--method", "flashback", "--yes")


@pytest.mark.mariadb_only(NO_FLASHBACK)
def test_a_primary_that_has_purged_what_is_needed_refuses_flashback(lab: Lab) -> None:
    old, new = diverge(lab)
    new.sql("FLUSH BINARY LOGS")

    def purged() -> bool:  # not while somebody still reads it
        new.sql("PURGE BINARY LOGS TO 'binlog.000002'")
        return len(new.sql("SHOW BINARY LOGS")) == 1

    until(purged, "the first file to go")
    assert "cannot serve" in refused(lab, old, "--method", "flashback", "--yes")["rejoin.flashback"]


@pytest.mark.parametrize("method", [pytest.param("flashback", marks=pytest.mark.mariadb_only(NO_FLASHBACK)), "reseed"])
def test_a_replica_with_a_write_of_its_own(lab: Lab, method: str) -> None:
    stray = lab.cluster["db3"]
    stray.sql("SET GLOBAL gtid_strict_mode=0")
    stray.sql("INSERT INTO app.t VALUES (5000, 'stray')")
    lab.cluster.primary.sql("INSERT INTO app.t VALUES (5001, 'fine'), (5002, 'fine')")
    until(lambda: stray.value("(SELECT COUNT(*) FROM app.t WHERE id=5002)") == 1, "db3 to go on")
    stray.sql("SET GLOBAL gtid_strict_mode=1")
    stray.sql("STOP SLAVE")
    found = refused(lab, stray)
    assert "1 transaction " in found["rejoin.errant"]
    rejoined(lab, stray, "--method", method, "--yes")
    await_equal(stray, lab.cluster.primary)


def test_a_delayed_replica_stays_delayed(lab: Lab) -> None:
    delayed = lab.cluster["db3"]
    delayed.sql("STOP SLAVE")
    delayed.sql("CHANGE MASTER TO MASTER_DELAY=600")
    lab.cluster.primary.sql("INSERT INTO app.t VALUES (6000, 'later')")
    rejoined(lab, delayed)
    assert delayed.replicates()
    assert delayed.replication()["SQL_Delay"] == 600
    assert "delayed on purpose" in lab.run("verify", "--server", "db3").stderr


def test_a_filter_of_a_replica_survives(lab: Lab) -> None:
    """A server that stood still, and follows again, has it as before."""
    filtered, primary = lab.cluster["db3"], lab.cluster.primary
    filtered.sql("STOP SLAVE")
    filtered.sql("SET GLOBAL replicate_ignore_table='app.secret'")
    primary.sql("CREATE TABLE app.secret (id INT PRIMARY KEY)")
    primary.sql("INSERT INTO app.t VALUES (7000, 'meanwhile')")
    rejoined(lab, filtered)
    until(lambda: filtered.value("(SELECT COUNT(*) FROM app.t WHERE id=7000)") == 1, "it to go on")
    assert filtered.replication()["Replicate_Ignore_Table"] == "app.secret"
    assert filtered.sql("SHOW TABLES IN app LIKE 'secret'") == [], "what is filtered stays filtered"


def test_another_source_of_a_replica_survives(lab: Lab, servers: type[LocalCluster]) -> None:
    """With its channel: a server that stood still, and follows again, has it as before."""
    several = lab.cluster["db3"]
    with servers.start(1, node_options={"db1": {"server_id": 77, "gtid_domain_id": 7}}) as cluster:
        elsewhere = cluster["db1"]
        elsewhere.sql("CREATE TABLE app.elsewhere (id INT AUTO_INCREMENT PRIMARY KEY)")
        several.sql("STOP SLAVE")
        several.follow_too(elsewhere)
        until(lambda: several.sql("SHOW TABLES IN app LIKE 'elsewhere'"), "the second channel to deliver")
        lab.cluster.primary.sql("INSERT INTO app.t VALUES (7000, 'meanwhile')")
        rejoined(lab, several)
        elsewhere.sql("INSERT INTO app.elsewhere VALUES (1)")
        until(lambda: several.value("(SELECT COUNT(*) FROM app.elsewhere)") == 1, "the other channel to go on")
        until(
            lambda: several.value("(SELECT COUNT(*) FROM app.t WHERE id=7000)") == 1, "the cluster's channel to go on"
        )
        rows = {row["Master_Port"]: row for row in several.replications()}
        assert set(rows) == {elsewhere.port, lab.cluster.primary.port}
        assert {row["Slave_SQL_Running"] for row in rows.values()} == {"Yes"}
