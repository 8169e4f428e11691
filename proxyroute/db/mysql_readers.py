"""Readers that FLUSH TABLES waits for, WITH READ LOCK or without, on a MySQL server (tried on 9.7; decision 0076).

The statement makes every table that is open an old one, and waits until nobody has such a one open any more. A
statement that wants a table which a longer one has open waits for that, too, be the lock had, given up or ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxyroute.db.session import NO_SUCH_THREAD, Session
from proxyroute.errors import StatementError
from proxyroute.model import Deadline

_FLUSHING = "Waiting for table flush"
_STATE = "SELECT PROCESSLIST_STATE AS state FROM performance_schema.threads WHERE PROCESSLIST_ID = %s"
# whoever waits for a table to be flushed has its lock on it already, and so has the one that it waits for
_STUCK = f"""
SELECT w.OBJECT_SCHEMA AS `schema`, w.OBJECT_NAME AS name FROM performance_schema.metadata_locks w
JOIN performance_schema.threads s ON s.THREAD_ID = w.OWNER_THREAD_ID
WHERE w.OBJECT_TYPE = 'TABLE' AND w.LOCK_STATUS = 'GRANTED' AND s.PROCESSLIST_STATE = '{_FLUSHING}'
"""
_HOLDERS = """
SELECT h.PROCESSLIST_ID AS id, MAX(h.PROCESSLIST_COMMAND = 'Sleep') AS idle, MAX(h.PROCESSLIST_TIME) AS seconds
FROM performance_schema.metadata_locks m JOIN performance_schema.threads h ON h.THREAD_ID = m.OWNER_THREAD_ID
WHERE m.OBJECT_TYPE = 'TABLE' AND m.LOCK_STATUS = 'GRANTED' AND h.PROCESSLIST_ID <> CONNECTION_ID()
AND m.OBJECT_SCHEMA NOT IN ('performance_schema', 'information_schema')
AND h.NAME NOT LIKE 'thread/sql/replica%' AND h.NAME NOT LIKE 'thread/sql/slave%'
AND COALESCE(h.PROCESSLIST_STATE, '') NOT LIKE 'Waiting for %'
"""
_READERS = (
    f"{_HOLDERS} AND (h.PROCESSLIST_COMMAND <> 'Sleep' OR m.LOCK_TYPE IN ('SHARED_READ_ONLY', 'SHARED_NO_READ_WRITE'))"
)
# an idle LOCK TABLES … WRITE keeps everybody from its table by itself, flush or not
_LONG = f"""{_HOLDERS}
AND IF(h.PROCESSLIST_COMMAND = 'Sleep', m.LOCK_TYPE = 'SHARED_READ_ONLY', h.PROCESSLIST_TIME >= {{:d}})
"""
_GROUP = " GROUP BY h.PROCESSLIST_ID"


def is_flushing(session: Session, other: int, deadline: Deadline) -> bool:
    """Tells whether session ``other`` has the global lock and waits for readers; it is no use to wait for writers."""
    return bool(session.one(_STATE, deadline, (other,)).get("state") == _FLUSHING)


def is_stuck(session: Session, deadline: Deadline) -> bool:
    """Tells whether anybody waits for a table that a reader has open since before a flush."""
    return bool(session.read(_STUCK, deadline))


def end_readers(session: Session, deadline: Deadline, *, stuck: bool = False) -> int:
    """Ends what reads, so that its tables can be closed; returns how many were told to end.

    Running statements are ended and keep their connection; a session that holds LOCK TABLES while it is idle has none,
    and is ended itself. ``stuck``: only those that have a table open which somebody waits for.
    """
    only = f" AND (m.OBJECT_SCHEMA, m.OBJECT_NAME) IN (SELECT * FROM ({_STUCK}) AS wanted)" if stuck else ""
    return _end(session, session.read(_READERS + only + _GROUP, deadline), deadline)


def long_readers(session: Session, seconds: int, deadline: Deadline) -> list[str]:
    """Returns who would keep a flush waiting, in words: whose statement runs for so long, or holds LOCK TABLES … READ.

    Statements that write are among them: a flush without the global lock waits for those as well.
    """
    found = session.read(_LONG.format(seconds) + _GROUP, deadline)
    return [
        f"session {int(row['id']):d} on {session.server} "
        + ("holds LOCK TABLES" if int(row["idle"]) else f"has tables open for {int(row['seconds']):d} s")
        for row in found
    ]


def end_long_readers(session: Session, seconds: int, deadline: Deadline) -> int:
    """Ends those of :func:`long_readers`, as :func:`end_readers` does; returns how many were told to end."""
    return _end(session, session.read(_LONG.format(seconds) + _GROUP, deadline), deadline)


def _end(session: Session, found: Sequence[Mapping[str, Any]], deadline: Deadline) -> int:
    """Ends the statement of each session ``found``, or itself where it has none; returns how many those are."""
    kills = [f"KILL {'CONNECTION' if int(row['idle']) else 'QUERY'} {int(row['id']):d}" for row in found]
    if kills:
        try:
            session.change_all("mariadb.end_reader", kills, deadline)
        except StatementError as error:  # of one that has ended by itself; the others have been told
            if error.errno != NO_SUCH_THREAD:
                raise
    return len(kills)
