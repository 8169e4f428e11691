"""What a reading of a real server says: roles, positions, channels and their options, semi-synchronous replication."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from proxyroute.db import mariadb_read, mysql_read
from proxyroute.db.session import Login, Session
from proxyroute.errors import StatementError, Unreachable
from proxyroute.gtid import Containment, from_json
from proxyroute.model import Address, Deadline, Receiver, Source, Status
from tests.support.drivers import server_of
from tests.support.mariadb import APPLICATION, ENGINE, REPLICATION, Account, LocalCluster, Node
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")
Start = Callable[..., LocalCluster]
OPTIONS: dict[str, tuple[str, dict[str, Any], dict[str, tuple[str, str]]]] = {
    "mariadb": (
        "IGNORE_SERVER_IDS=(7,8), DO_DOMAIN_IDS=(0,3)",
        {"ignore_server_ids": [7, 8], "do_domain_ids": [0, 3], "ignore_domain_ids": []},
        mariadb_read.SOURCE_OPTIONS,
    ),
    "mysql": (
        "MASTER_RETRY_COUNT=77, MASTER_PUBLIC_KEY_PATH='/etc/p.pem', GET_MASTER_PUBLIC_KEY=1",
        {"retry_count": 77, "public_key": "/etc/p.pem", "get_public_key": True},
        mysql_read.SOURCE_OPTIONS,
    ),
}
"""What else a channel may be told on a flavour, how that is read, and the names of all options there."""


def opened(node: Node) -> Session:
    return Session(node.name, node.address, Login(ENGINE.user, ENGINE.password)).open(Deadline.after(5.0))


def look(node: Node, account: Account = ENGINE) -> Status:
    server = server_of(node, account=account)
    try:
        return server.look(Deadline.after(5.0))
    finally:
        server.close()


def source(node: Node) -> Source:
    found = look(node).source
    assert found is not None
    return found


def test_a_primary_and_its_replica_are_read_as_what_they_are(cluster: LocalCluster, dialect: str) -> None:
    cluster["db1"].sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    goal = from_json({"flavour": dialect, "text": cluster.await_synced()})
    until(lambda: source(cluster["db2"]).lag_seconds == 0.0, "db2 to be no second behind")
    primary, replica = look(cluster["db1"]), look(cluster["db2"])

    assert primary.writable
    assert primary.sources == ()
    assert (primary.name, primary.server_id, primary.flavour) == ("db1", 1, dialect)
    assert primary.version_text.startswith(".".join(map(str, primary.version)))
    assert primary.executed == goal
    assert primary.net_timeout_seconds == 4.0
    assert (primary.binlog, primary.relays_updates, primary.strict, primary.galera) == (True, True, True, False)
    assert primary.settings["sync_binlog"] == "1"
    assert 0 < primary.connections <= primary.connections_limit == 150

    assert not replica.writable
    assert replica.executed.equals(goal) is Containment.YES
    channel = replica.source
    assert channel is not None
    assert channel.running
    assert (channel.address, channel.source_id, channel.user) == (cluster["db1"].address, 1, REPLICATION.user)
    assert (channel.heartbeat_seconds, channel.delay_seconds, channel.lag_seconds) == (1.0, 0, 0.0)
    assert channel.uses_gtid
    assert not channel.filtered
    assert channel.error == ""


def test_received_is_ahead_of_executed_while_the_applier_is_stopped(cluster: LocalCluster) -> None:
    db1, db2 = cluster["db1"], cluster["db2"]
    db2.sql("STOP SLAVE SQL_THREAD")
    db1.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    goal = look(db1).executed
    until(lambda: source(db2).received.contains(goal) is Containment.YES, "db2 to receive what db1 wrote")

    status = look(db2)
    assert status.executed.contains(goal) is Containment.NO
    channel = source(db2)
    assert (channel.receiver, channel.applier, channel.lag_seconds) == (Receiver.RUNNING, False, None)

    db2.sql("STOP SLAVE")
    assert source(db2).receiver is Receiver.STOPPED
    assert source(db2).received.contains(goal) is Containment.YES


def test_received_holds_what_is_applied_even_before_the_first_contact(cluster: LocalCluster, dialect: str) -> None:
    cluster["db1"].sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    cluster.await_synced()
    cluster["db2"].restart(skip_slave_start=1)
    if dialect == "mariadb":  # MySQL keeps its relay logs
        assert cluster["db2"].replication()["Gtid_IO_Pos"] == ""
    assert source(cluster["db2"]).received.contains(look(cluster["db1"]).executed) is Containment.YES


def test_a_broken_applier_is_read_with_its_error(cluster: LocalCluster) -> None:
    db1, db2 = cluster["db1"], cluster["db2"]
    db1.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    cluster.await_synced()
    db2.sql("SET STATEMENT sql_log_bin=0 FOR INSERT INTO app.t VALUES (1)")
    db1.sql("INSERT INTO app.t VALUES (1)")
    until(lambda: not source(db2).applier, "the applier of db2 to stop")
    assert "Duplicate entry" in source(db2).error
    assert source(db2).lag_seconds is None


def test_a_receiver_that_cannot_log_in_is_connecting(start_cluster: Start) -> None:
    db2 = start_cluster(2)["db2"]
    db2.sql("STOP SLAVE")
    db2.sql("CHANGE MASTER TO MASTER_PASSWORD='wrong'")
    db2.sql("START SLAVE")
    until(lambda: "Access denied" in source(db2).error, "db2 to be refused")
    assert source(db2).receiver is Receiver.CONNECTING
    assert not source(db2).running


def test_options_of_a_channel_can_be_set_again_as_they_were_read(start_cluster: Start, dialect: str) -> None:
    db2 = start_cluster(2)["db2"]
    db2.sql("STOP SLAVE")
    common = (
        "CHANGE MASTER TO MASTER_CONNECT_RETRY=7, MASTER_HEARTBEAT_PERIOD=2.5, MASTER_DELAY=5, MASTER_SSL=1,"
        " MASTER_SSL_CA='/etc/ca.pem', MASTER_SSL_CAPATH='/etc/cas', MASTER_SSL_CERT='/etc/c.pem',"
        " MASTER_SSL_KEY='/etc/k.pem', MASTER_SSL_CIPHER='AES128-SHA', MASTER_SSL_VERIFY_SERVER_CERT=1,"
        " MASTER_SSL_CRL='/etc/crl.pem', MASTER_SSL_CRLPATH='/etc/crls', "
    )
    more, told, names = OPTIONS[dialect]
    db2.sql(common + more)
    before = source(db2)
    assert before.options == {
        "connect_retry": 7,
        "heartbeat": 2.5,
        "delay": 5,
        "ssl": True,
        "ssl_ca": "/etc/ca.pem",
        "ssl_capath": "/etc/cas",
        "ssl_cert": "/etc/c.pem",
        "ssl_key": "/etc/k.pem",
        "ssl_cipher": "AES128-SHA",
        "ssl_verify": True,
        "ssl_crl": "/etc/crl.pem",
        "ssl_crlpath": "/etc/crls",
        **told,
    }
    assert (before.delay_seconds, before.heartbeat_seconds) == (5, 2.5)
    assert before.filtered is (dialect == "mariadb"), "lists of servers and domains are filters"

    db2.sql("RESET SLAVE ALL")
    lists = {key for key, value in before.options.items() if isinstance(value, list)}
    clauses = [f"{names[key][1]}=%s" for key in before.options if key not in lists]
    clauses += [f"{names[key][1]}=({','.join(map(str, before.options[key]))})" for key in lists]
    values = tuple(value for key, value in before.options.items() if key not in lists)
    db2.sql(f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', {', '.join(clauses)}", values)
    assert source(db2).options == before.options


@pytest.mark.parametrize(
    "option", ["replicate_do_db", "replicate_ignore_table", "replicate_wild_ignore_table", "replicate_rewrite_db"]
)
def test_filters_from_the_option_file_are_seen(start_cluster: Start, option: str) -> None:
    value = {"replicate_do_db": "app", "replicate_rewrite_db": "app->other"}.get(option, "app.t")
    db2 = start_cluster(2, node_options={"db2": {option: value}})["db2"]
    assert source(db2).filtered


def test_every_channel_of_a_multi_source_replica_is_read(start_cluster: Start, dialect: str) -> None:
    db1, db2, db3 = start_cluster(3)
    without = {"mariadb": " MASTER_USE_GTID=no", "mysql": " MASTER_AUTO_POSITION=0"}[dialect]
    for channel, node in (("one", db1), ("other", db2)):
        db3.sql(
            f"CHANGE MASTER '{channel}' TO MASTER_HOST='127.0.0.2', MASTER_PORT={node.port}, MASTER_USER='x',{without}"
        )
    found = {s.channel: s for s in look(db3).sources}
    assert set(found) == {"", "one", "other"}
    assert found["other"].address == Address("127.0.0.2", db2.port)
    assert (found["other"].uses_gtid, found["other"].source_id) == (False, None)


def test_semi_synchronous_replication_is_read_on_both_sides(start_cluster: Start) -> None:
    db1, db2, db3 = start_cluster(3, semi_sync=True)
    primary, replica = look(db1).semi_sync, look(db2).semi_sync
    assert (primary.available, primary.primary_enabled, primary.primary_active) == (True, True, True)
    assert (primary.clients, primary.wait_point, primary.timeout_seconds) == (2, "AFTER_SYNC", 10.0)
    assert (replica.replica_enabled, replica.primary_enabled, replica.primary_active) == (True, False, False)
    for node in (db2, db3):
        node.sql("STOP SLAVE")
    until(lambda: look(db1).semi_sync.clients == 0, "both replicas to be gone")
    assert not look(db1).semi_sync.primary_active


@pytest.mark.mariadb_only("there are no domains, and a set is never cut off")
def test_a_position_of_many_domains_is_read_whole(start_cluster: Start) -> None:
    (db1,) = start_cluster(1)
    db1.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    with db1.session() as session, session.cursor() as cursor:
        for number in range(1, 181):
            cursor.execute(f"SET gtid_domain_id={1_000_000_000 + number}")
            cursor.execute(f"INSERT INTO app.t VALUES ({number})")
    with opened(db1) as reading:
        position = mariadb_read.read_position(reading, Deadline.after(5.0))
    assert len(str(position)) > 2048
    assert len(position.entries) == 181
    assert look(db1).executed == position


def test_an_account_without_privileges_gets_the_servers_words(start_cluster: Start, dialect: str) -> None:
    (db1,) = start_cluster(1)
    errno, words = {"mariadb": (1227, "SLAVE MONITOR"), "mysql": (1142, "SELECT command denied")}[dialect]
    with pytest.raises(StatementError, match=words) as caught:
        look(db1, APPLICATION)
    assert caught.value.errno == errno


def test_a_server_that_hangs_is_unreachable_and_the_session_with_it_lost(start_cluster: Start) -> None:
    (db1,) = start_cluster(1)
    server = server_of(db1)
    before = server.look(Deadline.after(5.0))
    line = server.line()
    assert line
    db1.sigstop()
    for _ in range(2):  # by the session that there was, and by a new one
        with pytest.raises(Unreachable):
            server.look(Deadline.after(0.3))
        assert server.line() != line
    db1.sigcont()
    assert server.look(Deadline.after(5.0)).executed == before.executed
    server.close()
