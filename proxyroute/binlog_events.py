"""Events of a binary log, as both flavours write them: whole ones, and what their bodies say."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, NamedTuple

from proxyroute.logged import Logged, Table

_HEADER = struct.Struct("<IBIIIH")
QUERY, XID, XA_PREPARE, FORMAT, TABLE_MAP = 2, 16, 38, 15, 19
ROWS_1, ROWS_2 = frozenset({23, 24, 25, 166, 167, 168}), frozenset({30, 31, 32, 169, 170, 171})
_UPDATES = frozenset({24, 31, 167, 170})
ENDS = (b"COMMIT", b"ROLLBACK")
"""Queries that end a transaction."""


class Event(NamedTuple):
    start: int
    end: int
    kind: int
    time: int
    server_id: int
    body: bytes


class Events:
    """The events of a file, up to the first that is not whole; ``cut`` then says what is wrong with it."""

    def __init__(self, file: BinaryIO) -> None:
        self.cut = ""
        self._file = file

    def __iter__(self) -> Iterator[Event]:
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
            if kind == FORMAT:
                checksum = 4 if len(body) > 5 and body[-5] == 1 else 0
            if checksum and not _sums_up(header, body, kind):
                self.cut = f"the event at {start} has a wrong checksum"
                return
            self.cut = ""
            yield Event(start, file.tell(), kind, time, server_id, body[: len(body) - checksum] if checksum else body)


def _sums_up(header: bytes, body: bytes, kind: int) -> bool:
    if kind == FORMAT:  # that the file is in use is noted there, and not summed up
        header = header[:17] + bytes([header[17] & ~1]) + header[18:]
    return zlib.crc32(body[:-4], zlib.crc32(header)) == int.from_bytes(body[-4:], "little")


def with_rows(current: Logged, event: Event) -> Logged | None:
    """Returns the transaction with one more event that is about rows, or about their table; None for any other."""
    if event.kind == TABLE_MAP:
        table = table_of(event.body)
        return current if table in current.tables else replace(current, tables=(*current.tables, table))
    if event.kind in ROWS_1 | ROWS_2:
        return current if is_full(event) else replace(current, full_images=False)
    return None


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def query_of(body: bytes) -> bytes:
    _, _, schema, _, variables = struct.unpack_from("<IIBHH", body)
    return body[13 + int(variables) + int(schema) + 1 :]


def table_of(body: bytes) -> Table:
    length = body[8]
    schema = body[9 : 9 + length]
    at = 10 + length
    name = body[at + 1 : at + 1 + body[at]]
    return Table(text_of(schema), text_of(name))


def is_full(event: Event) -> bool:
    """Tells whether all columns of the table are in the row images of the event."""
    body = event.body
    at = 8
    if event.kind in ROWS_2:
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
