"""The accounts ProxyRoute needs on a MariaDB server, with the least privileges that work, and what an account lacks.

Found by taking each privilege away in turn on 10.11.19 and 11.8.6 (docs/reference/privileges.md; a test repeats it).
Nothing here talks to a server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from proxyroute.db.probe import COLUMNS, TABLE

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Privilege:
    """One privilege of the engine's account and what it is there for."""

    name: str
    reason: str
    on: str = "*.*"

    def __str__(self) -> str:
        return self.name if self.on == "*.*" else f"{self.name} ON {self.on}"


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

SCHEDULER = Privilege("SUPER", "SET GLOBAL event_scheduler: only where the event scheduler is on")
FORCE = Privilege("CREATE USER", "switchover --force locks privileged writers (ALTER USER … ACCOUNT LOCK)")

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

_GRANT = re.compile(r"GRANT (?P<privileges>.+?) ON (?P<on>\S+) TO ", re.DOTALL)


def engine_privileges(version: Version, *, scheduler: bool = False, force: bool = False) -> tuple[Privilege, ...]:
    """Returns what the engine's account needs on a server of ``version`` (10.5 or later).

    ``scheduler``: the event scheduler is on there. ``force``: ``switchover --force`` shall be able to lock accounts.
    """
    needed = [p for p in ENGINE if p.name != "SLAVE MONITOR" or version >= _SLAVE_MONITOR_SINCE]
    return (*needed, *([SCHEDULER] if scheduler else ()), *([FORCE] if force else ()))


def required_privileges(version: Version, *, scheduler: bool = False) -> tuple[str, ...]:
    """Returns the same as words, as ``Inspection.missing_privileges`` has them: ``SELECT ON mysql.global_priv``."""
    return tuple(str(privilege) for privilege in engine_privileges(version, scheduler=scheduler))


def missing_privileges(version: Version, grants: Iterable[str], *, scheduler: bool = False) -> tuple[str, ...]:
    """Returns what is required and not in ``grants``, the lines of SHOW GRANTS (active roles are among them)."""
    held: dict[str, set[str]] = {}
    for line in grants:
        if found := _GRANT.match(line):
            names = {name.strip().upper() for name in found["privileges"].split(",")}
            held.setdefault(found["on"].replace("`", "").lower(), set()).update(names)
    everywhere = held.get("*.*", set())
    if "SUPER" in everywhere and version < _SUPER_IMPLIES_LITTLE_SINCE:
        everywhere |= _IMPLIED_BY_SUPER
        if version < _READ_ONLY_APART_SINCE:
            everywhere |= {"READ_ONLY ADMIN"}

    def has(privilege: Privilege) -> bool:
        schema = privilege.on.split(".")[0]
        scopes = (everywhere, held.get(f"{schema}.*", set()), held.get(privilege.on, set()))
        return any(privilege.name in scope or "ALL PRIVILEGES" in scope for scope in scopes)

    return tuple(str(p) for p in engine_privileges(version, scheduler=scheduler) if not has(p))


def password_of(user: str) -> str:
    """Returns what stands for the password of ``user`` in :func:`account_statements`."""
    return f"<password of {user}>"


def account_statements(
    version: Version,
    engine_user: str,
    engine_host: str = "%",
    *,
    replication_user: str = "",
    replication_host: str = "%",
    probe_user: str = "",
    probe_host: str = "%",
    probe_schema: str = "",
    scheduler: bool = False,
    force: bool = False,
) -> list[str]:
    """Returns the statements, without semicolons, that make the accounts; to be run once, on the primary.

    A user name that is empty leaves its account out. ``probe_schema`` is the schema of the proof's row. Passwords are
    the placeholders of :func:`password_of`. ``scheduler`` and ``force`` as for :func:`engine_privileges`.
    """
    engine = account_name(engine_user, engine_host)
    statements = [create_account(engine_user, engine)]
    needed = engine_privileges(version, scheduler=scheduler, force=force)
    globally = ", ".join(p.name for p in needed if p.on == "*.*")
    statements.append(f"GRANT {globally} ON *.* TO {engine}")
    statements += [f"GRANT {p} TO {engine}" for p in needed if p.on != "*.*"]
    if replication_user:
        account = account_name(replication_user, replication_host)
        statements += [create_account(replication_user, account), f"GRANT REPLICATION SLAVE ON *.* TO {account}"]
    if probe_user:
        statements += probe_statements(probe_user, probe_host, probe_schema)
    return statements


def probe_statements(user: str, host: str, schema: str) -> list[str]:
    """Returns the statements that make the account of the proof, its schema and its table."""
    account, place = account_name(user, host), "`" + schema.replace("`", "``") + "`"
    return [
        f"CREATE SCHEMA IF NOT EXISTS {place}",
        f"CREATE TABLE IF NOT EXISTS {place}.{TABLE} ({COLUMNS}) ENGINE=InnoDB",
        create_account(user, account),
        f"GRANT SELECT, INSERT, UPDATE ON {place}.{TABLE} TO {account}",
    ]


def rebuild_statements(version: Version, user: str, host: str = "%") -> list[str]:
    """Returns the statements that make the account of ``rejoin``, as :func:`account_statements` does the others."""
    account = account_name(user, host)
    names = [p.name for p in REBUILD if p.name != "SLAVE MONITOR" or version >= _SLAVE_MONITOR_SINCE]
    return [create_account(user, account), f"GRANT {', '.join(names)} ON *.* TO {account}"]


def create_account(user: str, account: str) -> str:
    return f"CREATE USER {account} IDENTIFIED BY {_string(password_of(user))}"


def account_name(user: str, host: str) -> str:
    """Returns an account as statements name it."""
    return f"{_string(user)}@{_string(host)}"


def _string(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
