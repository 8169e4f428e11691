"""Writes held back on a MariaDB server (tried on 10.11)."""

from __future__ import annotations

from collections.abc import Callable

from proxyroute.db.freeze import Freeze, lock_name
from proxyroute.db.session import Session
from proxyroute.errors import StatementError
from proxyroute.model import Deadline
from proxyroute.policy import Policy

LOCK_TIMEOUTS = frozenset({1205, 1969, 1317, 3024})
_ARM = """
BEGIN NOT ATOMIC
  IF IS_USED_LOCK(%s) IS NULL THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='writes are not held back any more'; END IF;
  DO RELEASE_LOCK(%s); FLUSH TABLES WITH READ LOCK; DO GET_LOCK(%s, 0); DO SLEEP(%s); SET GLOBAL read_only=1;
END
"""


class MariaDBFreeze(Freeze):
    """By FLUSH TABLES WITH READ LOCK, or by BACKUP STAGE BLOCK_COMMIT."""

    def __init__(self, server: str, session: Callable[[], Session]) -> None:
        super().__init__(server, session)
        self._stage_held = False

    def _attempt(self, seconds: float, policy: Policy, deadline: Deadline) -> bool:
        bound = f"SET STATEMENT max_statement_time={max(seconds, 0.01):.3f} FOR "
        try:
            if policy.freeze == "backup_stage":
                self._lock.change("mariadb.block_writes", bound + "BACKUP STAGE START", deadline)
                self._stage_held = True
                self._lock.change("mariadb.block_writes", bound + "BACKUP STAGE BLOCK_COMMIT", deadline)
            else:
                self._lock.change("mariadb.block_writes", bound + "FLUSH TABLES WITH READ LOCK", deadline)
        except StatementError as error:
            self._leave_stage(deadline)
            if error.errno not in LOCK_TIMEOUTS:
                raise
            return False
        return True

    def _close_itself(self, operation: str, seconds: float, mark: str, until: Deadline) -> None:
        """A compound statement (10.11.19: it goes on after kill -9 of the client)."""
        args = (lock_name(operation, "engine"), mark, lock_name(operation, "armed"), seconds)
        self._switch.change("mariadb.arm", _ARM, until, args)

    def _leave_stage(self, deadline: Deadline) -> None:
        if self._stage_held:
            self._lock.change("mariadb.unblock_writes", "BACKUP STAGE END", deadline)
            self._stage_held = False

    def _release(self, deadline: Deadline) -> None:
        self._leave_stage(deadline)
        self._lock.change("mariadb.unblock_writes", "UNLOCK TABLES", deadline)
