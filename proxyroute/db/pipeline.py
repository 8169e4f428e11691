"""Several reading statements in one round trip, and their results without what a driver does for any statement.

A probe asks every server the same three statements every second. Sent one after the other and taken apart by PyMySQL,
most of their cost is waking up between them and parsing the definitions of ninety columns that never change. Here they
leave in one piece, and definitions that came before, byte by byte, are not parsed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from pymysql import err
from pymysql.constants import COMMAND, CR, FIELD_TYPE
from pymysql.converters import through
from pymysql.protocol import FieldDescriptorPacket

from proxyroute.model import Deadline

Row = dict[str, Any]
_Column = tuple[str, str | None, Callable[[Any], Any] | None]
"""Its name, the encoding of its values (None: bytes), and what makes a value of the text."""

_TEXTS = frozenset(
    (FIELD_TYPE.BIT, FIELD_TYPE.BLOB, FIELD_TYPE.LONG_BLOB, FIELD_TYPE.MEDIUM_BLOB, FIELD_TYPE.STRING,
     FIELD_TYPE.TINY_BLOB, FIELD_TYPE.VAR_STRING, FIELD_TYPE.VARCHAR, FIELD_TYPE.GEOMETRY)
)  # fmt: skip
_BINARY = 63
_LONGEST = 0xFFFFFF
_ERROR, _END, _NULL = 0xFF, 0xFE, 0xFB
_AT_ONCE = 1 << 16
_KEPT = 8
"""Definitions that are remembered of one statement: servers of different versions send different ones."""

_known: dict[str, list[tuple[bytes, tuple[_Column, ...]]]] = {}


def ask(connection: Any, statements: Sequence[str], deadline: Deadline) -> tuple[list[list[Row]], float]:
    """Returns the rows of each statement, and the seconds until the first had been answered.

    Raises what PyMySQL raises: of a statement that the server refuses once the others are read, so that the connection
    can be used on; or OperationalError when no answer came by the deadline, and the connection is closed then.
    """
    reply = _Reply(connection, deadline)
    began = time.monotonic()
    reply.ask_for(statements)
    found: list[list[Row]] = []
    refused: bytes = b""
    first = 0.0
    for statement in statements:
        rows, error = reply.result(statement)
        first = first or time.monotonic() - began
        found.append(rows)
        refused = refused or error
    if refused:
        err.raise_mysql_exception(refused)
    return found, first


class _Reply:
    """What comes back on one connection."""

    def __init__(self, connection: Any, deadline: Deadline) -> None:
        self._connection = connection
        self._deadline = deadline
        self._data = b""
        self._at = 0

    def ask_for(self, statements: Sequence[str]) -> None:
        parts = []
        for statement in statements:
            body = bytes([COMMAND.COM_QUERY]) + statement.encode()
            parts.append(len(body).to_bytes(3, "little") + b"\0" + body)
        connection = self._connection
        connection._result = None
        try:
            self._wait_at_most(self._deadline.left)
            connection._sock.sendall(b"".join(parts))
        except OSError as error:
            connection._force_close()
            raise err.OperationalError(CR.CR_SERVER_GONE_ERROR, f"MySQL server has gone away ({error!r})") from error

    def result(self, statement: str) -> tuple[list[Row], bytes]:
        """Returns the rows of the next reply, or the error packet that came instead."""
        start = self._at
        columns = self._known_columns(statement)
        if columns is None:
            begin, end = self._packet(first=True)
            if self._data[begin] == _ERROR:
                return [], self._data[begin:end]
            count = self._data[begin]
            if not count:
                return [], b""  # a statement without a result
            columns = self._columns(count)
            known = [(self._data[start : self._at], columns), *_known.get(statement, ())]
            _known[statement] = known[:_KEPT]
        rows: list[Row] = []
        while True:
            begin, end = self._packet()
            head = self._data[begin]
            if head == _END and end - begin < 9:
                return rows, b""
            if head == _ERROR:
                return [], self._data[begin:end]
            rows.append(self._row(begin, columns))

    def _known_columns(self, statement: str) -> tuple[_Column, ...] | None:
        """Goes past the definitions of the columns if they came before, and returns what was found in them then."""
        if len(self._data) == self._at:
            self._receive()
        for definitions, columns in _known.get(statement, ()):
            if self._data.startswith(definitions, self._at):
                self._at += len(definitions)
                return columns
        return None

    def _columns(self, count: int) -> tuple[_Column, ...]:
        """By the same rules as PyMySQL's."""
        found: list[_Column] = []
        for _ in range(count):
            begin, end = self._packet()
            field: Any = FieldDescriptorPacket(self._data[begin:end], self._connection.encoding)
            encoding: str | None = "ascii"
            if field.type_code == FIELD_TYPE.JSON:
                encoding = self._connection.encoding
            elif field.type_code in _TEXTS:
                encoding = None if field.charsetnr == _BINARY else self._connection.encoding
            converter = self._connection.decoders.get(field.type_code)
            found.append((field.name, encoding, None if converter is through else converter))
        self._packet()
        return tuple(found)

    def _row(self, at: int, columns: Sequence[_Column]) -> Row:
        data = self._data
        row: Row = {}
        for name, encoding, converter in columns:
            size = data[at]
            at += 1
            if size == _NULL:
                row[name] = None
                continue
            if size > _NULL:
                wide = {0xFC: 2, 0xFD: 3, 0xFE: 8}[size]
                size = int.from_bytes(data[at : at + wide], "little")
                at += wide
            value: Any = data[at : at + size]
            at += size
            if encoding is not None:
                value = value.decode(encoding)
            row[name] = converter(value) if converter is not None else value
        return row

    def _packet(self, *, first: bool = False) -> tuple[int, int]:
        """Returns where the next packet begins and ends, once all of it is there."""
        self._need(4)
        size = int.from_bytes(self._data[self._at : self._at + 3], "little")
        if size == _LONGEST or (first and self._data[self._at + 3] == 0):
            # what comes unasked is a server that shuts down, and says so
            self._connection._force_close()
            raise err.OperationalError(CR.CR_SERVER_LOST, "Lost connection to MySQL server during query")
        self._need(4 + size)
        begin = self._at + 4
        self._at = begin + size
        return begin, self._at

    def _need(self, size: int) -> None:
        while len(self._data) - self._at < size:
            self._receive()

    def _receive(self) -> None:
        try:
            self._wait_at_most(self._deadline.left)
            found = self._connection._sock.recv(_AT_ONCE)
        except OSError as error:
            self._connection._force_close()
            text = f"Lost connection to MySQL server during query ({error})"
            raise err.OperationalError(CR.CR_SERVER_LOST, text) from error
        if not found:
            self._connection._force_close()
            raise err.OperationalError(CR.CR_SERVER_LOST, "Lost connection to MySQL server during query")
        self._data += found

    def _wait_at_most(self, seconds: float) -> None:
        if seconds <= 0:
            raise TimeoutError("timed out")
        self._connection._sock.settimeout(seconds)
        self._connection._current_timeout = seconds
