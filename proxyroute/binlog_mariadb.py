"""The events in which a MariaDB server's transactions begin and end."""

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
from proxyroute.gtid import GTID, MariaDBPosition
from proxyroute.logged import Logged

GTID_EVENT, GTID_LIST, START_ENCRYPTION, CHECKPOINT = 162, 163, 164, 161
_QUERY_COMPRESSED, _ANNOTATE = 165, 160
_STANDALONE, _TRANSACTIONAL, _DDL, _XA_PREPARED, _XA_COMPLETED = 1, 4, 32, 64, 128


def state(body: bytes) -> MariaDBPosition:
    """Returns what a GTID list says that the server had when the file was begun."""
    (count,) = struct.unpack_from("<I", body)
    entries = (struct.unpack_from("<IIQ", body, 4 + 16 * n) for n in range(count & 0x0FFFFFFF))
    return MariaDBPosition(tuple(GTID(*entry) for entry in entries))


def begun(file: str, event: Event) -> Logged:
    """Returns the transaction that begins with ``event``."""
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


def extended(current: Logged, event: Event) -> tuple[Logged, bool]:
    """Returns the transaction with one more event, and whether that was its last."""
    if event.kind == XID:
        return current, True
    if event.kind == _ANNOTATE:
        return replace(current, statements=(*current.statements, text_of(event.body))), False
    if (more := with_rows(current, event)) is not None:
        return more, False
    if event.kind == QUERY:
        query = query_of(event.body)
        if not current.standalone and query.upper() in ENDS:
            return current, True
        if query.upper().startswith(b"SAVEPOINT "):
            return current, False
        current = replace(current, statements=(*current.statements, text_of(query)))
    # statements, in one coating or another, their variables, files that were loaded, XA
    return replace(current, rows_only=False), event.kind == XA_PREPARE or (
        current.standalone and event.kind in (QUERY, _QUERY_COMPRESSED)
    )
