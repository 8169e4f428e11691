"""The data of two servers compared, chunk by chunk, at one and the same position, while the primary goes on as ever.

The replica's applier stops, the primary opens a consistent reading (which blocks nobody) and tells its position, the
replica applies exactly up to there, opens a consistent reading as well, and goes on. From then on both are read in two
transactions that see that one position, for as long as a reading may live; then the next tables get a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxyroute.binlog import Table
from proxyroute.errors import ProxyRouteError, StatementError
from proxyroute.gtid import Position
from proxyroute.model import Deadline
from proxyroute.outcome import Verdict

Key = tuple[Any, ...]
READING = 120.0
"""Seconds after which a reading is renewed before the next table: an old one keeps the server from purging."""
_PAUSED = 10.0
_AGAIN = 0.05
_FIRST, _LEAST, _MOST = 1000, 50, 50_000
_QUICK, _SLOW = 0.1, 0.4
_REST = 0.25
"""Share of the time for one chunk that is rested after it."""
_KEYS = 10
_TRIES = 3
_CHANGED = 1412


@dataclass(frozen=True)
class Shape:
    """What is to be known of a table to compare it."""

    columns: tuple[str, ...]
    key: tuple[str, ...]
    """The columns by which it is read in pieces; empty: it is read as a whole."""
    obstacle: str = ""
    """Why it cannot be read at a position."""


@dataclass(frozen=True)
class Sum:
    """The rows of a chunk, folded up."""

    rows: int
    digest: int


@dataclass(frozen=True)
class Place:
    """Where a reading stands: its position, and where positions need it the file and offset of the binary log there."""

    position: Position
    file: str = ""
    offset: int = 0


class Comparer(Protocol):
    """One server's side of a comparison."""

    @property
    def name(self) -> str: ...

    def tables(self, deadline: Deadline) -> Mapping[Table, Shape]:
        """Returns the tables of the applications."""

    def writer(self, deadline: Deadline) -> str:
        """Returns by which name positions know what this server writes; empty where nobody needs it."""

    def pause(self, writer: str, seconds: float, deadline: Deadline) -> None:
        """No more than a little of what ``writer`` wrote is applied from now on, until it is told how far it may go.

        After ``seconds`` it goes on by itself, whoever dies.
        """

    def advance(self, place: Place, deadline: Deadline) -> bool:
        """Applies exactly up to ``place`` of its source, and stands still there; False: it takes another, later place.

        Raises ServerError when it cannot.
        """

    def resume(self, deadline: Deadline) -> None:
        """Applies again. Does nothing where nothing was paused."""

    def open_reading(self, deadline: Deadline) -> Place:
        """Opens a consistent reading and returns where it stands."""

    def confirm(self, position: Position, deadline: Deadline) -> None:
        """Raises ServerError unless it has stood still at ``position`` since it was told to."""

    def bound(self, table: Table, shape: Shape, after: Key | None, rows: int, deadline: Deadline) -> Key | None:
        """Returns the key that lies ``rows`` rows after ``after``; None when fewer are left."""

    def fold(self, table: Table, shape: Shape, after: Key | None, upto: Key | None, deadline: Deadline) -> Sum:
        """Returns the sum of the rows with a key above ``after`` and not above ``upto``."""

    def digests(
        self, table: Table, shape: Shape, after: Key | None, upto: Key | None, deadline: Deadline
    ) -> Mapping[str, str]:
        """Returns a digest for each of these rows, by its key as text."""

    def close_reading(self) -> None:
        """Ends the reading; never raises."""


@dataclass(frozen=True)
class Difference:
    """Where two servers differ."""

    table: str
    server: str
    """The one that is unlike the primary."""
    after: str
    upto: str
    """The range of keys, ends as text; empty where it has no end."""
    what: str


@dataclass(frozen=True)
class Comparison:
    """What came of comparing a replica with its primary."""

    primary: str
    replica: str
    tables: int = 0
    rows: int = 0
    chunks: int = 0
    seconds: float = 0.0
    positions: tuple[str, ...] = ()
    """At which positions; more than one when readings were renewed."""
    differences: tuple[Difference, ...] = ()
    skipped: tuple[str, ...] = ()
    """What could not be compared, with the reason."""

    @property
    def verdict(self) -> Verdict:
        if self.differences:
            return Verdict.NOT_PROVEN
        return Verdict.UNKNOWN if self.skipped else Verdict.PROVEN

    def __str__(self) -> str:
        done = f"{self.rows} rows of {self.tables} tables compared in {self.chunks} chunks"
        if self.differences:
            first = self.differences[0]
            return f"{len(self.differences)} differences, the first in {first.table}: {first.what}"
        return f"{done}; not compared: {'; '.join(self.skipped)}" if self.skipped else f"{done}, all equal"


@dataclass
class _Count:
    tables: int = 0
    rows: int = 0
    chunks: int = 0
    size: int = _FIRST
    positions: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def compare(
    primary: Comparer,
    replica: Comparer,
    deadline: Deadline,
    wanted: Sequence[Table] | None = None,
    watch: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Compares ``wanted`` tables, or all; tells ``watch`` what it is at. Raises ProxyRouteError."""
    began, count = time.monotonic(), _Count()
    mine, theirs = primary.tables(deadline), replica.tables(deadline)
    names = sorted({*mine, *theirs}) if wanted is None else list(wanted)
    todo: list[Table] = []
    for table in names:
        if table not in mine and table not in theirs:
            count.skipped.append(f"{table}: neither has such a table, or the account does not see it")
        elif table not in mine or table not in theirs:
            only = primary.name if table in mine else replica.name
            count.differences.append(Difference(str(table), replica.name, "", "", f"only {only} has it"))
        elif mine[table].columns != theirs[table].columns:
            count.differences.append(Difference(str(table), replica.name, "", "", "it has other columns"))
        elif mine[table].obstacle:
            count.skipped.append(f"{table}: {mine[table].obstacle}")
        else:
            todo.append(table)
    try:
        _all(primary, replica, todo, mine, count, deadline, watch)
    finally:
        primary.close_reading()
        replica.close_reading()
    return Comparison(
        primary.name,
        replica.name,
        count.tables,
        count.rows,
        count.chunks,
        time.monotonic() - began,
        tuple(count.positions),
        tuple(count.differences),
        tuple(count.skipped),
    )


def _all(
    primary: Comparer,
    replica: Comparer,
    todo: Sequence[Table],
    shapes: Mapping[Table, Shape],
    count: _Count,
    deadline: Deadline,
    watch: Callable[[str], None],
) -> None:
    opened = float("-inf")
    for table in todo:
        for attempt in range(1, _TRIES + 1):
            if time.monotonic() - opened > READING:
                count.positions.append(str(_meet(primary, replica, deadline)))
                opened = time.monotonic()
            watch(str(table))
            before = len(count.differences)
            try:
                _table(primary, replica, table, shapes[table], count, deadline)
                break
            except StatementError as error:  # its definition has changed since the reading was opened
                if error.errno != _CHANGED or attempt == _TRIES:
                    raise
                del count.differences[before:]
                opened = float("-inf")
        count.tables += 1


def _meet(primary: Comparer, replica: Comparer, deadline: Deadline) -> Position:
    """Opens a reading on both, at one position, which is returned."""
    primary.close_reading()
    replica.close_reading()
    until = deadline.within(_PAUSED)
    try:
        replica.pause(primary.writer(until), _PAUSED, until)
        place = primary.open_reading(until)
        while not replica.advance(place, until):
            until.require(f"a position at which {replica.name} can stand still")
            time.sleep(_AGAIN)
            place = primary.open_reading(until)
        replica.open_reading(until)
        replica.confirm(place.position, until)
    finally:
        replica.resume(Deadline.after(_PAUSED))
    return place.position


def _table(primary: Comparer, replica: Comparer, table: Table, shape: Shape, count: _Count, deadline: Deadline) -> None:
    after: Key | None = None
    while True:
        deadline.require(f"{table} to be compared")
        began = time.monotonic()
        upto = primary.bound(table, shape, after, count.size, deadline) if shape.key else None
        mine = primary.fold(table, shape, after, upto, deadline)
        theirs = replica.fold(table, shape, after, upto, deadline)
        if mine != theirs:
            count.differences.extend(_differences(primary, replica, table, shape, after, upto, mine, theirs, deadline))
        count.rows += mine.rows
        count.chunks += 1
        if upto is None:
            return
        after = upto
        _pace(count, time.monotonic() - began, deadline)


def _pace(count: _Count, took: float, deadline: Deadline) -> None:
    """Chunks are as large as takes a moment, and between them others have their turn."""
    if took < _QUICK:
        count.size = min(_MOST, count.size * 2)
    elif took > _SLOW:
        count.size = max(_LEAST, count.size // 2)
    time.sleep(min(took * _REST, deadline.left))


def _differences(
    primary: Comparer,
    replica: Comparer,
    table: Table,
    shape: Shape,
    after: Key | None,
    upto: Key | None,
    mine: Sum,
    theirs: Sum,
    deadline: Deadline,
) -> Iterator[Difference]:
    low, high = (", ".join(map(str, key)) if key else "" for key in (after, upto))
    if not shape.key:
        what = f"{mine.rows} rows there, {theirs.rows} here, not the same (no primary key: nobody can tell which)"
        yield Difference(str(table), replica.name, low, high, what)
        return
    there = primary.digests(table, shape, after, upto, deadline)
    here = replica.digests(table, shape, after, upto, deadline)
    parts = (
        ("changed", [key for key in there if key in here and here[key] != there[key]]),
        ("missing", [key for key in there if key not in here]),
        ("too many", [key for key in here if key not in there]),
    )
    told = [
        f"{len(keys)} {word} ({', '.join(keys[:_KEYS])}{', …' if len(keys) > _KEYS else ''})"
        for word, keys in parts
        if keys
    ]
    yield Difference(str(table), replica.name, low, high, "; ".join(told) or "the sums differ and the rows do not")


__all__ = ["Comparer", "Comparison", "Difference", "ProxyRouteError", "Shape", "Sum", "compare"]
