"""A MariaDB server that gets what a dead primary had; what it applied so becomes its replication position as well."""

from __future__ import annotations

import time

from proxyroute.db.acting import MARK_SESSION
from proxyroute.db.heir import OWNER, POLL, REPLAY, DatabaseHeir
from proxyroute.db.mariadb_read import read_channels
from proxyroute.db.mariadb_remains import READ_LOG
from proxyroute.db.session import Session
from proxyroute.errors import StatementError
from proxyroute.gtid import MariaDBPosition, Position
from proxyroute.model import Deadline

_BEGIN = (
    f"BEGIN NOT ATOMIC SET SESSION max_statement_time=0; {MARK_SESSION}; DO GET_LOCK('{REPLAY}', 0);"
    f" IF NOT (IS_USED_LOCK('{OWNER}') <=> {{owner:d}}) THEN"
    " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='whoever began this is gone'; END IF; END"
)
_MUST_STOP = 1198
_LAG = 1.0
"""Seconds in which an applier's position gets to what it has written to the binary log."""


class MariaDBHeir(DatabaseHeir):
    """One server of MariaDB."""

    reader = READ_LOG

    def _applier(self, owner: int) -> tuple[str, ...]:
        begin = f"--init-command={_BEGIN.format(owner=owner)}"
        return ("mariadb", "--binary-mode", "--max-allowed-packet=1G", begin)

    def _make_way(self, session: Session, deadline: Deadline) -> None:
        """Nothing does: its account writes where read_only is set."""

    def settle_replay(self, deadline: Deadline, applied: Position | None = None) -> None:
        """What clients write does not get into ``gtid_slave_pos``, and a channel would begin before it."""
        with self._session(deadline) as session:
            self._end(session, deadline)
            stands, log = _positions(session, deadline)
            wanted = stands.merge(log).latest()
            if wanted == stands:
                return
            if any(channel.applier for channel in read_channels(session, deadline)):
                # domains that only clients write here never get into its position
                self._require_reached(session, wanted.alongside(stands if applied is None else applied), deadline)
                return
            session.change("salvage.set_position", "SET GLOBAL gtid_slave_pos=%s", deadline, (str(wanted),))

    def _require_reached(self, session: Session, wanted: MariaDBPosition, deadline: Deadline) -> None:
        """An applier that runs has begun in the right place if its position gets there: it lags behind the log a bit.

        Raises StatementError when it does not.
        """
        soon = deadline.within(_LAG)
        while not (stands := _positions(session, deadline)[0]).as_far_as(wanted):
            if soon.left < POLL:
                text = (
                    f"its applier runs from {stands or 'the beginning'}, and its binary log has {wanted} already: it "
                    "would apply that twice; stop it with STOP SLAVE, then type 'proxyroute heal'"
                )
                raise StatementError(self.name, _MUST_STOP, text)
            time.sleep(POLL)


def _positions(session: Session, deadline: Deadline) -> tuple[MariaDBPosition, MariaDBPosition]:
    """Returns what it applied as a replica and what its binary log ends with: the latest of each domain."""
    row = session.one("SELECT @@global.gtid_slave_pos AS slave, @@global.gtid_binlog_pos AS log", deadline)
    return MariaDBPosition.parse(row["slave"] or "").latest(), MariaDBPosition.parse(row["log"] or "").latest()
