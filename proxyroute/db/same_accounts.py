"""The accounts of two servers compared: who there is, with which password, privileges and options. No hash is told."""

from __future__ import annotations

import re

from proxyroute.db.replication import quoted
from proxyroute.db.session import Session
from proxyroute.errors import StatementError
from proxyroute.model import Deadline

_MYSQL = (
    "SELECT user AS name, host AS host, 'N' AS role FROM mysql.user"
    " WHERE user NOT IN ('mysql.infoschema', 'mysql.session', 'mysql.sys')"
)
_MARIADB = "SELECT user AS name, host AS host, is_role AS role FROM mysql.user WHERE user <> 'mariadb.sys'"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_PASSWORD = re.compile(r"\b(AS|USING|PASSWORD) '(?:[^'\\]|\\.|'')*'")
_EVERYBODY = "PUBLIC"
_UNKNOWN = 1141
_GREW = (8, 0)
"""The series of which each version may know more privileges than the one before."""

_Account = tuple[str, str, bool]
"""Its name, its host, and whether it is a role (MariaDB; one of MySQL's is like any other account)."""


def unlike(here: Session, there: Session, deadline: Deadline) -> list[str]:
    """Returns which accounts are not ``here`` as they are ``there``, in words.

    What an account may do is told in other words by another series, and MySQL 8.0 got privileges with any version: then
    only who there is counts. The password of an account that logs in on the machine itself may be each server's own.
    Raises ServerError.
    """
    mine, theirs = _accounts(here, deadline), _accounts(there, deadline)
    found = [f"{_named(account)} is missing" for account in sorted(theirs.keys() - mine.keys())]
    found += [f"{_named(account)} is on {here.server} alone" for account in sorted(mine.keys() - theirs.keys())]
    if here.version == there.version or here.version[:2] == there.version[:2] != _GREW:
        other = [account for account in sorted(theirs.keys() & mine.keys()) if theirs[account] != mine[account]]
        found += [f"{_named(account)} is another one (password, privileges or options)" for account in other]
    return found


def _accounts(session: Session, deadline: Deadline) -> dict[_Account, frozenset[str]]:
    found = {}
    for row in session.read(_MARIADB if session.flavour == "mariadb" else _MYSQL, deadline):
        account = (str(row["name"]), str(row["host"]), row["role"] == "Y")
        try:
            found[account] = _told(session, account, deadline)
        except StatementError as error:
            if error.errno != _UNKNOWN:  # just dropped; or of a host by name, where no names are looked up
                raise
    return found


def _named(account: _Account) -> str:
    name, host, role = account
    return f"the role {name}" if role else f"{name}@{host}"


def _told(session: Session, account: _Account, deadline: Deadline) -> frozenset[str]:
    """Returns the lines by which the server tells of an account."""
    name, host, role = account
    whom = quoted(name) if role and name != _EVERYBODY else name if role else f"{quoted(name)}@{quoted(host)}"
    asked = [f"SHOW GRANTS FOR {whom}", *([] if role else [f"SHOW CREATE USER {whom}"])]
    lines = [str(line) for sql in asked for row in session.read(sql, deadline) for line in row.values()]
    return frozenset(_PASSWORD.sub("", line) if host in _LOCAL else line for line in lines)
