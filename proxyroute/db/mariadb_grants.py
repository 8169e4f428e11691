"""The accounts ProxyRoute needs on a MariaDB server, with the least privileges that work, and what an account lacks.

Found by taking each privilege away in turn on 10.11.19 and 11.8.6 (docs/reference/privileges.md; a test repeats it).
Nothing here talks to a server.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxyroute.db.grants import Accounts, Privilege, Version, account_with, held_by, lacking

ENGINE = (
    Privilege("RELOAD", "the write lock (FLUSH TABLES WITH READ LOCK, BACKUP STAGE) and RESET SLAVE ALL"),
    Privilege("PROCESS", "sessions and transactions of others"),
    Privilege("EVENT", "events are seen, and switched on and off"),
    Privilege("SET USER", "an event keeps its definer when it is switched"),
    Privilege("READ_ONLY ADMIN", "SET GLOBAL read_only, and switching events where it is set"),
    Privilege("REPLICATION SLAVE ADMIN", "STOP SLAVE, START SLAVE, CHANGE MASTER, gtid_slave_pos"),
    Privilege("REPLICATION MASTER ADMIN", "rpl_semi_sync_master_enabled of a new primary"),
    Privilege("BINLOG ADMIN", "sql_log_bin=0, so that nothing we change makes an errant transaction"),
    Privilege("BINLOG MONITOR", "SHOW MASTER STATUS, which shows filters of the binary log"),
    Privilege("CONNECTION ADMIN", "max_connections, KILL, and one connection when the limit is reached"),
    Privilege("SLAVE MONITOR", "SHOW ALL SLAVES STATUS"),
    Privilege("SELECT", "accounts that may write past read_only are found", "mysql.global_priv"),
    Privilege("SELECT", "the same for roles", "mysql.roles_mapping"),
)

REBUILD = (
    Privilege("SELECT", "data are compared and dumped"),
    Privilege("SHOW VIEW", "views are dumped"),
    Privilege("TRIGGER", "triggers are dumped, and made"),
    Privilege("EVENT", "events are dumped, and made"),
    Privilege("RELOAD", "RESET MASTER, RESET SLAVE; mariabackup"),
    Privilege("PROCESS", "tables and foreign keys as InnoDB knows them"),
    Privilege("LOCK TABLES", "mariabackup"),
    Privilege("REPLICATION SLAVE", "the binary log is read"),
    Privilege("BINLOG MONITOR", "the files of the binary log, and the position of a reading"),
    Privilege("BINLOG ADMIN", "sql_log_bin=0"),
    Privilege("REPLICATION MASTER ADMIN", "gtid_binlog_state"),
    Privilege("BINLOG REPLAY", "rows are undone (BINLOG '…')"),
    Privilege("REPLICATION SLAVE ADMIN", "STOP SLAVE, START SLAVE UNTIL, gtid_slave_pos"),
    Privilege("SLAVE MONITOR", "SHOW ALL SLAVES STATUS"),
    Privilege("READ_ONLY ADMIN", "writes where read_only is set"),
    Privilege("CONNECTION ADMIN", "sessions that an earlier attempt has left are ended"),
    Privilege("SET USER", "views, routines, triggers and events keep their definers"),
    Privilege("SUPER", "triggers and functions are made where a binary log is written"),
    *(
        Privilege(name, "a dump is loaded")
        for name in ("CREATE", "DROP", "ALTER", "INDEX", "INSERT", "UPDATE", "DELETE", "REFERENCES")
    ),
    *(Privilege(name, "a dump is loaded") for name in ("CREATE VIEW", "CREATE ROUTINE", "ALTER ROUTINE", "EXECUTE")),
)
"""What the account of ``rejoin`` needs; kept apart, because it may write everything."""
NOT_TO_DUMP = frozenset({"LOCK TABLES", "BINLOG REPLAY", "UPDATE", "DELETE"})
"""What of it only a copy or an undo takes."""

SCHEDULER = Privilege("SUPER", "SET GLOBAL event_scheduler: only where the event scheduler is on")
FORCE = Privilege("CREATE USER", "switchover --force locks privileged writers (ALTER USER … ACCOUNT LOCK)")

FLOOR: Version = (10, 5, 0)
"""Older ones have no privileges of these names, and are refused when they are read."""
_SLAVE_MONITOR_SINCE = (10, 5, 9)
_SUPER_IMPLIES_LITTLE_SINCE = (11, 0, 1)
_READ_ONLY_APART_SINCE = (10, 11, 0)
_IMPLIED_BY_SUPER = frozenset(
    {
        "SET USER",
        "REPLICATION SLAVE ADMIN",
        "REPLICATION MASTER ADMIN",
        "BINLOG ADMIN",
        "BINLOG MONITOR",
        "CONNECTION ADMIN",
        "SLAVE MONITOR",
    }
)


def engine_privileges(version: Version, *, scheduler: bool = False, force: bool = False) -> tuple[Privilege, ...]:
    """Returns what the engine's account needs on a server of ``version``, from :data:`FLOOR` on.

    ``scheduler``: the event scheduler is on there. ``force``: ``switchover --force`` shall be able to lock accounts.
    """
    needed = [p for p in ENGINE if p.name != "SLAVE MONITOR" or version >= _SLAVE_MONITOR_SINCE]
    return (*needed, *([SCHEDULER] if scheduler else ()), *([FORCE] if force else ()))


def required_privileges(version: Version, *, scheduler: bool = False) -> tuple[str, ...]:
    """Returns the same as words, as ``Inspection.missing_privileges`` has them: ``SELECT ON mysql.global_priv``."""
    return tuple(str(privilege) for privilege in engine_privileges(version, scheduler=scheduler))


def missing_privileges(version: Version, grants: Iterable[str], *, scheduler: bool = False) -> tuple[str, ...]:
    """Returns what is required and not in ``grants``, the lines of SHOW GRANTS (active roles are among them)."""
    return lacking(engine_privileges(version, scheduler=scheduler), _held(version, grants))


def missing_to_reseed(version: Version, grants: Iterable[str]) -> tuple[str, ...]:
    """Returns what a dump, its load and the new history take and is not in ``grants``, as above."""
    needed = (p for p in _rebuild_privileges(version) if p.name not in NOT_TO_DUMP)
    return lacking(needed, _held(version, grants))


def _held(version: Version, grants: Iterable[str]) -> dict[str, set[str]]:
    held = held_by(grants)
    everywhere = held.setdefault("*.*", set())
    if "SUPER" in everywhere and version < _SUPER_IMPLIES_LITTLE_SINCE:
        everywhere |= _IMPLIED_BY_SUPER
        if version < _READ_ONLY_APART_SINCE:
            everywhere |= {"READ_ONLY ADMIN"}
    return held


def _rebuild_privileges(version: Version) -> tuple[Privilege, ...]:
    return tuple(p for p in REBUILD if p.name != "SLAVE MONITOR" or version >= _SLAVE_MONITOR_SINCE)


def account_statements(
    version: Version, accounts: Accounts, *, scheduler: bool = False, force: bool = False
) -> list[str]:
    """Returns the statements that make ``accounts``; ``scheduler`` and ``force`` as for :func:`engine_privileges`."""
    return accounts.statements(engine_privileges(version, scheduler=scheduler, force=force))


def rebuild_statements(version: Version, user: str, host: str = "%") -> list[str]:
    """Returns the statements that make the account of ``rejoin``, as :func:`account_statements` does the others."""
    return account_with(_rebuild_privileges(version), user, host)
