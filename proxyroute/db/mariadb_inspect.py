"""What is read once before an operation on a MariaDB server: privileges, writers, open transactions, events."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from proxyroute.db.accounts import Client, privileged_writers
from proxyroute.db.mariadb_events import read_events
from proxyroute.db.mariadb_grants import missing_privileges
from proxyroute.db.mariadb_read import read_purged
from proxyroute.db.rows import parse_version
from proxyroute.db.session import Session
from proxyroute.errors import StatementError, TimedOut, Unreachable
from proxyroute.inspection import Inspection, Transaction
from proxyroute.model import Deadline
from proxyroute.policy import Policy

_T = TypeVar("_T")

_DENIED = frozenset({1044, 1142, 1143, 1227, 1370})
_NO_SUCH_TABLE = 1109

_WRITING = re.compile(
    "alter|analyze|call|commit|create|delete|drop|grant|insert|load|optimize|rename|repair|replace|revoke|truncate"
    "|update|xa",
    re.IGNORECASE,
)
_FIRST_WORD = re.compile(r"(?:\s|\(|/\*(?!!).*?\*/|/\*!\d*|--[ \t][^\n]*\n|#[^\n]*\n)*(\w+)", re.DOTALL)
_READ_ONLY_TRX_IDS = 2**48
"""10.5 shows made-up ids from here on for transactions that take no write lock; later versions show 0."""

_SESSIONS = """
SELECT p.ID AS session, p.USER AS user, p.HOST AS host, p.COMMAND AS command, p.TIME_MS / 1000 AS since,
       LEFT(p.INFO, 1000) AS statement, t.trx_id, t.trx_rows_modified AS rows_modified, t.trx_lock_structs AS locks,
       TIMESTAMPDIFF(MICROSECOND, t.trx_started, NOW(6)) / 1000000 AS age
FROM information_schema.PROCESSLIST p
LEFT JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID
WHERE p.COMMAND NOT IN ('Binlog Dump', 'Binlog Dump GTID', 'Daemon', 'Slave_IO', 'Slave_SQL', 'Slave_worker')
AND p.USER NOT IN %s
"""
_LOCK_HOLDERS = """
SELECT THREAD_ID AS session, LOCK_MODE AS mode, TABLE_SCHEMA AS `schema`, TABLE_NAME AS `table`
FROM information_schema.METADATA_LOCK_INFO WHERE LOCK_MODE IN ('MDL_SHARED_NO_READ_WRITE', 'MDL_BACKUP_FTWRL2')
"""


_NOT_WAITING = """
SELECT ID AS session, USER AS user, HOST AS host, TIME_MS / 1000 AS since, LEFT(INFO, 200) AS statement
FROM information_schema.PROCESSLIST
WHERE COMMAND NOT IN ('Binlog Dump', 'Binlog Dump GTID', 'Daemon', 'Slave_IO', 'Slave_SQL', 'Slave_worker')
AND USER NOT IN %s AND COALESCE(STATE, '') NOT LIKE 'Waiting for %%' AND TIME_MS >= %s * 1000 ORDER BY TIME_MS DESC
"""
MOST_BLOCKERS = 5
_FILTERS = 0.5
"""Seconds for the filters of the binary log."""


def inspect(session: Session, deadline: Deadline, policy: Policy) -> Inspection:
    """Returns the inspection of the server at the other end of ``session``, which must be fresh: an open session
    keeps the privileges it had when it was opened.

    What the account may not read is left empty; the privilege for it is then in ``missing_privileges``. Raises
    Unreachable when the server does not answer by ``deadline``.

    ``privileged_writers`` holds the accounts that may write past read_only **and have a session open now**, other than
    ours, the monitor users' and replication. Accounts that merely could are left out: every server has a
    root@localhost, and it must not stop every switchover. A session that comes through a proxy cannot be told from a
    direct one here.
    """
    row = session.one(
        "SELECT CURRENT_USER() AS me, @@version AS version, @@global.event_scheduler AS scheduler", deadline
    )
    account, version = str(row["me"]), parse_version(row["version"])
    ours = (account.rpartition("@")[0], *(user.rpartition("@")[0] or user for user in policy.monitor_users))
    grants = [str(line) for row in session.read("SHOW GRANTS", deadline) for line in row.values()]
    clients = _allowed(lambda: _sessions(session, ours, deadline))
    return Inspection(
        name=session.server,
        account=account,
        missing_privileges=missing_privileges(version, grants, scheduler=row["scheduler"] == "ON"),
        privileged_writers=_allowed(lambda: _privileged_writers(session, version, clients, deadline)),
        prepared_xa=_allowed(lambda: _prepared(session, deadline)),
        transactions=transactions(clients, _lock_holders(session, deadline), policy.long_transaction),
        events=_allowed(lambda: read_events(session, deadline)),
        purged=read_purged(session, deadline),
        # last, for it may cost the connection
        binlog_filters=_allowed(lambda: _binlog_filters(session, deadline)),
    )


def blockers(session: Session, users: Sequence[str], seconds: float, deadline: Deadline) -> str:
    """Returns in words who may have kept a write lock from being had for ``seconds``; ``users`` are left out.

    Whoever writes or is seen to hold a lock, else all who have been idle for that long: without the plugin
    metadata_lock_info nothing tells a holder of LOCK TABLES from any idle session.
    """
    holders = _lock_holders(session, deadline)
    excluded = ("system user", "event_scheduler", "unauthenticated user", *users)
    rows = session.read(_NOT_WAITING, deadline, (excluded, seconds))
    doing = {int(r["session"]): str(r["statement"] or holders.get(int(r["session"]), ("", ""))[1]) for r in rows}
    guilty = [r for r in rows if int(r["session"]) in holders or is_writing(doing[int(r["session"])])]
    found = guilty or [r for r in rows if not doing[int(r["session"])]]
    names = [f"session {r['session']} of {r['user']}@{r['host']}" for r in found[:MOST_BLOCKERS]]
    if len(found) > len(names):
        names.append(f"{len(found) - len(names)} more")
    if guilty:
        return f"{', '.join(names)} hold writes open: {doing[int(guilty[0]['session'])]}"
    if found:
        return (
            f"one of these idle sessions may hold LOCK TABLES: {', '.join(names)}; "
            "INSTALL SONAME 'metadata_lock_info' lets the server tell which"
        )
    return "something holds writes open"


def _allowed(read: Callable[[], tuple[_T, ...]]) -> tuple[_T, ...]:
    try:
        return read()
    except StatementError as error:
        if error.errno in _DENIED:
            return ()
        raise


def _sessions(session: Session, users: Sequence[str], deadline: Deadline) -> tuple[dict[str, Any], ...]:
    excluded = ("system user", "event_scheduler", "unauthenticated user", *users)
    return tuple(session.read(_SESSIONS, deadline, (excluded,)))


def _prepared(session: Session, deadline: Deadline) -> tuple[str, ...]:
    return tuple(str(row["data"]) for row in session.read("XA RECOVER FORMAT='SQL'", deadline))


def log_status(session: Session, statement: str, deadline: Deadline) -> Mapping[str, Any]:
    """Returns the answer to SHOW MASTER STATUS in the words of a flavour, or nothing when there is none soon.

    It waits for the lock of the log, which commits hold for as long as others wait for an acknowledgement; nothing else
    tells the filters.
    """
    try:
        return session.one(statement, deadline.within(_FILTERS))
    except (Unreachable, TimedOut):
        return {}


def _binlog_filters(session: Session, deadline: Deadline) -> tuple[str, ...]:
    row = log_status(session, "SHOW MASTER STATUS", deadline)
    shown = {"binlog_do_db": row.get("Binlog_Do_DB"), "binlog_ignore_db": row.get("Binlog_Ignore_DB")}
    return tuple(f"{name}={value}" for name, value in shown.items() if value)


def _privileged_writers(
    session: Session, version: tuple[int, int, int], clients: Sequence[dict[str, Any]], deadline: Deadline
) -> tuple[str, ...]:
    accounts = session.read("SELECT User AS user, Host AS host, Priv AS priv FROM mysql.global_priv", deadline)
    roles = session.read("SELECT User AS user, Host AS host, Role AS role FROM mysql.roles_mapping", deadline)
    connected = [Client(str(row["user"]), str(row["host"])) for row in clients]
    return privileged_writers(version, accounts, roles, connected)


# -- Transactions ---------------------------------------------------------------------------------------------


def transactions(
    clients: Sequence[dict[str, Any]], holders: dict[int, tuple[str, str]], limit: float
) -> tuple[Transaction, ...]:
    """Returns what has been going on for ``limit`` seconds or more, oldest first.

    Not to be seen: a LOCK TABLES … WRITE of a session that is idle now, unless the plugin metadata_lock_info is
    installed (and then only since when the session is idle); a stored function that writes to tables without
    transactions; changes to temporary tables, which block nothing.
    """
    found: list[Transaction] = []
    for row in clients:
        text = str(row["statement"] or "")
        since, rows = float(row["since"]), int(row["rows_modified"] or 0)
        running = row["command"] != "Sleep" and bool(text)
        writing = running and is_writing(text)
        open_write = _holds_write_locks(row)
        lock = holders.get(int(row["session"]))
        if lock is not None:
            kind, age = lock[0], since
            text = text or lock[1]
        elif row["trx_id"] is not None and (open_write or not writing):
            kind, age = "transaction", float(row["age"] or 0.0)
        elif running:
            kind, age = "statement", since
        else:
            continue
        if age < limit:
            continue
        writes = writing or open_write or (lock is not None and lock[0] == "table lock")
        found.append(Transaction(int(row["session"]), row["user"], row["host"], age, rows, writes, text, kind))
    return tuple(sorted(found, key=lambda transaction: -transaction.age_seconds))


def _holds_write_locks(row: dict[str, Any]) -> bool:
    """A snapshot or LOCK IN SHARE MODE gets no id of its own; one that only changed temporary tables, no lock."""
    return 0 < int(row["trx_id"] or 0) < _READ_ONLY_TRX_IDS and int(row["locks"] or 0) > 0


def is_writing(statement: str) -> bool:
    """Tells by its first word, comments and brackets skipped, whether ``statement`` writes. CALL may do so."""
    found = _FIRST_WORD.match(statement)
    return found is not None and _WRITING.fullmatch(found[1]) is not None


def _lock_holders(session: Session, deadline: Deadline) -> dict[int, tuple[str, str]]:
    """Returns, by session, what kind of lock is held and the statement that takes such a lock."""
    try:
        rows = session.read(_LOCK_HOLDERS, deadline)
    except StatementError as error:
        if error.errno == _NO_SUCH_TABLE:
            return {}
        raise
    holders: dict[int, tuple[str, str]] = {}
    for row in rows:
        if row["mode"] == "MDL_BACKUP_FTWRL2":
            holders[int(row["session"])] = ("global lock", "FLUSH TABLES WITH READ LOCK")
        else:
            table = f"{row['schema']}.{row['table']}"
            holders.setdefault(int(row["session"]), ("table lock", f"LOCK TABLES {table} WRITE"))
    return holders
