"""The events in which a MySQL server's transactions begin and end.

A GTID event begins one. What follows it is a query that begins a group of events, which ends with an event of its own;
one query that stands alone (a definition, XA COMMIT); or everything in one compressed event. Tried on 9.7.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from proxyroute.binlog_events import (
    ENDS,
    QUERY,
    XA_PREPARE,
    XID,
    Event,
    query_of,
    text_of,
    with_rows,
)
from proxyroute.gtid import Interval, MySQLPosition, TaggedSource
from proxyroute.logged import Logged, MySQLGTID

GTID_EVENT, TAGGED_GTID, PREVIOUS_GTIDS = 33, 42, 35
_ROWS_QUERY, _PARTIAL_ROWS, _PAYLOAD = 29, 39, 40
_TAGGED_FIELDS = ("flags", "uuid", "number", "tag")
_KEEPS_SAVEPOINTS = (b"SAVEPOINT ", b"ROLLBACK TO ", b"RELEASE SAVEPOINT ")


def state(body: bytes) -> MySQLPosition:
    """Returns what PREVIOUS_GTIDS says that the server had when the file was begun.

    From 8.3 on the first and the last byte of the count say whether sources have tags.
    """
    tagged = body[7] != 0
    count = int.from_bytes(body[1:7] if tagged else body[:8], "little")
    at, sets = 8, list[tuple[TaggedSource, tuple[Interval, ...]]]()
    for _ in range(count):
        uuid, at, tag = _uuid(body[at : at + 16]), at + 16, ""
        if tagged:
            length, at = _number(body, at)
            tag, at = body[at : at + length].decode("ascii"), at + length
        (spans,) = struct.unpack_from("<Q", body, at)
        ends = struct.unpack_from(f"<{2 * spans}Q", body, at + 8)
        at += 8 + 16 * spans
        sets.append((TaggedSource(uuid, tag), tuple((ends[n], ends[n + 1] - 1) for n in range(0, 2 * spans, 2))))
    return MySQLPosition(tuple(sets))


def begun(file: str, event: Event) -> Logged:
    """Returns the transaction that begins with ``event``."""
    gtid = _tagged(event.body) if event.kind == TAGGED_GTID else _plain(event.body)
    return Logged(gtid, file, event.start, event.end, event.time, standalone=True)


def _plain(body: bytes) -> MySQLGTID:
    (number,) = struct.unpack_from("<Q", body, 17)
    return MySQLGTID(TaggedSource(_uuid(body[1:17])), int(number))


def _tagged(body: bytes) -> MySQLGTID:
    """Numbers of varying length: a version, a size, the last field that must be known, and fields by their numbers."""
    at = 0
    for _ in range(3):
        _, at = _number(body, at)
    uuid, number, tag = "", 0, ""
    for name in _TAGGED_FIELDS:
        field, at = _number(body, at)
        if field >= len(_TAGGED_FIELDS) or _TAGGED_FIELDS[field] != name:
            raise ValueError(f"a tagged GTID has field {field} in place of its {name}")
        if name == "uuid":
            parts = []
            for _ in range(16):
                part, at = _number(body, at)
                parts.append(part)
            uuid = _uuid(bytes(parts))
        elif name == "tag":
            length, at = _number(body, at)
            tag = body[at : at + length].decode("ascii")
        else:
            value, at = _number(body, at)
            number = value >> 1 if name == "number" else number  # its lowest bit is the sign
    return MySQLGTID(TaggedSource(uuid, tag), number)


def _number(body: bytes, at: int) -> tuple[int, int]:
    """Returns a number, and where the next one is: as many lowest bits of its first byte are set as bytes follow."""
    more = 0
    while more < 8 and body[at] >> more & 1:
        more += 1
    whole = int.from_bytes(body[at : at + more + 1], "little")
    return whole >> (more + 1 if more < 8 else 8), at + more + 1


def _uuid(data: bytes) -> str:
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def extended(current: Logged, event: Event) -> tuple[Logged, bool]:
    """Returns the transaction with one more event, and whether that was its last."""
    if event.kind == XID:
        return current, True
    if event.kind == _PAYLOAD:
        return replace(current, standalone=False, packed=True), True
    if event.kind == _ROWS_QUERY:
        return replace(current, statements=(*current.statements, text_of(event.body[1:]))), False
    if event.kind == _PARTIAL_ROWS:
        return replace(current, full_images=False), False
    if (more := with_rows(current, event)) is not None:
        return more, False
    if event.kind == QUERY:
        return _queried(current, query_of(event.body))
    # what belongs to a statement: its variables, files that were loaded
    return replace(current, rows_only=False), event.kind == XA_PREPARE


def _queried(current: Logged, query: bytes) -> tuple[Logged, bool]:
    words = query.upper()
    if current.standalone and words == b"BEGIN":
        return replace(current, standalone=False), False
    if current.standalone and words.startswith(b"XA START "):
        return replace(current, standalone=False, xa=True, rows_only=False), False
    if current.standalone:
        xa = words.startswith((b"XA COMMIT ", b"XA ROLLBACK "))
        return replace(current, statements=(text_of(query),), rows_only=False, ddl=not xa, xa=xa), True
    if words in ENDS:  # not by XID: nothing in it could be rolled back, or there is nothing in it
        return replace(current, transactional=not current.tables), True
    if words.startswith(_KEEPS_SAVEPOINTS) or (current.xa and words.startswith(b"XA END ")):
        return current, False
    return replace(current, rows_only=False, statements=(*current.statements, text_of(query))), False
