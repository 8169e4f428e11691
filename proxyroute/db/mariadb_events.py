"""Scheduled events of a server of either flavour: read, and switched on and off, nothing else about them changed.

ALTER EVENT stores more than it is told: the definer becomes the current account unless it is named, and the session's
charset, collation and sql_mode become the event's. So they are set to the event's own beforehand. (10.11.19 keeps body,
schedule, time zone, comment and completion; only the recorded *database* collation follows the schema, if that was
altered since the event was made.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from proxyroute.db.session import Session
from proxyroute.errors import ServerError, StatementError, TimedOut
from proxyroute.inspection import Event
from proxyroute.model import Deadline

_STATUS = {
    "ENABLED": "enabled",
    "DISABLED": "disabled",
    "SLAVESIDE_DISABLED": "replica side",
    "REPLICA_SIDE_DISABLED": "replica side",
}
_CLAUSE = {"enabled": "ENABLE", "disabled": "DISABLE", "replica side": "DISABLE ON SLAVE"}
_CLAUSE_MYSQL = {**_CLAUSE, "replica side": "DISABLE ON REPLICA"}
_ON_REPLICA_SINCE = (8, 2, 0)
_NO_SUCH_EVENT = 1539

_EVENTS = (
    "SELECT EVENT_SCHEMA, EVENT_NAME, DEFINER, STATUS, CHARACTER_SET_CLIENT, COLLATION_CONNECTION,"
    " DATABASE_COLLATION, SQL_MODE, TIME_ZONE FROM information_schema.EVENTS ORDER BY EVENT_SCHEMA, EVENT_NAME"
)
_SESSION = (
    "SELECT @@session.sql_log_bin AS sql_log_bin, @@session.character_set_client AS charset,"
    " @@session.collation_connection AS collation, @@session.sql_mode AS sql_mode, @@session.time_zone AS time_zone"
)
_SET_SESSION = (
    "SET SESSION sql_log_bin=%s, character_set_client=%s, collation_connection=%s, sql_mode=%s, time_zone=%s,"
    " @proxyroute_alter=%s"
)


def read_events(session: Session, deadline: Deadline) -> tuple[Event, ...]:
    """Returns all events the account may see (privilege EVENT), sorted by schema and name."""
    return tuple(_event(row) for row in session.read(_EVENTS, deadline))


def set_event_status(session: Session, event: Event, status: str, deadline: Deadline) -> None:
    """Gives the event of that schema and name the ``status`` (see :class:`~proxyroute.inspection.Event`).

    Everything else stays as it is on *this* server. Nothing is written to the binary log, and the session's own
    settings are put back. Does nothing when the status is right already. Raises StatementError when the event does
    not exist here, or when a privilege is missing (EVENT, SET USER, BINLOG ADMIN; READ_ONLY ADMIN on a replica).
    """
    mysql = session.flavour == "mysql"
    # not left to the spelling of older versions, which does not see a statement that is prepared
    clause = (_CLAUSE_MYSQL if mysql and session.version >= _ON_REPLICA_SINCE else _CLAUSE)[status]
    key = (event.schema, event.name)
    here = next((e for e in read_events(session, deadline) if (e.schema, e.name) == key), None)
    if here is None:
        raise StatementError(session.server, _NO_SUCH_EVENT, f"no event {event.schema}.{event.name} here")
    if here.status == status:
        return
    name = f"{_identifier(here.schema)}.{_identifier(here.name)}"
    sql = f"ALTER DEFINER={_definer(here.definer)} EVENT {name} {clause}"
    with _settings_of(session, here, sql, deadline):
        # character_set_client is the event's by now and our bytes are UTF-8; a variable keeps its own charset
        # (before 10.6 ALTER EVENT cannot be executed that way)
        statement = sql if sql.isascii() else "EXECUTE IMMEDIATE @proxyroute_alter"
        if mysql and not sql.isascii():
            session.change("mariadb.alter_event", "PREPARE proxyroute_alter FROM @proxyroute_alter", deadline)
            statement = "EXECUTE proxyroute_alter"
        session.change("mariadb.alter_event", statement, deadline)


@contextlib.contextmanager
def _settings_of(session: Session, event: Event, sql: str, deadline: Deadline) -> Iterator[None]:
    before = tuple(session.one(_SESSION, deadline).values())
    wanted = (0, event.charset, event.collation, event.sql_mode, event.time_zone)
    session.change("mariadb.alter_event", _SET_SESSION, deadline, (*wanted, sql))
    try:
        yield
    finally:
        try:
            session.change("mariadb.alter_event", _SET_SESSION, deadline, (*before, None))
        except (ServerError, TimedOut):
            session.abandon()  # nobody may go on in a session that writes no binary log


def _event(row: dict[str, Any]) -> Event:
    return Event(
        schema=row["EVENT_SCHEMA"],
        name=row["EVENT_NAME"],
        definer=row["DEFINER"],
        status=_STATUS[row["STATUS"]],
        charset=row["CHARACTER_SET_CLIENT"],
        collation=row["COLLATION_CONNECTION"],
        database_collation=row["DATABASE_COLLATION"],
        sql_mode=row["SQL_MODE"],
        time_zone=row["TIME_ZONE"],
    )


def _definer(definer: str) -> str:
    user, _, host = definer.rpartition("@")
    return f"{_identifier(user)}@{_identifier(host)}" if host else _identifier(user)


def _identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
