"""The accounts of a test cluster, and the statements that make them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Account:
    """User name and password, the same on every server."""

    user: str
    password: str


ROOT = Account("root", "lab-root")
ENGINE = Account("proxyroute", "lab-engine")
REPLICATION = Account("repl", "lab-replication")
APPLICATION = Account("app", "lab-application")
PROBE = Account("proxyroute_probe", "lab-probe")

APPLICATION_SCHEMA = "app"
PROBE_SCHEMA = "proxyroute"


def engine_statements(version: tuple[int, int, int]) -> list[str]:
    """Returns the statements that make the accounts of the engine, of replication and of the probe."""
    return [
        f"CREATE USER '{ENGINE.user}'@'%' IDENTIFIED BY '{ENGINE.password}'",
        "GRANT RELOAD, PROCESS, SHOW DATABASES, EVENT, SUPER, SET USER, READ_ONLY ADMIN, CREATE USER,"
        " REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN, BINLOG ADMIN, BINLOG MONITOR, CONNECTION ADMIN,"
        f" SLAVE MONITOR ON *.* TO '{ENGINE.user}'@'%'",
        f"GRANT SELECT ON mysql.* TO '{ENGINE.user}'@'%'",
        f"CREATE USER '{REPLICATION.user}'@'%' IDENTIFIED BY '{REPLICATION.password}'",
        f"GRANT REPLICATION SLAVE ON *.* TO '{REPLICATION.user}'@'%'",
        f"CREATE SCHEMA {PROBE_SCHEMA}",
        f"CREATE USER '{PROBE.user}'@'%' IDENTIFIED BY '{PROBE.password}'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON {PROBE_SCHEMA}.* TO '{PROBE.user}'@'%'",
    ]


def all_statements(version: tuple[int, int, int]) -> list[str]:
    """Returns everything a fresh data folder of ``version`` is given before it is first used."""
    return [
        "FLUSH PRIVILEGES",
        f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{ROOT.password}'",
        *engine_statements(version),
        f"CREATE SCHEMA {APPLICATION_SCHEMA}",
        f"CREATE USER '{APPLICATION.user}'@'%' IDENTIFIED BY '{APPLICATION.password}'",
        f"GRANT ALL ON {APPLICATION_SCHEMA}.* TO '{APPLICATION.user}'@'%'",
    ]
