"""Writes held back on a MySQL server (tried on 9.7)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from proxyroute.db.freeze import REPLY, Freeze, lock_name
from proxyroute.db.session import Session
from proxyroute.errors import ServerError, StatementError, TimedOut
from proxyroute.model import Deadline
from proxyroute.policy import Policy

LOCK_TIMEOUTS = frozenset({1205, 1317})
BOUNDED = "SET SESSION lock_wait_timeout=1"
"""The shortest there is: nothing of ours waits longer for a lock, and makes others wait, if we die meanwhile."""
_NEVER = "ffffffff-ffff-ffff-ffff-ffffffffffff:1"
"""A transaction that nobody makes: who waits for it waits until the time is over."""
_ARM = (
    "SET GLOBAL super_read_only = IF(IS_USED_LOCK(%s) IS NULL, NULL, 1 + 0 * COALESCE(RELEASE_LOCK(%s), 0)"
    " + 0 * GET_LOCK(%s, 0) + 0 * WAIT_FOR_EXECUTED_GTID_SET(%s, %s))"
)


class MySQLFreeze(Freeze):
    """By FLUSH TABLES WITH READ LOCK; a third session ends an attempt whose time is over."""

    def __init__(self, server: str, session: Callable[[], Session]) -> None:
        super().__init__(server, session)
        self._side = session()

    @property
    def _that_lock(self) -> tuple[Session, ...]:
        return (self._lock, self._switch)

    @property
    def ids(self) -> frozenset[int]:
        return super().ids | {self._side.id}

    def connect(self, operation: str, deadline: Deadline) -> None:
        super().connect(operation, deadline)
        for session in (self._lock, self._switch):
            session.change("mariadb.bound_lock", BOUNDED, deadline)
        self._side.open(deadline).mark(deadline)

    def _attempt(self, seconds: float, policy: Policy, deadline: Deadline) -> bool:
        """The server itself bounds it to a second at best: that is for the case that we die."""
        side = self._side.open(deadline)
        over = threading.Event()

        def end() -> None:
            if not over.wait(seconds):
                with contextlib.suppress(ServerError, TimedOut):
                    side.change("mariadb.end_attempt", f"KILL QUERY {self._lock.id:d}", Deadline.after(REPLY))

        watcher = threading.Thread(target=end, name=f"lock-{self._server}", daemon=True)
        watcher.start()
        try:
            self._lock.change("mariadb.block_writes", "FLUSH TABLES WITH READ LOCK", deadline)
        except StatementError as error:
            if error.errno not in LOCK_TIMEOUTS:
                raise
            return False
        finally:
            over.set()
            watcher.join()  # before anything else is sent there, which must not be what is ended
        return True

    def _release(self, deadline: Deadline) -> None:
        self._lock.change("mariadb.unblock_writes", "UNLOCK TABLES", deadline)

    def _close_itself(self, operation: str, seconds: float, mark: str, until: Deadline) -> None:
        """Takes the lock, and closes by one statement: its value is 1, once what stands in it has been done in order.

        A wait for a transaction, unlike SLEEP, does not end when the client is gone (decision 0070).
        """
        names = (lock_name(operation, "engine"), mark, lock_name(operation, "armed"))
        self._switch.change("mariadb.arm", "FLUSH TABLES WITH READ LOCK", until)
        try:
            self._switch.change("mariadb.arm", _ARM, until, (*names, _NEVER, seconds))
        except StatementError:  # it was disarmed, and so its session has ended; or the engine's lock was gone already
            if self._switch.is_open:
                self._switch.change("mariadb.unblock_writes", "UNLOCK TABLES", until)
            raise

    def close(self) -> None:
        self._side.close()
        super().close()
