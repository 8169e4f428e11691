"""A MariaDB server on which nobody commits for a moment, whatever his privileges: what is read then stays true.

``read_only`` does not stop an account with READ_ONLY ADMIN. The global read lock does (10.11.19), and RESET MASTER and
``gtid_binlog_state`` go through under one's own; ``gtid_slave_pos``, which is a table, does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from proxyroute.db.session import Session
from proxyroute.errors import ServerError, TimedOut
from proxyroute.model import Deadline

_ATTEMPT = 10.0
"""Seconds for the lock; while it is pending, others wait as well."""
_UNLOCK = 5.0


@contextlib.contextmanager
def held(session: Session, deadline: Deadline) -> Iterator[None]:
    """Holds all writes back for a ``with`` block, in ``session``; replication must have been stopped before.

    Raises StatementError when the lock was not to be had: somebody's statement runs on.
    """
    seconds = min(_ATTEMPT, deadline.require(f"the write lock on {session.server}"))
    lock = f"SET STATEMENT max_statement_time={seconds:.3f} FOR FLUSH TABLES WITH READ LOCK"
    session.change("rejoin.hold_writes", lock, deadline)
    try:
        yield
    finally:
        if session.is_open:  # else the lock has gone with it
            with contextlib.suppress(ServerError, TimedOut):
                session.change("rejoin.release_writes", "UNLOCK TABLES", Deadline.firm(_UNLOCK))
