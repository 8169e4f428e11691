"""A server is built anew: by a dump, by a physical copy, from nothing but a running host."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.chaos.world import await_closed
from tests.support.broken import ERRANT, await_equal, diverge, ready, rows, run
from tests.support.dumps import held_dump
from tests.support.lab import Lab, run_to_end
from tests.support.load import Load, create_table
from tests.support.mariadb import Node
from tests.support.scene import assert_order
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")
UNDOABLE = (*ERRANT, "CREATE TABLE app.errant (id INT PRIMARY KEY)", "CREATE SCHEMA errant")


@pytest.fixture
def lab(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    with start_lab(3) as started:
        ready(started)
        yield started


@pytest.fixture
def hosted(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    """A site on whose hosts commands run, and from whose servers others can be copied."""
    with start_lab(3) as started:
        ready(started, hosts=True)
        for node in started.cluster:
            node.let_copy()
        yield started


def reseeded(lab: Lab, server: Node) -> dict[str, Any]:
    status, value = lab.json("rejoin", server.name, "--method", "reseed", "--yes")
    assert status == 0, value
    assert value["verdict"] == "PROVEN", value["result"]["proof"]
    return value


def steps(lab: Lab, value: dict[str, Any]) -> dict[str, str]:
    """Returns what the steps of an operation said of themselves."""
    records = lab.json("show", value["result"]["operation"])[1]["records"]
    return {r["name"]: r["detail"] for r in records if r["kind"] == "stepped"}


def assert_anew(lab: Lab, old: Node, new: Node) -> None:
    await_equal(old, new)
    assert old.history() == new.history()
    assert not old.half_built()
    assert lab.run("verify", "--server", old.name, check=True)
    schemas = {row["Database"] for row in old.sql("SHOW DATABASES")}
    assert "errant" not in schemas
    assert old.sql("SHOW TABLES IN app LIKE 'errant'") == []
    assert not old.is_writable()
    assert old.refuses_everybody()
    assert old.replicates()


def test_by_a_dump(lab: Lab) -> None:
    primary = lab.cluster.primary
    primary.sql("CREATE VIEW app.v AS SELECT id FROM app.t")
    primary.sql("CREATE PROCEDURE app.p() SELECT 1")
    primary.sql("CREATE TRIGGER app.tr BEFORE INSERT ON app.u FOR EACH ROW SET NEW.c = NEW.c + 0")
    primary.sql("CREATE EVENT app.tick ON SCHEDULE EVERY 1 HOUR DO SET @ticked=1")
    old, new = diverge(lab, UNDOABLE)
    value = reseeded(lab, old)
    assert "dump and load" in steps(lab, value)
    records = lab.json("show", value["result"]["operation"])[1]["records"]
    assert any("has no host: in the configuration" in r["text"] for r in records if r["kind"] == "note")
    assert_anew(lab, old, new)
    assert old.value("(SELECT COUNT(*) FROM app.v)") == 120
    for thing in ("ROUTINES", "TRIGGERS"):
        where = f"{thing[:-1]}_SCHEMA='app'"
        assert len(old.sql(f"SELECT * FROM information_schema.{thing} WHERE {where}")) == 1, thing
    (event,) = old.sql("SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA='app'")
    assert event["STATUS"] == old.event_aside
    assert_order(lab, new.name)


def test_accounts_that_a_dump_did_not_bring_are_a_gap_in_the_proof(lab: Lab) -> None:
    primary = lab.cluster.primary
    for name in ("kept", "gone", "other"):
        primary.sql(f"CREATE USER {name}@'%' IDENTIFIED BY 'lab-{name}'")
    primary.sql("CREATE ROLE readers")
    old, new = diverge(lab, UNDOABLE)
    (before,) = new.sql("SHOW CREATE USER other@'%'")[0].values()
    new.sql("DROP USER gone@'%'")
    new.sql("GRANT SELECT ON app.* TO kept@'%'")
    new.sql("ALTER USER other@'%' IDENTIFIED BY 'lab-another'")
    new.sql("CREATE USER made@'%' IDENTIFIED BY 'lab-made'")
    with old.open_to_root(), old.session() as session, session.cursor() as cursor:  # as each server has its own
        cursor.execute("SET SESSION sql_log_bin=0")
        cursor.execute("CREATE USER own@localhost IDENTIFIED BY 'lab-old'")
    new.sql("CREATE USER own@localhost IDENTIFIED BY 'lab-new'")
    status, value = lab.json("rejoin", old.name, "--method", "reseed", "--yes")
    assert (status, value["verdict"]) == (7, "NOT PROVEN"), value
    gaps = {e["claim"]: e["seen"] for e in value["result"]["proof"]["evidence"] if e["verdict"] != "PROVEN"}
    assert list(gaps) == [f"has the accounts of {new.name}"]
    assert gaps[f"has the accounts of {new.name}"].partition(" (a dump")[0] == (
        f"made@% is missing; gone@% is on {old.name} alone; kept@% is another one (password, privileges or options); "
        "other@% is another one (password, privileges or options)"
    )
    hashes = re.findall(r"([\w./*]{40,})'", before)
    assert hashes
    kept = lab.run("show", value["result"]["operation"], "--json").stdout
    assert not [each for each in hashes if each in kept + str(value)]
    assert_anew(lab, old, new)


@pytest.mark.full
@pytest.mark.parametrize("site", ["lab", "hosted"], ids=["dump", "copy"])
def test_under_writes(site: str, request: pytest.FixtureRequest) -> None:
    lab: Lab = request.getfixturevalue(site)
    create_table(lab.cluster.primary)
    old, new = diverge(lab, UNDOABLE)
    with Load.start(lab.write, writers=2, rate=30) as load:
        load.await_more(20)
        reseeded(lab, old)
        load.await_more(5)
        load.stop()
    assert_anew(lab, old, new)


def all_rows(node: Node) -> bool:
    """Whether the table is whole; while data are replaced there may be none, nor its database."""
    with contextlib.suppress(pymysql.err.ProgrammingError, pymysql.err.OperationalError):
        return len(rows(node, "app.t")) == 100
    return False


def test_by_a_dump_of_a_replica_that_replicates_under_writes(lab: Lab) -> None:
    """Its data are wrong, which only a comparison sees; it applies nothing more while they are replaced.

    A write in the midst of the load would be applied twice: to what is loaded, and again from the dump's position. The
    primary purges the file where the dump was taken before it is loaded: its position is known by then.
    """
    replica, primary = lab.cluster["db3"], lab.cluster.primary
    primary.sql("CREATE TABLE app.v (id INT PRIMARY KEY, f VARCHAR(300))")
    primary.sql("INSERT INTO app.v SELECT seq, REPEAT('x', 300) FROM app.seq_1_to_3000")
    primary.sql("CREATE TABLE app.zzz (id INT PRIMARY KEY)")
    lab.cluster.await_synced()
    run(replica, ["SET SESSION sql_log_bin=0; DELETE FROM app.t WHERE id <= 10"])
    argv = lab.command("rejoin", replica.name, "--method", "reseed", "--yes")
    with (
        held_dump(lab, "zzz") as gate,
        subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **gate.environment},
        ) as rejoin,
    ):
        first = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA='app' AND TABLE_NAME='v'"
        until(lambda: replica.sql(first) and all_rows(replica), "the first tables to be loaded")
        primary.sql("FLUSH BINARY LOGS")
        until(lambda: purged(primary), "only the last binary log to be left")
        primary.sql("INSERT INTO app.t VALUES (9000, 'meanwhile')")
        if replica.replicates():
            until(lambda: replica.gtid() == primary.gtid(), f"{replica.name} to apply it to what is loaded")
        gate.go()
        told = rejoin.communicate(timeout=60)[0]
    assert rejoin.returncode == 0, told
    await_equal(replica, primary)
    assert replica.replicates()


def purged(node: Node) -> bool:
    """Purges all binary logs but the last; tells whether no other is left: one in use stays."""
    node.sql(f"PURGE BINARY LOGS TO '{node.sql('SHOW MASTER STATUS')[0]['File']}'")
    return len(node.sql("SHOW BINARY LOGS")) == 1


@pytest.mark.full
def test_purged_binary_logs_are_no_obstacle(lab: Lab) -> None:
    old, new = diverge(lab, [*UNDOABLE, "FLUSH BINARY LOGS"])
    old.sql("PURGE BINARY LOGS TO 'binlog.000002'")
    reseeded(lab, old)
    assert_anew(lab, old, new)


@pytest.mark.full
def test_by_a_copy(hosted: Lab) -> None:
    old, new = diverge(hosted, UNDOABLE)
    own = old.own_gtids
    value = reseeded(hosted, old)
    told = steps(hosted, value)
    assert old.physical in told, told
    assert_anew(hosted, old, new)
    assert old.own_gtids == own, "its name for itself is its own still"
    assert [p.name for p in old.folder.iterdir() if "proxyroute" in p.name] == [], "the old data are gone"
    assert_order(hosted, new.name)


@pytest.mark.mariadb_only("a clone drops the data of the target before it fetches others: none are kept")
def test_the_old_data_stay_until_the_new_ones_are_proven(hosted: Lab) -> None:
    """A table that cannot be compared leaves the proof with a gap: then a person decides when the old data go."""
    hosted.cluster.primary.sql("CREATE TABLE app.plain (id INT PRIMARY KEY) ENGINE=MyISAM")
    old, new = diverge(hosted, UNDOABLE)
    status, value = hosted.json("rejoin", old.name, "--method", "reseed", "--yes")
    assert (status, value["verdict"]) == (7, "UNKNOWN"), value
    await_equal(old, new)
    (kept,) = old.folder.glob("data.proxyroute-old-*")
    assert (kept / "app" / "errant.ibd").exists(), "what it had of its own is still there"
    records = hosted.json("show", value["result"]["operation"])[1]["records"]
    told = [r["text"] for r in records if r["kind"] == "note"]
    assert f"the old data are kept in {kept} on the host of {old.name}" in told


@pytest.mark.mariadb_only("a clone is made by the server itself, which has to start for that")
def test_a_server_that_does_not_start_is_built_anew_by_a_copy(hosted: Lab) -> None:
    old, new = diverge(hosted, UNDOABLE)
    old.kill9()
    for file in (old.folder / "data").glob("ib*"):
        file.write_bytes(b"damaged")
    value = reseeded(hosted, old)
    assert_anew(hosted, old, new)
    archive = Path(hosted.json("show", value["result"]["operation"])[1]["records"] and _archive(hosted, value))
    assert "overwritten" in (archive / "decoded.sql").read_text(), "read from its host, for the server is down"


def _archive(lab: Lab, value: dict[str, Any]) -> str:
    records = lab.json("show", value["result"]["operation"])[1]["records"]
    return next(str(r["value"]["path"]) for r in records if r["kind"] == "keep" and r["name"] == "archive")


def test_hosts_are_tried_by_check(hosted: Lab) -> None:
    codes = [f["code"] for f in hosted.json("check")[1]["findings"]]
    assert "host.command" not in codes
    text = hosted.config.read_text()
    hosted.config.write_text(text.replace("- env", "- /nowhere/ssh", 1))
    found = [f for f in hosted.json("check")[1]["findings"] if f["code"] == "host.command"]
    assert [f["subject"] for f in found] == ["db1"]
    assert "/nowhere/ssh" in found[0]["text"]


# -- while it is half built ---------------------------------------------------------------------------------------


def test_a_server_that_is_half_built_has_no_channel_that_starts_with_it_and_nobody_lets_it_follow(
    lab: Lab, tmp_path: Path
) -> None:
    """It is delayed, and its channel has a filter: both are there again in the end."""
    replica, primary = lab.cluster["db3"], lab.cluster.primary
    primary.sql("CREATE TABLE app.zzz (id INT PRIMARY KEY)")
    lab.cluster.await_synced()
    replica.sql("STOP SLAVE")
    replica.sql("CHANGE MASTER TO MASTER_DELAY=3")
    replica.sql(replica.channel_filter)
    replica.sql("START SLAVE")
    filters = replica.channel_filters()
    argv = lab.command("rejoin", replica.name, "--method", "reseed", "--yes")
    with held_dump(lab, "zzz") as gate:
        with subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **gate.environment},
        ) as rejoin:
            until(lambda: "t" in tables(replica) and "zzz" not in tables(replica), "the first tables to be loaded")
            rejoin.kill()
        await_closed(lab)
    assert replica.replication() == {}
    replica.kill9()
    replica.start()
    assert replica.replication() == {}, "nothing has started with it"
    assert "zzz" not in tables(replica), "it is not whole"
    # an engine that knows nothing of this rejoin
    elsewhere = tmp_path / "proxyroute.yaml"
    text = lab.config.read_text()
    state = re.search(r"state_dir: (\S+)", text)
    assert state is not None
    elsewhere.write_text(text.replace(state[1], str(tmp_path / "state")))
    words = lab.command("rejoin", replica.name)
    words[words.index(str(lab.config))] = str(elsewhere)
    refused = run_to_end(words)
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert "half built" in refused.stderr, refused.stderr
    assert replica.replication() == {}
    # the one that has begun it goes on
    value = lab.json("rejoin", replica.name, "--method", "reseed", "--yes")
    assert value[0] in (0, 7), value
    await_equal(replica, primary)
    assert (replica.replication()["SQL_Delay"], replica.channel_filters()) == (3, filters)
    assert filters.strip()
    assert replica.replicates()
    assert not replica.half_built()


def tables(node: Node) -> set[str]:
    """The tables of the schema app."""
    found = node.sql("SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA='app'")
    return {str(row["name"]) for row in found}


def test_what_only_its_relay_logs_hold_does_not_go_with_its_old_data(lab: Lab) -> None:
    replica, old = lab.cluster["db3"], lab.cluster.primary
    replica.sql("STOP SLAVE SQL_THREAD")
    lab.cluster["db2"].sql("STOP SLAVE")
    old.sql("INSERT INTO app.t VALUES (7001, 'received, and nowhere else')")
    until(lambda: old.gtid() in replica.replication()["Gtid_IO_Pos"], "it to be received")
    old.sql("SET GLOBAL read_only=1")
    new = lab.cluster["db2"]
    new.sql("RESET SLAVE ALL")
    new.sql("SET GLOBAL read_only=0")
    new.sql("INSERT INTO app.t VALUES (7002, 'of the new one')")
    status, value = lab.json("rejoin", replica.name, "--method", "reseed", "--yes")
    assert status == 3, value
    (found,) = [f for f in value["error"]["findings"] if f["code"] == "rejoin.received"]
    assert "relay logs alone" in found["text"]
    replica.sql("START SLAVE SQL_THREAD")
    assert replica.sql("SELECT * FROM app.t WHERE id=7001") or until(
        lambda: replica.sql("SELECT * FROM app.t WHERE id=7001"), "it to be applied: nothing was taken away"
    )
