"""A cluster in memory, exact enough for the question: what if we die right here?

Servers, one proxy and clients that write whenever anybody lets them. Every act can be the last: a :class:`Crash` is
raised right before or right after it, and everything that lived in the dead process (its locks) is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proxyroute.errors import StatementError, TimedOut, Unreachable
from proxyroute.gtid import GTID, MariaDBPosition, Position
from proxyroute.inspection import Event, Inspection, WriteState
from proxyroute.journal import Journal, Record
from proxyroute.model import (
    NO_EPOCH,
    Address,
    Deadline,
    Epoch,
    Finding,
    Holding,
    Observed,
    Peer,
    Receipt,
    ReceiptState,
    Receiver,
    RouteTable,
    SemiSync,
    Source,
    Status,
)
from proxyroute.policy import Policy


class Crash(BaseException):
    """The process dies here. Not an Exception: nothing in the product may catch it to carry on."""


@dataclass
class World:
    """Everything outside the process. ``crash_at`` counts acts; each has a moment before and one after."""

    servers: dict[str, FakeServer] = field(default_factory=dict)
    crash_at: int | None = None
    moments: int = 0
    dead: bool = False
    """The process has died: whatever it still tries, in its handlers, does not happen."""
    trace: list[str] = field(default_factory=list)
    acknowledged: list[tuple[str, GTID]] = field(default_factory=list)
    most_open: int = 0
    """The most servers that ever took writes at one moment."""
    one_at_a_time: threading.RLock = field(default_factory=threading.RLock, repr=False)
    """Servers are told side by side; moments come one after the other."""

    def moment(self, what: str) -> None:
        """One moment passes: clients write, replicas replicate, and perhaps the process dies."""
        with self.one_at_a_time:
            if self.dead:
                raise Crash(what)
            self.trace.append(what)
            self.live()
            self.moments += 1
            if self.crash_at == self.moments:
                self.dead = True
                raise Crash(what)

    def live(self) -> None:
        takers = [s for s in self.servers.values() if s.alive and s.writable and not s.holders]
        self.most_open = max(self.most_open, len(takers))
        for server in takers:
            self.acknowledged.append((server.name, server.write()))
        for _ in self.servers:
            for server in self.servers.values():
                server.replicate()

    def process_dies(self, *, long_ago: bool = False) -> None:
        """The engine's lock goes with it; an armed server holds on, and refuses writes once that was long ago."""
        for server in self.servers.values():
            server.holders.discard("engine")
            if long_ago and "armed" in server.holders:
                server.holders.discard("armed")
                server.writable = False
        self.crash_at, self.dead = None, False


@dataclass
class FakeServer:
    """One database server, as :class:`proxyroute.ports.Server`."""

    world: World
    name: str
    server_id: int
    address: Address
    writable: bool = False
    executed: MariaDBPosition = field(default_factory=MariaDBPosition)
    follows: str | None = None
    runs: bool = True
    applies: bool = True
    """Its applier runs; what it has received is applied at once, so it matters only to those who follow."""
    holders: set[str] = field(default_factory=set)
    limit: int = 100
    scheduler: bool = False
    alive: bool = True
    semi_primary: bool = False
    semi_replica: bool = False
    uptime: float = 86400.0
    half_closed: bool = False
    broken: str = ""
    """What of its host does not work, ``look`` or ``fetch``; or of what is applied to it, ``settle``."""

    def write(self) -> GTID:
        last = max((g.sequence for g in self.executed.entries), default=0)
        gtid = GTID(0, self.server_id, last + 1)
        self.executed = self.executed.merge(MariaDBPosition((gtid,)))
        return gtid

    def replicate(self) -> None:
        source = self.world.servers.get(self.follows or "")
        if self.alive and source is not None and source.alive and self.runs and self.applies:
            self.executed = self.executed.merge(source.executed)

    def _read(self) -> None:
        if not self.alive:
            raise Unreachable(self.name, "is dead")

    def _act(self, what: str, **changes: Any) -> None:
        self.world.moment(f"{self.name} {what}: before")
        self._read()
        for name, value in changes.items():
            setattr(self, name, value)
        self.world.moment(f"{self.name} {what}: after")

    # reading

    def connect(self, deadline: Deadline, operation: str = "") -> None:
        self._read()

    def look(self, deadline: Deadline) -> Status:
        self._read()
        source: tuple[Source, ...] = ()
        if self.follows is not None:
            of = self.world.servers[self.follows]
            state = Receiver.RUNNING if self.runs else Receiver.STOPPED
            source = (Source("", of.address, "repl", of.server_id, state, self.applies, self.executed, 0.0),)
        return Status(
            self.name,
            self.address,
            "mariadb",
            (10, 11, 0),
            "10.11.0",
            self.server_id,
            self.writable,
            self.executed,
            source,
            semi_sync=SemiSync(True, self.semi_primary, self.semi_primary, self.semi_replica, can_acknowledge=True),
            connections_limit=self.limit,
            net_timeout_seconds=4,
            event_scheduler=self.scheduler,
            uptime_seconds=self.uptime,
        )

    def inspect(self, deadline: Deadline, policy: Policy) -> Inspection:
        self._read()
        return Inspection(self.name, "engine@%")

    def position(self, deadline: Deadline) -> Position:
        self._read()
        return self.executed

    def purged(self, deadline: Deadline) -> Position:
        self._read()
        return self.executed.minus(self.executed)

    def write_state(self, deadline: Deadline, operation: str) -> WriteState:
        self._read()
        return WriteState(self.writable, frozenset(self.holders), self.executed, self.half_closed)

    def wait_for(self, goal: Position, deadline: Deadline) -> None:
        self._read()
        self.replicate()
        if str(self.executed.contains(goal)) != "yes":
            raise TimedOut(f"{self.name} does not get there")

    # freezing

    def write_settings(self, deadline: Deadline) -> Mapping[str, Any]:
        return {
            "read_only": "0" if self.writable else "1",
            "max_connections": self.limit,
            "event_scheduler": "ON" if self.scheduler else "OFF",
        }

    def client_sessions(self, deadline: Deadline) -> frozenset[int]:
        return frozenset()

    def block_writes(self, operation: str, deadline: Deadline, policy: Policy) -> None:
        self._act("block writes", holders=self.holders | {"engine"})

    def arm(self, operation: str, seconds: float, deadline: Deadline) -> None:
        self._act("arm", holders=self.holders | {"armed"})

    def unblock_writes(self, operation: str, deadline: Deadline) -> None:
        for holder in sorted(self.holders):
            self._act(f"unblock {holder}", holders=self.holders - {holder})

    def limit_connections(self, limit: int, deadline: Deadline) -> None:
        self._act("limit", limit=10)

    def keep_clients_out(self, policy: Policy, deadline: Deadline) -> None:
        self.limit_connections(policy.max_connections, deadline)

    def kill_clients(self, deadline: Deadline) -> int:
        self._act("kill")
        return 0

    def kill_session(self, session: int, deadline: Deadline) -> None:
        self._act("kill one")

    def refuse_writes(self, deadline: Deadline) -> None:
        self._act("refuse writes", writable=False, half_closed=False)

    def accept_writes(self, deadline: Deadline) -> None:
        self._act("accept writes", writable=True)

    def restore(self, settings: Mapping[str, Any], deadline: Deadline) -> None:
        self._act("restore", limit=settings["max_connections"])

    def lock_account(self, account: str, deadline: Deadline) -> None:
        self._act("lock account")

    def unlock_account(self, account: str, deadline: Deadline) -> None:
        self._act("unlock account")

    # roles

    def detach(self, source: Peer, deadline: Deadline) -> None:
        self._act("detach", runs=False, applies=False)

    def resume(self, source: Peer, deadline: Deadline) -> None:
        self._act("resume", runs=True, applies=True)

    def stop_receiver(self, source: Peer, deadline: Deadline) -> None:
        self._act("stop receiver", runs=False)

    def start_receiver(self, source: Peer, deadline: Deadline, *, applier: bool = False) -> None:
        self._act("start receiver", runs=True, applies=self.applies or applier)

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
        self._read()
        if self.follows == source.name and self.runs and self.applies:
            return
        if source_has is not None and str(source_has().contains(self.executed)) != "yes":
            raise StatementError(self.name, 1236, f"diverged: {self.executed}")
        self._act("stop", runs=False, applies=False)
        self._act("change source", follows=source.name)
        self._act("start", runs=True, applies=True)

    def forget_source(self, source: Peer, deadline: Deadline) -> None:
        self._act("forget", follows=None)

    def semi_sync(self, deadline: Deadline, *, primary: bool | None = None, replica: bool | None = None) -> None:
        if primary is not None:
            self._act("semi-sync primary", semi_primary=primary)
        if replica is not None:
            self._act("semi-sync replica", semi_replica=replica)

    def stop_events(self, deadline: Deadline) -> None:
        self._act("stop events", scheduler=False)

    def start_events(self, deadline: Deadline) -> None:
        self._act("start events", scheduler=True)

    def set_events(self, events: Sequence[Event], status: str, deadline: Deadline) -> None:
        for event in events:
            self._act(f"event {event.name} {status}")

    def end_others(self, deadline: Deadline) -> int:
        return 0

    def statements(self, verb: str, policy: Policy, peer: Peer) -> Sequence[str]:
        return ()

    def close(self) -> None: ...


@dataclass
class FakeProxy:
    """One proxy, as :class:`proxyroute.ports.Adapter`."""

    world: World
    name: str = "edge1"
    primary: str | None = None
    epoch: Epoch = NO_EPOCH
    held: bool = False

    def _act(self, what: str, **changes: Any) -> None:
        self.world.moment(f"{self.name} {what}: before")
        for name, value in changes.items():
            setattr(self, name, value)
        self.world.moment(f"{self.name} {what}: after")

    def check(self, deadline: Deadline) -> Sequence[Finding]:
        return ()

    def prepare(self, target: RouteTable, abort: RouteTable, deadline: Deadline) -> Receipt:
        return Receipt(self.name, ReceiptState.PREPARED, target.epoch)

    def hold(self, operation: str, deadline: Deadline) -> Receipt:
        self._act("hold", held=True)
        return Receipt(self.name, ReceiptState.DONE, self.epoch)

    def release(self, deadline: Deadline) -> Receipt:
        self._act("release", held=False)
        return Receipt(self.name, ReceiptState.DONE, self.epoch)

    def apply(self, table: RouteTable, deadline: Deadline) -> Receipt:
        if table.epoch < self.epoch:
            return Receipt(self.name, ReceiptState.FAILED, self.epoch, "superseded")
        self._act(f"route to {table.primary}", primary=table.primary, epoch=table.epoch)
        return Receipt(self.name, ReceiptState.DONE, self.epoch)

    def settle(self, table: RouteTable, deadline: Deadline) -> Receipt:
        return self.apply(table, deadline)

    def observe(self, deadline: Deadline) -> Observed:
        return Observed(self.name, True, self.epoch, self.primary, held=self.held)

    def routes(self, kind: str) -> Sequence[Address]:
        return ()

    def close(self) -> None: ...


class FakeLease:
    """A lease nobody contests; the claims outlive the process. In a ``world`` its commit is an act as any other."""

    distributed = False
    automatic = False
    term = 1

    def __init__(self, claimed: list[tuple[Epoch, str]], world: World | None = None) -> None:
        self.claimed = claimed
        self._world = world

    def acquire(self, purpose: str, deadline: Deadline) -> int:
        return 1

    def check(self) -> None: ...

    def lost(self, deadline: Deadline) -> bool:
        return False

    def commit(self, decision: str, deadline: Deadline) -> None:
        if self._world is not None:
            self._world.moment(f"lease: {decision} committed")

    def ticket(self) -> str:
        return ""

    def adopt(self, ticket: str) -> bool:
        return False

    def holding(self, deadline: Deadline) -> Holding:
        return Holding("fake")

    def hands_off(self) -> str:
        return ""

    def findings(self, deadline: Deadline) -> Sequence[Finding]:
        return ()

    def claim(self, above: Epoch, operation: str) -> Epoch:
        epoch = replace(max(above, self.highest()), term=max(1, above.term))
        epoch = Epoch(epoch.term, epoch.serial + 1)
        self.claimed.append((epoch, operation))
        return epoch

    def highest(self, besides: str = "") -> Epoch:
        return max((e for e, owner in self.claimed if owner != besides or not besides), default=Epoch(0, 0))

    def release(self) -> None: ...


class NoHooks:
    """A site without scripts."""

    def run(self, moment: str, environment: Mapping[str, str]) -> None: ...

    def seconds(self, moment: str) -> float:
        return 0.0

    def configured(self, moment: str) -> Sequence[str]:
        return ()


class MortalJournal(Journal):
    """The real journal; each record is a moment, and a dead process writes nothing more."""

    def __init__(self, world: World, path: Path) -> None:
        super().__init__(path)
        self._world = world

    def write(self, kind: str, *, wait: bool = True, **fields: Any) -> Record:
        if self._world.dead:
            raise Crash(kind)
        record = super().write(kind, wait=wait, **fields)
        self._world.moment(f"journal: {kind} {fields.get('name') or fields.get('verb') or ''}")
        return record


def make_world(n: int = 3) -> tuple[World, FakeProxy]:
    """Returns a world of ``n`` servers, db1 being the primary that a proxy points at."""
    world = World()
    for number in range(1, n + 1):
        name = f"db{number}"
        world.servers[name] = FakeServer(world, name, number, Address("127.0.0.1", 3306 + number))
    world.servers["db1"].writable = True
    for name in list(world.servers)[1:]:
        world.servers[name].follows = "db1"
    world.live()
    return world, FakeProxy(world, primary="db1", epoch=Epoch(1, 0))
