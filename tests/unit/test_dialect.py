"""What findings say to type is said in the words of the servers' flavour."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from proxyroute import dialect
from proxyroute.gtid import MySQLPosition
from proxyroute.model import Receiver, SemiSync, Severity
from proxyroute.policy import Policy
from proxyroute.preflight import survey
from tests.support.builders import channel, replica, server, view

HAS = MySQLPosition.parse("11111111-1111-1111-1111-111111111111:1-9")
MYSQL: dict[str, Any] = {"flavour": "mysql", "executed": HAS, "version": (9, 7, 4)}
MARIADB_WORDS = re.compile(r"SLAVE|MASTER|slave_|gtid_strict_mode|mariadb-|SONAME 'semisync_(master|slave)'")


@pytest.mark.parametrize(
    ("mariadb", "mysql"),
    [
        ("STOP SLAVE; RESET SLAVE ALL;", "STOP REPLICA; RESET REPLICA ALL;"),
        ("START SLAVE 'b' IO_THREAD; SHOW SLAVE 'b' STATUS;",
         "START REPLICA IO_THREAD FOR CHANNEL 'b'; SHOW REPLICA STATUS FOR CHANNEL 'b';"),
        ("STOP SLAVE 'b'; CHANGE MASTER 'b' TO MASTER_DELAY=0; START SLAVE 'b';",
         "STOP REPLICA FOR CHANNEL 'b'; CHANGE REPLICATION SOURCE TO SOURCE_DELAY=0 FOR CHANNEL 'b'; "
         "START REPLICA FOR CHANNEL 'b';"),
        ("CHANGE MASTER TO MASTER_HOST='h', MASTER_USE_GTID=slave_pos;",
         "CHANGE REPLICATION SOURCE TO SOURCE_HOST='h', SOURCE_AUTO_POSITION=1;"),
        ("rpl_semi_sync_master_wait_no_slave=ON", "rpl_semi_sync_source_wait_no_replica=ON"),
        ("SET GLOBAL slave_net_timeout=4;", "SET GLOBAL replica_net_timeout=4;"),
        ("wait until it has caught up", "wait until it has caught up"),
    ],
)  # fmt: skip
def test_the_same_is_said_in_the_words_of_mysql(mariadb: str, mysql: str) -> None:
    assert dialect.said("mysql", mariadb) == mysql
    assert dialect.said("mariadb", mariadb) == mariadb


def test_no_cure_for_a_server_of_mysql_is_in_the_words_of_mariadb() -> None:
    ill = {"net_timeout_seconds": 60.0, "strict": False, "row_image": "MINIMAL", "binlog_format": "MIXED"}
    found = []
    for broken in (
        channel(received="", receiver=Receiver.STOPPED, heartbeat_seconds=30.0),
        channel(2, received="", uses_gtid=False, applier=False),
        channel(received="", delay_seconds=600, lag_seconds=60.0),
    ):
        source = replace(broken, received=HAS)
        first = server(1, semi_sync=SemiSync(available=True, primary_enabled=True))
        servers = [
            replace(first, **MYSQL, **ill, settings={"persisted": "read_only=OFF", "gtid_mode": "ON_PERMISSIVE"}),
            replace(replica(2, source, writable=True), **MYSQL, **ill),
            replace(replica(3, replace(channel(), received=HAS)), **MYSQL, **ill),
        ]
        found += survey(view(*servers), Policy())
    codes = {f.code for f in found}
    assert {"server.persisted", "primary.gtid_mode", "witness.net_timeout", "semi_sync.degraded"} <= codes
    assert "gtid.strict" not in codes, "MySQL has no such mode"
    said = [text for f in found for text in (f.text, f.cure)]
    assert [text for text in said if MARIADB_WORDS.search(text)] == []


@pytest.mark.parametrize("number", [1, 2])
def test_a_mixed_cluster_is_refused_whoever_is_primary(number: int) -> None:
    servers = [server(1), replica(2), replica(3)]
    odd = servers[number - 1]
    sources = tuple(replace(source, received=HAS) for source in odd.sources)
    servers[number - 1] = replace(odd, **MYSQL, sources=sources)
    errors = {f.code: f for f in survey(view(*servers), Policy()) if f.severity is Severity.ERROR}
    assert f"db{number} is mysql" in errors["topology.flavours"].text
    assert not errors["topology.flavours"].forceable
