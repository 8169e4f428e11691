"""The accounts of a test cluster, and the statements that make them."""

from __future__ import annotations

from dataclasses import dataclass

from proxyroute.db import mysql_grants
from proxyroute.db.grants import Version, account_statements, password_of


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

_NAMES = {"replication_user": REPLICATION.user, "probe_user": PROBE.user, "probe_schema": PROBE_SCHEMA}


def product_statements(version: Version, *, scheduler: bool = False, force: bool = False) -> list[str]:
    """Returns what ``proxyroute grants`` prints for ``version``, with the passwords put in, and nothing else."""
    return _with_passwords(account_statements(version, ENGINE.user, **_NAMES, scheduler=scheduler, force=force))


def mysql_statements(version: Version, *, force: bool = False) -> list[str]:
    """Returns the same for MySQL."""
    return _with_passwords(mysql_grants.account_statements(version, ENGINE.user, **_NAMES, force=force))


def _with_passwords(statements: list[str]) -> list[str]:
    for account in (ENGINE, REPLICATION, PROBE):
        statements = [s.replace(password_of(account.user), account.password) for s in statements]
    return statements


def all_statements(version: Version, *, scheduler: bool = False, force: bool = False) -> list[str]:
    """Returns everything a fresh data folder of ``version`` is given before it is first used."""
    return [
        "FLUSH PRIVILEGES",
        f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{ROOT.password}'",
        *product_statements(version, scheduler=scheduler, force=force),
        f"CREATE SCHEMA {APPLICATION_SCHEMA}",
        f"CREATE USER '{APPLICATION.user}'@'%' IDENTIFIED BY '{APPLICATION.password}'",
        f"GRANT ALL ON {APPLICATION_SCHEMA}.* TO '{APPLICATION.user}'@'%'",
    ]
