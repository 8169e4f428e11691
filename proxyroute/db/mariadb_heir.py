"""A MariaDB server that gets what a dead primary had: transactions of its binary log, applied as they were.

A client program applies them, and its session may outlive the program, and the program us. So it bears a lock of its
own and asks first whether the session of ours that owns the replay is still there: whoever ends the owner and then the
one with the lock knows that nothing is applied any more. Both bear marks as well, for the next holder of the lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from proxyroute.db.acting import MARK_SESSION
from proxyroute.db.mariadb_read import read_channels
from proxyroute.db.mariadb_remains import READ_LOG
from proxyroute.db.session import Login, Session
from proxyroute.errors import StatementError
from proxyroute.faults import act
from proxyroute.gtid import MariaDBPosition, Position
from proxyroute.host import Program, option_file, pump
from proxyroute.model import Address, Deadline

OWNER, REPLAY = "proxyroute/salvage", "proxyroute/salvage/replay"
_BEGIN = (
    f"BEGIN NOT ATOMIC SET SESSION max_statement_time=0; {MARK_SESSION}; DO GET_LOCK('{REPLAY}', 0);"
    f" IF NOT (IS_USED_LOCK('{OWNER}') <=> {{owner:d}}) THEN"
    " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='whoever began this is gone'; END IF; END"
)
_NO_SUCH_THREAD = 1094
_MUST_STOP = 1198
_POLL = 0.02
_LAG = 1.0
"""Seconds in which an applier's position gets to what it has written to the binary log."""


class MariaDBHeir:
    """One server, as :class:`proxyroute.ports_data.Heir`. ``client`` is what its client program logs in with."""

    def __init__(
        self,
        name: str,
        address: Address,
        login: Login,
        client: Mapping[str, Any],
        permit: Callable[[], None] | None = None,
    ) -> None:
        """``permit`` raises LeaseLost when nothing may be changed any more."""
        self.name = name
        self.address = address
        self._login = login
        self._client = dict(client)
        self._permit = permit

    def _session(self, deadline: Deadline) -> Session:
        return Session(self.name, self.address, self._login, self._permit).open(deadline)

    def replay(self, file: Path, start: int, end: int, deadline: Deadline) -> None:
        source = Program((*READ_LOG, f"--start-position={start}", f"--stop-position={end}", str(file)))
        where = {"host": self.address.host, "port": self.address.port, "protocol": "tcp"}
        with self._session(deadline) as session:
            self._end(session, deadline)
            session.change("salvage.own", "SELECT GET_LOCK(%s, 0)", deadline, (OWNER,))
            begin = f"--init-command={_BEGIN.format(owner=session.id)}"
            words = ("mariadb", "--binary-mode", "--max-allowed-packet=1G", begin)
            target = Program(words, options=option_file("client", {**where, **self._client}))
            with act("archive.replay"):
                pump(source, target, deadline)

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
            if soon.left < _POLL:
                text = (
                    f"its applier runs from {stands or 'the beginning'}, and its binary log has {wanted} already: it "
                    "would apply that twice; stop it with STOP SLAVE, then type 'proxyroute heal'"
                )
                raise StatementError(self.name, _MUST_STOP, text)
            time.sleep(_POLL)

    def _end(self, session: Session, deadline: Deadline) -> None:
        """The owner first: a client that comes after that is refused, one that came before has its lock."""
        for lock in (OWNER, REPLAY):
            while (found := session.one("SELECT IS_USED_LOCK(%s) AS id", deadline, (lock,))["id"]) is not None:
                deadline.require(f"session {found} of an earlier replay on {self.name} to end")
                try:
                    session.change("salvage.end_older", f"KILL HARD CONNECTION {int(found):d}", deadline)
                except StatementError as error:
                    if error.errno != _NO_SUCH_THREAD:
                        raise
                time.sleep(_POLL)


def _positions(session: Session, deadline: Deadline) -> tuple[MariaDBPosition, MariaDBPosition]:
    """Returns what it applied as a replica and what its binary log ends with: the latest of each domain."""
    row = session.one("SELECT @@global.gtid_slave_pos AS slave, @@global.gtid_binlog_pos AS log", deadline)
    return MariaDBPosition.parse(row["slave"] or "").latest(), MariaDBPosition.parse(row["log"] or "").latest()
