"""One MariaDB server's side of a comparison (:class:`proxyroute.verify.Comparer`), by readings that lock nothing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any

from proxyroute.binlog import Table
from proxyroute.db.mariadb_read import read_channels
from proxyroute.db.mariadb_rebuild import SYSTEM_SCHEMAS
from proxyroute.db.owning import COMPARE, DEAD_MAN, Permit, own
from proxyroute.db.session import Login, Session
from proxyroute.errors import Refused, ServerError, StatementError, TimedOut
from proxyroute.gtid import MariaDBPosition, Position
from proxyroute.model import Address, Deadline, Source
from proxyroute.verify import Key, Place, Shape, Sum

_UNORDERED = frozenset({"enum", "set", "bit", "float", "double"})
"""Types of key columns that are not compared as they are ordered, or not exactly."""
_POLL = 0.005


class MariaDBCompare:
    """One server. The reading lives in a session of its own, which nothing but reads goes through."""

    def __init__(self, name: str, address: Address, login: Login, claim: Permit | None = None) -> None:
        """``claim`` raises LeaseLost when the applier is not for us to hold back any more."""
        self.name = name
        self.address = address
        self._login = login
        self._reading = Session(name, address, login)
        self._control = Session(name, address, login)
        self._claim: Permit = claim or (lambda: None)
        self._switch: Session | None = None
        self._channel: str | None = None

    # -- standing still --

    def pause(self, seconds: float, deadline: Deadline) -> None:
        """The statement that starts the applier again is under way before the applier is stopped."""
        session = self._acting(deadline)
        channel = self._the_channel(deadline)
        if not channel.applier:
            raise ServerError(self.name, f"its applier is stopped: {channel.error or 'START SLAVE SQL_THREAD'}")
        self._channel = channel.channel
        own(session, COMPARE, (DEAD_MAN,), self._claim, deadline)
        switch = Session(self.name, self.address, self._login).open(deadline)
        statement = f"BEGIN NOT ATOMIC DO GET_LOCK(%s, 0); DO SLEEP(%s); START SLAVE {self._quoted} SQL_THREAD; END"

        def run() -> None:
            with contextlib.suppress(ServerError, TimedOut):  # ended by resume, as it should be
                switch.change("verify.dead_man", statement, Deadline.after(seconds + 5.0), (DEAD_MAN, seconds))

        self._switch = switch
        threading.Thread(target=run, name=f"verify-{self.name}", daemon=True).start()
        while session.one("SELECT IS_USED_LOCK(%s) AS id", deadline, (DEAD_MAN,))["id"] is None:
            deadline.require(f"{self.name} to promise that it goes on")
            time.sleep(_POLL)
        session.change("verify.pause", f"STOP SLAVE {self._quoted} SQL_THREAD", deadline)

    def _acting(self, deadline: Deadline) -> Session:
        """The session by which the applier is held back; that of an earlier comparison is ended. Raises LeaseLost."""
        session = self._control.open(deadline)
        own(session, COMPARE, (), self._claim, deadline)
        return session

    @property
    def _quoted(self) -> str:
        name = (self._channel or "").replace("\\", "\\\\").replace("'", "''")
        return f"'{name}'"

    def _the_channel(self, deadline: Deadline) -> Source:
        channels = read_channels(self._control.open(deadline), deadline)
        if self._channel is not None:
            channels = tuple(c for c in channels if c.channel == self._channel)
        if len(channels) != 1:
            raise ServerError(self.name, f"replicates by {len(channels) or 'no'} channels; with one it can be compared")
        if channels[0].delay_seconds:
            raise ServerError(self.name, "is delayed on purpose; it cannot be brought to the primary's position")
        return channels[0]

    def _applied(self, deadline: Deadline) -> MariaDBPosition:
        row = self._control.open(deadline).one("SELECT @@global.gtid_slave_pos AS pos", deadline)
        return MariaDBPosition.parse(row["pos"] or "")

    def advance(self, place: Place, deadline: Deadline) -> None:
        """By file and offset: UNTIL with a GTID wants the receiver stopped, and its relay logs would be gone with that.

        That a replica follows somebody else than the primary, with other files, is seen by :meth:`confirm`.
        """
        goal = _mariadb(place.position).latest()
        if self._applied(deadline).alongside(goal) == goal:
            return
        statement = f"START SLAVE {self._quoted} SQL_THREAD UNTIL MASTER_LOG_FILE=%s, MASTER_LOG_POS=%s"
        self._control.change("verify.advance", statement, deadline, (place.file, place.offset))
        while (channel := self._the_channel(deadline)).applier:
            deadline.require(f"{self.name} to apply up to {goal}")
            time.sleep(_POLL)
        if channel.error:
            raise ServerError(self.name, f"could not apply up to {goal}: {channel.error}")
        self.confirm(goal, deadline)

    def confirm(self, position: Position, deadline: Deadline) -> None:
        goal = _mariadb(position).latest()
        applied = self._applied(deadline).alongside(goal)
        if applied != goal or self._the_channel(deadline).applier:
            raise ServerError(self.name, f"stands at {applied} and not at {goal}, where it is to be compared")

    def resume(self, deadline: Deadline) -> None:
        if self._channel is None:
            return
        session = self._acting(deadline)
        if not self._the_channel(deadline).applier:
            session.change("verify.resume", f"START SLAVE {self._quoted} SQL_THREAD", deadline)
        own(session, COMPARE, (DEAD_MAN,), self._claim, deadline)
        self._switch = None

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
            session.read("SELECT 1 FROM mysql.gtid_slave_pos LIMIT 0", deadline)
        except StatementError as error:
            raise Refused(
                f"{self.name}: {self._login.user} may not read every table (SELECT on *.*), and what it cannot see "
                "cannot be compared; set rejoin.account, whose privileges 'proxyroute grants' prints"
            ) from error

    def open_reading(self, deadline: Deadline) -> Place:
        session = self._reading.open(deadline)
        session.change("verify.snapshot", "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", deadline)
        session.change("verify.snapshot", "START TRANSACTION WITH CONSISTENT SNAPSHOT", deadline)
        rows = session.read("SHOW STATUS LIKE 'binlog_snapshot_%'", deadline)
        told = {str(row["Variable_name"]).lower(): row["Value"] for row in rows}
        file, offset = str(told.get("binlog_snapshot_file") or ""), int(told.get("binlog_snapshot_position") or 0)
        if not file:
            return Place(MariaDBPosition(), "", 0)
        row = session.one("SELECT BINLOG_GTID_POS(%s, %s) AS pos", deadline, (file, offset))
        return Place(MariaDBPosition.parse(row["pos"] or ""), file, offset)

    def bound(self, table: Table, shape: Shape, after: Key | None, rows: int, deadline: Deadline) -> Key | None:
        where, args = _range(shape, after, None)
        key = ", ".join(map(_quoted, shape.key))
        sql = f"SELECT {key} FROM {_name(table)}{where} ORDER BY {key} LIMIT {rows - 1:d}, 1"
        row = self._reading.one(sql, deadline, args)
        return tuple(row.values()) if row else None

    def fold(self, table: Table, shape: Shape, after: Key | None, upto: Key | None, deadline: Deadline) -> Sum:
        where, args = _range(shape, after, upto)
        digest = f"CAST(CONV(LEFT({_digest(shape)}, 15), 16, 10) AS UNSIGNED)"
        sql = f"SELECT COUNT(*) AS n, COALESCE(SUM({digest}), 0) AS total FROM {_name(table)}{where}"
        row = self._reading.one(sql, deadline, args)
        return Sum(int(row["n"]), int(row["total"]))

    def digests(
        self, table: Table, shape: Shape, after: Key | None, upto: Key | None, deadline: Deadline
    ) -> Mapping[str, str]:
        where, args = _range(shape, after, upto)
        key = ", ".join(map(_quoted, shape.key))
        rows = self._reading.read(f"SELECT {key}, {_digest(shape)} FROM {_name(table)}{where}", deadline, args)
        found = {}
        for row in rows:
            *values, digest = row.values()
            found[", ".join(map(str, values))] = str(digest)
        return found

    def close_reading(self) -> None:
        self._reading.close()

    def close(self) -> None:
        """Ends every session; never raises."""
        self._reading.close()
        self._control.close()


def _mariadb(position: Position) -> MariaDBPosition:
    if not isinstance(position, MariaDBPosition):
        raise TypeError("a MariaDB server cannot stand at a position of another flavour")
    return position


def _digest(shape: Shape) -> str:
    """One digest per row: each column's own first, so that no length can overflow and no two columns run together."""
    columns = ", ".join(f"COALESCE(MD5(CAST({_quoted(c)} AS BINARY)), '-')" for c in shape.columns)
    return f"MD5(CONCAT({columns}))"


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
