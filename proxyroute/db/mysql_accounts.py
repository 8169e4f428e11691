"""Who may write past read_only on a MySQL server, from its tables of privileges. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from proxyroute.db.accounts import Account, Client, account_of, reachable


def privileged_writers(
    accounts: Iterable[Mapping[str, Any]],
    admins: Iterable[Mapping[str, Any]],
    roles: Iterable[Mapping[str, Any]],
    clients: Iterable[Client],
) -> tuple[str, ...]:
    """Returns the accounts, as ``user@host``, that may write past read_only and to which one of ``clients`` belongs.

    ``accounts`` are rows of mysql.user (user, host, super, locked), ``admins`` those of mysql.global_grants with
    CONNECTION_ADMIN (user, host), ``roles`` of mysql.role_edges (user, host, role, role_host).
    Locked accounts are left out. A role counts whether it is active or not, for SET ROLE is up to the session.
    """
    known = {_account(row): row for row in accounts}
    holders = {_account(row) for row in admins} | {a for a, row in known.items() if row["super"] == "Y"}
    granted: dict[Account, list[Account]] = {}
    for row in roles:
        granted.setdefault(_account(row), []).append(Account(str(row["role"]), str(row["role_host"])))
    people = [account for account, row in known.items() if row["locked"] != "Y"]
    found = {account for client in clients if (account := account_of(client, people)) is not None}
    return tuple(sorted(str(account) for account in found if reachable(account, granted) & holders))


def _account(row: Mapping[str, Any]) -> Account:
    return Account(str(row["user"]), str(row["host"]))
