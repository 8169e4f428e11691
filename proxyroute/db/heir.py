"""A server that gets what a dead primary had: transactions of its binary log, applied as they were.

A client program applies them, and its session may outlive the program, and the program us. So it bears a lock of its
own and asks first whether the session of ours that owns the replay is still there: whoever ends the owner and then the
one with the lock knows that nothing is applied any more. Both bear marks as well, for the next holder of the lease.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from proxyroute.db.session import NO_SUCH_THREAD, Login, Session
from proxyroute.errors import StatementError
from proxyroute.faults import act
from proxyroute.gtid import Position
from proxyroute.host import Program, option_file, pump
from proxyroute.model import Address, Deadline

OWNER, REPLAY = "proxyroute/salvage", "proxyroute/salvage/replay"
"""The locks: that of the session of ours, and that of the client program which applies."""
POLL = 0.02


class DatabaseHeir(ABC):
    """One server, as :class:`proxyroute.ports_data.Heir`. ``client`` is what its client program logs in with."""

    reader: tuple[str, ...]
    """The program that reads a binary log, ``--no-defaults``, and what else it is told."""

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

    # -- what each flavour says in its own words --

    @abstractmethod
    def _applier(self, owner: int) -> tuple[str, ...]:
        """Returns the client program that applies for the session ``owner``, and ends at once when that is gone."""

    @abstractmethod
    def _make_way(self, session: Session, deadline: Deadline) -> None:
        """What would keep the client program from writing gives way, until ``settle_replay``."""

    @abstractmethod
    def settle_replay(self, deadline: Deadline, applied: Position | None = None) -> None: ...

    # -- what is the same --

    def _session(self, deadline: Deadline) -> Session:
        return Session(self.name, self.address, self._login, self._permit).open(deadline)

    def replay(self, file: Path, start: int, end: int, deadline: Deadline) -> None:
        source = Program((*self.reader, f"--start-position={start}", f"--stop-position={end}", str(file)))
        where = {"host": self.address.host, "port": self.address.port, "protocol": "tcp"}
        with self._session(deadline) as session:
            self._end(session, deadline)
            session.change("salvage.own", "SELECT GET_LOCK(%s, 0)", deadline, (OWNER,))
            self._make_way(session, deadline)
            target = Program(self._applier(session.id), options=option_file("client", {**where, **self._client}))
            with act("archive.replay"):
                pump(source, target, deadline)

    def _end(self, session: Session, deadline: Deadline) -> None:
        """The owner first: a client that comes after that is refused, one that came before has its lock."""
        for lock in (OWNER, REPLAY):
            while (found := session.one("SELECT IS_USED_LOCK(%s) AS id", deadline, (lock,))["id"]) is not None:
                deadline.require(f"session {found} of an earlier replay on {self.name} to end")
                try:
                    session.change("salvage.end_older", f"KILL /*M! HARD */ CONNECTION {int(found):d}", deadline)
                except StatementError as error:
                    if error.errno != NO_SUCH_THREAD:
                        raise
                time.sleep(POLL)
