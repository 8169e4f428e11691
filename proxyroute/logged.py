"""What is in a binary log, as values: transactions, files, and what a dead server has left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from proxyroute.gtid import GTID, Containment, MariaDBPosition, MySQLPosition, Position, TaggedSource


class Table(NamedTuple):
    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


HALF_BUILT = 4294967295
"""A domain that nobody writes in. A server that has something of it is not whole, and follows nobody by itself."""


HALF_BUILT_HERE = MySQLPosition(((TaggedSource("ffffffff-ffff-ffff-ffff-fffffffffffe"), ((1, 1),)),))
"""The same on MySQL: a transaction that nobody makes."""


def is_half_built(executed: Position) -> bool:
    """Tells whether a server that has ``executed`` this is not whole."""
    if isinstance(executed, MySQLPosition):
        return executed.contains(HALF_BUILT_HERE) is Containment.YES
    return isinstance(executed, MariaDBPosition) and any(g.domain == HALF_BUILT for g in executed.entries)


class MySQLGTID(NamedTuple):
    """One transaction of MySQL."""

    source: TaggedSource
    number: int

    def __str__(self) -> str:
        return ":".join((self.source.uuid, *filter(None, [self.source.tag]), str(self.number)))


@dataclass(frozen=True)
class Logged:
    """One transaction in a binary log."""

    gtid: GTID | MySQLGTID
    file: str
    start: int
    end: int
    """Offsets in the file: its first byte, and the one after its last."""
    time: int
    """Unix time of the server that wrote it."""
    tables: tuple[Table, ...] = ()
    statements: tuple[str, ...] = ()
    """What was typed, where the log knows it: statements themselves, or the notes beside rows."""
    rows_only: bool = True
    full_images: bool = True
    """Every row was logged with all its columns."""
    ddl: bool = False
    transactional: bool = True
    xa: bool = False
    standalone: bool = False
    """One statement, without an end of its own."""
    packed: bool = False
    """It is compressed as a whole: what is in it is only seen where it is decoded."""

    @property
    def position(self) -> Position:
        """This transaction alone."""
        if isinstance(self.gtid, GTID):
            return MariaDBPosition((self.gtid,))
        return MySQLPosition(((self.gtid.source, ((self.gtid.number, self.gtid.number),)),))


@dataclass(frozen=True)
class LogFile:
    """One file of a binary log. ``before`` is the server's whole state when the file was begun."""

    name: str
    before: Position
    transactions: tuple[Logged, ...]
    server_id: int = 0
    """Of the server that wrote the file."""
    cut: str = ""
    """What is not whole at its end, in words; empty: it ends with a whole transaction."""
    bare: bool = False
    """It ends before it tells what the server had: only just begun, or all of it was lost. ``before`` says nothing."""


@dataclass(frozen=True)
class Remains:
    """What is found on the host of a server that does not answer."""

    folder: str
    """Its data folder."""
    logs: Mapping[str, int]
    """Files of its binary log, oldest first, with their sizes in bytes."""
    running: tuple[str, ...] = ()
    """Its processes that are there, or may be its, in words: then it is not dead, whatever it answers."""


def together(transactions: Iterable[Logged], start: Position) -> Position:
    """Returns ``start`` with all of ``transactions``."""
    for transaction in transactions:
        start = start.merge(transaction.position)
    return start


def empty_statements(gtids: Iterable[MySQLGTID]) -> list[str]:
    """Returns the statements that make an empty transaction for each of ``gtids``."""
    each = [s for gtid in gtids for s in (f"SET SESSION gtid_next='{gtid}'", "BEGIN", "COMMIT")]
    return [*each, "SET SESSION gtid_next=AUTOMATIC"]
