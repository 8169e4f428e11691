"""A server of MySQL is built anew: by a clone, by a dump, and whoever dies in the midst of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.accounts import APPLICATION
from tests.support.broken import REBUILD, await_equal, diverge, ready
from tests.support.certificates import Certificate, make_certificate
from tests.support.clients import Clients
from tests.support.dumps import held_dump
from tests.support.engines import stopped_at
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.mariadb import Node
from tests.support.mysql import MySQLCluster, mysql_root
from tests.support.scene import configured
from tests.support.wait import until

pytestmark = pytest.mark.matrix
UNDOABLE = (
    "INSERT INTO app.t VALUES (1000, 'extra')",
    "CREATE TABLE app.errant (id INT PRIMARY KEY)",
    "CREATE SCHEMA errant",
)
MARK = "ffffffff-ffff-ffff-ffff-fffffffffffe"
CLONE = "INSTALL PLUGIN clone SONAME 'mysql_clone.so'"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A site where commands run on no host: there are dumps only. MySQL's own client programs are there."""
    monkeypatch.setenv("PATH", str(mysql_root().programs), prepend=":")
    with Lab.start(3, provider=MySQLCluster) as started:
        ready(started)
        yield started


@pytest.fixture
def hosted(lab: Lab) -> Lab:
    """Commands run on its hosts, and every server may be cloned."""
    lab.cluster.primary.sql("DROP TABLE app.t, app.u")
    lab.cluster.primary.sql("DROP USER proxyroute_rejoin@'%'")
    ready(lab, hosts=True)
    for node in lab.cluster:
        node.sql(CLONE)
    return lab


def reseeded(lab: Lab, server: Node) -> dict[str, Any]:
    status, value = lab.json("rejoin", server.name, "--method", "reseed", "--yes")
    assert status == 0, value
    assert value["verdict"] == "PROVEN", value["result"]["proof"]
    return value


def steps(lab: Lab, value: dict[str, Any]) -> dict[str, str]:
    """Returns what the steps of an operation said of themselves."""
    records = lab.json("show", value["result"]["operation"])[1]["records"]
    return {r["name"]: r["detail"] for r in records if r["kind"] == "stepped"}


def assert_anew(old: Node, new: Node) -> None:
    await_equal(old, new)
    schemas = {row["Database"] for row in old.sql("SHOW DATABASES")}
    assert "errant" not in schemas
    assert old.sql("SHOW TABLES IN app LIKE 'errant'") == []
    assert not old.is_writable()
    assert old.value("@@global.super_read_only")
    assert old.replicates()
    assert MARK not in old.gtid()


def test_by_a_dump_where_the_source_has_no_clone_plugin(hosted: Lab) -> None:
    old, new = diverge(hosted, UNDOABLE)
    new.sql("UNINSTALL PLUGIN clone")
    value = reseeded(hosted, old)
    assert "dump and load" in steps(hosted, value)
    records = hosted.json("show", value["result"]["operation"])[1]["records"]
    assert any(f"{new.name} has no clone plugin: INSTALL PLUGIN" in r["text"] for r in records if r["kind"] == "note")
    assert_anew(old, new)


def notes(lab: Lab, value: dict[str, Any]) -> str:
    """Returns all that an operation noted."""
    records = lab.json("show", value["result"]["operation"])[1]["records"]
    return "; ".join(r["text"] for r in records if r["kind"] == "note")


def test_what_a_clone_would_refuse_is_seen_before_and_a_dump_is_loaded(hosted: Lab) -> None:
    old, new = diverge(hosted, UNDOABLE)
    old.sql("SET GLOBAL collation_server=utf8mb4_bin")
    value = reseeded(hosted, old)
    assert "dump and load" in steps(hosted, value)
    assert f"collation_server is utf8mb4_bin on {old.name}" in notes(hosted, value)
    assert_anew(old, new)


def test_a_clone_that_has_failed_becomes_a_dump_when_it_is_typed_again(hosted: Lab) -> None:
    """One that always fails would leave the server half built for good."""
    old, new = diverge(hosted, UNDOABLE)
    old.sql("SET GLOBAL clone_ssl_ca='/nowhere/ca.pem'")  # what the server itself would trust is for its owner to say
    status, value = hosted.json("rejoin", old.name, "--method", "reseed", "--yes")
    assert status == 5, value
    assert "SSL connection error" in value["error"]["text"]
    value = reseeded(hosted, old)
    assert "dump and load" in steps(hosted, value)
    assert f"the clone of {old.name} has failed: {old.name}: error 3862" in notes(hosted, value)
    assert_anew(old, new)


@pytest.fixture
def certified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Lab, Certificate]]:
    """As ``hosted``; the servers have a certificate for their address, and the account of rejoin verifies it."""
    monkeypatch.setenv("PATH", str(mysql_root().programs), prepend=":")
    made = make_certificate(tmp_path)
    options = {"ssl_ca": str(made.ca), "ssl_cert": str(made.cert), "ssl_key": str(made.key)}
    with Lab.start(2, provider=MySQLCluster, options=options) as lab:
        ready(lab, hosts=True)
        for node in lab.cluster:
            node.sql(CLONE)
        account = yaml.safe_load(lab.config.read_text())["clusters"][CLUSTER_NAME]["rejoin"]["account"]
        with configured(lab, rejoin={"account": {**account, "tls": {"ca": str(made.ca)}}}):
            yield lab, made


def test_a_clone_is_made_from_a_source_that_is_verified_or_not_at_all(certified: tuple[Lab, Certificate]) -> None:
    lab, made = certified
    old, new = diverge(lab, UNDOABLE)
    value = reseeded(lab, old)
    assert "dump and load" in steps(lab, value)
    assert f"{old.name} would not verify from whom it clones: name replication.tls.ca" in notes(lab, value)
    with configured(lab, replication={"tls": {"ca": str(made.ca)}}):
        assert "clone" in steps(lab, reseeded(lab, old))
    assert_anew(old, new)


def test_no_event_of_a_dump_runs_before_it_rests(lab: Lab) -> None:
    """They come enabled, the scheduler is on by default, and super_read_only gives way to the load."""
    old, new = diverge(lab, UNDOABLE)
    new.sql("CREATE TABLE app.ticks (id INT AUTO_INCREMENT PRIMARY KEY)")
    new.sql("CREATE EVENT app.tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO app.ticks VALUES ()")
    new.sql("CREATE SCHEMA later")
    new.sql("CREATE TABLE later.held (id INT PRIMARY KEY)")
    old.sql("SET GLOBAL event_scheduler=ON")
    words = ("rejoin", old.name, "--method", "reseed", "--yes")
    with held_dump(lab, "held") as gate:
        environment = {**os.environ, **gate.environment}
        with subprocess.Popen(lab.command(*words), env=environment, stdout=subprocess.DEVNULL) as engine:
            try:
                until(lambda: old.sql("SHOW EVENTS IN app"), "the event to be there", 60)
                (event,) = old.sql("SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME='tick'")
                assert (event["STATUS"], old.value("@@global.event_scheduler")) == ("ENABLED", "OFF")
            finally:
                engine.kill()
    reseeded(lab, old)
    assert_anew(old, new)
    (event,) = old.sql("SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME='tick'")
    assert (event["STATUS"], old.value("@@global.event_scheduler")) == (old.event_aside, "ON")
    assert old.sql("SELECT * FROM app.ticks") == []


def test_a_server_that_takes_no_notice_of_a_start_is_started_again(hosted: Lab) -> None:
    """As one that still shuts down after a clone whose engine was killed."""
    old, new = diverge(hosted, UNDOABLE)
    old.kill9()
    script, busy = old.folder / "service", old.folder / "busy"
    busy.touch()
    unheard = f'if [ "$1" = start ] && [ -e {busy} ]; then rm {busy}; exit 0; fi'
    script.write_text(script.read_text().replace("\ncase ", f"\n{unheard}\ncase ", 1))
    reseeded(hosted, old)
    assert not busy.exists()
    assert_anew(old, new)


def test_a_clone_is_known_to_be_over_whatever_time_zone_the_server_had_before(hosted: Lab) -> None:
    """What was set while it ran is gone when it has restarted: the clone looked like an earlier one, for an hour."""
    node = hosted.cluster["db3"]
    node.sql("SET GLOBAL time_zone='+05:00'")
    reseeded(hosted, node)
    assert node.value("@@global.time_zone") == "SYSTEM"


def test_filters_that_are_in_no_file_are_there_again_after_a_clone(hosted: Lab) -> None:
    """The restart takes them all along; each is set again for whom it was: every channel, or the one."""
    replica = hosted.cluster["db3"]
    replica.sql("STOP SLAVE")
    replica.sql("CHANGE REPLICATION FILTER REPLICATE_IGNORE_DB=(`not ours`)")
    replica.sql(replica.channel_filter)
    replica.sql("START SLAVE")
    before = filters(replica)
    assert len(before) == 3
    told = steps(hosted, reseeded(hosted, replica))
    assert "clone" in told, told
    assert filters(replica) == before
    assert replica.replicates()


def filters(node: Node) -> list[dict[str, Any]]:
    """The replication filters that somebody has set, for all channels and for each."""
    what = "FILTER_NAME, FILTER_RULE, CONFIGURED_BY FROM performance_schema.replication_applier"
    return [
        *node.sql(f"SELECT {what}_global_filters ORDER BY FILTER_NAME"),
        *node.sql(f"SELECT CHANNEL_NAME, {what}_filters ORDER BY FILTER_NAME"),
    ]


@pytest.mark.parametrize(
    "point", ["rejoin.stop_replication:after:2", "rejoin.clone:after:1", "rejoin.start_server:before"]
)
def test_killed_in_the_midst_of_a_clone(hosted: Lab, point: str) -> None:
    """What is half built has no channel and is told; the one that has begun it goes on."""
    old, new = diverge(hosted, UNDOABLE)
    words = ("rejoin", old.name, "--method", "reseed", "--yes")
    killed = hosted.run(*words, environment={"PROXYROUTE_FAULT": f"engine/{point}"})
    assert killed.returncode == -9, killed.stdout + killed.stderr
    if old.running and point.startswith("rejoin.stop"):
        assert old.replication() == {}
        assert MARK in old.gtid()
        assert not old.is_writable()
    reseeded(hosted, old)
    assert_anew(old, new)


def test_writers_wait_no_longer_than_a_moment_for_the_position_of_a_dump(lab: Lab) -> None:
    """A long reading keeps the lock of a dump waiting, and with it everybody's writes: it gives up, and says so."""
    old, new = diverge(lab, UNDOABLE)
    with new.session() as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLES app.u WRITE")
        status, value = lab.json("rejoin", old.name, "--method", "reseed", "--yes")
        assert status == 5, value
        cursor.execute("UNLOCK TABLES")
    until(lambda: new.sql("SELECT 1"), "the primary to answer")
    reseeded(lab, old)
    assert_anew(old, new)


def answered(node: Node) -> None:
    """A session of its own gets through to the table within seconds, for reading and for writing."""
    with node.session(APPLICATION) as other, other.cursor() as cursor:
        cursor.execute("SET SESSION lock_wait_timeout=3")
        cursor.execute("SELECT COUNT(*) FROM app.t")
        cursor.execute("UPDATE app.t SET v='answered' WHERE id=2")


@pytest.mark.parametrize(
    ("statement", "said"), [("SELECT id, SLEEP(60) FROM app.t", "has tables open for"), ("", "holds LOCK TABLES")]
)
def test_nobody_is_kept_waiting_by_a_dump_that_would_wait_for_a_long_reader(
    lab: Lab, statement: str, said: str
) -> None:
    """Its flush would be given up, and everybody who wants that table would go on waiting (decision 0076)."""
    old, new = diverge(lab, UNDOABLE)
    with contextlib.ExitStack() as ends:
        clients = Clients(new, ends)
        number = clients.running(statement) if statement else clients.idle("LOCK TABLES app.t READ")
        aged = "SELECT 1 FROM performance_schema.threads WHERE PROCESSLIST_ID=%s AND PROCESSLIST_TIME >= 2"
        until(lambda: new.sql(aged, (number,)), "it to read for long")
        status, value = lab.json("rejoin", old.name, "--method", "reseed", "--yes")
        assert status == 3, value
        texts = [finding["text"] for finding in value["error"]["findings"]]
        assert any(f"session {number} on {new.name} {said}" in text for text in texts), texts
        assert clients.alive(number)
        if statement:
            answered(new)
    reseeded(lab, old)
    assert_anew(old, new)


def test_a_reader_that_begins_right_before_a_dump_is_ended_with_its_attempt(lab: Lab) -> None:
    old, new = diverge(lab, UNDOABLE)
    with contextlib.ExitStack() as ends:
        with stopped_at(lab, "rejoin.load:before", ("rejoin", old.name, "--method", "reseed", "--yes")) as engine:
            reading = Clients(new, ends).running("SELECT id, SLEEP(60) FROM app.t")
            os.kill(engine.pid, signal.SIGCONT)
            assert engine.wait(60) == 5
        # nobody had to be seen waiting for it
        idle = "SELECT 1 FROM information_schema.PROCESSLIST WHERE ID=%s AND COMMAND='Sleep'"
        assert new.sql(idle, (reading,)), "its statement has ended, its session has not"
        answered(new)
    reseeded(lab, old)
    assert_anew(old, new)


def test_a_dump_of_gtids_with_tags_takes_its_privilege_and_that_is_told_before(lab: Lab) -> None:
    old, new = diverge(lab, UNDOABLE)
    new.sql("SET GLOBAL gtid_purged='+aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:tag:1'")
    whom = f"'{REBUILD.user}'@'%'"
    new.sql(f"REVOKE TRANSACTION_GTID_TAG ON *.* FROM {whom}")
    status, value = lab.json("rejoin", old.name, "--method", "reseed", "--yes")
    assert status == 3, value
    assert any(f"lacks TRANSACTION_GTID_TAG on {new.name}" in f["text"] for f in value["error"]["findings"])
    new.sql(f"GRANT TRANSACTION_GTID_TAG ON *.* TO {whom}")
    reseeded(lab, old)
    assert_anew(old, new)
    assert ":tag:1" in old.gtid()


def test_one_that_restarts_by_itself_is_waited_for(hosted: Lab) -> None:
    """As under systemd: nobody starts it on its host."""
    old, new = diverge(hosted, UNDOABLE)
    old.kill9()
    asked = old.folder / "asked"
    (old.folder / "service").write_text(f'#!/bin/sh\necho "$1" >>{asked}\nexit 1\n')
    supervisor = old.folder / "supervisor"
    supervisor.write_text(_SUPERVISOR.format(folder=old.folder, program=old.program()))
    supervisor.chmod(0o755)
    with subprocess.Popen([str(supervisor)], start_new_session=True):
        until(lambda: answers(old), "it to start")
        told = steps(hosted, reseeded(hosted, old))
        assert "clone" in told, told
        assert_anew(old, new)
        assert not asked.exists()
        old.sql("SHUTDOWN")


def answers(node: Node) -> bool:
    """Whether somebody listens at its address."""
    with contextlib.suppress(OSError), socket.create_connection((node.address.host, node.address.port), 1):
        return True
    return False


_SUPERVISOR = """#!/bin/sh
export MYSQLD_PARENT_PID=$$
while :; do
    {program} --defaults-file={folder}/my.cnf </dev/null >>{folder}/error.log 2>&1
    [ $? = 16 ] || exit 0
done
"""
