"""Raw files of a binary log, read event by event: which transactions are in them, where, and of what kind.

Read from the bytes and not from what ``mariadb-binlog`` or ``mysqlbinlog`` prints: there, a statement's own text can
look like an event. The events themselves tell which flavour has written them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from proxyroute import binlog_mariadb, binlog_mysql
from proxyroute.binlog_events import FORMAT, Event, Events
from proxyroute.deadline import Deadline
from proxyroute.gtid import MariaDBPosition, MySQLPosition, Position
from proxyroute.logged import (
    HALF_BUILT,
    HALF_BUILT_HERE,
    LogFile,
    Logged,
    MySQLGTID,
    Remains,
    Table,
    empty_statements,
    is_half_built,
    together,
)

__all__ = [
    "HALF_BUILT",
    "HALF_BUILT_HERE",
    "LogFile",
    "Logged",
    "MySQLGTID",
    "Remains",
    "Table",
    "empty_statements",
    "is_half_built",
    "read_log",
    "together",
]

_MAGIC, _ENCRYPTED = b"\xfebin", b"\xfdbin"
_ASK_EVERY = 1000
"""Events between two questions whether there is time left: a few milliseconds."""


class _Flavour(Protocol):
    """What a flavour's events mean; a module is one."""

    def state(self, body: bytes) -> Position: ...

    def begun(self, file: str, event: Event) -> Logged: ...

    def extended(self, current: Logged, event: Event) -> tuple[Logged, bool]: ...


_MARIADB: _Flavour = binlog_mariadb
_MYSQL: _Flavour = binlog_mysql
_STATES: dict[int, _Flavour] = {binlog_mariadb.GTID_LIST: _MARIADB, binlog_mysql.PREVIOUS_GTIDS: _MYSQL}
_BEGINS: dict[int, _Flavour] = {
    binlog_mariadb.GTID_EVENT: _MARIADB,
    binlog_mysql.GTID_EVENT: _MYSQL,
    binlog_mysql.TAGGED_GTID: _MYSQL,
}
_BETWEEN = frozenset({3, 4, 27, 41, FORMAT, binlog_mariadb.CHECKPOINT, binlog_mariadb.START_ENCRYPTION, *_STATES})
"""Stop, Rotate, heartbeats, and what else belongs to no transaction."""


def read_log(path: Path, deadline: Deadline | None = None) -> LogFile:
    """Returns what is in a file of a binary log; a transaction that is cut off at its end is left out, and named.

    An event whose checksum is wrong ends the file as well: a disk may keep a part of what was written last, or nothing
    of a file that had just been begun.
    Raises ValueError, naming the file, when it is encrypted or no binary log, and TimedOut when it is not read by
    ``deadline``: a large file takes minutes.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == _ENCRYPTED:
            raise ValueError(f"{path} is encrypted; only its server can read it")
        if len(magic) < len(_MAGIC) and _MAGIC.startswith(magic):
            return LogFile(path.name, MariaDBPosition(), (), cut=f"{path.name} is empty", bare=True)
        if magic != _MAGIC:
            raise ValueError(f"{path} is not a file of a binary log")
        before: Position | None = None
        transactions, server_id = list[Logged](), 0
        current: Logged | None = None
        flavour = _MARIADB
        events = Events(file)
        for number, event in enumerate(events):
            if deadline is not None and number % _ASK_EVERY == 0:
                deadline.require(f"{path.name} to be read")
            if event.kind == FORMAT and not server_id:
                server_id = event.server_id
            if event.kind == binlog_mariadb.START_ENCRYPTION:
                raise ValueError(f"{path} is encrypted; only its server can read it")
            if event.kind in _STATES and not transactions and current is None:
                before = _STATES[event.kind].state(event.body)
            elif event.kind in _BEGINS:
                flavour = _BEGINS[event.kind]
                current = flavour.begun(path.name, event)
            elif current is not None and event.kind not in _BETWEEN:
                current, over = flavour.extended(current, event)
                if over:
                    transactions.append(replace(current, end=event.end))
                    current = None
    cut = events.cut
    if current is not None:
        cut = f"{current.gtid} has no end" + (f": {cut}" if cut else "")
    bare = before is None and not transactions and current is None
    if before is None:
        before = MySQLPosition() if flavour is _MYSQL else MariaDBPosition()
    return LogFile(path.name, before, tuple(transactions), server_id, cut, bare)
