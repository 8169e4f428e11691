"""The MariaDB driver: what it does to one server. How it reads one is in ``mariadb_read`` and ``mariadb_inspect``.

Tried on MariaDB 10.11.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from proxyroute.db.freeze import HOLDERS, Freeze, lock_name
from proxyroute.db.mariadb_events import set_event_status
from proxyroute.db.mariadb_freeze import LOCK_TIMEOUTS, MariaDBFreeze
from proxyroute.db.mariadb_inspect import blockers, inspect
from proxyroute.db.mariadb_read import read_position, read_status
from proxyroute.db.mariadb_replication import MariaDBReplication
from proxyroute.db.mariadb_statements import statements
from proxyroute.db.replication import Replication, ReplicationLogin
from proxyroute.db.server import ATTEMPT, DatabaseServer
from proxyroute.db.session import NO_SUCH_THREAD, Session
from proxyroute.errors import ServerError, StatementError, TimedOut
from proxyroute.gtid import MariaDBPosition, Position
from proxyroute.inspection import Event, Inspection, WriteState
from proxyroute.model import Deadline, Peer, Status
from proxyroute.policy import Policy

_CLIENTS = """
SELECT id FROM information_schema.processlist
WHERE command NOT IN ('Binlog Dump', 'Binlog Dump GTID', 'Daemon', 'Slave_IO', 'Slave_SQL', 'Slave_worker')
AND user NOT IN ('system user', 'event_scheduler'{excluded})
"""


class MariaDB(DatabaseServer):
    """One MariaDB server, as :class:`proxyroute.ports.Server`."""

    flavour = "mariadb"
    kill = "KILL HARD CONNECTION"

    def _channels(self, login: ReplicationLogin) -> Replication:
        return MariaDBReplication(self._open, login)

    def _make_freeze(self) -> Freeze:
        return MariaDBFreeze(self.name, self._session)

    # -- Reading --

    def look(self, deadline: Deadline) -> Status:
        return read_status(self._open(deadline), self.name, self.address, deadline)

    def _inspect(self, session: Session, deadline: Deadline, policy: Policy) -> Inspection:
        return inspect(session, deadline, policy)

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
        """Waits by MASTER_GTID_WAIT."""
        if not isinstance(goal, MariaDBPosition):
            raise TypeError(f"{self.name} is a MariaDB server and cannot wait for a {goal.flavour} position")
        self._wait(goal.latest_text, "SELECT MASTER_GTID_WAIT(%s, %s) AS waited", deadline)

    # -- Freezing --

    def _clients(self, excluded: Sequence[str]) -> str:
        return _CLIENTS.format(excluded="".join(", %s" for _ in excluded))

    def _blockers(self, policy: Policy) -> str:
        deadline = Deadline.after(ATTEMPT)
        with contextlib.suppress(ServerError, TimedOut):
            return blockers(self._open(deadline), self._excluded, policy.lock_attempt, deadline)
        return "something holds writes open"

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

    def _end_sessions(self, sessions: Sequence[int], deadline: Deadline) -> None:
        kills = " ".join(f"{self.kill} {session:d};" for session in sessions)
        block = f"BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR {NO_SUCH_THREAD} BEGIN END; {kills} END"
        self._open(deadline).change("mariadb.kill_client", block, deadline)

    def refuse_writes(self, deadline: Deadline) -> None:
        """In bounded attempts: under BACKUP STAGE it hangs for as long as a statement is stuck at its commit."""
        while True:
            left = deadline.require(f"{self.name} to refuse writes")
            attempt = max(min(left / 2, ATTEMPT), 0.01)  # its answer needs some time as well
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

    # -- Roles --

    def semi_sync(self, deadline: Deadline, *, primary: bool | None = None, replica: bool | None = None) -> None:
        for variable, wanted in (
            ("rpl_semi_sync_master_enabled", primary),
            ("rpl_semi_sync_slave_enabled", replica),
        ):
            if wanted is not None:
                self._open(deadline).change("mariadb.semi_sync", f"SET GLOBAL {variable}={int(wanted)}", deadline)

    def set_events(self, events: Sequence[Event], status: str, deadline: Deadline) -> None:
        if not events:
            return
        with self._session().open(deadline) as session:
            for event in events:
                set_event_status(session, event, status, deadline)

    @staticmethod
    def statements(verb: str, policy: Policy, peer: Peer) -> Sequence[str]:
        return statements(verb, policy, peer)
