"""Events of a real server are switched on and off, and nothing else about them changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxyroute.db.mariadb_events import read_events, set_event_status
from proxyroute.db.session import Login, Session
from proxyroute.errors import StatementError
from proxyroute.inspection import Event
from proxyroute.model import Deadline
from tests.support.mariadb import ENGINE, LocalCluster, Node

FLAVOURS = ("mysql",)
Start = Callable[..., LocalCluster]

SETTINGS = {
    "latin1": "SET NAMES latin1 COLLATE latin1_german1_ci, sql_mode='ANSI_QUOTES,NO_ZERO_DATE', time_zone='+03:00'",
    "utf8mb4": "SET NAMES utf8mb4 COLLATE utf8mb4_bin, sql_mode='NO_BACKSLASH_ESCAPES', time_zone='SYSTEM'",
}
OTHER_THAN_STATUS = (
    "SELECT EVENT_SCHEMA, EVENT_NAME, DEFINER, TIME_ZONE, EVENT_DEFINITION, INTERVAL_VALUE, INTERVAL_FIELD, STARTS,"
    " ENDS, ON_COMPLETION, SQL_MODE, EVENT_COMMENT, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, DATABASE_COLLATION"
    " FROM information_schema.EVENTS"
)


@pytest.fixture
def node(start_cluster: Start) -> Node:
    node = start_cluster(1)["db1"]
    node.sql("CREATE TABLE app.t (v VARCHAR(20))")
    node.sql("CREATE USER `o'hara`@`%`")
    return node


@pytest.fixture
def session(node: Node) -> Iterator[Session]:
    with Session(node.name, node.address, Login(ENGINE.user, ENGINE.password)).open(soon()) as opened:
        yield opened


def soon() -> Deadline:
    return Deadline.after(5.0)


def make(
    node: Node, name: str, charset: str = "utf8mb4", status: str = "DISABLE ON SLAVE", clock: str = "DEFAULT"
) -> None:
    with node.session(charset=charset) as connection, connection.cursor() as cursor:
        cursor.execute(f"{SETTINGS[charset]}, timestamp={clock}")
        cursor.execute(
            f"CREATE DEFINER=`o'hara`@`%` EVENT app.{name} ON SCHEDULE EVERY 3 HOUR STARTS '2030-01-01 00:00:00'"
            f" ENDS '2031-01-01 00:00:00' ON COMPLETION PRESERVE {status} COMMENT 'façade'"
            " DO INSERT INTO app.t VALUES ('é')"
        )


def statuses(session: Session) -> list[tuple[str, str]]:
    return [(event.name, event.status) for event in read_events(session, soon())]


@pytest.mark.parametrize("charset", ["latin1", "utf8mb4"])
@pytest.mark.parametrize("name", ["plain", "`na``me`", "`né`"])
def test_only_the_status_changes(node: Node, session: Session, charset: str, name: str) -> None:
    make(node, name, charset)
    before, log = node.sql(OTHER_THAN_STATUS), node.gtid()
    assert before[0]["CHARACTER_SET_CLIENT"] == charset
    (event,) = read_events(session, soon())
    for status in ("enabled", "disabled", "replica side"):
        set_event_status(session, event, status, soon())
        assert statuses(session) == [(event.name, status)]
        assert node.sql(OTHER_THAN_STATUS) == before
    assert node.gtid() == log


def test_the_session_is_as_it_was_before(node: Node, session: Session) -> None:
    def settings() -> dict[str, Any]:
        return session.one(
            "SELECT @@session.sql_log_bin, @@session.character_set_client, @@session.collation_connection,"
            " @@session.sql_mode, @@session.time_zone, @proxyroute_alter",
            soon(),
        )

    make(node, "one", "latin1")
    before = settings()
    (event,) = read_events(session, soon())
    set_event_status(session, event, "enabled", soon())
    assert settings() == before

    node.sql(f"REVOKE {node.any_definer} ON *.* FROM '{ENGINE.user}'@'%'")
    with Session(node.name, node.address, Login(ENGINE.user, ENGINE.password)).open(soon()) as weak:
        with pytest.raises(StatementError, match=node.any_definer.split(", ")[-1]):
            set_event_status(weak, event, "disabled", soon())
        assert weak.one("SELECT @@session.sql_log_bin AS log", soon()) == {"log": 1}


def test_an_event_with_the_right_status_is_not_altered(node: Node, session: Session) -> None:
    def altered() -> str:
        return str(node.value("(SELECT LAST_ALTERED FROM information_schema.EVENTS)"))

    make(node, "one", status="DISABLE", clock="UNIX_TIMESTAMP('2020-01-01 00:00:00')")
    before = altered()
    assert before.startswith(("2019-12-31", "2020-01-01")), "as if it had been made then"
    (event,) = read_events(session, soon())
    set_event_status(session, event, "disabled", soon())
    assert altered() == before
    set_event_status(session, event, "enabled", soon())
    assert altered() != before


def test_a_missing_event_is_an_error_that_names_it(session: Session) -> None:
    with pytest.raises(StatementError, match=r"app\.gone") as caught:
        set_event_status(session, Event("app", "gone", "x@%", "enabled"), "disabled", soon())
    assert caught.value.errno == 1539


def test_an_event_of_a_role_keeps_its_role(node: Node, session: Session) -> None:
    node.sql("CREATE ROLE planner")
    node.sql("CREATE DEFINER=planner EVENT app.one ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1")
    (event,) = read_events(session, soon())
    set_event_status(session, event, "replica side", soon())
    assert read_events(session, soon())[0].definer == event.definer
    assert event.definer in ("planner@", "planner@%")  # where a role is an account as well


def test_events_arrive_on_a_replica_as_replica_side_and_can_be_switched_there(start_cluster: Start) -> None:
    cluster = start_cluster(2)
    db1, db2 = cluster
    db1.sql("CREATE TABLE app.t (v VARCHAR(20))")
    db1.sql("CREATE USER `o'hara`@`%`")
    make(db1, "one", status="ENABLE")
    cluster.await_synced()
    with Session(db2.name, db2.address, Login(ENGINE.user, ENGINE.password)).open(soon()) as replica:
        (event,) = read_events(replica, soon())
        assert (event.status, event.definer) == ("replica side", "o'hara@%")
        assert not db2.is_writable()
        with db2.open_to_root():  # it is the driver of the server that lets super_read_only give way
            set_event_status(replica, event, "enabled", soon())
        assert statuses(replica) == [("one", "enabled")]
    assert db2.gtid() == db1.gtid()
