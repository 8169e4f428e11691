"""MariaDB's side of a comparison: a snapshot tells its place in the binary log, an applier stops at such a place."""

from __future__ import annotations

import contextlib
import threading
import time

from proxyroute.db.compare import POLL, Compare
from proxyroute.db.mariadb_read import read_channels
from proxyroute.db.owning import COMPARE, DEAD_MAN, own
from proxyroute.db.session import Session
from proxyroute.errors import ServerError, TimedOut
from proxyroute.gtid import MariaDBPosition, Position
from proxyroute.model import Deadline, Source
from proxyroute.verify import Place


class MariaDBCompare(Compare):
    """One MariaDB server."""

    digest = "MD5(%s)"
    sight = "mysql.gtid_slave_pos"

    _switch: Session | None = None

    def _channels(self, session: Session, deadline: Deadline) -> tuple[Source, ...]:
        return read_channels(session, deadline)

    def writer(self, deadline: Deadline) -> str:
        return ""

    def pause(self, writer: str, seconds: float, deadline: Deadline) -> None:
        """The statement that starts the applier again is under way before the applier is stopped."""
        session = self._acting(deadline)
        self._applying("START SLAVE SQL_THREAD", deadline)
        own(session, COMPARE, (DEAD_MAN,), self._claim, deadline)
        switch = Session(self.name, self.address, self._login).open(deadline)
        statement = f"BEGIN NOT ATOMIC DO GET_LOCK(%s, 0); DO SLEEP(%s); START SLAVE {self._quoted} SQL_THREAD; END"

        def run() -> None:
            with contextlib.suppress(ServerError, TimedOut):  # ended by resume, as it should be
                switch.change("verify.dead_man", statement, Deadline.after(seconds + 5.0), (DEAD_MAN, seconds))

        self._switch = switch
        threading.Thread(target=run, name=f"verify-{self.name}", daemon=True).start()
        while session.one("SELECT IS_USED_LOCK(%s) AS id", deadline, (DEAD_MAN,))["id"] is None:
            deadline.require(f"{self.name} to promise that it goes on")
            time.sleep(POLL)
        session.change("verify.pause", f"STOP SLAVE {self._quoted} SQL_THREAD", deadline)

    @property
    def _quoted(self) -> str:
        name = (self._channel or "").replace("\\", "\\\\").replace("'", "''")
        return f"'{name}'"

    def _applied(self, deadline: Deadline) -> MariaDBPosition:
        row = self._control.open(deadline).one("SELECT @@global.gtid_slave_pos AS pos", deadline)
        return MariaDBPosition.parse(row["pos"] or "")

    def advance(self, place: Place, deadline: Deadline) -> bool:
        """By file and offset: UNTIL with a GTID wants the receiver stopped, and its relay logs would be gone with that.

        That a replica follows somebody else than the primary, with other files, is seen by :meth:`confirm`.
        """
        goal = _mariadb(place.position).latest()
        if self._applied(deadline).alongside(goal) == goal:
            return True
        statement = f"START SLAVE {self._quoted} SQL_THREAD UNTIL MASTER_LOG_FILE=%s, MASTER_LOG_POS=%s"
        self._control.change("verify.advance", statement, deadline, (place.file, place.offset))
        while (channel := self._the_channel(deadline)).applier:
            deadline.require(f"{self.name} to apply up to {goal}")
            time.sleep(POLL)
        if channel.error:
            raise ServerError(self.name, f"could not apply up to {goal}: {channel.error}")
        self.confirm(goal, deadline)
        return True

    def confirm(self, position: Position, deadline: Deadline) -> None:
        goal = _mariadb(position).latest()
        applied = self._applied(deadline).alongside(goal)
        if applied != goal or self._the_channel(deadline).applier:
            raise ServerError(self.name, f"stands at {applied} and not at {goal}, where it is to be compared")

    def resume(self, deadline: Deadline) -> None:
        if self._channel is None:
            return
        session = self._acting(deadline)
        if not self._the_channel(deadline).applier:
            session.change("verify.resume", f"START SLAVE {self._quoted} SQL_THREAD", deadline)
        own(session, COMPARE, (DEAD_MAN,), self._claim, deadline)
        self._switch = None

    def open_reading(self, deadline: Deadline) -> Place:
        session = self._open_snapshot(deadline)
        rows = session.read("SHOW STATUS LIKE 'binlog_snapshot_%'", deadline)
        told = {str(row["Variable_name"]).lower(): row["Value"] for row in rows}
        file, offset = str(told.get("binlog_snapshot_file") or ""), int(told.get("binlog_snapshot_position") or 0)
        if not file:
            return Place(MariaDBPosition(), "", 0)
        row = session.one("SELECT BINLOG_GTID_POS(%s, %s) AS pos", deadline, (file, offset))
        return Place(MariaDBPosition.parse(row["pos"] or ""), file, offset)


def _mariadb(position: Position) -> MariaDBPosition:
    if not isinstance(position, MariaDBPosition):
        raise TypeError("a MariaDB server cannot stand at a position of another flavour")
    return position
