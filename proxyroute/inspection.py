"""What is read of a server only when it is asked for: before an operation, or in its midst. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from proxyroute.gtid import Position


@dataclass(frozen=True)
class Transaction:
    """A statement or transaction that has been running on a server for a while."""

    session: int
    user: str
    host: str
    age_seconds: float
    rows_modified: int
    writes: bool
    """It has modified rows, holds a write lock, or runs a statement that writes. Readers never block anything."""
    statement: str
    kind: str = "transaction"
    """``transaction``, ``statement``, ``table lock`` or ``global lock``."""


@dataclass(frozen=True)
class Event:
    """A scheduled event of the database server."""

    schema: str
    name: str
    definer: str
    status: str
    """``enabled``, ``disabled`` or ``replica side`` (present, and not run here)."""
    charset: str = "utf8mb4"
    collation: str = "utf8mb4_general_ci"
    database_collation: str = ""
    sql_mode: str = ""
    time_zone: str = "SYSTEM"


@dataclass(frozen=True)
class Inspection:
    """What is too dear to be read every second: read once before an operation."""

    name: str
    account: str
    missing_privileges: tuple[str, ...] = ()
    """Privileges our account lacks, read on a fresh connection."""
    privileged_writers: tuple[str, ...] = ()
    """Accounts, other than ours, that may write although the server refuses ordinary writes."""
    prepared_xa: tuple[str, ...] = ()
    transactions: tuple[Transaction, ...] = ()
    events: tuple[Event, ...] = ()
    binlog_filters: tuple[str, ...] = ()
    """What keeps schemas out of the binary log, as ``variable=value``."""
    backups: tuple[tuple[int, str], ...] = ()
    """Sessions, and whose they are, that hold the lock of a backup: no account can be altered, no applier be stopped
    (MySQL)."""
    unrecorded: str = ""
    """What is off in its performance_schema, so that nobody can tell who holds which lock (MySQL); empty: nothing."""
    purged: Position | None = None
    """What its binary log has no more."""
    unverifiable: bool = False
    """What a channel of it is told would keep it from verifying its source: it is to, and no authority is named."""


@dataclass(frozen=True)
class WriteState:
    """A quick reading of what stands between a server and a write."""

    writable: bool
    holders: frozenset[str]
    """What holds writes back for the asked operation: ``engine``, a lock that dies with its process, and ``armed``,
    one that the server keeps by itself and that ends in refusing writes."""
    position: Position
    half_closed: bool = False
    """As :attr:`proxyroute.model.Status.half_closed`."""
