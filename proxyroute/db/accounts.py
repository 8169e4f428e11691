"""Which accounts of a MariaDB server may write although read_only is set, judged from its grant tables."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

_SUPER = 1 << 15
_READ_ONLY_ADMIN = 1 << 33
_EVERYTHING = 2**64 - 1
_DYNAMIC_SINCE = 100502
"""The ``version_id`` since when READ_ONLY ADMIN has its bit; before, that bit means nothing."""
_APART_SINCE = 101100
"""The ``version_id`` since when SUPER does not include READ_ONLY ADMIN."""


class Client(NamedTuple):
    """A session as the process list shows it: user name, and host with its port."""

    user: str
    host: str


class Account(NamedTuple):
    """An account, or a role (whose host is empty)."""

    user: str
    host: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host}"


def privileged_writers(
    version: tuple[int, int, int],
    accounts: Iterable[Mapping[str, Any]],
    roles: Iterable[Mapping[str, Any]],
    clients: Iterable[Client],
) -> tuple[str, ...]:
    """Returns the accounts, as ``user@host``, that may write past read_only and to which one of ``clients`` belongs.

    ``accounts`` are rows of mysql.global_priv (user, host, priv), ``roles`` of mysql.roles_mapping (user, host, role).
    Locked accounts are left out. A role counts whether it is active or not, for SET ROLE is up to the session.
    """
    documents = {Account(str(row["user"]), str(row["host"])): _document(row["priv"]) for row in accounts}
    granted: dict[Account, list[Account]] = {}
    for row in roles:
        granted.setdefault(Account(str(row["user"]), str(row["host"])), []).append(Account(str(row["role"]), ""))
    people = [account for account, document in documents.items() if not document.get("is_role")]
    found: set[Account] = set()
    for client in clients:
        account = account_of(client, people)
        if account is None or account in found or documents[account].get("account_locked"):
            continue
        if any(_may_write(documents.get(holder, {}), version) for holder in reachable(account, granted)):
            found.add(account)
    return tuple(sorted(str(account) for account in found))


def account_of(client: Client, accounts: Sequence[Account]) -> Account | None:
    """Returns the account under which the server let ``client`` in: the one with the most specific host."""
    host = _without_port(client.host)
    matching = [a for a in accounts if a.user == client.user and _matches(host, a.host)]
    return max(matching, key=lambda a: _specificity(a.host), default=None)


def _may_write(document: Mapping[str, Any], version: tuple[int, int, int]) -> bool:
    access, made_by = int(document.get("access", 0)), int(document.get("version_id", 0))
    if access == _EVERYTHING:
        return True
    if access & _READ_ONLY_ADMIN and made_by >= _DYNAMIC_SINCE:
        return True
    # SUPER alone was enough before 10.11, and later versions carry that over for accounts made before
    return bool(access & _SUPER) and (version < (10, 11, 0) or made_by < _APART_SINCE)


def reachable(account: Account, granted: Mapping[Account, Sequence[Account]]) -> set[Account]:
    """The account and all roles it may take on, at any depth; roles granted to PUBLIC included."""
    reached: set[Account] = set()
    waiting = [account, Account("PUBLIC", "")]
    while waiting:
        one = waiting.pop()
        if one not in reached:
            reached.add(one)
            waiting += granted.get(one, ())
    return reached


def _document(text: Any) -> Mapping[str, Any]:
    document = json.loads(text)
    return document if isinstance(document, dict) else {}


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _matches(host: str, pattern: str) -> bool:
    if "/" in pattern:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return False
    wanted = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in pattern or "%")
    return re.fullmatch(wanted, host, re.IGNORECASE | re.DOTALL) is not None


def _specificity(pattern: str) -> tuple[bool, int]:
    """The server prefers hosts without wildcards, then those whose first wildcard comes later."""
    wildcard = re.search("[%_]", pattern or "%")
    return (wildcard is None, wildcard.start() if wildcard else len(pattern))
