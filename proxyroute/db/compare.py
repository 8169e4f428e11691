"""One server's side of a comparison (:class:`proxyroute.verify.Comparer`), by readings that lock nothing.

How an applier is held back, and where a reading stands, is for each flavour to say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from proxyroute.binlog import Table
from proxyroute.db.owning import COMPARE, Permit, own
from proxyroute.db.rebuild import SYSTEM_SCHEMAS
from proxyroute.db.session import Login, Session
from proxyroute.errors import Refused, ServerError, StatementError
from proxyroute.model import Address, Deadline, Source
from proxyroute.verify import Key, Place, Shape, Sum

_UNORDERED = frozenset({"enum", "set", "bit", "float", "double"})
"""Types of key columns that are not compared as they are ordered, or not exactly."""
POLL = 0.005
"""Seconds between two looks at an applier."""


class Compare(ABC):
    """One server. The reading lives in a session of its own, which nothing but reads goes through."""

    digest: str
    """The function that folds up a text, as ``NAME(%s)``."""
    sight: str
    """A system table that only those may read who may read every table."""

    def __init__(self, name: str, address: Address, login: Login, claim: Permit | None = None) -> None:
        """``claim`` raises LeaseLost when the applier is not for us to hold back any more."""
        self.name = name
        self.address = address
        self._login = login
        self._reading = Session(name, address, login)
        self._control = Session(name, address, login)
        self._claim: Permit = claim or (lambda: None)
        self._channel: str | None = None

    # -- standing still --

    @abstractmethod
    def _channels(self, session: Session, deadline: Deadline) -> tuple[Source, ...]:
        """Returns the replication channels."""

    @abstractmethod
    def open_reading(self, deadline: Deadline) -> Place: ...

    def _acting(self, deadline: Deadline) -> Session:
        """The session by which the applier is held back; that of an earlier comparison is ended. Raises LeaseLost."""
        session = self._control.open(deadline)
        own(session, COMPARE, (), self._claim, deadline)
        return session

    def _the_channel(self, deadline: Deadline) -> Source:
        channels = self._channels(self._control.open(deadline), deadline)
        if self._channel is not None:
            channels = tuple(c for c in channels if c.channel == self._channel)
        if len(channels) != 1:
            raise ServerError(self.name, f"replicates by {len(channels) or 'no'} channels; with one it can be compared")
        if channels[0].delay_seconds:
            raise ServerError(self.name, "is delayed on purpose; it cannot be brought to the primary's position")
        return channels[0]

    def _applying(self, start: str, deadline: Deadline) -> Source:
        """Returns the channel, whose applier runs. Raises ServerError; ``start`` is the statement that starts one."""
        channel = self._the_channel(deadline)
        if not channel.applier:
            raise ServerError(self.name, f"its applier is stopped: {channel.error or start}")
        self._channel = channel.channel
        return channel

    def _open_snapshot(self, deadline: Deadline) -> Session:
        session = self._reading.open(deadline)
        session.change("verify.snapshot", "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", deadline)
        session.change("verify.snapshot", "START TRANSACTION WITH CONSISTENT SNAPSHOT", deadline)
        return session

    # -- reading --

    def tables(self, deadline: Deadline) -> Mapping[Table, Shape]:
        session = self._control.open(deadline)
        self._require_sight(session, deadline)
        engines = session.read(
            "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS t, ENGINE AS e FROM information_schema.TABLES"
            " WHERE TABLE_TYPE='BASE TABLE' AND TABLE_SCHEMA NOT IN %s",
            deadline,
            (SYSTEM_SCHEMAS,),
        )
        columns = session.read(
            "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS t, COLUMN_NAME AS c, DATA_TYPE AS d"
            " FROM information_schema.COLUMNS WHERE TABLE_SCHEMA NOT IN %s"
            " AND EXTRA NOT LIKE '%%VIRTUAL%%' ORDER BY ORDINAL_POSITION",
            deadline,
            (SYSTEM_SCHEMAS,),
        )
        keys = session.read(
            "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS t, COLUMN_NAME AS c, SUB_PART AS part"
            " FROM information_schema.STATISTICS WHERE INDEX_NAME='PRIMARY' AND TABLE_SCHEMA NOT IN %s"
            " ORDER BY SEQ_IN_INDEX",
            deadline,
            (SYSTEM_SCHEMAS,),
        )
        found = {}
        for row in engines:
            table = Table(str(row["s"]), str(row["t"]))
            types = {str(c["c"]): str(c["d"]).lower() for c in columns if (c["s"], c["t"]) == (row["s"], row["t"])}
            key = [k for k in keys if (k["s"], k["t"]) == (row["s"], row["t"])]
            plain = all(k["part"] is None and types.get(str(k["c"]), "enum") not in _UNORDERED for k in key)
            obstacle = "" if row["e"] == "InnoDB" else f"{row['e']} has no reading at a position"
            if any("%" in name for name in (*table, *types)):
                obstacle = "a percent sign in its name, or in that of a column"
            found[table] = Shape(tuple(types), tuple(str(k["c"]) for k in key) if plain else (), obstacle)
        return found

    def _require_sight(self, session: Session, deadline: Deadline) -> None:
        """Whoever may not read a table is not even told that there is one: all that is left would be equal."""
        try:
            session.read(f"SELECT 1 FROM {self.sight} LIMIT 0", deadline)
        except StatementError as error:
            raise Refused(
                f"{self.name}: {self._login.user} may not read every table (SELECT on *.*), and what it cannot see "
                "cannot be compared; set rejoin.account, whose privileges 'proxyroute grants' prints"
            ) from error

    def bound(self, table: Table, shape: Shape, after: Key | None, rows: int, deadline: Deadline) -> Key | None:
        where, args = _range(shape, after, None)
        key = ", ".join(map(_quoted, shape.key))
        sql = f"SELECT {key} FROM {_name(table)}{where} ORDER BY {key} LIMIT {rows - 1:d}, 1"
        row = self._reading.one(sql, deadline, args)
        return tuple(row.values()) if row else None

    def fold(self, table: Table, shape: Shape, after: Key | None, upto: Key | None, deadline: Deadline) -> Sum:
        where, args = _range(shape, after, upto)
        digest = f"CAST(CONV(LEFT({self._digest(shape)}, 15), 16, 10) AS UNSIGNED)"
        sql = f"SELECT COUNT(*) AS n, COALESCE(SUM({digest}), 0) AS total FROM {_name(table)}{where}"
        row = self._reading.one(sql, deadline, args)
        return Sum(int(row["n"]), int(row["total"]))

    def digests(
        self, table: Table, shape: Shape, after: Key | None, upto: Key | None, deadline: Deadline
    ) -> Mapping[str, str]:
        where, args = _range(shape, after, upto)
        key = ", ".join(map(_quoted, shape.key))
        rows = self._reading.read(f"SELECT {key}, {self._digest(shape)} FROM {_name(table)}{where}", deadline, args)
        found = {}
        for row in rows:
            *values, digest = row.values()
            found[", ".join(map(str, values))] = str(digest)
        return found

    def _digest(self, shape: Shape) -> str:
        """One per row: each column's own first, so that no length can overflow and no two columns run together."""
        each = (self.digest % f"CAST({_quoted(c)} AS BINARY)" for c in shape.columns)
        columns = ", ".join(f"COALESCE({digest}, '-')" for digest in each)
        return self.digest % f"CONCAT({columns})"

    def close_reading(self) -> None:
        self._reading.close()

    def close(self) -> None:
        """Ends every session; never raises."""
        self._reading.close()
        self._control.close()


def _range(shape: Shape, after: Key | None, upto: Key | None) -> tuple[str, tuple[Any, ...]]:
    conditions: list[str] = []
    args: list[Any] = []
    for key, sign in ((after, ">"), (upto, "<")):
        if key is None:
            continue
        alternatives = []
        for length in range(1, len(key) + 1):
            equal = [f"{_quoted(c)}=%s" for c in shape.key[: length - 1]]
            last = sign if length < len(key) or sign == ">" else "<="
            alternatives.append(" AND ".join([*equal, f"{_quoted(shape.key[length - 1])}{last}%s"]))
            args += key[:length]
        # the first column once more, by itself: that is what the index is entered by
        conditions.append(f"{_quoted(shape.key[0])}{sign}=%s AND ({' OR '.join(alternatives)})")
        args.insert(len(args) - sum(range(1, len(key) + 1)), key[0])
    return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), tuple(args)


def _name(table: Table) -> str:
    return f"{_quoted(table.schema)}.{_quoted(table.name)}"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
