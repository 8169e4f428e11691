"""The MariaDB driver: what it does to one server. How it reads one is in ``mariadb_read`` and ``mariadb_inspect``.

Tried on MariaDB 10.11. Connections: *control* for everything, those of ``mariadb_freeze`` while writes are held back,
and a short side connection to end a statement whose reply does not come.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from proxyroute.db.acting import READ_MARKS, marked
from proxyroute.db.mariadb_events import set_event_status
from proxyroute.db.mariadb_freeze import HOLDERS, LOCK_TIMEOUTS, Freeze, lock_name
from proxyroute.db.mariadb_inspect import blockers, inspect
from proxyroute.db.mariadb_read import read_position, read_status
from proxyroute.db.mariadb_replication import Replication, ReplicationLogin
from proxyroute.db.mariadb_statements import statements
from proxyroute.db.session import Login, Session
from proxyroute.errors import GaveWay, Refused, ServerError, StatementError, TimedOut
from proxyroute.gtid import MariaDBPosition, Position
from proxyroute.model import (
    Address,
    Deadline,
    Event,
    Inspection,
    Peer,
    Policy,
    Status,
    WriteState,
)

_NO_SUCH_THREAD = 1094
_TOO_MANY_CONNECTIONS = 1040
_POLL = 0.002
_ATTEMPT = 0.5
_SLICE = 0.25
_QUICK = 0.7
"""Seconds in which a server answers that is worth waiting for."""

_CLIENTS = """
SELECT id FROM information_schema.processlist
WHERE command NOT IN ('Binlog Dump', 'Binlog Dump GTID', 'Daemon', 'Slave_IO', 'Slave_SQL', 'Slave_worker')
AND user NOT IN ('system user', 'event_scheduler'{excluded})
"""


class MariaDB:
    """One MariaDB server, as :class:`proxyroute.ports.Server`."""

    def __init__(
        self,
        name: str,
        address: Address,
        login: Login,
        replication: ReplicationLogin,
        monitor_users: Sequence[str] = (),
        permit: Callable[[], None] | None = None,
    ) -> None:
        """``permit`` raises LeaseLost when nothing may be changed any more; see :class:`Session`."""
        self.name = name
        self.address = address
        self._login = login
        self._permit = permit
        self._control = self._session()
        self._freeze = Freeze(name, self._session)
        self._excluded = (login.user, *monitor_users)
        self._replication = Replication(self._open, replication)

    def _session(self) -> Session:
        return Session(self.name, self.address, self._login, self._permit)

    def _open(self, deadline: Deadline) -> Session:
        return self._control.open(deadline)

    # -- Reading --

    def connect(self, deadline: Deadline, operation: str = "") -> None:
        """Opens the control connection; for an ``operation`` also those of the lock and of the dead man's switch."""
        self._open(deadline).mark(deadline)
        if operation:
            self._freeze.connect(operation, deadline)

    def look(self, deadline: Deadline) -> Status:
        return read_status(self._open(deadline), self.name, self.address, deadline)

    def line(self) -> int | None:
        return self._control.descriptor

    def inspect(self, deadline: Deadline, policy: Policy) -> Inspection:
        """On a fresh connection, for privileges are as old as their session; or on ours when no other gets in."""
        try:
            with self._session().open(deadline) as fresh:
                return inspect(fresh, deadline, policy)
        except StatementError as error:
            if error.errno != _TOO_MANY_CONNECTIONS:
                raise
            return inspect(self._open(deadline), deadline, policy)

    def position(self, deadline: Deadline) -> Position:
        return read_position(self._open(deadline), deadline)

    def write_state(self, deadline: Deadline, operation: str) -> WriteState:
        """Returns it in one round trip, so that its parts belong together."""
        row = self._open(deadline).one(
            "SELECT @@global.read_only AS ro, @@global.gtid_binlog_state AS state, @@global.gtid_slave_pos AS applied,"
            " IS_USED_LOCK(%s) AS engine, IS_USED_LOCK(%s) AS armed",
            deadline,
            tuple(lock_name(operation, holder) for holder in HOLDERS),
        )
        position = MariaDBPosition.parse(row["state"]).merge(MariaDBPosition.parse(row["applied"]))
        # MariaDB 12 names the levels of read_only; before that it is 0 or 1
        writable = str(row["ro"]).upper() in ("0", "OFF")
        return WriteState(writable, frozenset(h for h in HOLDERS if row[h] is not None), position)

    def wait_for(self, goal: Position, deadline: Deadline) -> None:
        """Waits by MASTER_GTID_WAIT, in slices, so that a stopped applier is an error and not an endless wait."""
        if not isinstance(goal, MariaDBPosition):
            raise TypeError(f"{self.name} is a MariaDB server and cannot wait for a {goal.flavour} position")
        text = goal.latest_text
        while True:
            left = deadline.require(f"{self.name} to apply {text}")
            try:
                row = self._open(deadline).one(
                    "SELECT MASTER_GTID_WAIT(%s, %s) AS waited",
                    Deadline.after(min(left, _SLICE) + 1.0),
                    (text, round(min(left, _SLICE), 3)),
                )
            except GaveWay:
                raise
            except TimedOut as error:  # an answer it was not that we waited for
                raise TimedOut(f"out of time while waiting for {self.name} to apply {text}: {error}") from error
            if row["waited"] == 0:
                return
            with contextlib.suppress(TimedOut):  # the next round says what was waited for: an answer it was not
                self._replication.require_applying(self.name, deadline)

    # -- Freezing --

    def write_settings(self, deadline: Deadline) -> Mapping[str, Any]:
        row = self._open(deadline).one(
            "SELECT @@global.read_only AS ro, @@global.max_connections AS connections,"
            " @@global.event_scheduler AS scheduler",
            deadline,
        )
        return {
            "read_only": str(row["ro"]),
            "max_connections": int(row["connections"]),
            "event_scheduler": str(row["scheduler"]).upper(),
        }

    def client_sessions(self, deadline: Deadline) -> frozenset[int]:
        excluded = "".join(", %s" for _ in self._excluded)
        rows = self._open(deadline).read(_CLIENTS.format(excluded=excluded), deadline, self._excluded)
        return frozenset(int(row["id"]) for row in rows)

    def block_writes(self, operation: str, deadline: Deadline, policy: Policy) -> None:
        self._freeze.block(deadline, policy, lambda: self._blockers(policy))

    def _blockers(self, policy: Policy) -> str:
        deadline = Deadline.after(_ATTEMPT)
        with contextlib.suppress(ServerError, TimedOut):
            return blockers(self._open(deadline), self._excluded, policy.lock_attempt, deadline)
        return "something holds writes open"

    def arm(self, operation: str, seconds: float, deadline: Deadline) -> None:
        self._freeze.arm(operation, seconds, deadline, lambda: "armed" in self.write_state(deadline, operation).holders)

    def unblock_writes(self, operation: str, deadline: Deadline) -> None:
        self._freeze.end(operation, deadline, self._open(deadline), self._kill)

    def limit_connections(self, limit: int, deadline: Deadline) -> None:
        """To no less than the connections there are: below them not even the extra privileged one gets in.

        That one is what heal would need if we died here (10.11.19: with 34 connections and a limit of 10 nobody
        gets in, whatever the privileges).
        """
        self._open(deadline).change(
            "mariadb.limit_connections",
            "SET GLOBAL max_connections = GREATEST(%s, (SELECT CAST(VARIABLE_VALUE AS INTEGER) FROM"
            " information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'THREADS_CONNECTED'))",
            deadline,
            (limit,),
        )

    def kill_clients(self, deadline: Deadline) -> int:
        """KILL HARD, all in one round trip, until those are gone: rollbacks of killed work are awaited.

        Who connects meanwhile is left to the next call: a storm of newcomers must not keep us here for ever.
        """
        found = self.client_sessions(deadline)
        if not found:
            return 0
        kills = " ".join(f"KILL HARD CONNECTION {session:d};" for session in sorted(found))
        block = f"BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR {_NO_SUCH_THREAD} BEGIN END; {kills} END"
        self._open(deadline).change("mariadb.kill_client", block, deadline)
        while left := found & self.client_sessions(deadline):
            deadline.require(f"{len(left)} killed sessions on {self.name} to be gone")
            time.sleep(_POLL)
        return len(found)

    def kill_session(self, session: int, deadline: Deadline) -> None:
        self._kill("mariadb.kill_client", session, deadline)

    def _kill(self, point: str, session: int, deadline: Deadline) -> None:
        try:
            self._open(deadline).change(point, f"KILL HARD CONNECTION {session:d}", deadline)
        except StatementError as error:
            if error.errno != _NO_SUCH_THREAD:
                raise

    def refuse_writes(self, deadline: Deadline) -> None:
        """In bounded attempts: under BACKUP STAGE it hangs for as long as a statement is stuck at its commit."""
        while True:
            left = deadline.require(f"{self.name} to refuse writes")
            attempt = max(min(left / 2, _ATTEMPT), 0.01)  # its answer needs some time as well
            try:
                self._open(deadline).change(
                    "mariadb.refuse_writes",
                    f"SET STATEMENT max_statement_time={attempt:.3f} FOR SET GLOBAL read_only=1",
                    deadline,
                )
                return
            except StatementError as error:
                if error.errno not in LOCK_TIMEOUTS:
                    raise

    def accept_writes(self, deadline: Deadline) -> None:
        self._open(deadline).change("mariadb.accept_writes", "SET GLOBAL read_only=0", deadline)

    def restore(self, settings: Mapping[str, Any], deadline: Deadline) -> None:
        limit = int(settings["max_connections"])
        self._open(deadline).change("mariadb.restore", f"SET GLOBAL max_connections={limit:d}", deadline)

    def lock_account(self, account: str, deadline: Deadline) -> None:
        self._alter_account("mariadb.lock_account", account, "LOCK", deadline)

    def unlock_account(self, account: str, deadline: Deadline) -> None:
        self._alter_account("mariadb.unlock_account", account, "UNLOCK", deadline)

    def _alter_account(self, point: str, account: str, what: str, deadline: Deadline) -> None:
        """On this server only: in a session of its own, without the binary log."""
        user, _, host = account.rpartition("@")
        with self._session().open(deadline) as session:
            session.change(point, "SET SESSION sql_log_bin=0", deadline)
            session.change(point, f"ALTER USER %s@%s ACCOUNT {what}", deadline, (user.strip("'"), host.strip("'")))

    # -- Roles --

    def detach(self, source: Peer, deadline: Deadline) -> None:
        self._replication.stop(source, deadline)

    def resume(self, source: Peer, deadline: Deadline) -> None:
        self._replication.start(source, deadline)

    def stop_receiver(self, source: Peer, deadline: Deadline) -> None:
        self._replication.stop_receiver(source, deadline)

    def start_receiver(self, source: Peer, deadline: Deadline, *, applier: bool = False) -> None:
        self._replication.start_receiver(source, deadline, applier=applier)

    def follow(
        self,
        source: Peer,
        deadline: Deadline,
        *,
        instead_of: Peer | None = None,
        source_has: Callable[[], Position] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._replication.follow(source, deadline, instead_of=instead_of, source_has=source_has, options=options)

    def forget_source(self, source: Peer, deadline: Deadline) -> None:
        self._replication.forget(source, deadline)

    def semi_sync(self, deadline: Deadline, *, primary: bool | None = None, replica: bool | None = None) -> None:
        for variable, wanted in (
            ("rpl_semi_sync_master_enabled", primary),
            ("rpl_semi_sync_slave_enabled", replica),
        ):
            if wanted is not None:
                self._open(deadline).change("mariadb.semi_sync", f"SET GLOBAL {variable}={int(wanted)}", deadline)

    def stop_events(self, deadline: Deadline) -> None:
        self._event_scheduler("OFF", deadline)

    def start_events(self, deadline: Deadline) -> None:
        self._event_scheduler("ON", deadline)

    def _event_scheduler(self, wanted: str, deadline: Deadline) -> None:
        now = self._open(deadline).one("SELECT @@global.event_scheduler AS now", deadline)["now"]
        if str(now).upper() in ("DISABLED", wanted):
            return
        self._open(deadline).change("mariadb.event_scheduler", f"SET GLOBAL event_scheduler={wanted}", deadline)

    def set_events(self, events: Sequence[Event], status: str, deadline: Deadline) -> None:
        if not events:
            return
        with self._session().open(deadline) as session:
            for event in events:
                set_event_status(session, event, status, deadline)

    def statements(self, verb: str, policy: Policy, peer: Peer) -> Sequence[str]:
        return statements(verb, policy, peer)

    def end_others(self, deadline: Deadline) -> int:
        """KILL of every marked session but our own, until they are gone. A server that hangs is not waited for."""
        session = self._open(deadline.within(_QUICK))
        others = marked(session.one(READ_MARKS, deadline.within(_QUICK))) - self._own
        ended: set[int] = set()
        while others:
            for other in others:
                self._kill("mariadb.end_other", other, deadline)
            ended |= others
            if deadline.left <= _POLL:
                raise Refused(f"{len(others)} sessions of another engine on {self.name} do not end: {sorted(others)}")
            time.sleep(_POLL)
            others = marked(session.one(READ_MARKS, deadline)) - self._own
        return len(ended)

    @property
    def _own(self) -> set[int]:
        return {self._control.id, *self._freeze.ids}

    def close(self) -> None:
        self._control.close()
        self._freeze.close()
