"""The values everything else speaks in: frozen, without behaviour that touches the world.

Nothing here knows a database flavour, a proxy or a file. A driver fills a :class:`Status` in, an adapter an
:class:`Observed`; deciders turn them into findings, plans and routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from proxyroute.deadline import Deadline as Deadline
from proxyroute.errors import Silence
from proxyroute.gtid import Position


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
    options: Mapping[str, Any] = field(default_factory=dict)
    """Connection options worth keeping when the channel is repointed (TLS, retry, heartbeat); JSON values."""

    @property
    def running(self) -> bool:
        return self.receiver is Receiver.RUNNING and self.applier


@dataclass(frozen=True)
class SemiSync:
    """Semi-synchronous replication, both sides of it."""

    available: bool = False
    primary_enabled: bool = False
    primary_active: bool = False
    """Acknowledgements are arriving now (not degraded to asynchronous)."""
    replica_enabled: bool = False
    clients: int = 0
    wait_point: str = ""
    timeout_seconds: float = 0.0
    wait_no_replica: bool = False
    """The primary goes on waiting when no replica is left that could acknowledge."""
    waiting: int = 0
    """Sessions that now wait for an acknowledgement."""
    acknowledged: int = 0
    """Transactions that were acknowledged since the server counts."""
    replica_active: bool = False
    """This replica acknowledges to its source now."""


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
    def identity(self) -> int | str:
        """By which positions name this server."""
        return self.uuid or self.server_id

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
class Transaction:
    """A statement or transaction that has been running on a server for a while."""

    session: int
    user: str
    host: str
    age_seconds: float
    rows_modified: int
    writes: bool
    """It has modified rows, holds a write lock, or runs a statement that writes. Readers never block anything."""
    statement: str
    kind: str = "transaction"
    """``transaction``, ``statement``, ``table lock`` or ``global lock``."""


@dataclass(frozen=True)
class Event:
    """A scheduled event of the database server."""

    schema: str
    name: str
    definer: str
    status: str
    """``enabled``, ``disabled`` or ``replica side`` (present, and not run here)."""
    charset: str = "utf8mb4"
    collation: str = "utf8mb4_general_ci"
    database_collation: str = ""
    sql_mode: str = ""
    time_zone: str = "SYSTEM"


@dataclass(frozen=True)
class Inspection:
    """What is too dear to be read every second: read once before an operation."""

    name: str
    account: str
    missing_privileges: tuple[str, ...] = ()
    """Privileges our account lacks, read on a fresh connection."""
    privileged_writers: tuple[str, ...] = ()
    """Accounts, other than ours, that may write although the server refuses ordinary writes."""
    prepared_xa: tuple[str, ...] = ()
    transactions: tuple[Transaction, ...] = ()
    events: tuple[Event, ...] = ()
    binlog_filters: tuple[str, ...] = ()
    """What keeps schemas out of the binary log, as ``variable=value``."""


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
    def primary(self) -> Status | None:
        """The one server that takes writes; None when there is none, or more than one.

        A writable server that replicates from another member is a mistake to be found, not a primary, as long as
        a writable one without a source is there.
        """
        writable = self.writable
        if len(writable) > 1:
            writable = tuple(s for s in writable if not s.sources)
        return writable[0] if len(writable) == 1 else None


# -- What is decided ------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Policy:
    """How an operation is to be done. All durations in seconds."""

    prefer: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    """Servers in maintenance, by standing orders: they are never elected, get no reads, and are left alone."""
    rebuilt: tuple[str, ...] = ()
    """Those of ``aside`` whose data are being replaced or undone by a rejoin that is not over; nobody ordered that."""
    max_lag: float = 10.0
    """A candidate further behind than this is refused at once."""
    require_running: bool = True
    """Receiver and applier of every reachable replica must run."""
    allow_delayed: bool = False
    allow_filtered: bool = False
    long_transaction: float = 2.0
    """A writing transaction older than this is waited for, then refused."""
    long_wait: float = 10.0
    drain: float = 0.25
    """How long short client sessions may end by themselves while newcomers are held."""
    warm_up: float = 30.0
    """How long the candidate may take to catch up while writes still flow."""
    freeze_budget: float = 3.0
    """Writes are blocked no longer than this before everything is undone."""
    freeze: str = "flush_tables"
    """``flush_tables`` (FLUSH TABLES WITH READ LOCK) or ``backup_stage`` (BACKUP STAGE BLOCK_COMMIT)."""
    lock_attempt: float = 0.2
    """Length of one attempt to lock; while one is pending, writes stall."""
    lock_pause: float = 0.1
    max_connections: int = 1
    """What the connection limit is lowered to (the server clamps it); 0 leaves it alone."""
    order: str = "lock_early"
    """``lock_early`` (routes move, then kill) or ``read_only_first``; docs/decisions says why."""
    settle: float = 30.0
    """How long after the commit until everything must have converged."""
    prove: float = 8.0
    """How long the proof looks again while something is still on its way."""
    undo: float = 15.0
    monitor_users: tuple[str, ...] = ()
    """Accounts whose sessions are never killed."""
    max_replica_lag_reads: float = 30.0
    """A replica further behind than this gets no reads."""
    probe_schema: str = ""
    """Schema for the probe row of the proof; empty: no probe is written."""
    max_disk_seconds: float = 1.0

    @property
    def arms(self) -> bool:
        """Whether the old primary is made to hold writes until the routes have moved, whoever dies."""
        return self.order == "lock_early" and self.freeze != "backup_stage"  # only one session can hold a backup stage


@dataclass(frozen=True)
class FailoverPolicy:
    """When a primary counts as gone, and what may be done about it. All durations in seconds."""

    mode: str = "manual"
    """``manual`` (a person types ``proxyroute failover``) or ``automatic``."""
    profile: str = "default"
    """``default`` or ``aggressive``: which values probing and confirmation have when they are not given."""
    policy: str = "lossless"
    """``lossless`` (nothing acknowledged may be missing, else a person decides) or ``most_advanced``."""
    single_engine: bool = False
    """Declares that no other engine watches this cluster, so that a lease on this host is enough."""
    accept_unfenced: bool = False
    """Declares that an automatic failover may open a server although nothing keeps clients away from the old primary:
    no proxy that can be closed, and no fence."""
    quiet_period: float = 600.0
    """No automatic failover within this time of the last one."""
    per_day: int = 3
    """No more automatic failovers than this within 24 hours."""
    probe_period: float = 0.5
    patience: float = 1.0
    """A look at a server that takes longer than this has failed."""
    confirm: float = 1.0
    """The primary must have been silent for at least this long,"""
    looks: int = 2
    """and in at least so many looks in a row."""
    heartbeats: float = 2.5
    """A replica that has heard nothing for this many heartbeat periods no longer hears its source."""
    apply: float = 60.0
    """How long the elected replica may take to apply what it has received."""
    fetch: float = 30.0
    """How long it may take to fetch what another replica has received and it has not."""
    dead_binlog: str = "save"
    """What nobody had received, where the host of the dead primary can be reached: ``ignore``, ``save`` (kept in an
    archive once the new primary takes writes) or ``apply`` (kept, and applied before it does)."""
    dead_binlog_time: float = 30.0
    """How long reading it may take; with ``apply`` reading and applying, while writes wait."""

    def __post_init__(self) -> None:
        for name, choices in _FAILOVER_CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: must be {' or '.join(choices)}")
        if not 1 <= self.dead_binlog_time <= 3600:
            raise ValueError("dead_binlog_time: must be from 1s to 1h")
        for name in ("probe_period", "patience", "apply", "fetch"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be more than 0 seconds")
        if self.looks < 2:
            raise ValueError("looks: must be 2 or more; a single look proves nothing")
        if self.heartbeats <= 1:
            raise ValueError("heartbeats: must be more than 1, or a heartbeat that is a little late counts as silence")
        if self.per_day < 0:
            raise ValueError("per_day: must be 0 or more")


_FAILOVER_CHOICES = {
    "mode": ("manual", "automatic"),
    "profile": ("default", "aggressive"),
    "policy": ("lossless", "most_advanced"),
    "dead_binlog": ("ignore", "save", "apply"),
}


AGGRESSIVE: Mapping[str, Any] = {
    "probe_period": 0.2,
    "patience": 0.4,
    "confirm": 0.15,
    "looks": 3,
    "heartbeats": 1.5,
}
"""What the profile ``aggressive`` puts in place of the defaults of :class:`FailoverPolicy`."""


@dataclass(frozen=True)
class Ranked:
    """One server's place in an election."""

    name: str
    qualified: bool
    reasons: tuple[str, ...]
    """For a rejected server every reason; for a qualified one what placed it."""


@dataclass(frozen=True)
class Election:
    """Result of an election: the winner, or None, and everybody with reasons, best first."""

    winner: str | None
    ranking: tuple[Ranked, ...]


class Action(StrEnum):
    """What a diagnosis allows to be done."""

    NONE = "none"
    WAIT = "wait"
    """Look again: the next looks will tell."""
    FAILOVER = "failover"
    REOPEN = "reopen"
    """The primary has restarted and refuses writes; it has everything and may take them again."""
    CLOSE = "close"
    """A former primary takes writes; it is to refuse them, and its clients are to be cut."""
    PUBLISH = "publish"
    """A proxy goes elsewhere; the routes are to be published again."""
    PEOPLE = "people"
    """A person must decide, or act first."""


@dataclass(frozen=True)
class Diagnosis:
    """What is the matter with a cluster, by name; every row of the table is in docs/reference/diagnoses.md."""

    name: str
    text: str
    """Why it is believed, naming the servers."""
    action: Action
    """What may be done now: that of the row, or ``people`` while something blocks it."""
    primary: str | None = None
    """Who is, or was, the primary."""
    servers: tuple[str, ...] = ()
    """Whom the action is about, when that is not the primary: those to be closed."""
    since: float | None = None
    """On the monotonic clock; None when nobody can tell."""
    wanted: Action = Action.NONE
    """What would be done if nothing blocked it."""
    blockers: tuple[Finding, ...] = ()
    """What blocks it (errors), and what will be worse than it could be (warnings), each with its cure."""


@dataclass(frozen=True)
class FailoverElection:
    """Who takes over from a primary that is gone, and what may be lost by it."""

    winner: str | None
    fetch_from: str | None
    """A server that may not be promoted and has received more than the winner: its events are fetched first."""
    ranking: tuple[Ranked, ...]
    goal: Position | None = None
    """What the winner must have executed before it is opened, fetched events included."""
    missing: tuple[str, ...] = ()
    """What may be lost, in words; empty when there is no sign of any."""
    lossless: bool = False
    """Every possible acknowledger of the last in-sync sight takes part, AFTER_SYNC, nobody degraded. The caller must
    add that the primary was fenced, or all write paths closed, within the semi-sync time-out of that sight."""
    findings: tuple[Finding, ...] = ()
    """What stands in the way, each with its cure."""


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan as shown to people."""

    name: str
    what: str
    acts: tuple[str, ...] = ()
    """The SQL statements, commands and file changes it will make."""


@dataclass(frozen=True)
class Plan:
    """Which server takes over from which, and how. Made by election, judged by preflight."""

    cluster: str
    primary: str
    candidate: str
    replicas: tuple[str, ...]
    """Servers to repoint to the candidate after the first writes flow, without primary and candidate."""
    attach: str | None = None
    """The semi-synchronous replica that is moved below the candidate before the freeze."""
    semi_sync: bool = False
    """The new primary gets semi-synchronous replication enabled before it opens."""
    lock_accounts: tuple[str, ...] = ()
    """Privileged direct writers locked before the freeze (``--force``)."""
    policy: Policy = Policy()


@dataclass(frozen=True)
class Undo:
    """How to take one act back: data, written to the journal before the act."""

    verb: str
    server: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WriteState:
    """A quick reading of what stands between a server and a write."""

    writable: bool
    holders: frozenset[str]
    """What holds writes back for the asked operation: ``engine``, a lock that dies with its process, and ``armed``,
    one that the server keeps by itself and that ends in refusing writes."""
    position: Position


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
    addresses: Mapping[str, bool] = field(default_factory=dict)
    """The virtual addresses that are watched on its host, and whether it has them; empty if none, or nobody knows."""


# -- The proof ------------------------------------------------------------------------------------------------


class Verdict(StrEnum):
    PROVEN = "PROVEN"
    NOT_PROVEN = "NOT PROVEN"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Evidence:
    """One thing that was looked at after an operation."""

    subject: str
    claim: str
    verdict: Verdict
    seen: str


@dataclass(frozen=True)
class Proof:
    """What was looked at after an operation, and what follows from it."""

    evidence: tuple[Evidence, ...]
    blackout_seconds: float | None = None
    """From the moment writes were blocked until the new primary was open and routed to, as the engine saw it."""
    blackout_from: str = ""
    """Of a failover, what it was measured from: ``seen`` (the last sight of the old primary taking writes: it is the
    most that it can have been) or ``begun`` (the first step: the least)."""

    @property
    def verdict(self) -> Verdict:
        """NOT PROVEN if anything contradicts, else UNKNOWN if anything could not be looked at, else PROVEN."""
        verdicts = {e.verdict for e in self.evidence}
        for worst in (Verdict.NOT_PROVEN, Verdict.UNKNOWN):
            if worst in verdicts:
                return worst
        return Verdict.PROVEN if verdicts else Verdict.UNKNOWN


@dataclass
class Result:
    """How an operation ended, for those who show it."""

    operation: str
    kind: str
    outcome: str
    """``done``, ``refused``, ``aborted``, ``unfinished``, ``superseded`` or ``unchanged``."""
    primary: str = ""
    proof: Proof | None = None
    leftovers: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = field(default_factory=tuple)
    text: str = ""
