"""Statements for an older MySQL. No such server is to be had here: their words are compared with its documentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import proxyroute.db
from proxyroute.db import session as room
from proxyroute.db.mariadb_events import read_events, set_event_status
from proxyroute.db.mysql_read import read_status
from proxyroute.db.mysql_spelling import FLOOR, spelled
from proxyroute.db.session import Login, Session
from proxyroute.errors import ServerError, Unreachable
from proxyroute.model import Address, Deadline

HERE = Address("127.0.0.1", 3306)
HEAD = re.compile(r"\s*(SELECT|SHOW|SET|RESET|CHANGE|START|STOP|FLUSH|KILL|CLONE)\b")
NEWER = re.compile(r"\b(REPLICA|REPLICATION SOURCE|BINARY LOG STATUS|BINARY LOGS AND GTIDS|log_replica|SOURCE_\w+=)\b")


@pytest.mark.parametrize(
    ("version", "sql", "older"),
    [
        ((8, 0, 21), "SHOW REPLICA STATUS", "SHOW SLAVE STATUS"),
        ((8, 0, 22), "SHOW REPLICA STATUS", "SHOW REPLICA STATUS"),
        ((8, 0, 21), "SHOW REPLICAS", "SHOW SLAVE HOSTS"),
        ((8, 0, 22), "SHOW REPLICAS", "SHOW REPLICAS"),
        ((8, 0, 21), "STOP REPLICA IO_THREAD FOR CHANNEL ''", "STOP SLAVE IO_THREAD FOR CHANNEL ''"),
        ((8, 0, 21), "START REPLICA FOR CHANNEL 'REPLICA'", "START SLAVE FOR CHANNEL 'REPLICA'"),
        ((8, 0, 21), "RESET REPLICA ALL FOR CHANNEL ''", "RESET SLAVE ALL FOR CHANNEL ''"),
        (
            (8, 0, 22),
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST=%s, GET_SOURCE_PUBLIC_KEY=%s, SOURCE_AUTO_POSITION=1",
            "CHANGE MASTER TO MASTER_HOST=%s, GET_MASTER_PUBLIC_KEY=%s, MASTER_AUTO_POSITION=1",
        ),
        (
            (8, 0, 22),
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST=%s, SOURCE_CONNECTION_AUTO_FAILOVER=0",
            "CHANGE MASTER TO MASTER_HOST=%s, SOURCE_CONNECTION_AUTO_FAILOVER=0",
        ),
        ((8, 0, 23), "CHANGE REPLICATION SOURCE TO SOURCE_HOST=%s", "CHANGE REPLICATION SOURCE TO SOURCE_HOST=%s"),
        ((8, 0, 25), "SELECT @@global.log_replica_updates AS u", "SELECT @@global.log_slave_updates AS u"),
        ((8, 0, 25), "SELECT @@global.replica_net_timeout AS t", "SELECT @@global.slave_net_timeout AS t"),
        ((8, 0, 26), "SELECT @@global.replica_net_timeout AS t", "SELECT @@global.replica_net_timeout AS t"),
        ((8, 1, 0), "SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"),
        ((8, 2, 0), "SHOW BINARY LOG STATUS", "SHOW BINARY LOG STATUS"),
        ((8, 0, 44), "RESET BINARY LOGS AND GTIDS", "RESET MASTER"),
        ((8, 4, 0), "RESET BINARY LOGS AND GTIDS", "RESET BINARY LOGS AND GTIDS"),
    ],
)
def test_each_word_changes_with_the_version_that_brought_it(version: Any, sql: str, older: str) -> None:
    assert spelled(sql, version) == older


def written() -> Iterator[str]:
    """Every statement, or beginning of one, that a module of the MySQL driver holds."""
    (folder,) = proxyroute.db.__path__
    for path in sorted(Path(folder).glob("mysql*.py")):
        # what is shown to people (plans, reasons, and cures of several statements) and the rules are sent to nobody
        if path.name in ("mysql_statements.py", "mysql_grants.py", "mysql_spelling.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and HEAD.match(node.value):
                yield from () if ";" in node.value else (node.value.lstrip(),)


def test_nothing_that_the_driver_says_is_too_new_for_the_oldest() -> None:
    found = {sql: spelled(sql, FLOOR) for sql in written()}
    changed = {sql for sql, older in found.items() if sql != older}
    assert {"SHOW REPLICA STATUS", "SHOW BINARY LOG STATUS", "RESET BINARY LOGS AND GTIDS"} <= changed
    assert not [older for older in found.values() if NEWER.search(older)]


class Cursor:
    def __init__(self, sent: list[str], row: dict[str, Any]) -> None:
        self.sent, self.row = sent, row

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, sql: str, args: object) -> None:
        self.sent.append(sql)

    def fetchall(self) -> list[dict[str, Any]]:
        return [self.row]


def old_server(monkeypatch: pytest.MonkeyPatch, greeting: str, row: dict[str, Any]) -> list[str]:
    """Lets connections reach a server that greets so and answers with ``row``; returns what they send."""
    sent: list[str] = []

    class Connection:
        def __init__(self, **_: Any) -> None:
            pass

        def thread_id(self) -> int:
            return 7

        def get_server_info(self) -> str:
            return greeting

        def cursor(self) -> Cursor:
            return Cursor(sent, row)

        def close(self) -> None:
            pass

    monkeypatch.setattr(room, "_Connection", Connection)
    return sent


def test_a_session_speaks_as_its_server_does_and_tells_columns_by_their_newer_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = {"Slave_IO_Running": "Yes", "Seconds_Behind_Master": 3, "Get_master_public_key": 1, "Channel_Name": ""}
    sent = old_server(monkeypatch, "8.0.20", row)
    deadline = Deadline.after(5.0)
    with Session("db1", HERE, Login("u", "p")).open(deadline) as session:
        shown = session.one("SHOW REPLICA STATUS", deadline)
        session.change("mariadb.stop_replica", "STOP REPLICA FOR CHANNEL ''", deadline)
    assert sent == ["SHOW SLAVE STATUS", "STOP SLAVE FOR CHANNEL ''"]
    assert shown == {
        "Replica_IO_Running": "Yes", "Seconds_Behind_Source": 3, "Get_Source_public_key": 1, "Channel_Name": "",
    }  # fmt: skip


EVENT = {
    "EVENT_SCHEMA": "app", "EVENT_NAME": "nightly", "DEFINER": "root@localhost", "STATUS": "ENABLED",
    "CHARACTER_SET_CLIENT": "utf8mb4", "COLLATION_CONNECTION": "utf8mb4_bin", "DATABASE_COLLATION": "utf8mb4_bin",
    "SQL_MODE": "", "TIME_ZONE": "SYSTEM",
}  # fmt: skip


@pytest.mark.parametrize(
    ("greeting", "clause"),
    [
        ("8.0.44", "DISABLE ON SLAVE"),
        ("8.2.0", "DISABLE ON REPLICA"),
        ("5.5.5-10.11.19-MariaDB", "DISABLE ON SLAVE"),
    ],
)
def test_events_are_laid_aside_in_the_words_of_the_server(
    monkeypatch: pytest.MonkeyPatch, greeting: str, clause: str
) -> None:
    sent = old_server(monkeypatch, greeting, EVENT)
    deadline = Deadline.after(5.0)
    with Session("db1", HERE, Login("u", "p")).open(deadline) as session:
        (event,) = read_events(session, deadline)
        set_event_status(session, event, "replica side", deadline)
    assert f"ALTER DEFINER=`root`@`localhost` EVENT `app`.`nightly` {clause}" in sent


def test_mariadb_is_spoken_to_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = old_server(monkeypatch, "5.5.5-10.11.19-MariaDB", {"Seconds_Behind_Master": 3})
    with Session("db1", HERE, Login("u", "p")).open(Deadline.after(5.0)) as session:
        assert session.one("SHOW ALL SLAVES STATUS", Deadline.after(5.0)) == {"Seconds_Behind_Master": 3}
    assert sent == ["SHOW ALL SLAVES STATUS"]


def test_what_is_older_than_any_known_one_is_refused_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = old_server(monkeypatch, "5.7.44-log", {})
    with (
        Session("db1", HERE, Login("u", "p")).open(Deadline.after(5.0)) as session,
        pytest.raises(ServerError, match=r"is MySQL 5\.7\.44; ProxyRoute works with MySQL from 8\.0\.17 on"),
    ):
        read_status(session, "db1", HERE, Deadline.after(5.0))
    assert sent == []


def test_what_greets_as_no_server_does_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    old_server(monkeypatch, "smtp ready", {})
    with pytest.raises(Unreachable, match="'smtp ready' is not a server version"):
        Session("db1", HERE, Login("u", "p")).open(Deadline.after(5.0))
