"""What the drivers of both flavours have in common: connections, named locks, sessions that are ended.

Connections: *control* for everything, those of ``freeze`` while writes are held back, and a short side connection to
end a statement whose reply does not come.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from proxyroute.db.acting import READ_MARKS, marked
from proxyroute.db.freeze import Freeze
from proxyroute.db.replication import Replication, ReplicationLogin
from proxyroute.db.session import NO_SUCH_THREAD, Login, Session
from proxyroute.errors import (
    GaveWay,
    OtherFlavour,
    Refused,
    StatementError,
    TimedOut,
)
from proxyroute.gtid import Position
from proxyroute.inspection import Event, Inspection, WriteState
from proxyroute.model import Address, Deadline, Peer
from proxyroute.policy import Policy

_TOO_MANY_CONNECTIONS = 1040
POLL = 0.002
ATTEMPT = 0.5
_SLICE = 0.25
_REPLY = 1.0
"""Seconds for the answer to a question about a wait, beyond what is waited."""
_QUICK = 0.7
"""Seconds in which a server answers that is worth waiting for."""


class DatabaseServer(ABC):
    """One server of either flavour: most of :class:`proxyroute.ports.Server`; the rest is up to the flavour."""

    flavour: str
    kill: str
    """The statement that ends a session, before its id."""

    def __init__(
        self,
        name: str,
        address: Address,
        login: Login,
        replication: ReplicationLogin,
        monitor_users: Sequence[str] = (),
        permit: Callable[[], None] | None = None,
        control: Session | None = None,
    ) -> None:
        """``permit`` raises LeaseLost when nothing may be changed any more; see :class:`Session`.

        ``control`` is a session that is open already.
        """
        self.name = name
        self.address = address
        self._login = login
        self._permit = permit
        self._control = control or self._session()
        self._freeze = self._make_freeze()
        self._excluded = (login.user, *monitor_users)
        self._replication = self._channels(replication)

    # -- What each flavour does in its own way --

    @abstractmethod
    def _channels(self, login: ReplicationLogin) -> Replication: ...

    @abstractmethod
    def _make_freeze(self) -> Freeze: ...

    @abstractmethod
    def _inspect(self, session: Session, deadline: Deadline, policy: Policy) -> Inspection: ...

    @abstractmethod
    def _clients(self, excluded: Sequence[str]) -> str:
        """Returns the statement that reads the ids of client sessions, with a placeholder for each excluded user."""

    @abstractmethod
    def _blockers(self, policy: Policy) -> str:
        """Returns in words who may have kept the lock from being had; never raises for a server that is silent."""

    @abstractmethod
    def _end_sessions(self, sessions: Sequence[int], deadline: Deadline) -> None:
        """Ends them all in one round trip; those that are gone already do not count."""

    @abstractmethod
    def write_state(self, deadline: Deadline, operation: str) -> WriteState: ...

    @staticmethod
    @abstractmethod
    def statements(verb: str, policy: Policy, peer: Peer) -> Sequence[str]: ...

    @abstractmethod
    def set_events(self, events: Sequence[Event], status: str, deadline: Deadline) -> None: ...

    def _session(self) -> Session:
        return Session(self.name, self.address, self._login, self._permit)

    def _open(self, deadline: Deadline) -> Session:
        if not self._control.is_open:
            self._control.open(deadline)
            if self._control.flavour != self.flavour:
                found = self._control.flavour
                self._control.close()
                raise OtherFlavour(self.name, f"is {found} now, it was {self.flavour}")
        return self._control

    # -- Reading --

    def connect(self, deadline: Deadline, operation: str = "") -> None:
        """Opens the control connection; for an ``operation`` also those of the lock and of the dead man's switch."""
        self._open(deadline).mark(deadline)
        if operation:
            self._freeze.connect(operation, deadline)

    def line(self) -> int | None:
        return self._control.descriptor

    def inspect(self, deadline: Deadline, policy: Policy) -> Inspection:
        """On a fresh connection, for privileges are as old as their session; or on ours when no other gets in."""
        try:
            with self._session().open(deadline) as fresh:
                return self._inspect(fresh, deadline, policy)
        except StatementError as error:
            if error.errno != _TOO_MANY_CONNECTIONS:
                raise
            return self._inspect(self._open(deadline), deadline, policy)

    def _wait(self, text: str, sql: str, deadline: Deadline) -> None:
        """Waits by ``sql``, in slices, so that a stopped applier is an error and not an endless wait."""
        while True:
            left = deadline.require(f"{self.name} to apply {text}")
            try:
                row = self._open(deadline).one(
                    sql, Deadline.after(min(left, _SLICE) + _REPLY), (text, round(min(left, _SLICE), 3))
                )
            except GaveWay:
                raise
            except TimedOut as error:  # an answer it was not that we waited for
                raise TimedOut(f"out of time while waiting for {self.name} to apply {text}: {error}") from error
            if row["waited"] == 0:
                return
            with contextlib.suppress(TimedOut):  # the next round says what was waited for: an answer it was not
                # with time of its own: in the last moment of the wait every server would look silent
                self._replication.require_applying(self.name, Deadline.after(_REPLY))

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
        return self._client_sessions(self._open(deadline), deadline)

    def _client_sessions(self, session: Session, deadline: Deadline) -> frozenset[int]:
        rows = session.read(self._clients(self._excluded), deadline, self._excluded)
        return frozenset(int(row["id"]) for row in rows)

    def _cut_off(self, deadline: Deadline) -> frozenset[int]:
        """Returns sessions that were ended, that no client hears any more, and that it is no use to wait for."""
        return frozenset()

    def block_writes(self, operation: str, deadline: Deadline, policy: Policy) -> None:
        self._freeze.block(deadline, policy, lambda: self._blockers(policy))

    def arm(self, operation: str, seconds: float, deadline: Deadline) -> None:
        self._freeze.arm(operation, seconds, deadline, lambda: "armed" in self.write_state(deadline, operation).holders)

    def unblock_writes(self, operation: str, deadline: Deadline) -> None:
        self._freeze.end(operation, deadline, self._open(deadline), self._kill)

    @abstractmethod
    def limit_connections(self, limit: int, deadline: Deadline) -> None: ...

    def keep_clients_out(self, policy: Policy, deadline: Deadline) -> None:
        if policy.max_connections:
            self.limit_connections(policy.max_connections, deadline)

    def kill_clients(self, deadline: Deadline) -> int:
        """All in one round trip, until those are gone: rollbacks of killed work are awaited.

        Who connects meanwhile is left to the next call: a storm of newcomers must not keep us here for ever.
        """
        found = self.client_sessions(deadline)
        if not found:
            return 0
        self._end_sessions(sorted(found), deadline)
        while left := (found & self.client_sessions(deadline)) - self._cut_off(deadline):
            deadline.require(f"{len(left)} killed sessions on {self.name} to be gone")
            time.sleep(POLL)
        return len(found)

    def kill_session(self, session: int, deadline: Deadline) -> None:
        self._kill("mariadb.kill_client", session, deadline)

    def _kill(self, point: str, session: int, deadline: Deadline) -> None:
        try:
            self._open(deadline).change(point, f"{self.kill} {session:d}", deadline)
        except StatementError as error:
            if error.errno != NO_SUCH_THREAD:
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
        source_purged: Callable[[], Position | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._replication.follow(
            source, deadline, instead_of=instead_of, source_has=source_has, source_purged=source_purged, options=options
        )

    def purged(self, deadline: Deadline) -> Position | None:
        return self._replication.purged(deadline)

    def forget_source(self, source: Peer, deadline: Deadline) -> None:
        self._replication.forget(source, deadline)

    def stop_events(self, deadline: Deadline) -> None:
        self._event_scheduler("OFF", deadline)

    def start_events(self, deadline: Deadline) -> None:
        self._event_scheduler("ON", deadline)

    def _event_scheduler(self, wanted: str, deadline: Deadline) -> None:
        now = self._open(deadline).one("SELECT @@global.event_scheduler AS now", deadline)["now"]
        if str(now).upper() in ("DISABLED", wanted):
            return
        self._open(deadline).change("mariadb.event_scheduler", f"SET GLOBAL event_scheduler={wanted}", deadline)

    def end_others(self, deadline: Deadline) -> int:
        """KILL of every marked session but our own, until they are gone. A server that hangs is not waited for."""
        session = self._open(deadline.within(_QUICK))
        others = marked(session.one(READ_MARKS, deadline.within(_QUICK))) - self._own
        ended: set[int] = set()
        while others:
            for other in others:
                self._kill("mariadb.end_other", other, deadline)
            ended |= others
            if deadline.left <= POLL:
                raise Refused(f"{len(others)} sessions of another engine on {self.name} do not end: {sorted(others)}")
            time.sleep(POLL)
            others = marked(session.one(READ_MARKS, deadline)) - self._own
        return len(ended)

    @property
    def _own(self) -> set[int]:
        return {self._control.id, *self._freeze.ids}

    def close(self) -> None:
        self._control.close()
        self._freeze.close()
