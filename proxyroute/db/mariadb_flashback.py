"""Undoing rows that a MariaDB server has logged: whether that can be done, and the statements that do it."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

from proxyroute.binlog import Table
from proxyroute.db.session import Session
from proxyroute.errors import ScriptFailed
from proxyroute.host import Program, output
from proxyroute.model import Deadline

_CASCADES = 1 | 2 | 4 | 8
"""Bits of INNODB_SYS_FOREIGN.TYPE: ON DELETE and ON UPDATE, CASCADE and SET NULL."""
_FORMAT_EVENT = 15


def cannot_undo(session: Session, tables: Sequence[Table], deadline: Deadline) -> tuple[str, ...]:
    """Returns why changes to rows of ``tables`` could not be undone, in words."""
    found: list[str] = []
    try:
        told = output(Program(("mariadb-binlog", "--no-defaults", "--help")), deadline)
        if b"--flashback" not in told:
            found.append("the mariadb-binlog of this machine knows no --flashback")
    except ScriptFailed as error:
        found.append(f"{error}; the package mariadb-client has it")
    names = {_file_name(table): table for table in tables}
    known = session.read("SELECT NAME AS name FROM information_schema.INNODB_SYS_TABLES", deadline)
    transactional = {str(row["name"]).partition("#P#")[0].lower() for row in known}
    found += [
        f"{table} is not transactional, or is gone"
        for name, table in names.items()
        if name.lower() not in transactional
    ]
    # with PROCESS alone everything is seen here; REFERENTIAL_CONSTRAINTS hides what one may not read
    keys = session.read(
        "SELECT ID AS id, REF_NAME AS parent, TYPE AS type FROM information_schema.INNODB_SYS_FOREIGN", deadline
    )
    parents = {name.lower(): table for name, table in names.items()}
    found += [
        f"the foreign key {row['id']} cascades from {parents[str(row['parent']).lower()]}, "
        "and what it did to other rows is not in the binary log"
        for row in keys
        if int(row["type"]) & _CASCADES and str(row["parent"]).lower() in parents
    ]
    row = session.one(
        "SELECT @@global.slave_run_triggers_for_rbr AS triggers, @@global.innodb_flush_log_at_trx_commit AS flush",
        deadline,
    )
    if str(row["triggers"]).upper() not in ("NO", "0"):
        found.append(f"slave_run_triggers_for_rbr={row['triggers']}: triggers would run again")
    if int(row["flush"]) != 1:
        found.append(
            f"innodb_flush_log_at_trx_commit={row['flush']}: a crash could take the undo back unseen; "
            f"on {session.server}: SET GLOBAL innodb_flush_log_at_trx_commit=1;"
        )
    return tuple(found)


def undo_statements(files: Sequence[Path], start: int, deadline: Deadline) -> tuple[str, ...]:
    """Returns the statements that undo everything in ``files`` from ``start`` on; the first tells their format."""
    argv = (
        "mariadb-binlog",
        "--no-defaults",
        "--skip-gtid-strict-mode",
        "--flashback",
        f"--start-position={start}",
        *map(str, files),
    )
    text = output(Program(argv), deadline, most=1 << 30).decode("ascii", "replace")
    formats: list[str] = []
    changes: list[str] = []
    for found in re.finditer(r"^BINLOG '\n([A-Za-z0-9+/=\n]+)'", text, re.MULTILINE):
        kind = base64.b64decode(found[1][:12])[4]
        (formats if kind == _FORMAT_EVENT else changes).append(found[0])
    if not formats:
        raise ScriptFailed("mariadb-binlog --flashback told no format of its events")
    return (formats[-1], *changes)


def _file_name(table: Table) -> str:
    """Returns the table as InnoDB names it: ``app/t``, other characters than letters and digits as ``@002d``."""

    def encoded(text: str) -> str:
        return "".join(c if c.isascii() and (c.isalnum() or c == "_") else f"@{ord(c):04x}" for c in text)

    return f"{encoded(table.schema)}/{encoded(table.name)}"
