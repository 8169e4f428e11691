"""What is read once before an operation on a MySQL server: privileges, open transactions, locks, events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from proxyroute.db.accounts import Client
from proxyroute.db.mariadb_events import read_events
from proxyroute.db.mariadb_inspect import MOST_BLOCKERS, is_writing, log_status, transactions
from proxyroute.db.mysql_accounts import privileged_writers
from proxyroute.db.mysql_grants import missing_privileges
from proxyroute.db.mysql_read import read_purged
from proxyroute.db.rows import is_on, parse_version
from proxyroute.db.session import Session
from proxyroute.errors import StatementError
from proxyroute.inspection import Inspection
from proxyroute.model import Deadline
from proxyroute.policy import Policy

_T = TypeVar("_T")
_DENIED = frozenset({1044, 1142, 1143, 1227, 1370, 1401})
_NOT_CLIENTS = ("system user", "event_scheduler", "unauthenticated user")

# ages by performance_schema where it counts them, for the process list only knows whole seconds
_SESSIONS = """
SELECT p.ID AS session, p.USER AS user, p.HOST AS host, p.COMMAND AS command, LEFT(p.INFO, 1000) AS statement,
       COALESCE(IF(p.COMMAND = 'Sleep', NULL, s.TIMER_WAIT / 1e12), p.TIME) AS since,
       t.trx_id, t.trx_rows_modified AS rows_modified, t.trx_lock_structs AS locks,
       COALESCE(x.TIMER_WAIT / 1e12, TIMESTAMPDIFF(SECOND, t.trx_started, NOW())) AS age
FROM information_schema.PROCESSLIST p
LEFT JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID
LEFT JOIN performance_schema.threads h ON h.PROCESSLIST_ID = p.ID
LEFT JOIN performance_schema.events_statements_current s ON s.THREAD_ID = h.THREAD_ID AND s.NESTING_EVENT_ID IS NULL
LEFT JOIN performance_schema.events_transactions_current x ON x.THREAD_ID = h.THREAD_ID AND x.STATE = 'ACTIVE'
WHERE p.COMMAND NOT IN ('Binlog Dump', 'Binlog Dump GTID', 'Daemon') AND p.USER NOT IN %s
"""
_INSTRUMENT = "wait/lock/metadata/sql/mdl"
_CONSUMER = "global_instrumentation"
# with performance_schema=OFF both tables are empty
_RECORDS = f"""
SELECT @@performance_schema AS performance_schema,
       (SELECT ENABLED FROM performance_schema.setup_consumers WHERE NAME = '{_CONSUMER}') AS consumer,
       (SELECT ENABLED FROM performance_schema.setup_instruments WHERE NAME = '{_INSTRUMENT}') AS instrument
"""
_LOCK_HOLDERS = """
SELECT h.PROCESSLIST_ID AS session, m.OBJECT_TYPE AS kind, m.OBJECT_SCHEMA AS `schema`, m.OBJECT_NAME AS `table`
FROM performance_schema.metadata_locks m JOIN performance_schema.threads h ON h.THREAD_ID = m.OWNER_THREAD_ID
WHERE m.LOCK_STATUS = 'GRANTED' AND h.PROCESSLIST_ID IS NOT NULL AND (m.LOCK_TYPE = 'SHARED_NO_READ_WRITE'
OR (m.OBJECT_TYPE = 'GLOBAL' AND m.LOCK_TYPE = 'SHARED' AND m.LOCK_DURATION = 'EXPLICIT'))
"""
_BACKUPS = """
SELECT h.PROCESSLIST_ID AS session, h.PROCESSLIST_USER AS user, h.PROCESSLIST_HOST AS host
FROM performance_schema.metadata_locks m JOIN performance_schema.threads h ON h.THREAD_ID = m.OWNER_THREAD_ID
WHERE m.LOCK_STATUS = 'GRANTED' AND h.PROCESSLIST_ID IS NOT NULL
AND m.OBJECT_TYPE = 'BACKUP LOCK' AND m.LOCK_TYPE = 'SHARED' AND m.LOCK_DURATION = 'EXPLICIT'
"""
_NOT_WAITING = """
SELECT ID AS session, USER AS user, HOST AS host, TIME AS since, LEFT(INFO, 200) AS statement
FROM information_schema.PROCESSLIST
WHERE COMMAND NOT IN ('Binlog Dump', 'Binlog Dump GTID', 'Daemon') AND USER NOT IN %s
AND COALESCE(STATE, '') NOT LIKE 'Waiting for %%' ORDER BY TIME DESC
"""


def inspect(session: Session, deadline: Deadline, policy: Policy) -> Inspection:
    """Returns the inspection of the server at the other end of ``session``, which must be fresh: an open session
    keeps the privileges it had when it was opened.

    What the account may not read is left empty; the privilege for it is then in ``missing_privileges``. Raises
    Unreachable when the server does not answer by ``deadline``.

    ``privileged_writers`` are those with a session open now, and nobody unless ``read_only`` is set without
    ``super_read_only``: that stops everybody, and is how ProxyRoute closes a server.
    """
    row = session.one(
        "SELECT CURRENT_USER() AS me, @@version AS version,"
        " @@global.read_only AND NOT @@global.super_read_only AS half_closed",
        deadline,
    )
    account, version, half_closed = str(row["me"]), parse_version(row["version"]), bool(int(row["half_closed"]))
    ours = (account.rpartition("@")[0], *(user.rpartition("@")[0] or user for user in policy.monitor_users))
    grants = [str(line) for row in session.read("SHOW GRANTS", deadline) for line in row.values()]
    clients = _allowed(lambda: tuple(session.read(_SESSIONS, deadline, ((*_NOT_CLIENTS, *ours),))))
    return Inspection(
        name=session.server,
        account=account,
        missing_privileges=missing_privileges(version, grants),
        privileged_writers=_allowed(lambda: _privileged_writers(session, clients, deadline) if half_closed else ()),
        prepared_xa=_allowed(lambda: _prepared(session, deadline)),
        transactions=transactions(clients, _lock_holders(session, deadline), policy.long_transaction),
        events=_allowed(lambda: read_events(session, deadline)),
        backups=_allowed(lambda: backups(session, deadline)),
        unrecorded="".join(_allowed(lambda: _unrecorded(session, deadline))),
        purged=read_purged(session, deadline),
        # last, for it may cost the connection
        binlog_filters=_allowed(lambda: _binlog_filters(session, deadline)),
    )


def backups(session: Session, deadline: Deadline) -> tuple[tuple[int, str], ...]:
    """Returns ``Inspection.backups``."""
    rows = session.read(_BACKUPS, deadline)
    return tuple((int(row["session"]), f"{row['user']}@{row['host']}") for row in rows)


def blockers(session: Session, users: Sequence[str], seconds: float, deadline: Deadline) -> str:
    """Returns in words who may have kept a write lock from being had for ``seconds``; ``users`` are left out.

    Whoever writes, or holds a lock by ``performance_schema.metadata_locks``.
    """
    holders = _lock_holders(session, deadline)
    rows = session.read(_NOT_WAITING, deadline, ((*_NOT_CLIENTS, *users),))
    doing = {int(r["session"]): str(r["statement"] or holders.get(int(r["session"]), ("", ""))[1]) for r in rows}
    found = [r for r in rows if int(r["session"]) in holders or is_writing(doing[int(r["session"])])]
    if not found:
        return "something holds writes open"
    names = [f"session {r['session']} of {r['user']}@{r['host']}" for r in found[:MOST_BLOCKERS]]
    if len(found) > len(names):
        names.append(f"{len(found) - len(names)} more")
    return f"{', '.join(names)} hold writes open: {doing[int(found[0]['session'])]}"


def _allowed(read: Callable[[], tuple[_T, ...]]) -> tuple[_T, ...]:
    try:
        return read()
    except StatementError as error:
        if error.errno in _DENIED:
            return ()
        raise


def _privileged_writers(session: Session, clients: Sequence[dict[str, Any]], deadline: Deadline) -> tuple[str, ...]:
    accounts = session.read(
        "SELECT User AS user, Host AS host, Super_priv AS super, account_locked AS locked FROM mysql.user", deadline
    )
    admins = session.read(
        "SELECT User AS user, Host AS host FROM mysql.global_grants WHERE Priv = 'CONNECTION_ADMIN'", deadline
    )
    roles = session.read(
        "SELECT TO_USER AS user, TO_HOST AS host, FROM_USER AS role, FROM_HOST AS role_host FROM mysql.role_edges",
        deadline,
    )
    connected = [Client(str(row["user"]), str(row["host"])) for row in clients]
    return privileged_writers(accounts, admins, roles, connected)


def _prepared(session: Session, deadline: Deadline) -> tuple[str, ...]:
    """Returns each as XA COMMIT wants it; CONVERT XID tells the bytes as hexadecimal digits after 0x."""
    found = []
    for row in session.read("XA RECOVER CONVERT XID", deadline):
        digits, cut = str(row["data"]).removeprefix("0x"), 2 * int(row["gtrid_length"])
        found.append(f"X'{digits[:cut]}',X'{digits[cut:]}',{int(row['formatID'])}")
    return tuple(found)


def _unrecorded(session: Session, deadline: Deadline) -> tuple[str, ...]:
    """Returns the first thing that keeps the locks of others from being seen, or nothing."""
    row = session.one(_RECORDS, deadline)
    if not is_on(row["performance_schema"]):
        return ("performance_schema",)
    names = {"consumer": _CONSUMER, "instrument": _INSTRUMENT}
    return tuple(name for key, name in names.items() if str(row[key]) != "YES")[:1]


def _binlog_filters(session: Session, deadline: Deadline) -> tuple[str, ...]:
    row = log_status(session, "SHOW BINARY LOG STATUS", deadline)
    shown = {"binlog_do_db": row.get("Binlog_Do_DB"), "binlog_ignore_db": row.get("Binlog_Ignore_DB")}
    return tuple(f"{name}={value}" for name, value in shown.items() if value)


def _lock_holders(session: Session, deadline: Deadline) -> dict[int, tuple[str, str]]:
    """Returns, by session, what kind of lock is held and the statement that takes such a lock."""
    holders: dict[int, tuple[str, str]] = {}
    rows: Sequence[dict[str, Any]] = _allowed(lambda: tuple(session.read(_LOCK_HOLDERS, deadline)))
    for row in rows:
        if row["kind"] == "GLOBAL":
            holders[int(row["session"])] = ("global lock", "FLUSH TABLES WITH READ LOCK")
        elif row["kind"] == "TABLE":
            table = f"{row['schema']}.{row['table']}"
            holders.setdefault(int(row["session"]), ("table lock", f"LOCK TABLES {table} WRITE"))
    return holders
