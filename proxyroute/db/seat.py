"""A named lock on one server, in a session that the server ends when it has not been heard of for a while."""

from __future__ import annotations

import hashlib

from proxyroute.db.session import Login, Session
from proxyroute.errors import Unreachable
from proxyroute.model import Address, Deadline

_LONGEST = 64
"""Characters that the name of a lock may have."""
_HOLDER = """
SELECT IS_USED_LOCK(%s) AS id, (SELECT host FROM information_schema.processlist WHERE id = IS_USED_LOCK(%s)) AS host
"""


class LockSeat:
    """The lock ``lock`` on one server. Implements :class:`proxyroute.lease.database.Seat`."""

    def __init__(self, name: str, address: Address, login: Login, lock: str, seconds: float) -> None:
        self.name = name
        self._session = Session(name, address, login)
        self._lock = f"proxyroute/{lock}"
        if len(self._lock) > _LONGEST:
            self._lock = f"proxyroute/{hashlib.sha256(lock.encode()).hexdigest()[:32]}"
        self._seconds = round(seconds)

    @property
    def is_open(self) -> bool:
        return self._session.is_open

    def take(self, deadline: Deadline) -> str:
        """Takes the lock and returns an empty string, or returns who has it."""
        self._session.open(deadline)
        self._session.change("lease.seat", f"SET SESSION wait_timeout={self._seconds:d}", deadline)
        took = self._session.change("lease.seat", "SELECT GET_LOCK(%s, 0) AS took", deadline, (self._lock,))
        if took[0]["took"] == 1:
            return ""
        return self.holder(deadline) or f"somebody who has just left {self.name}"

    def holds(self, deadline: Deadline) -> bool:
        """Asks the server, which also tells it that we are there."""
        return self._session.one("SELECT IS_USED_LOCK(%s) = CONNECTION_ID() AS ours", deadline, (self._lock,)) == {
            "ours": 1
        }

    def holder(self, deadline: Deadline) -> str:
        """Returns whose session has the lock, by its address."""
        row = self._session.open(deadline).one(_HOLDER, deadline, (self._lock, self._lock))
        if not row:
            raise Unreachable(self.name, "gave no answer")
        return f"session {row['id']} from {row['host'] or 'an unknown host'} on {self.name}" if row["id"] else ""

    def leave(self) -> None:
        self._session.abandon()
