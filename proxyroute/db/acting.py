"""Marks on sessions that may change something, so that whoever gets the lease next can end them.

A mark is one of a few user-level locks with fixed names. It lives and dies with its session, everybody can ask who has
it, and no table, plugin or privilege is needed. Sessions that only read have none, and are left alone.
"""

from __future__ import annotations

from typing import Any

_MARKS = tuple(f"proxyroute/acting/{number}" for number in range(64))
TAKE = "COALESCE(" + ", ".join(f"IF(GET_LOCK('{name}', 0)=1, '{name}', NULL)" for name in _MARKS) + ")"
"""An expression: takes the first that is free and is its name; NULL when all are taken."""
TAKE_MARK = f"SELECT {TAKE} AS mark"
"""Takes one and returns its name, or NULL."""
MARK_SESSION = f"DO {TAKE}"
"""The same for a client program, where nobody reads an answer."""
READ_MARKS = "SELECT " + ", ".join(f"IS_USED_LOCK('{name}') AS mark{n}" for n, name in enumerate(_MARKS))


def marked(row: dict[str, Any]) -> frozenset[int]:
    """Returns the ids of the sessions with a mark, from what ``READ_MARKS`` returned."""
    return frozenset(int(session) for session in row.values() if session is not None)
