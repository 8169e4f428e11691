"""The MySQL driver: what it does to one server. How it reads one is in ``mysql_read`` and ``mysql_inspect``.

Tried on MySQL 9.7. Writes are refused by ``super_read_only``: it stops everybody but replication.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from proxyroute.db.following import POLL
from proxyroute.db.freeze import HOLDERS, Freeze, lock_name
from proxyroute.db.mariadb_events import set_event_status
from proxyroute.db.mysql_freeze import BOUNDED, LOCK_TIMEOUTS, MySQLFreeze
from proxyroute.db.mysql_inspect import backups, blockers, inspect
from proxyroute.db.mysql_read import read_position, read_status
from proxyroute.db.mysql_replication import MySQLReplication
from proxyroute.db.mysql_statements import statements
from proxyroute.db.mysql_unacknowledged import cut_off, let_go
from proxyroute.db.replication import ReplicationLogin
from proxyroute.db.rows import SEMI_SYNC_SOURCES, is_on
from proxyroute.db.server import ATTEMPT, DatabaseServer
from proxyroute.db.session import NO_SUCH_THREAD, Session
from proxyroute.errors import ServerError, StatementError, TimedOut
from proxyroute.gtid import MySQLPosition, Position
from proxyroute.inspection import Event, Inspection, WriteState
from proxyroute.model import Deadline, Peer, Status
from proxyroute.policy import Policy

_CLIENTS = """
SELECT ID AS id FROM information_schema.PROCESSLIST
WHERE COMMAND NOT IN ('Binlog Dump', 'Binlog Dump GTID', 'Daemon')
AND USER NOT IN ('system user', 'event_scheduler'{excluded})
"""
_LOCKED_FOR_BACKUP = 3857
_SOON = 0.3
"""Seconds, while writes wait, for what can be done later."""
_PERSISTED = (
    "SELECT VARIABLE_NAME AS name, VARIABLE_VALUE AS value FROM performance_schema.persisted_variables"
    " WHERE VARIABLE_NAME IN %s"
)
_SIDES = tuple(
    tuple(f"rpl_semi_sync_{name}_enabled" for name in names)
    for names in (SEMI_SYNC_SOURCES, SEMI_SYNC_SOURCES.values())
)
"""What switches on that a server waits for acknowledgements, and that it gives them, each under either name."""
_SEMI_SYNC = (
    "SELECT v.VARIABLE_NAME AS name, p.VARIABLE_VALUE AS kept FROM performance_schema.global_variables v"
    " LEFT JOIN performance_schema.persisted_variables p ON p.VARIABLE_NAME = v.VARIABLE_NAME"
    " WHERE v.VARIABLE_NAME IN %s"
)


class MySQL(DatabaseServer):
    """One MySQL server, as :class:`proxyroute.ports.Server`."""

    flavour = "mysql"
    kill = "KILL CONNECTION"

    _replication: MySQLReplication

    def _channels(self, login: ReplicationLogin) -> MySQLReplication:
        return MySQLReplication(self._open, login)

    def _make_freeze(self) -> Freeze:
        return MySQLFreeze(self.name, self._session)

    # -- Reading --

    def look(self, deadline: Deadline) -> Status:
        return read_status(self._open(deadline), self.name, self.address, deadline)

    def _inspect(self, session: Session, deadline: Deadline, policy: Policy) -> Inspection:
        return replace(inspect(session, deadline, policy), unverifiable=self._replication.unverifiable)

    def position(self, deadline: Deadline) -> Position:
        return read_position(self._open(deadline), deadline)

    def write_state(self, deadline: Deadline, operation: str) -> WriteState:
        """Returns it in one round trip, so that its parts belong together."""
        row = self._open(deadline).one(
            "SELECT @@global.read_only AS ro, @@global.super_read_only AS shut, @@global.gtid_executed AS executed,"
            " IS_USED_LOCK(%s) AS engine, IS_USED_LOCK(%s) AS armed",
            deadline,
            tuple(lock_name(operation, holder) for holder in HOLDERS),
        )
        held = frozenset(h for h in HOLDERS if row[h] is not None)
        closed, half_closed = bool(int(row["ro"])), bool(int(row["ro"])) and not int(row["shut"])
        return WriteState(not closed, held, MySQLPosition.parse(str(row["executed"])), half_closed)

    def wait_for(self, goal: Position, deadline: Deadline) -> None:
        """Waits by WAIT_FOR_EXECUTED_GTID_SET."""
        if not isinstance(goal, MySQLPosition):
            raise TypeError(f"{self.name} is a MySQL server and cannot wait for a {goal.flavour} position")
        self._wait(str(goal), "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s) AS waited", deadline)

    # -- Freezing --

    def _clients(self, excluded: Sequence[str]) -> str:
        return _CLIENTS.format(excluded="".join(", %s" for _ in excluded))

    def _blockers(self, policy: Policy) -> str:
        deadline = Deadline.after(ATTEMPT)
        with contextlib.suppress(ServerError, TimedOut):
            return blockers(self._open(deadline), self._excluded, policy.lock_attempt, deadline)
        return "something holds writes open"

    def limit_connections(self, limit: int, deadline: Deadline) -> None:
        """To no less than the connections there are: below them only the extra privileged one gets in, once."""
        self._open(deadline).change(
            "mariadb.limit_connections",
            "SET GLOBAL max_connections = GREATEST(%s, (SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM"
            " performance_schema.global_status WHERE VARIABLE_NAME = 'Threads_connected'))",
            deadline,
            (limit,),
        )

    def keep_clients_out(self, policy: Policy, deadline: Deadline) -> None:
        if policy.offline_mode:
            self._offline(True, deadline)
        else:
            super().keep_clients_out(policy, deadline)

    def write_settings(self, deadline: Deadline) -> Mapping[str, Any]:
        return {**super().write_settings(deadline), "offline_mode": self._is_offline(deadline)}

    def restore(self, settings: Mapping[str, Any], deadline: Deadline) -> None:
        super().restore(settings, deadline)
        wanted = settings.get("offline_mode")
        if wanted is not None and self._is_offline(deadline) is not bool(wanted):
            self._offline(bool(wanted), deadline)
            self._forget_persisted({"offline_mode": bool(wanted)}, deadline)

    def _is_offline(self, deadline: Deadline) -> bool:
        return bool(int(self._open(deadline).one("SELECT @@global.offline_mode AS now", deadline)["now"]))

    def _offline(self, wanted: bool, deadline: Deadline) -> None:
        self._open(deadline).change("mariadb.offline_mode", f"SET GLOBAL offline_mode={int(wanted)}", deadline)

    def _cut_off(self, deadline: Deadline) -> frozenset[int]:
        return cut_off(self._open(deadline), deadline)

    def _end_sessions(self, sessions: Sequence[int], deadline: Deadline) -> None:
        """Several statements in one piece: MySQL has no compound one outside of a stored program."""
        try:
            kills = [f"{self.kill} {session:d}" for session in sessions]
            self._open(deadline).change_all("mariadb.kill_client", kills, deadline)
        except StatementError as error:
            if error.errno != NO_SUCH_THREAD:
                raise

    def refuse_writes(self, deadline: Deadline) -> None:
        """In bounded attempts: while it waits for a statement or a table lock, everybody's writes stall.

        Clients whose commits wait for acknowledgements that nobody gives, and hold it back, are ended (decision 0100).
        """
        control = self._open(deadline)
        while True:
            deadline.require(f"{self.name} to refuse writes")
            try:
                with let_go(self._session(), control.id, self._client_sessions, self._semi_sync_source):
                    control.change("mariadb.refuse_writes", f"{BOUNDED}, GLOBAL super_read_only=1", deadline)
                break
            except StatementError as error:
                if error.errno not in LOCK_TIMEOUTS:
                    raise
        self._forget_persisted({"read_only": True, "super_read_only": True}, deadline)

    def _forget_persisted(self, now: Mapping[str, bool], deadline: Deadline) -> None:
        """What was persisted against what is set ``now`` would come back with a restart: it counts more than my.cnf."""
        control = self._open(deadline)
        for row in control.read(_PERSISTED, deadline, (tuple(now),)):
            if is_on(row["value"]) is not now[row["name"]]:
                self._forget(row["name"], deadline)

    def _forget(self, name: str, deadline: Deadline) -> None:
        self._open(deadline).change("mariadb.forget_persisted", f"RESET PERSIST IF EXISTS {name}", deadline)

    # -- Roles --

    def detach(self, source: Peer, deadline: Deadline) -> None:
        """Ends whoever locks the instance for a backup, for nobody can stop what applies meanwhile (decision 0148)."""
        while True:
            try:
                super().detach(source, deadline)
            except StatementError as error:
                if error.errno != _LOCKED_FOR_BACKUP:
                    raise
            else:
                return
            deadline.require(f"the backup of {self.name} to end")
            if holders := [session for session, _ in backups(self._open(deadline), deadline)]:
                self._end_sessions(holders, deadline)
            time.sleep(POLL)

    def start_events(self, deadline: Deadline) -> None:
        super().start_events(deadline)
        self._forget_persisted({"event_scheduler": True}, deadline)

    def semi_sync(self, deadline: Deadline, *, primary: bool | None = None, replica: bool | None = None) -> None:
        """Of a side whose plugin is not there nothing is to be switched off, and nobody to acknowledge.

        Raises StatementError when it should wait for acknowledgements and cannot.
        """
        session = self._open(deadline)
        there = self._semi_sync_there(session, deadline)
        for side, on in enumerate((primary, replica)):
            name = next((name for name in _SIDES[side] if name in there), "")
            if on and not name and side == 0:
                name = _SIDES[side][0]
            if on is None or not name:
                continue
            session.change("mariadb.semi_sync", f"SET GLOBAL {name}={int(on)}", deadline)
            if there.get(name) is not None and is_on(there[name]) is not on:
                with contextlib.suppress(ServerError, TimedOut):  # writes wait; what is left is told (server.persisted)
                    self._forget(name, deadline.within(_SOON))

    def _semi_sync_source(self, session: Session, deadline: Deadline) -> str:
        there = self._semi_sync_there(session, deadline)
        return next((name for name in _SIDES[0] if name in there), "")

    def _semi_sync_there(self, session: Session, deadline: Deadline) -> dict[str, Any]:
        """Returns what switches each side on, by the plugins that are there now, with what is persisted of it."""
        rows = session.read(_SEMI_SYNC, deadline, (_SIDES[0] + _SIDES[1],))
        return {str(row["name"]): row["kept"] for row in rows}

    def set_events(self, events: Sequence[Event], status: str, deadline: Deadline) -> None:
        """Where ``super_read_only`` is set it gives way to ``read_only`` meanwhile, which ordinary accounts still obey.

        It is back when this ends, however it ends; after our death ``heal`` closes the server once more.
        """
        if not events:
            return
        with self._session().open(deadline) as session:
            refused = bool(int(session.one("SELECT @@global.super_read_only AS now", deadline)["now"]))
            if refused:
                session.change("mariadb.alter_event", "SET GLOBAL super_read_only=0", deadline)
            try:
                for event in events:
                    set_event_status(session, event, status, deadline)
            finally:
                if refused:
                    self.refuse_writes(Deadline.after(ATTEMPT + 1.0))

    @staticmethod
    def statements(verb: str, policy: Policy, peer: Peer) -> Sequence[str]:
        return statements(verb, policy, peer)
