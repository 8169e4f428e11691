"""The accounts ProxyRoute needs on a MySQL server, with the least privileges that work, and what an account lacks.

Nothing here talks to a server.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxyroute.db.grants import Accounts, Privilege, Version, account_with, held_by, lacking

ENGINE = (
    Privilege("RELOAD", "the write lock (FLUSH TABLES WITH READ LOCK) and RESET REPLICA ALL"),
    Privilege("PROCESS", "sessions and transactions of others"),
    Privilege("EVENT", "events are seen, and switched on and off"),
    Privilege("REPLICATION CLIENT", "SHOW REPLICA STATUS, SHOW BINARY LOG STATUS"),
    Privilege("REPLICATION_SLAVE_ADMIN", "STOP REPLICA, START REPLICA, CHANGE REPLICATION SOURCE"),
    Privilege("SYSTEM_VARIABLES_ADMIN", "super_read_only, max_connections, event_scheduler, semi-sync, sql_log_bin=0"),
    Privilege("CONNECTION_ADMIN", "KILL, one connection when the limit is reached, events where read_only is set"),
    Privilege("SYSTEM_USER", "KILL of sessions whose accounts have it as well"),
    Privilege("SET_ANY_DEFINER", "an event keeps its definer when it is switched"),
    Privilege("XA_RECOVER_ADMIN", "XA transactions that are prepared are found"),
    Privilege("SELECT", "channels, locks, and how long statements and transactions have run", "performance_schema.*"),
)
WRITERS = tuple(
    Privilege(f"SELECT{columns}", "who may write is named where super_read_only is not set", f"mysql.{name}")
    for name, columns in (
        ("user", " (User, Host, Super_priv, account_locked)"),
        ("global_grants", ""),
        ("role_edges", ""),
    )
)
"""What the engine's account is given as well, and can do without: then nobody is named."""
TAGGED = "TRANSACTION_GTID_TAG"
REBUILD = (
    Privilege("SELECT", "data are compared and dumped"),
    Privilege("SHOW VIEW", "views are dumped"),
    Privilege("TRIGGER", "triggers are dumped, and made"),
    Privilege("EVENT", "events are dumped, and made"),
    Privilege("RELOAD", "a dump tells its position; RESET BINARY LOGS AND GTIDS, RESET REPLICA ALL"),
    Privilege("PROCESS", "the size of the data as InnoDB knows it"),
    Privilege("REPLICATION SLAVE", "the binary log is read"),
    Privilege("REPLICATION CLIENT", "SHOW REPLICA STATUS, SHOW BINARY LOGS"),
    Privilege("REPLICATION_SLAVE_ADMIN", "STOP REPLICA, CHANGE REPLICATION SOURCE"),
    Privilege("SYSTEM_VARIABLES_ADMIN", "gtid_next, gtid_purged, sql_log_bin, super_read_only, what a clone is told"),
    Privilege("REPLICATION_APPLIER", "what a dead primary had is applied (BINLOG '…', gtid_next)"),
    Privilege(TAGGED, "the same of transactions whose GTIDs have a tag"),
    Privilege("CONNECTION_ADMIN", "writes where read_only is set; sessions of an earlier attempt are ended"),
    Privilege("SET_ANY_DEFINER", "views, routines, triggers and events keep their definers"),
    Privilege("SYSTEM_USER", "the same where the definer has it as well, as root has"),
    Privilege("ALLOW_NONEXISTENT_DEFINER", "the same where the definer is gone"),
    Privilege("BACKUP_ADMIN", "others may be cloned from here"),
    Privilege("CLONE_ADMIN", "CLONE INSTANCE"),
    *(Privilege(name, "a dump is loaded") for name in ("CREATE", "DROP", "ALTER", "INSERT", "REFERENCES")),
    *(Privilege(name, "definitions and statements of a dead primary") for name in ("INDEX", "UPDATE", "DELETE")),
    *(Privilege(name, "a dump is loaded") for name in ("CREATE VIEW", "CREATE ROUTINE", "ALTER ROUTINE", "EXECUTE")),
)
"""What the account of ``rejoin`` needs; kept apart, because it may write everything."""
NOT_TO_DUMP = frozenset(
    {"BACKUP_ADMIN", "CLONE_ADMIN", "REPLICATION_APPLIER", "BINLOG_ADMIN", "INDEX", "UPDATE", "DELETE", TAGGED}
)
"""What of it only a clone takes, or what is left of a dead primary, or (the last) a position with tags."""
FORCE = Privilege("CREATE USER", "switchover --force locks privileged writers (ALTER USER … ACCOUNT LOCK)")

_TAGS_SINCE = (8, 3, 0)
_ANY_DEFINER_SINCE = (8, 2, 0)
_APPLIER_SINCE = (8, 0, 18)


def engine_privileges(version: Version, *, force: bool = False) -> tuple[Privilege, ...]:
    """Returns what the engine's account is given on a server of ``version``."""
    return (*_named(version, ENGINE), *WRITERS, *([FORCE] if force else ()))


def _named(version: Version, privileges: Iterable[Privilege]) -> tuple[Privilege, ...]:
    """Returns ``privileges`` by the names that they have in ``version``."""
    if version >= _TAGS_SINCE:
        return tuple(privileges)
    privileges = [p for p in privileges if p.name != TAGGED]
    if version >= _ANY_DEFINER_SINCE:
        return tuple(privileges)
    names = {"SET_ANY_DEFINER": "SET_USER_ID"}
    if version < _APPLIER_SINCE:
        names["REPLICATION_APPLIER"] = "BINLOG_ADMIN"
    older = (p for p in privileges if p.name != "ALLOW_NONEXISTENT_DEFINER")  # included in the other
    return tuple(Privilege(names.get(p.name, p.name), p.reason, p.on) for p in older)


def missing_privileges(version: Version, grants: Iterable[str]) -> tuple[str, ...]:
    """Returns what is required and not in ``grants``, the lines of SHOW GRANTS (active roles are among them)."""
    return lacking(_named(version, ENGINE), held_by(grants))


def missing_to_reseed(version: Version, grants: Iterable[str], *, tagged: bool = False) -> tuple[str, ...]:
    """Returns what a dump, its load and the new history take and is not in ``grants``, the lines of SHOW GRANTS.

    ``tagged``: the new history has GTIDs with a tag.
    """
    aside = NOT_TO_DUMP - {TAGGED} if tagged else NOT_TO_DUMP
    needed = (p for p in _named(version, REBUILD) if p.name not in aside)
    return lacking(needed, held_by(grants))


def account_statements(version: Version, accounts: Accounts, *, force: bool = False) -> list[str]:
    """Returns the statements that make ``accounts``; ``force`` as for :func:`engine_privileges`."""
    return accounts.statements(engine_privileges(version, force=force))


def rebuild_statements(version: Version, user: str, host: str = "%") -> list[str]:
    """Returns the statements that make the account of ``rejoin``, as :func:`account_statements` does the others."""
    return account_with(_named(version, REBUILD), user, host)
