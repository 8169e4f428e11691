"""Accounts and what they may, whatever the flavour: the statements that make them, and what one lacks.

Which privileges are needed is in ``mariadb_grants`` and ``mysql_grants``. Nothing here talks to a server.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from proxyroute.db.probe import COLUMNS, TABLE

Version = tuple[int, int, int]

_GRANT = re.compile(r"GRANT (?P<privileges>.+?) ON (?P<on>\S+) TO ", re.DOTALL)


@dataclass(frozen=True)
class Privilege:
    """One privilege of the engine's account and what it is there for."""

    name: str
    reason: str
    on: str = "*.*"

    def __str__(self) -> str:
        return self.name if self.on == "*.*" else f"{self.name} ON {self.on}"


def held_by(grants: Iterable[str]) -> dict[str, set[str]]:
    """Returns the privileges in ``grants``, the lines of SHOW GRANTS (active roles are there), by where they count."""
    held: dict[str, set[str]] = {}
    for line in grants:
        if found := _GRANT.match(line):
            names = {name.strip().upper() for name in found["privileges"].split(",")}
            held.setdefault(found["on"].replace("`", "").lower(), set()).update(names)
    return held


def lacking(needed: Iterable[Privilege], held: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Returns what is needed and not ``held`` (see :func:`held_by`), in words: ``SELECT ON mysql.global_priv``."""

    def has(privilege: Privilege) -> bool:
        schema = privilege.on.split(".")[0]
        scopes = (held.get(where, ()) for where in ("*.*", f"{schema}.*", privilege.on))
        return any(privilege.name in scope or "ALL PRIVILEGES" in scope for scope in scopes)

    return tuple(str(p) for p in needed if not has(p))


@dataclass(frozen=True)
class Accounts:
    """Whom to make: the engine's account, that of replication and that of the proof. An empty user is left out."""

    engine_user: str
    engine_host: str = "%"
    replication_user: str = ""
    replication_host: str = "%"
    probe_user: str = ""
    probe_host: str = "%"
    probe_schema: str = ""
    """Schema of the proof's row."""

    def statements(self, needed: Collection[Privilege]) -> list[str]:
        """Returns the statements, without semicolons, that make them; to be run once, on the primary.

        The engine's account gets what is ``needed``. Passwords are the placeholders of :func:`password_of`.
        """
        engine = account_name(self.engine_user, self.engine_host)
        statements = [create_account(self.engine_user, engine)]
        statements.append(f"GRANT {', '.join(p.name for p in needed if p.on == '*.*')} ON *.* TO {engine}")
        statements += [f"GRANT {p} TO {engine}" for p in needed if p.on != "*.*"]
        if self.replication_user:
            account = account_name(self.replication_user, self.replication_host)
            statements.append(create_account(self.replication_user, account))
            statements.append(f"GRANT REPLICATION SLAVE ON *.* TO {account}")
        if self.probe_user:
            statements += _probe_statements(self.probe_user, self.probe_host, self.probe_schema)
        return statements


def password_of(user: str) -> str:
    """Returns what stands for the password of ``user`` in these statements."""
    return f"<password of {user}>"


def _probe_statements(user: str, host: str, schema: str) -> list[str]:
    """Returns the statements that make the account of the proof, its schema and its table."""
    account, place = account_name(user, host), "`" + schema.replace("`", "``") + "`"
    return [
        f"CREATE SCHEMA IF NOT EXISTS {place}",
        f"CREATE TABLE IF NOT EXISTS {place}.{TABLE} ({COLUMNS}) ENGINE=InnoDB",
        create_account(user, account),
        f"GRANT SELECT, INSERT, UPDATE ON {place}.{TABLE} TO {account}",
    ]


def account_with(privileges: Iterable[Privilege], user: str, host: str) -> list[str]:
    """Returns the statements that make an account with ``privileges``, all of them on everything."""
    account = account_name(user, host)
    return [create_account(user, account), f"GRANT {', '.join(p.name for p in privileges)} ON *.* TO {account}"]


def create_account(user: str, account: str) -> str:
    """Returns the statement that makes ``account`` (see :func:`account_name`), with a placeholder for its password.

    One that is there keeps the password that it has: replication's is there, as a rule, when ours is made.
    """
    return f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY {_string(password_of(user))}"


def account_name(user: str, host: str) -> str:
    """Returns an account as statements name it."""
    return f"{_string(user)}@{_string(host)}"


def _string(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
