"""The words of a statement as an older MySQL knows them, and the columns of its answer by their newer names.

Everything in this package is written in the words of the newest series. They came one by one (release notes of MySQL
8.0.22, 8.0.23, 8.0.26 and 8.2.0): a server from before is asked in those it has. **Untested on a server**: where the
tests run there is none older than 9.7, so these are compared word by word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

Version = tuple[int, int, int]

FLOOR: Version = (8, 0, 17)
"""Older ones are refused: they have no clone plugin, and privileges of other names."""

_NEWEST: Version = (8, 2, 0)
"""From here on nothing is spelled otherwise."""

_RULES: tuple[tuple[Version, re.Pattern[str], str], ...] = tuple(
    (since, re.compile(pattern), older)
    for since, pattern, older in (
        ((8, 2, 0), r"^SHOW BINARY LOG STATUS\b", "SHOW MASTER STATUS"),
        ((8, 2, 0), r"^RESET BINARY LOGS AND GTIDS\b", "RESET MASTER"),
        ((8, 0, 26), r"@@global\.log_replica_updates\b", "@@global.log_slave_updates"),
        ((8, 0, 26), r"@@global\.replica_(\w+)", r"@@global.slave_\1"),
        ((8, 0, 23), r"^CHANGE REPLICATION SOURCE TO\b", "CHANGE MASTER TO"),
        ((8, 0, 22), r"^(SHOW|START|STOP|RESET) REPLICA\b", r"\1 SLAVE"),
        ((8, 0, 22), r"^SHOW REPLICAS\b", "SHOW SLAVE HOSTS"),
    )
)  # each with the version that brought the newer words
_CHANNEL_KEY = re.compile(r"\b(GET_)?SOURCE_(?!CONNECTION_AUTO_FAILOVER)(\w+=)")  # that one came with its name
_CHANNEL_KEYS_SINCE: Version = (8, 0, 23)
_SHOWN_SINCE: Version = (8, 0, 22)


def spelled(sql: str, version: Version) -> str:
    """Returns ``sql``, in the words of the newest series, as a server of ``version`` knows it.

    ``sql`` is what this package has written; values that are not ours go beside it, as arguments, and are not touched.
    """
    if version >= _NEWEST:
        return sql
    if version < _CHANNEL_KEYS_SINCE and sql.startswith("CHANGE REPLICATION SOURCE TO"):
        sql = _CHANNEL_KEY.sub(r"\1MASTER_\2", sql)
    for since, pattern, older in _RULES:
        if version < since:
            sql = pattern.sub(older, sql)
    return sql


def renamed(sql: str, rows: Iterable[dict[str, Any]], version: Version) -> list[dict[str, Any]]:
    """Returns ``rows``, the answer of a server of ``version`` to ``sql`` before it was spelled, by the newer names."""
    if version >= _SHOWN_SINCE or not sql.startswith("SHOW REPLICA STATUS"):
        return list(rows)
    return [{_newer(column): value for column, value in row.items()} for row in rows]


def _newer(column: str) -> str:
    return column.replace("Master", "Source").replace("master", "Source").replace("Slave", "Replica")
