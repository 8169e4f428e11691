"""The accounts of a test cluster, and the statements that make them."""

from __future__ import annotations

from dataclasses import dataclass

from proxyroute.db import mariadb_grants, mysql_grants
from proxyroute.db.grants import Accounts, Version, password_of


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

_ACCOUNTS = Accounts(ENGINE.user, replication_user=REPLICATION.user, probe_user=PROBE.user, probe_schema=PROBE_SCHEMA)


def product_statements(version: Version, *, scheduler: bool = False, force: bool = False) -> list[str]:
    """Returns what ``proxyroute grants`` prints for ``version``, with the passwords put in, and nothing else."""
    return _with_passwords(mariadb_grants.account_statements(version, _ACCOUNTS, scheduler=scheduler, force=force))


def mysql_statements(version: Version, *, force: bool = False) -> list[str]:
    """Returns the same for MySQL."""
    return _with_passwords(mysql_grants.account_statements(version, _ACCOUNTS, force=force))


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
