"""The values everything else speaks in: frozen, without behaviour that touches the world.

Nothing here knows a database flavour, a proxy or a file. A driver fills a :class:`Status` in, an adapter an
:class:`Observed`; deciders turn them into findings, plans and routes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from proxyroute.deadline import Deadline as Deadline
from proxyroute.errors import Silence
from proxyroute.gtid import Position
from proxyroute.inspection import Inspection


@dataclass(frozen=True, order=True)
class Epoch:
    """Orders operations across processes and engines: ``term`` grows with each lease, ``serial`` within it."""

    term: int
    serial: int

    def __str__(self) -> str:
        return f"{self.term}.{self.serial}"

    @classmethod
    def parse(cls, text: str) -> Epoch:
        """Reads what ``str()`` wrote. Raises ValueError for anything else."""
        term, _, serial = text.partition(".")
        return cls(int(term), int(serial))


NO_EPOCH = Epoch(0, 0)


@dataclass(frozen=True)
class Holding:
    """Who holds the lease of a cluster now, for those who show it."""

    kind: str
    """``local``, ``etcd``, ``database`` or ``pacemaker``."""
    holder: str = ""
    """Host and process; empty while nobody holds it."""
    purpose: str = ""
    seconds_left: float | None = None
    """Until it ends by itself, if its holder does not keep it alive; None where that is not how it ends."""
    trouble: str = ""
    """Why it is not known who holds it."""


@dataclass(frozen=True, order=True)
class Address:
    """Host and TCP port of a server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, default_port: int = 3306) -> Address:
        """Reads ``host``, ``host:port`` or ``[v6]:port``. Raises ValueError for anything else."""
        host, port = text, ""
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ValueError(f"{text!r} is not an address; write host:port or [ipv6]:port")
            port = rest[1:]
        elif text.count(":") == 1:
            host, _, port = text.partition(":")
        if not host or (port and not port.isdigit()):
            raise ValueError(f"{text!r} is not an address; write host:port or [ipv6]:port")
        number = int(port) if port else default_port
        if not 0 < number < 65536:
            raise ValueError(f"port {number} of {text!r} is not between 1 and 65535")
        return cls(host, number)


@dataclass(frozen=True)
class Peer:
    """A member of the cluster as another member refers to it: by address, or by the server id it has seen there."""

    name: str
    address: Address
    server_id: int | None = None


# -- What a server looks like ---------------------------------------------------------------------------------


class Receiver(StrEnum):
    """State of the thread that fetches events from the source."""

    RUNNING = "running"
    CONNECTING = "connecting"
    STOPPED = "stopped"


CANNOT_CONNECT = frozenset({2002, 2003, 2005, 2006, 2013})
"""Errors of a receiver that did not reach its source. With any other (TLS too) the source has answered something."""


@dataclass(frozen=True)
class Source:
    """One replication channel of a replica: where it fetches from and how far it is."""

    channel: str
    address: Address
    user: str
    source_id: int | None
    """Server id of the source as the receiver has seen it; None before the first contact."""
    receiver: Receiver
    applier: bool
    received: Position
    """What the receiver has fetched, applied or not."""
    lag_seconds: float | None
    delay_seconds: int = 0
    heartbeat_seconds: float = 0.0
    uses_gtid: bool = True
    filtered: bool = False
    error: str = ""
    receiver_errno: int = 0
    applier_errno: int = 0
    receiver_state: str = ""
    """What the receiver says it is doing; for people."""
    read_file: str = ""
    """The source's log file that the receiver reads, and how far it has come in it."""
    read_offset: int = 0
    heartbeats: int = 0
    """How many heartbeats the receiver has been sent since it began."""
    source_uuid: str = ""
    """The UUID of the source as the receiver has seen it, in a flavour that names servers by it."""
    chooses_source: bool = False
    """It connects to another source by itself when it loses this one (MySQL)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Connection options worth keeping when the channel is repointed (TLS, retry, heartbeat); JSON values."""

    @property
    def running(self) -> bool:
        return self.receiver is Receiver.RUNNING and self.applier

    @property
    def applies_now(self) -> bool:
        """Whether what it has received is applied as soon as that can be done: nobody has stopped or delayed it."""
        return self.applier and not self.delay_seconds

    @property
    def gave_up(self) -> bool:
        """Whether the receiver has ended by itself, after as many vain attempts as it makes (MySQL from 8.4 on: ten).

        Somebody who stops a replica stops its applier as well, or a receiver that was connected and has no error.
        """
        return self.receiver is Receiver.STOPPED and self.applier and self.receiver_errno in CANNOT_CONNECT


@dataclass(frozen=True)
class SemiSync:
    """Semi-synchronous replication, both sides of it."""

    available: bool = False
    """It can wait for acknowledgements: the plugin of a source is there. That of a replica is another one on MySQL."""
    primary_enabled: bool = False
    primary_active: bool = False
    """Acknowledgements are arriving now (not degraded to asynchronous)."""
    replica_enabled: bool = False
    clients: int = 0
    wait_point: str = ""
    timeout_seconds: float = 0.0
    wait_no_replica: bool = False
    """The primary goes on waiting when no replica is left that could acknowledge."""
    wanted: int = 1
    """How many replicas have to acknowledge a commit; only MySQL has more than one."""
    waiting: int = 0
    """Sessions that now wait for an acknowledgement."""
    acknowledged: int = 0
    """Transactions that were acknowledged since the server counts."""
    replica_active: bool = False
    """This replica acknowledges to its source now."""
    can_acknowledge: bool = False
    """The plugin of a replica is there."""


@dataclass(frozen=True)
class Status:
    """One reading of one server; cheap enough to be taken every second."""

    name: str
    address: Address
    flavour: str
    """``mariadb`` or ``mysql``."""
    version: tuple[int, int, int]
    version_text: str
    server_id: int
    writable: bool
    """Ordinary accounts may write."""
    executed: Position
    """Everything this server has executed, written here or replicated."""
    sources: tuple[Source, ...] = ()
    binlog: bool = True
    relays_updates: bool = True
    """Replicated events are written to its own binary log, so that it can serve replicas."""
    binlog_format: str = "ROW"
    row_image: str = "FULL"
    strict: bool = True
    """Out-of-order GTIDs are refused by the server."""
    semi_sync: SemiSync = SemiSync()
    galera: bool = False
    group: bool = False
    """It is a member of a replication group of MySQL, which chooses its primary itself."""
    connections: int = 0
    connections_limit: int = 0
    net_timeout_seconds: float = 0.0
    """After how much silence a replica considers its source lost."""
    event_scheduler: bool = False
    uptime_seconds: float = 0.0
    round_trip_seconds: float = 0.0
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further server variables, for display and findings."""
    uuid: str = ""
    """By which positions name it, in a flavour whose positions do not go by server ids."""

    @property
    def half_closed(self) -> bool:
        """Ordinary accounts are refused, and not those that may write past ``read_only`` (MySQL)."""
        return not self.writable and self.settings.get("super_read_only") == "OFF"

    @property
    def identity(self) -> int | str:
        """By which positions name this server."""
        return self.uuid or self.server_id

    def ours(self, known: Position, members: Collection[int | str] = ()) -> Position:
        """Returns what it has executed of the cluster whose history is ``known``, and what it wrote itself.

        What a replica of several sources has besides, the others gave it, unless one of ``members`` wrote it.
        """
        if len(self.sources) < 2:
            return self.executed
        return self.executed.alongside(known, {self.identity, *members})

    def behind(self, top: Status) -> int | None:
        """Returns about how many transactions it lacks that ``top`` has executed; None if nobody can tell."""
        return top.executed.distance(self.executed) if top.flavour == self.flavour else None

    def fed_from(self, addresses: Collection[Address]) -> set[int | str]:
        """Returns by which positions name those at ``addresses`` whom it replicates from, or did, as far as it knows.

        They need not have got anything to anybody else.
        """
        return {s.source_uuid for s in self.sources if s.source_uuid and s.address in addresses}

    @property
    def source(self) -> Source | None:
        """The one channel of an ordinary replica, the first of a multi-source one, None of a primary."""
        return self.sources[0] if self.sources else None


@dataclass(frozen=True)
class Silent:
    """Stands where a Status would, for a server that could not be read."""

    name: str
    address: Address
    reason: str
    kind: Silence = Silence.OTHER


@dataclass(frozen=True)
class View:
    """One simultaneous reading of all servers of a cluster."""

    cluster: str
    servers: Mapping[str, Status | Silent]
    inspections: Mapping[str, Inspection] = field(default_factory=dict)
    taken_at: float = 0.0
    """Unix time."""

    @property
    def seen(self) -> tuple[Status, ...]:
        """The servers that answered, in configuration order."""
        return tuple(s for s in self.servers.values() if isinstance(s, Status))

    @property
    def silent(self) -> tuple[Silent, ...]:
        return tuple(s for s in self.servers.values() if isinstance(s, Silent))

    @property
    def writable(self) -> tuple[Status, ...]:
        return tuple(s for s in self.seen if s.writable)

    def peer(self, name: str) -> Peer:
        """Returns how others refer to server ``name``. Raises KeyError when it is not a member."""
        found = self.servers[name]
        return Peer(name, found.address, found.server_id if isinstance(found, Status) else None)

    def status(self, name: str) -> Status | None:
        """Returns the reading of server ``name``, or None when it did not answer."""
        found = self.servers.get(name)
        return found if isinstance(found, Status) else None

    @property
    def identities(self) -> frozenset[int | str]:
        """By which positions name the members: those that answered, and those that somebody here replicates from."""
        at = {s.address for s in self.servers.values()}
        return frozenset(s.identity for s in self.seen).union(*(s.fed_from(at) for s in self.seen))

    @property
    def primary(self) -> Status | None:
        """The one server that takes writes; None when there is none, or more than one.

        A writable server that replicates from another member is a mistake to be found, not a primary, as long as
        a writable one without a source is there.
        """
        writable = self.writable
        if len(writable) > 1:
            writable = tuple(s for s in writable if not s.sources)
        return writable[0] if len(writable) == 1 else None


# -- What an operator should know -----------------------------------------------------------------------------


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """Something an operator should know before acting."""

    code: str
    """Stable, dotted, e.g. ``replica.lag``; documented in docs/reference/findings.md."""
    severity: Severity
    subject: str
    """The server, proxy or cluster it is about."""
    text: str
    cure: str = ""
    """What to do or type next."""
    forceable: bool = False
    """``--force`` turns this error into a warning."""


# -- Routes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Endpoint:
    """A server as a proxy sees it."""

    name: str
    address: Address


@dataclass(frozen=True)
class Reader:
    """A server in the read pool."""

    name: str
    weight: int
    """1..100; a server that should get no reads is not in the pool."""


@dataclass(frozen=True)
class RouteTable:
    """Where a proxy must send traffic. A value: applying it twice is applying it once."""

    cluster: str
    epoch: Epoch
    servers: tuple[Endpoint, ...]
    """All servers of the cluster, in configuration order."""
    primary: str | None
    """Name of the server that gets the writes; None closes the write route."""
    readers: tuple[Reader, ...] = ()
    """Never empty while there is a primary: without a usable replica the primary serves reads."""

    def address(self, name: str) -> Address:
        """Returns the address of server ``name``. Raises KeyError when it is not in the table."""
        for endpoint in self.servers:
            if endpoint.name == name:
                return endpoint.address
        raise KeyError(name)


class ReceiptState(StrEnum):
    """What a proxy has made of a route."""

    DONE = "done"
    PREPARED = "prepared"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Receipt:
    """A proxy's answer to a route."""

    proxy: str
    state: ReceiptState
    epoch: Epoch
    detail: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """What was read back to support ``state``; JSON values. ``blind`` is true where nothing ever can be; ``awaits``
    names the primary of the route if it is down and the proxy sends writes there by itself as soon as it is up."""


@dataclass(frozen=True)
class Published:
    """A route as it lies where a proxy is told it: its own files, or a shared folder."""

    primary: str | None
    epoch: Epoch

    def __str__(self) -> str:
        return f"{self.primary or 'nobody'}/{self.epoch}"


@dataclass(frozen=True)
class Observed:
    """What a proxy really does now, read from the proxy."""

    proxy: str
    reachable: bool
    epoch: Epoch | None = None
    primary: str | None = None
    """Name of the server that gets the writes; None when closed or not to be told."""
    readers: tuple[str, ...] = ()
    sessions: Mapping[str, int] = field(default_factory=dict)
    """Open sessions of the write route by server, those in old proxy processes included; empty if that is not known."""
    held: bool = False
    """Newcomers are waiting."""
    drift: tuple[str, ...] = ()
    """Each difference between what was published and what is loaded, in words."""
    detail: str = ""
    published: Published | None = None
    """What it was told last, as it is told it; None when that cannot be told apart from what it does."""
    aside: tuple[str, ...] = ()
    """Servers that somebody has taken out of service there on purpose; that is respected, and never corrected."""
    addresses: Mapping[str, bool | None] = field(default_factory=dict)
    """The virtual addresses that are watched on its host, and whether it has them; None when it cannot tell."""
