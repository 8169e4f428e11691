"""What the API answers with, as its description names it. Times are Unix time, durations seconds, positions text."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class FindingShape(BaseModel):
    """Something to know before acting."""

    code: str = Field(description="Stable; see docs/reference/findings.md.", examples=["replica.lag"])
    severity: str = Field(examples=["error"])
    subject: str = Field(description="The server, proxy or cluster it is about.")
    text: str
    cure: str = Field(description="What to do or type next.")
    forceable: bool = Field(description="Whether `force` turns this error into a warning.")


class SummaryShape(BaseModel):
    """A cluster in short."""

    cluster: str = Field(examples=["shop"])
    truth: str = Field(
        description="Its state in one line; with its age when it is old.",
        examples=["shop: db1 takes writes, 2 of 2 replicas follow"],
    )
    level: str = Field(description="`good`, `warn` or `bad`.", examples=["good"])
    primary: str | None = Field(description="The one server that takes writes; null when there is none, or several.")
    diagnosis: str | None = Field(description="What is the matter, by name; null while an operation is under way.")
    blocks_switchover: list[str] = Field(description="Codes of what would block a switchover now.")
    blocks_failover: list[str] = Field(description="Codes of what would block an automatic failover now.")
    unfinished: list[str] = Field(description="Operations that wait for heal.")
    seen_at: float | None = Field(description="When it was looked at; null before the first look is complete.")
    lag_seconds: float | None = Field(description="Of the replica that is furthest behind; null when nobody tells.")


class ChannelShape(BaseModel):
    """From where a replica fetches, and how far it is."""

    channel: str
    source: str | None = Field(description="The member it fetches from; null when that is none of the cluster.")
    address: str
    receiver: str = Field(description="`running`, `connecting` or `stopped`.")
    applier: bool
    received: str
    lag_seconds: float | None
    delay_seconds: int
    filtered: bool
    error: str


class SemiSyncShape(BaseModel):
    """Semi-synchronous replication, both sides of it."""

    primary_enabled: bool
    primary_active: bool = Field(description="Acknowledgements arrive now.")
    replica_enabled: bool
    replica_active: bool
    clients: int
    wait_point: str


class OrderShape(BaseModel):
    """A standing order."""

    by: str
    at: float
    why: str
    until: float | None = Field(description="When it ends by itself.")
    rank: str


class ServerShape(BaseModel):
    """A server as it was seen last."""

    name: str = Field(examples=["db2"])
    address: str = Field(examples=["10.0.0.2:3306"])
    role: str = Field(description="`primary`, `replica`, `alone` (follows nobody) or `silent` (cannot be read).")
    reason: str = Field(description="Why a silent one could not be read.")
    writable: bool | None = Field(description="Ordinary accounts may write; null when it cannot be read.")
    astray: bool = Field(description="It takes writes, and is not the primary.")
    following: bool = Field(description="Events come to it from the primary, and both its threads run.")
    lag_seconds: float | None
    behind: int | None = Field(description="Transactions of the primary that it has not executed, as far as known.")
    position: str | None
    version: str
    server_id: int | None
    channels: list[ChannelShape]
    semi_sync: SemiSyncShape | None
    binlog: bool | None
    connections: int | None
    connections_limit: int | None
    uptime_seconds: float | None
    round_trip_seconds: float | None = Field(description="Of the last look.")
    preferred: bool = Field(description="By a standing order, or the configuration.")
    never: bool = Field(description="It never becomes primary.")
    maintenance: OrderShape | None = Field(description="Who has put it into maintenance; null when it is not.")
    aside: bool = Field(description="It could not rejoin; a person must choose a method.")


class ProxyShape(BaseModel):
    """What a proxy does, read from the proxy."""

    proxy: str
    type: str = Field(examples=["haproxy"])
    reachable: bool | None = Field(description="null before it was asked for the first time.")
    primary: str | None = Field(description="The server that gets the writes.")
    readers: list[str]
    epoch: str | None
    published: str | None = Field(description="What it was told last, as server/epoch.")
    sessions: dict[str, int] = Field(description="Open sessions of the write route, by server.")
    held: bool = Field(description="Newcomers wait.")
    drift: list[str] = Field(description="Where it is not as it should be, in words.")
    aside: list[str] = Field(description="Servers that somebody has taken out of service there.")
    addresses: dict[str, bool | None] = Field(
        description="Virtual addresses that are watched on its host, and if it has them; null when it cannot tell."
    )
    detail: str


class ClusterShape(SummaryShape):
    """Everything that is seen of a cluster."""

    intended: str | None = Field(description="The server that writes are meant to go to.")
    astray: str = Field(description="Why it is not for ProxyRoute to say where writes go; mostly empty.")
    diagnosis_text: str
    diagnosis_action: str = Field(description="What may be done now.", examples=["none"])
    failover_mode: str = Field(description="`manual` or `automatic`.")
    findings_switchover: list[FindingShape]
    findings_failover: list[FindingShape]
    servers: list[ServerShape]
    proxies: list[ProxyShape]
    aside: list[str] = Field(description="Servers that could not rejoin; a person must choose a method.")
    guarantee: GuaranteeShape
    paused: OrderShape | None = Field(description="Who lets the daemon do nothing by itself; null when it acts.")
    orders: list[str] = Field(description="All standing orders, in words.")
    version: int = Field(description="Grows with every look.")


class GuaranteeShape(BaseModel):
    """What a failover could promise if the primary died now."""

    lossless: bool = Field(description="Every acknowledged write is at a replica, as far as semi-synchronous tells.")
    lossless_why: str
    fenced: bool = Field(description="Something keeps an old primary from taking writes, whatever it does.")
    fenced_why: str


class NodeShape(BaseModel):
    """A member of the topology."""

    name: str
    kind: str = Field(description="`server` or `proxy`.")
    role: str
    level: int = Field(description="How many steps below the primary; -1 for who is not below it.")


class EdgeShape(BaseModel):
    """A way that events or writes take."""

    source: str
    target: str
    kind: str = Field(description="`replication`, `writes` or `reads`.")
    running: bool
    lag_seconds: float | None


class TopologyShape(BaseModel):
    """Who follows whom, and where the proxies lead."""

    cluster: str
    primary: str | None
    nodes: list[NodeShape]
    edges: list[EdgeShape]


class ReceiptShape(BaseModel):
    """What a proxy has made of its route."""

    proxy: str
    agrees: bool | None = Field(description="It sends writes where they are meant to go; null when nobody knows.")
    epoch: str | None
    published: str | None
    differences: list[str]
    operation: str = Field(description="The last operation that moved the primary.")
    evidence: list[dict[str, Any]] = Field(description="What was read back there at the end of that operation.")


class PastShape(BaseModel):
    """An operation, in the history."""

    operation: str
    kind: str
    outcome: str = Field(description="`done`, `refused`, `aborted` …; `open` while it waits for heal; `begun`.")
    started: float
    seconds: float
    primary: str
    candidate: str
    blackout_seconds: float | None
    verdict: str | None
    leftovers: list[str]
    left_at: list[str] = Field(description="The servers and proxies at which something is left to do.")
    automatic: bool
    epoch: str
    told: str
    fencing: str
    fenced_by: str
    blackout_from: str = Field(
        description="Of a failover: `seen`, counted from the last sight of the old primary taking writes, so the most "
        "that it can have been; or `begun`, from its first step, the least."
    )


class RecordsShape(BaseModel):
    """Records of an operation's journal."""

    operation: str
    records: list[dict[str, Any]]
    last: int = Field(description="The number to ask for the next ones with, as `after`.")
    over: bool = Field(description="No more will come.")


class OperationShape(BaseModel):
    """Something that was asked for, and how far it is."""

    id: str
    kind: str
    cluster: str
    by: str
    source: str = Field(alias="from", description="The address it was asked from.")
    reason: str
    arguments: dict[str, Any]
    state: str = Field(
        description="`waiting`, `running`, then `done`, `unchanged`, `refused`, `aborted`, `unfinished`, "
        "`superseded`, `failed`, or `interrupted`: the daemon ended first."
    )
    over: bool
    asked_at: float
    began_at: float | None
    ended_at: float | None
    journals: list[str] = Field(description="Operations whose records it has written.")
    step: str = Field(description="What it is at.")
    text: str = Field(description="How it ended, with what to type next.")
    called_off: str = Field("", description="Who does not want it any more; the state tells what became of that.")
    exit_code: int | None = Field(None, description="Of an error: with which the command line would have ended.")
    findings: list[FindingShape]
    results: list[dict[str, Any]]


class AsideShape(BaseModel):
    """A server that could not rejoin."""

    server: str
    operation: str = Field(description="The rejoin that was refused, in the history.")
    since: float
    told: str


class ArchiveShape(BaseModel):
    """Transactions that only one server had, and that were kept."""

    name: str
    folder: str = Field(description="On the engine's host; `raw/` has the files, `decoded.sql` the text.")
    server: str
    told: str = Field(description="What happened, in one line.")
    executed: str
    missing: str = Field(description="What should be there as well, and was in no file any more.")
    rows: dict[str, dict[str, int]] = Field(description="By table, how many were inserted, updated, deleted.")
    count: int
    transactions: list[dict[str, Any]] = Field(description="The first 200.")
    trouble: str = Field(description="Why it could not be read; mostly empty.")


class SettingShape(BaseModel):
    """A setting as it was loaded."""

    name: str = Field(examples=["switchover.max_lag"])
    value: Any = Field(description="Of a secret only where it is, of an address the host alone. Durations in seconds.")
    origin: str = Field(description="`file`, `default` or `profile`.")
    line: int | None = Field(description="In the file.")


class EntryShape(BaseModel):
    """One line of the audit."""

    at: float
    who: str
    address: str
    what: str
    cluster: str
    why: str
    operation: str
    details: dict[str, Any]


class CheckShape(BaseModel):
    """Whether everything would work if it had to."""

    cluster: str
    errors: int
    warnings: int
    servers_looked_at: bool = Field(description="Not without the secrets: then correct those first.")
    findings: list[FindingShape]


class StandingShape(BaseModel):
    """What people have ordered until they say otherwise."""

    standing: dict[str, Any] = Field(description="The orders: `maintenance` and `ranks` by server, `paused`.")
    lines: list[str] = Field(description="The same in words.")
    changes: list[dict[str, Any]] = Field(description="The last changes: `at`, `by`, `what`, `why`; oldest first.")


ClusterShape.model_rebuild()
