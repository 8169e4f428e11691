"""Raw files of a MariaDB binary log, read event by event: which transactions are in them, where, and of what kind.

Read from the bytes and not from what ``mariadb-binlog`` prints: there, a statement's own text can look like an event.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from proxyroute.gtid import GTID, MariaDBPosition

_MAGIC, _ENCRYPTED = b"\xfebin", b"\xfdbin"
_HEADER = struct.Struct("<IBIIIH")
_QUERY, _QUERY_COMPRESSED, _XID, _XA_PREPARE, _FORMAT, _TABLE_MAP = 2, 165, 16, 38, 15, 19
_ANNOTATE, _CHECKPOINT, _GTID, _GTID_LIST, _START_ENCRYPTION = 160, 161, 162, 163, 164
_ROWS_1, _ROWS_2 = frozenset({23, 24, 25, 166, 167, 168}), frozenset({30, 31, 32, 169, 170, 171})
_UPDATES = frozenset({24, 31, 167, 170})
_BETWEEN = frozenset({3, 4, _FORMAT, _CHECKPOINT, _GTID_LIST, _START_ENCRYPTION})
"""Stop, Rotate and what else belongs to no transaction."""
_STANDALONE, _TRANSACTIONAL, _DDL, _XA_PREPARED, _XA_COMPLETED = 1, 4, 32, 64, 128
_ENDS = (b"COMMIT", b"ROLLBACK")


class Table(NamedTuple):
    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


HALF_BUILT = 4294967295
"""A domain that nobody writes in. A server that has something of it is not whole, and follows nobody by itself."""


@dataclass(frozen=True)
class Logged:
    """One transaction in a binary log."""

    gtid: GTID
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


@dataclass(frozen=True)
class LogFile:
    """One file of a binary log. ``before`` is the server's whole state when the file was begun."""

    name: str
    before: MariaDBPosition
    transactions: tuple[Logged, ...]
    server_id: int = 0
    """Of the server that wrote the file."""
    cut: str = ""
    """What is not whole at its end, in words; empty: it ends with a whole transaction."""


@dataclass(frozen=True)
class Remains:
    """What is found on the host of a server that does not answer."""

    folder: str
    """Its data folder."""
    logs: Mapping[str, int]
    """Files of its binary log, oldest first, with their sizes in bytes."""
    running: tuple[str, ...] = ()
    """Its processes that are there, or may be its, in words: then it is not dead, whatever it answers."""


class _Event(NamedTuple):
    start: int
    end: int
    kind: int
    time: int
    server_id: int
    body: bytes


def read_log(path: Path) -> LogFile:
    """Returns what is in a file of a binary log; a transaction that is cut off at its end is left out, and named.

    An event whose checksum is wrong ends the file as well: a disk may keep a part of what was written last.
    Raises ValueError, naming the file, when it is encrypted or no binary log.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == _ENCRYPTED:
            raise ValueError(f"{path} is encrypted; only its server can read it")
        if magic != _MAGIC:
            raise ValueError(f"{path} is not a file of a binary log")
        before, transactions, server_id = MariaDBPosition(), list[Logged](), 0
        current: Logged | None = None
        events = _Events(file)
        for event in events:
            if event.kind == _FORMAT and not server_id:
                server_id = event.server_id
            if event.kind == _START_ENCRYPTION:
                raise ValueError(f"{path} is encrypted; only its server can read it")
            if event.kind == _GTID_LIST and not transactions and current is None:
                before = _gtid_list(event.body)
            elif event.kind == _GTID:
                current = _begun(path.name, event)
            elif current is not None and event.kind not in _BETWEEN:
                current, over = _with(current, event)
                if over:
                    transactions.append(replace(current, end=event.end))
                    current = None
    cut = events.cut
    if current is not None:
        cut = f"{current.gtid} has no end" + (f": {cut}" if cut else "")
    return LogFile(path.name, before, tuple(transactions), server_id, cut)


class _Events:
    """The events of a file, up to the first that is not whole; ``cut`` then says what is wrong with it."""

    def __init__(self, file: BinaryIO) -> None:
        self.cut = ""
        self._file = file

    def __iter__(self) -> Iterator[_Event]:
        file, checksum = self._file, 0
        while True:
            start = file.tell()
            header = file.read(_HEADER.size)
            if not header:
                return
            self.cut = f"the event at {start} is cut off"
            if len(header) < _HEADER.size:
                return
            time, kind, server_id, length, _, _ = _HEADER.unpack(header)
            body = file.read(max(0, length - _HEADER.size))
            if length < _HEADER.size or len(body) < length - _HEADER.size:
                return
            if kind == _FORMAT:
                checksum = 4 if len(body) > 5 and body[-5] == 1 else 0
            if checksum and not _sums_up(header, body, kind):
                self.cut = f"the event at {start} has a wrong checksum"
                return
            self.cut = ""
            yield _Event(start, file.tell(), kind, time, server_id, body[: len(body) - checksum] if checksum else body)


def _sums_up(header: bytes, body: bytes, kind: int) -> bool:
    if kind == _FORMAT:  # that the file is in use is noted there, and not summed up
        header = header[:17] + bytes([header[17] & ~1]) + header[18:]
    return zlib.crc32(body[:-4], zlib.crc32(header)) == int.from_bytes(body[-4:], "little")


def _gtid_list(body: bytes) -> MariaDBPosition:
    (count,) = struct.unpack_from("<I", body)
    entries = (struct.unpack_from("<IIQ", body, 4 + 16 * n) for n in range(count & 0x0FFFFFFF))
    return MariaDBPosition(tuple(GTID(*entry) for entry in entries))


def _begun(file: str, event: _Event) -> Logged:
    sequence, domain, flags = struct.unpack_from("<QIB", event.body)
    return Logged(
        GTID(domain, event.server_id, sequence),
        file,
        event.start,
        event.end,
        event.time,
        ddl=bool(flags & _DDL),
        transactional=bool(flags & _TRANSACTIONAL),
        xa=bool(flags & (_XA_PREPARED | _XA_COMPLETED)),
        standalone=bool(flags & (_STANDALONE | _XA_COMPLETED)),
        rows_only=not flags & (_STANDALONE | _DDL | _XA_PREPARED | _XA_COMPLETED),
    )


def _with(current: Logged, event: _Event) -> tuple[Logged, bool]:
    """Returns the transaction with one more event, and whether that was its last."""
    if event.kind == _XID:
        return current, True
    if event.kind == _ANNOTATE:
        return replace(current, statements=(*current.statements, _text(event.body))), False
    if event.kind == _TABLE_MAP:
        table = _table(event.body)
        return (current if table in current.tables else replace(current, tables=(*current.tables, table))), False
    if event.kind in _ROWS_1 | _ROWS_2:
        return (current if _is_full(event) else replace(current, full_images=False)), False
    if event.kind == _QUERY:
        query = _query(event.body)
        if not current.standalone and query.upper() in _ENDS:
            return current, True
        if query.upper().startswith(b"SAVEPOINT "):
            return current, False
        current = replace(current, statements=(*current.statements, _text(query)))
    # statements, in one coating or another, their variables, files that were loaded, XA
    return replace(current, rows_only=False), event.kind == _XA_PREPARE or (
        current.standalone and event.kind in (_QUERY, _QUERY_COMPRESSED)
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _query(body: bytes) -> bytes:
    _, _, schema, _, variables = struct.unpack_from("<IIBHH", body)
    return body[13 + int(variables) + int(schema) + 1 :]


def _table(body: bytes) -> Table:
    length = body[8]
    schema = body[9 : 9 + length]
    at = 10 + length
    name = body[at + 1 : at + 1 + body[at]]
    return Table(_text(schema), _text(name))


def _is_full(event: _Event) -> bool:
    """Tells whether all columns of the table are in the row images of the event."""
    body = event.body
    at = 8
    if event.kind in _ROWS_2:
        at += int(struct.unpack_from("<H", body, 8)[0])
    width, at = _packed(body, at)
    size = (width + 7) // 8
    wanted = (1 << width) - 1
    images = 2 if event.kind in _UPDATES else 1
    bitmaps = [int.from_bytes(body[at + n * size : at + (n + 1) * size], "little") for n in range(images)]
    return all(bitmap & wanted == wanted for bitmap in bitmaps)


def _packed(body: bytes, at: int) -> tuple[int, int]:
    first = body[at]
    if first < 251:
        return first, at + 1
    size = {252: 2, 253: 3, 254: 8}[first]
    return int.from_bytes(body[at + 1 : at + 1 + size], "little"), at + 1 + size
