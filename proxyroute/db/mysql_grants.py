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
REBUILD = (
    Privilege("SELECT", "data are compared"),
    Privilege("REPLICATION CLIENT", "SHOW REPLICA STATUS"),
    Privilege("SYSTEM_VARIABLES_ADMIN", "gtid_next, by which an applier is held back"),
)
"""What the account of ``rejoin`` needs."""
FORCE = Privilege("CREATE USER", "switchover --force locks privileged writers (ALTER USER … ACCOUNT LOCK)")

_ANY_DEFINER_SINCE = (8, 2, 0)


def engine_privileges(version: Version, *, force: bool = False) -> tuple[Privilege, ...]:
    """Returns what the engine's account needs on a server of ``version`` (8.0.26 or later)."""
    named = (
        Privilege("SET_USER_ID", p.reason) if p.name == "SET_ANY_DEFINER" and version < _ANY_DEFINER_SINCE else p
        for p in ENGINE
    )
    return (*named, *([FORCE] if force else ()))


def missing_privileges(version: Version, grants: Iterable[str]) -> tuple[str, ...]:
    """Returns what is required and not in ``grants``, the lines of SHOW GRANTS (active roles are among them)."""
    return lacking(engine_privileges(version), held_by(grants))


def account_statements(version: Version, accounts: Accounts, *, force: bool = False) -> list[str]:
    """Returns the statements that make ``accounts``; ``force`` as for :func:`engine_privileges`."""
    return accounts.statements(engine_privileges(version, force=force))


def rebuild_statements(version: Version, user: str, host: str = "%") -> list[str]:
    """Returns the statements that make the account of ``rejoin``, as :func:`account_statements` does the others."""
    return account_with(REBUILD, user, host)
