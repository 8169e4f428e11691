"""Writes held back on one MariaDB server: the session with the lock, and the statement that closes it by itself.

Tried on MariaDB 10.11. Neither outlives the budget of the freeze by much when nobody hears of us any more: the server
ends an idle session with a lock by itself, and what is armed ends in ``read_only``.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable

from proxyroute.db.session import Session
from proxyroute.errors import LostReply, ServerError, StatementError, TimedOut, Unreachable
from proxyroute.model import Deadline, Policy

HOLDERS = ("engine", "armed")
_SESSIONS = ("engine", "switch")
"""Names of the sessions in which writes are held back; ``armed`` is a second name of the latter, once it holds."""
LOCK_TIMEOUTS = frozenset({1205, 1969, 1317, 3024})
_POLL = 0.002
_REPLY = 0.5
"""Seconds for an answer beyond the time that the server itself was given."""
_SPARE = 1
"""Seconds that an idle lock outlives the budget of the freeze; the server counts in whole ones."""
_ARM = """
BEGIN NOT ATOMIC
  IF IS_USED_LOCK(%s) IS NULL THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='writes are not held back any more'; END IF;
  DO RELEASE_LOCK(%s); FLUSH TABLES WITH READ LOCK; DO GET_LOCK(%s, 0); DO SLEEP(%s); SET GLOBAL read_only=1;
END
"""


class Freeze:
    """The two sessions of one server that hold writes back: *lock* has the lock, *switch* the armed statement."""

    def __init__(self, server: str, session: Callable[[], Session]) -> None:
        """``session`` makes one that is not connected yet."""
        self._server = server
        self._lock = session()
        self._switch = session()
        self._stage_held = False
        self._switching: threading.Thread | None = None

    @property
    def ids(self) -> frozenset[int]:
        """The server's ids of the two connections."""
        return frozenset((self._lock.id, self._switch.id))

    def connect(self, operation: str, deadline: Deadline) -> None:
        """Opens both, named before they are used: a statement on its way when we die can be found and ended."""
        self._lock.open(deadline)
        self._switch.open(deadline)
        for session, name in ((self._lock, "engine"), (self._switch, "switch")):
            session.change("mariadb.name_lock", "SELECT GET_LOCK(%s, 0)", deadline, (lock_name(operation, name),))

    def block(self, deadline: Deadline, policy: Policy, blockers: Callable[[], str]) -> None:
        """FLUSH TABLES WITH READ LOCK (or BACKUP STAGE BLOCK_COMMIT) in the lock session.

        Bounded attempts with pauses between them: while the lock is pending, everybody's writes stall. A server that
        no longer hears of us ends the session, and with it the lock. Raises TimedOut with what ``blockers`` says.
        """
        idle = math.ceil(policy.freeze_budget) + _SPARE
        self._lock.change("mariadb.bound_lock", f"SET SESSION wait_timeout={idle:d}", deadline)
        while True:
            attempt = min(policy.lock_attempt, deadline.require(f"the write lock on {self._server}"))
            bound = f"SET STATEMENT max_statement_time={max(attempt, 0.01):.3f} FOR "
            reply_by = Deadline.after(attempt + _REPLY)
            try:
                if policy.freeze == "backup_stage":
                    self._lock.change("mariadb.block_writes", bound + "BACKUP STAGE START", reply_by)
                    self._stage_held = True
                    self._lock.change("mariadb.block_writes", bound + "BACKUP STAGE BLOCK_COMMIT", reply_by)
                else:
                    self._lock.change("mariadb.block_writes", bound + "FLUSH TABLES WITH READ LOCK", reply_by)
                break
            except StatementError as error:
                self._leave_stage(reply_by)
                if error.errno not in LOCK_TIMEOUTS:
                    raise
            if deadline.left <= policy.lock_pause:
                raise TimedOut(f"{self._server}: no write lock within the budget: {blockers()}")
            time.sleep(policy.lock_pause)

    def arm(self, operation: str, seconds: float, deadline: Deadline, armed: Callable[[], bool]) -> None:
        """One statement that the server goes on with after its client is gone (10.11.19: after kill -9 of the client).

        It takes the lock, sleeps, sets read_only, and only then lets the lock go. Ending its session disarms it. One
        that arrives when the engine's lock has ended, which a network can bring about, does nothing: writes go on
        there. ``armed`` tells whether it holds. Raises LostReply when it does not.
        """
        name = lock_name(operation, "armed")
        until = Deadline.after(seconds + 2.0)
        switch = self._switch
        # once it is armed it must outlive us: the next holder of the lease ends it by its name, or not at all
        mark = switch.mark_name or "none"
        args = (lock_name(operation, "engine"), mark, name, seconds)

        def run() -> None:
            with contextlib.suppress(ServerError, TimedOut):  # ended by unblock_writes, as it should be
                switch.change("mariadb.arm", _ARM, until, args)

        self._switching = threading.Thread(target=run, name=f"switch-{self._server}", daemon=True)
        self._switching.start()
        while not armed():
            deadline.require(f"{self._server} to arm")
            if not self._switching.is_alive():
                raise LostReply(self._server, "the session that arms it is gone, or writes were not held back any more")

    def _leave_stage(self, deadline: Deadline) -> None:
        if self._stage_held:
            self._lock.change("mariadb.unblock_writes", "BACKUP STAGE END", deadline)
            self._stage_held = False

    def end(
        self, operation: str, deadline: Deadline, control: Session, end_session: Callable[[str, int, Deadline], None]
    ) -> None:
        """Lets waiting writes go on; ends every other session of ``operation`` that holds them, by ``end_session``."""
        for session in _SESSIONS:
            name = lock_name(operation, session)
            while True:
                owner = control.one("SELECT IS_USED_LOCK(%s) AS id", deadline, (name,))["id"]
                if owner is None or int(owner) == self._lock.id:
                    break
                deadline.require(f"session {owner}, which holds writes back on {self._server}, to end")
                end_session("mariadb.end_holder", int(owner), deadline)
                time.sleep(_POLL)
        if not self._lock.is_open:
            return
        try:
            self._leave_stage(deadline)
            self._lock.change("mariadb.unblock_writes", "UNLOCK TABLES", deadline)
            name = lock_name(operation, "engine")
            self._lock.change("mariadb.unblock_writes", "SELECT RELEASE_LOCK(%s)", deadline, (name,))
        except (LostReply, Unreachable):
            self._lock.abandon()  # the lock dies with its session
        except StatementError:
            if self._lock.is_open:  # else the server has ended it, and the lock with it
                raise

    def close(self) -> None:
        self._lock.close()
        if self._switching is None or not self._switching.is_alive():  # else its thread waits for the answer
            self._switch.abandon()


def lock_name(operation: str, holder: str) -> str:
    """Returns the name of the user-level lock by which a session of ``operation`` is found."""
    return f"proxyroute/{operation}/{holder}"
