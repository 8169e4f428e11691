"""Writes held back on a MySQL server (tried on 9.7)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from proxyroute.db.freeze import REPLY, Freeze, lock_name
from proxyroute.db.mysql_readers import end_readers, is_flushing, is_stuck
from proxyroute.db.session import Session
from proxyroute.errors import ServerError, StatementError, TimedOut
from proxyroute.model import Deadline
from proxyroute.policy import Policy

LOCK_TIMEOUTS = frozenset({1205, 1317})
BOUNDED = "SET SESSION lock_wait_timeout=1"
"""The shortest there is: nothing of ours waits longer for a lock, and makes others wait, if we die meanwhile."""
_LONGEST = 0.8
"""Seconds for an attempt, within those after which the server answers with an error and *keeps* the lock (9.7)."""
_ARM_PATIENCE = 0.05
_READERS_END = 0.3
"""Seconds until the tables of readers that were ended are closed."""
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
        try:
            with self._watched(self._lock, min(seconds, _LONGEST), bounded=True):
                self._lock.change("mariadb.block_writes", "FLUSH TABLES WITH READ LOCK", deadline)
        except StatementError as error:
            if error.errno not in LOCK_TIMEOUTS:
                raise
            self._release(Deadline.after(REPLY))  # it may have it all the same
            return False
        return True

    @contextlib.contextmanager
    def _watched(self, session: Session, seconds: float, *, bounded: bool) -> Iterator[None]:
        """For FLUSH TABLES WITH READ LOCK in ``session``: after ``seconds`` the readers are ended that it waits for.

        Once it has the lock it waits until no statement has a table open any more that was open before. Whoever wants
        such a table, if only to read, waits as well, even if the attempt is given up: until those readers end
        (decision 0076). ``bounded``: if it does not come to its end then, it is ended.
        """
        side = self._side.open(Deadline.after(REPLY))
        over = threading.Event()

        def watch() -> None:
            if over.wait(seconds):
                return
            with contextlib.suppress(ServerError, TimedOut):
                if is_flushing(side, session.id, Deadline.after(REPLY)) and end_readers(side, Deadline.after(REPLY)):
                    over.wait(_READERS_END)
            if bounded and not over.is_set():
                with contextlib.suppress(ServerError, TimedOut):
                    side.change("mariadb.end_attempt", f"KILL QUERY {session.id:d}", Deadline.after(REPLY))

        watcher = threading.Thread(target=watch, name=f"lock-{self._server}", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()  # before anything else is sent there, which must not be what is ended

    def _release(self, deadline: Deadline) -> None:
        self._lock.change("mariadb.unblock_writes", "UNLOCK TABLES", deadline)

    def _close_itself(self, operation: str, seconds: float, mark: str, until: Deadline) -> None:
        """Takes the lock, and closes by one statement: its value is 1, once what stands in it has been done in order.

        A wait for a transaction, unlike SLEEP, does not end when the client is gone (decision 0070).
        """
        names = (lock_name(operation, "engine"), mark, lock_name(operation, "armed"))
        with self._watched(self._switch, _ARM_PATIENCE, bounded=False):
            self._switch.change("mariadb.arm", "FLUSH TABLES WITH READ LOCK", until)
        try:
            self._switch.change("mariadb.arm", _ARM, until, (*names, _NEVER, seconds))
        except StatementError:  # it was disarmed, and so its session has ended; or the engine's lock was gone already
            if self._switch.is_open:
                self._switch.change("mariadb.unblock_writes", "UNLOCK TABLES", until)
            raise

    def end(
        self, operation: str, deadline: Deadline, control: Session, end_session: Callable[[str, int, Deadline], None]
    ) -> None:
        """As for every flavour; and whoever still waits because of an attempt of ours waits no longer.

        That cannot be done without its privilege, or in time: writes are let go all the same.
        """
        super().end(operation, deadline, control, end_session)
        with contextlib.suppress(ServerError, TimedOut):
            if is_stuck(control, deadline):
                end_readers(control, deadline, stuck=True)

    def close(self) -> None:
        self._side.close()
        super().close()
