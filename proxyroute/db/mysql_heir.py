"""A MySQL server that gets what a dead primary had. Tried on 9.7.

``super_read_only`` stops whoever applies it as well, so it gives way meanwhile; ``read_only`` stays, and with it every
ordinary account is kept from writing. What has a GTID that is there already is passed over by the server itself, and a
channel asks its source for exactly what is not there: no position has to be set.
"""

from __future__ import annotations

from pathlib import Path

from proxyroute.db.acting import TAKE
from proxyroute.db.heir import OWNER, REPLAY, DatabaseHeir
from proxyroute.db.mysql_freeze import BOUNDED, LOCK_TIMEOUTS
from proxyroute.db.mysql_programs import READ_LOG, require_own
from proxyroute.db.session import Session
from proxyroute.errors import StatementError
from proxyroute.gtid import Position
from proxyroute.model import Deadline

_CLIENT = "mysql"
_BEGIN = (
    f"SET SESSION sql_log_bin = IF(GET_LOCK('{REPLAY}', 0) = 1 AND {TAKE} IS NOT NULL"
    f" AND IS_USED_LOCK('{OWNER}') <=> {{owner:d}}, 'ON', 'whoever began this is gone')"
)
"""MySQL has no statement made of others: a value that is none ends it. The lock comes first, then the question."""


class MySQLHeir(DatabaseHeir):
    """One server of MySQL."""

    reader = READ_LOG

    def replay(self, file: Path, start: int, end: int, deadline: Deadline) -> None:
        for program in (self.reader[0], _CLIENT):
            require_own(program, deadline)
        super().replay(file, start, end, deadline)

    def _applier(self, owner: int) -> tuple[str, ...]:
        # in a session that was made anew the rest of a transaction would be one of its own
        words = ("--binary-mode", "--max-allowed-packet=1G", "--skip-reconnect")
        return (_CLIENT, *words, f"--init-command={_BEGIN.format(owner=owner)}")

    def _make_way(self, session: Session, deadline: Deadline) -> None:
        if int(session.one("SELECT @@global.super_read_only AS now", deadline)["now"]):
            session.change("salvage.give_way", "SET GLOBAL super_read_only=0", deadline)

    def settle_replay(self, deadline: Deadline, applied: Position | None = None) -> None:
        """One that is closed to ordinary accounts is closed to everybody again."""
        with self._session(deadline) as session:
            self._end(session, deadline)
            while True:
                row = session.one("SELECT @@global.read_only AS closed, @@global.super_read_only AS shut", deadline)
                if int(row["shut"]) or not int(row["closed"]):
                    return
                deadline.require(f"{self.name} to refuse writes")
                try:
                    # in bounded attempts: while it waits for a lock, everybody's statements wait behind it
                    session.change("mariadb.refuse_writes", f"{BOUNDED}, GLOBAL super_read_only=1", deadline)
                except StatementError as error:
                    if error.errno not in LOCK_TIMEOUTS:
                        raise
