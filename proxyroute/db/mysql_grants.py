"""The accounts ProxyRoute needs on a MySQL server, with the least privileges that work, and what an account lacks.

Nothing here talks to a server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from proxyroute.db.grants import Privilege, Version, account_name, create_account, probe_statements

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
FORCE = Privilege("CREATE USER", "switchover --force locks privileged writers (ALTER USER … ACCOUNT LOCK)")

_ANY_DEFINER_SINCE = (8, 2, 0)
_GRANT = re.compile(r"GRANT (?P<privileges>.+?) ON (?P<on>\S+) TO ", re.DOTALL)


def engine_privileges(version: Version, *, force: bool = False) -> tuple[Privilege, ...]:
    """Returns what the engine's account needs on a server of ``version`` (8.0.26 or later)."""
    named = (
        Privilege("SET_USER_ID", p.reason) if p.name == "SET_ANY_DEFINER" and version < _ANY_DEFINER_SINCE else p
        for p in ENGINE
    )
    return (*named, *([FORCE] if force else ()))


def missing_privileges(version: Version, grants: Iterable[str]) -> tuple[str, ...]:
    """Returns what is required and not in ``grants``, the lines of SHOW GRANTS (active roles are among them)."""
    held: dict[str, set[str]] = {}
    for line in grants:
        if found := _GRANT.match(line):
            names = {name.strip().upper() for name in found["privileges"].split(",")}
            held.setdefault(found["on"].replace("`", "").lower(), set()).update(names)
    everywhere = held.get("*.*", set())

    def has(privilege: Privilege) -> bool:
        scopes = (everywhere, held.get(privilege.on, set()))
        return any(privilege.name in scope or "ALL PRIVILEGES" in scope for scope in scopes)

    return tuple(str(p) for p in engine_privileges(version) if not has(p))


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
    force: bool = False,
) -> list[str]:
    """Returns what :func:`proxyroute.db.grants.account_statements` returns for MariaDB, for MySQL."""
    engine = account_name(engine_user, engine_host)
    needed = engine_privileges(version, force=force)
    statements = [create_account(engine_user, engine)]
    statements.append(f"GRANT {', '.join(p.name for p in needed if p.on == '*.*')} ON *.* TO {engine}")
    statements += [f"GRANT {p} TO {engine}" for p in needed if p.on != "*.*"]
    if replication_user:
        account = account_name(replication_user, replication_host)
        statements += [create_account(replication_user, account), f"GRANT REPLICATION SLAVE ON *.* TO {account}"]
    if probe_user:
        statements += probe_statements(probe_user, probe_host, probe_schema)
    return statements
