"""What a MySQL channel is told besides its source: kept for its server, and given to whoever stands in for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxyroute.db import mysql_channels
from proxyroute.db.mysql import MySQL
from proxyroute.db.replication import ReplicationLogin
from proxyroute.db.session import Login, Session
from proxyroute.model import Deadline, Peer
from proxyroute.policy import Policy
from proxyroute.preflight import survey
from tests.support.builders import view
from tests.support.mariadb import ENGINE, REPLICATION, Node
from tests.support.mysql import MySQLCluster

pytestmark = pytest.mark.matrix
TOLD = (
    "SOURCE_TLS_VERSION='TLSv1.3', SOURCE_TLS_CIPHERSUITES='TLS_AES_256_GCM_SHA384',"
    " SOURCE_COMPRESSION_ALGORITHMS='zstd,uncompressed', SOURCE_ZSTD_COMPRESSION_LEVEL=7"
)
OF_ITS_OWN = (
    f"SOURCE_BIND='127.0.0.1', GTID_ONLY=1, REQUIRE_ROW_FORMAT=1, REQUIRE_TABLE_PRIMARY_KEY_CHECK=GENERATE,"
    f" PRIVILEGE_CHECKS_USER='{REPLICATION.user}'@'%', SOURCE_DELAY=3"
)
CONNECTION = ("TLS_VERSION", "TLS_CIPHERSUITES", "COMPRESSION_ALGORITHM", "ZSTD_COMPRESSION_LEVEL")
OWN = ("NETWORK_INTERFACE", "GTID_ONLY")
APPLYING = ("DESIRED_DELAY", "PRIVILEGE_CHECKS_USER", "REQUIRE_ROW_FORMAT", "REQUIRE_TABLE_PRIMARY_KEY_CHECK")


def told(node: Node, *columns: str) -> list[str]:
    table = "applier" if columns == APPLYING else "connection"
    (row,) = node.sql(f"SELECT * FROM performance_schema.replication_{table}_configuration")
    return [str(row[column]) for column in columns]


def test_options_outlive_new_data_and_go_to_whoever_takes_the_place(start_mysql: Callable[..., MySQLCluster]) -> None:
    cluster = start_mysql(2)
    old, new = cluster
    new.sql("STOP REPLICA")
    new.sql(f"CHANGE REPLICATION SOURCE TO {TOLD}, {OF_ITS_OWN}")
    before = [told(new, *columns) for columns in (CONNECTION, OWN, APPLYING)]
    login, replica = Login(ENGINE.user, ENGINE.password), ReplicationLogin(REPLICATION.user, REPLICATION.password)
    server, former = (MySQL(node.name, node.address, login, replica) for node in (new, old))
    (source,) = server.look(Deadline.after(5)).sources
    assert not source.chooses_source
    new.sql("CHANGE REPLICATION SOURCE TO SOURCE_CONNECTION_AUTO_FAILOVER=1")
    new.sql("START REPLICA SQL_THREAD")
    seen = view(server.look(Deadline.after(5)))
    (finding,) = (f for f in survey(seen, Policy()) if f.code == "witness.auto_failover")
    for statement in finding.cure.removeprefix(f"on {new.name}: ").rstrip(";").split("; "):
        new.sql(statement)
    assert not server.look(Deadline.after(5)).sources[0].chooses_source
    new.sql("STOP REPLICA")

    with Session(new.name, new.address, login).open(Deadline.after(10)) as session:
        mysql_channels.forget(session, Deadline.after(10))
        assert new.replication() == {}
        mysql_channels.make(session, {"name": "", "options": dict(source.options)}, Deadline.after(10))
    assert [told(new, *columns) for columns in (CONNECTION, OWN, APPLYING)] == before

    for statement in ("RESET REPLICA ALL", "RESET BINARY LOGS AND GTIDS", "SET GLOBAL super_read_only=0"):
        new.sql(statement)
    old.sql("RESET BINARY LOGS AND GTIDS")
    old.sql("SET GLOBAL super_read_only=1")
    former.follow(Peer(new.name, new.address, new.server_id), Deadline.after(10), options=source.options)
    assert told(old, *CONNECTION) == before[0]
    assert told(old, *OWN) == ["", "0"]
    assert told(old, *APPLYING) == ["0", "None", "NO", "STREAM"]  # how the other one applies is its own
    server.close()
    former.close()


def test_a_replica_that_chooses_its_source_stays_where_it_is_pointed(start_mysql: Callable[..., MySQLCluster]) -> None:
    """By the weights of its list it would go back to the old primary, once that is up again."""
    cluster = start_mysql(3)
    old, new, node = cluster
    node.sql("STOP REPLICA")
    node.sql("CHANGE REPLICATION SOURCE TO SOURCE_CONNECTION_AUTO_FAILOVER=1")
    node.sql("START REPLICA")
    login, replica = Login(ENGINE.user, ENGINE.password), ReplicationLogin(REPLICATION.user, REPLICATION.password)
    server = MySQL(node.name, node.address, login, replica)
    assert server.look(Deadline.after(5)).sources[0].chooses_source
    peers = [Peer(n.name, n.address, n.server_id) for n in (new, old)]
    server.follow(peers[0], Deadline.after(10), instead_of=peers[1])
    (source,) = server.look(Deadline.after(5)).sources
    assert (source.address, source.chooses_source) == (new.address, False)
    server.close()
