"""Writes held back on one server of either flavour: the session with the lock, and what closes it by itself.

Neither outlives the budget of the freeze by much when nobody hears of us any more: the server
ends an idle session with a lock by itself, and what is armed ends in ``read_only``.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from proxyroute.db.session import Session
from proxyroute.errors import LostReply, ServerError, StatementError, TimedOut, Unreachable
from proxyroute.model import Deadline
from proxyroute.policy import Policy

HOLDERS = ("engine", "armed")
_SESSIONS = ("engine", "switch")
"""Names of the sessions in which writes are held back; ``armed`` is a second name of the latter, once it holds."""
_POLL = 0.002
REPLY = 0.5
"""Seconds for an answer beyond the time that the server itself was given."""
_SPARE = 1
"""Seconds that an idle lock outlives the budget of the freeze; the server counts in whole ones."""


class Freeze(ABC):
    """The two sessions of one server that hold writes back: *lock* has the lock, *switch* the armed statement."""

    def __init__(self, server: str, session: Callable[[], Session]) -> None:
        """``session`` makes one that is not connected yet."""
        self._server = server
        self._lock = session()
        self._switch = session()
        self._switching: threading.Thread | None = None

    @abstractmethod
    def _attempt(self, seconds: float, policy: Policy, deadline: Deadline) -> bool:
        """Tries for ``seconds`` to take the lock in the lock session; tells whether it was had."""

    @abstractmethod
    def _release(self, deadline: Deadline) -> None:
        """Lets the lock of the lock session go."""

    @abstractmethod
    def _close_itself(self, operation: str, seconds: float, mark: str, until: Deadline) -> None:
        """Runs, in the switch session, what ``arm`` says. ``mark`` is that of the session, to be given up."""

    @property
    def _that_lock(self) -> tuple[Session, ...]:
        """The sessions that may stand idle with a lock."""
        return (self._lock,)

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
        """Takes the write lock in the lock session.

        Bounded attempts with pauses between them: while the lock is pending, everybody's writes stall. A server that
        no longer hears of us ends the session, and with it the lock. Raises TimedOut with what ``blockers`` says.
        """
        idle = math.ceil(policy.freeze_budget) + _SPARE
        for session in self._that_lock:
            session.change("mariadb.bound_lock", f"SET SESSION wait_timeout={idle:d}", deadline)
        while True:
            attempt = min(policy.lock_attempt, deadline.require(f"the write lock on {self._server}"))
            if self._attempt(attempt, policy, Deadline.after(attempt + REPLY)):
                return
            if deadline.left <= policy.lock_pause:
                raise TimedOut(f"{self._server}: no write lock within the budget: {blockers()}")
            time.sleep(policy.lock_pause)

    def arm(self, operation: str, seconds: float, deadline: Deadline, armed: Callable[[], bool]) -> None:
        """One statement that the server goes on with after its client is gone.

        It takes the lock, waits, refuses writes, and only then lets the lock go. Ending its session disarms it. One
        that arrives when the engine's lock has ended, which a network can bring about, does nothing: writes go on
        there. ``armed`` tells whether it holds. Raises LostReply when it does not.
        """
        until = Deadline.after(seconds + 2.0)
        # once it is armed it must outlive us: the next holder of the lease ends it by its name, or not at all
        mark = self._switch.mark_name or "none"

        def run() -> None:
            with contextlib.suppress(ServerError, TimedOut):  # ended by unblock_writes, as it should be
                self._close_itself(operation, seconds, mark, until)

        self._switching = threading.Thread(target=run, name=f"switch-{self._server}", daemon=True)
        self._switching.start()
        while not armed():
            deadline.require(f"{self._server} to arm")
            if not self._switching.is_alive():
                raise LostReply(self._server, "the session that arms it is gone, or writes were not held back any more")

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
            self._release(deadline)
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
