"""Sessions that own the work on one server: of all that rebuild it or hold back its applier, one at a time.

Whoever gets the claim on a server ends the sessions of the one before by the locks that they hold. A session takes its
lock first and asks its permit after that: locked before the next owner looked, it is ended; locked later, its permit is
refused, for the claim had gone by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from proxyroute.db.session import Session
from proxyroute.errors import StatementError
from proxyroute.model import Deadline

REBUILD, LOAD, COMPARE, DEAD_MAN = (
    "proxyroute/rejoin",
    "proxyroute/rejoin/load",
    "proxyroute/verify/acting",
    "proxyroute/verify",
)
"""The locks. LOAD is that of the client which loads a dump, DEAD_MAN of the statement that starts an applier again."""
FILL_UNLOGGED = (
    "BEGIN NOT ATOMIC SET SESSION sql_log_bin=0, max_statement_time=0; DO GET_LOCK('{load}', 0);"
    " IF NOT (IS_USED_LOCK('{rebuild}') <=> {owner:d}) THEN"
    " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='another rejoin has taken this server over'; END IF; END"
)
"""What a client does first that loads a dump for the session ``owner``; it ends at once when that has been ended."""
FILL_UNLOGGED_MYSQL = (
    "SET SESSION sql_log_bin = IF(GET_LOCK('{load}', 0) = 1 AND IS_USED_LOCK('{rebuild}') <=> {owner:d},"
    " 'OFF', 'another rejoin has taken this server over')"
)
"""The same for MySQL, which has no statement made of others: a value that is none ends it."""
_NO_SUCH_THREAD = 1094
_POLL = 0.02

Permit = Callable[[], None]
"""Raises LeaseLost when nothing may be done any more."""


def own(session: Session, lock: str, others: Sequence[str], permit: Permit, deadline: Deadline) -> None:
    """Makes ``session`` the one that has ``lock``, and ends those that have it or one of ``others``.

    Raises LeaseLost when that is not for us any more, TimedOut when one of them does not end.
    """
    while True:
        # read before the permit is asked: who comes after that belongs to a later claim, and is never ended by us
        owner = _owner(session, lock, deadline)
        permit()
        if owner == session.id:
            break
        if owner is None:
            session.change("rejoin.own", "SELECT GET_LOCK(%s, 0)", deadline, (lock,))
            continue
        _end(session, owner, deadline)
    for other in others:
        while True:
            owner = _owner(session, other, deadline)
            permit()
            if owner is None:
                break
            _end(session, owner, deadline)


def _owner(session: Session, lock: str, deadline: Deadline) -> int | None:
    owner = session.one("SELECT IS_USED_LOCK(%s) AS id", deadline, (lock,))["id"]
    return None if owner is None else int(owner)


def _end(session: Session, owner: int, deadline: Deadline) -> None:
    deadline.require(f"session {owner} of an earlier rejoin on {session.server} to end")
    try:
        session.change("rejoin.end_older", f"KILL /*M! HARD */ CONNECTION {owner:d}", deadline)
    except StatementError as error:
        if error.errno != _NO_SUCH_THREAD:
            raise
    time.sleep(_POLL)
