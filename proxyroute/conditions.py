"""What can be wrong with one replica, a small function each. Election and preflight pick from these. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from proxyroute import topology
from proxyroute.gtid import Containment, Position
from proxyroute.model import Receiver, Source, Status, View
from proxyroute.policy import Policy


class Objection(NamedTuple):
    """What is wrong, told without naming the server, and what to do or type about it."""

    text: str
    cure: str


@dataclass(frozen=True)
class Replica:
    """A server looked at as a replica of ``primary``, which need not have answered."""

    view: View
    primary: str
    server: Status
    policy: Policy

    @property
    def top(self) -> Status | None:
        """The reading of the primary."""
        return self.view.status(self.primary)

    @property
    def channel(self) -> Source | None:
        """The channel that follows the primary, else the first there is."""
        return topology.channel(self.view, self.server, self.primary) or self.server.source

    @property
    def ours(self) -> Position:
        """What it has executed of this cluster's history."""
        top = self.top
        if top is None or len(self.server.sources) < 2:  # who the members are is not asked in vain
            return self.server.executed
        return self.server.ours(top.executed, self.view.identities)

    @property
    def upstream(self) -> str | None:
        """The member that the channel follows."""
        return topology.source_of(self.view, self.channel) if self.channel else None

    @property
    def chained(self) -> bool:
        """It is below another replica of the primary."""
        return self.upstream != self.primary and self.primary in topology.path(self.view, self.server.name)[2:]

    def sql(self, *statements: str) -> str:
        """Returns ``statements`` as a cure to be typed on this server; ``{}`` stands for its channel."""
        name = f" '{self.channel.channel}'" if self.channel and self.channel.channel else ""
        return f"on {self.server.name}: " + " ".join(f"{s};" for s in statements).replace("{}", name)


Condition = Callable[[Replica], Objection | None]
"""Returns what is wrong, or None."""


def seconds(value: float) -> str:
    """Returns a duration for people: ``0.25 s``, ``12.5 s``, ``3600 s``."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + " s"


def release(server: Status) -> str:
    return ".".join(map(str, server.version[:2]))


def excess(position: Position, known: Position) -> str:
    """Returns the transactions of ``position`` that are not in ``known``, counted where that is possible."""
    count = position.distance(known)
    return f"{position.minus(known)}" + (f" ({count} at the most)" if count is not None else "")


# -- Replication ---------------------------------------------------------------------------------------------


def unattached(replica: Replica) -> Objection | None:
    if replica.server.sources:
        return None
    address = replica.view.servers[replica.primary].address
    return Objection(
        "replicates from nobody",
        replica.sql(
            f"CHANGE MASTER TO MASTER_HOST='{address.host}', MASTER_PORT={address.port}, MASTER_USER='…', "
            "MASTER_PASSWORD='…', MASTER_USE_GTID=slave_pos",
            "START SLAVE",
        )
        + " or take it out of the configuration",
    )


def astray(replica: Replica) -> Objection | None:
    """It follows somebody, but neither the primary nor a replica of it."""
    source = replica.channel
    if source is None or replica.upstream == replica.primary or replica.chained:
        return None
    seen = f" (server id {source.source_id})" if source.source_id is not None else ""
    top = replica.top
    wanted = f"{replica.primary} (server id {top.server_id})" if top else replica.primary
    address = replica.view.servers[replica.primary].address
    return Objection(
        f"replicates from {replica.upstream or source.address}{seen}, not from {wanted}",
        replica.sql(
            "STOP SLAVE{}",
            f"CHANGE MASTER{{}} TO MASTER_HOST='{address.host}', MASTER_PORT={address.port}",
            "START SLAVE{}",
        ),
    )


def chained(replica: Replica) -> Objection | None:
    if not replica.chained:
        return None
    return Objection(
        f"is below {replica.upstream}, not directly below {replica.primary}",
        f"choose {replica.upstream}, or point {replica.server.name} at {replica.primary} first",
    )


def multi_source(replica: Replica) -> Objection | None:
    sources = replica.server.sources
    if len(sources) < 2:
        return None
    return Objection(
        f"replicates from {len(sources)} sources: " + ", ".join(str(s.address) for s in sources),
        f"name it to have it all the same: proxyroute switchover --to {replica.server.name}",
    )


def receiver(replica: Replica) -> Objection | None:
    source = replica.channel
    if source is None or source.receiver is Receiver.RUNNING:
        return None
    error = f": {source.error}" if source.error else ""
    return Objection(
        f"its receiver is {source.receiver}{error}", replica.sql("START SLAVE{} IO_THREAD", "SHOW SLAVE{} STATUS")
    )


def applier(replica: Replica) -> Objection | None:
    source = replica.channel
    if source is None or source.applier:
        return None
    error = f": {source.error}" if source.error else ""
    return Objection(f"its applier is stopped{error}", replica.sql("START SLAVE{} SQL_THREAD", "SHOW SLAVE{} STATUS"))


def without_gtid(replica: Replica) -> Objection | None:
    if replica.channel is None or replica.channel.uses_gtid:
        return None
    return Objection(
        "its channel goes by file and offset, not by GTID",
        replica.sql("STOP SLAVE{}", "CHANGE MASTER{} TO MASTER_USE_GTID=slave_pos", "START SLAVE{}"),
    )


def lag(replica: Replica) -> Objection | None:
    """Behind by more than ``max_lag``, on top of a delay that is meant."""
    source = replica.channel
    if source is None or not source.running:
        return None
    cure = "wait until it has caught up; proxyroute status --watch shows it"
    if source.lag_seconds is None:
        return Objection("nobody knows how far behind it is", cure)
    if source.lag_seconds - source.delay_seconds <= replica.policy.max_lag:
        return None
    return Objection(f"is {seconds(source.lag_seconds)} behind, max_lag is {seconds(replica.policy.max_lag)}", cure)


def delayed(replica: Replica) -> Objection | None:
    if replica.channel is None or not replica.channel.delay_seconds:
        return None
    return Objection(
        f"is delayed by {replica.channel.delay_seconds} s on purpose",
        replica.sql("STOP SLAVE{}", "CHANGE MASTER{} TO MASTER_DELAY=0", "START SLAVE{}") + " or allow_delayed: true",
    )


def filtered(replica: Replica) -> Objection | None:
    if not any(source.filtered for source in replica.server.sources):
        return None
    return Objection(
        "replicates through filters, so that it may lack data",
        "take the replicate_* filters away and build it anew, or allow_filtered: true",
    )


# -- History -------------------------------------------------------------------------------------------------


def _held(replica: Replica) -> Containment:
    """Tells whether the primary has everything the replica has executed.

    The view must hold a position of the primary that was read after the replica's: otherwise what was written in
    between looks errant (seen in 114 of 200 readings under 8 writers, and in none with the primary read last).
    """
    top = replica.top
    if top is None or top.flavour != replica.server.flavour:
        return Containment.YES
    return top.executed.contains(replica.ours)


def errant(replica: Replica) -> Objection | None:
    """It has transactions that the primary certainly lacks, and does not just wait to count."""
    if replica.top is None or _held(replica) is not Containment.NO:
        return None
    if topology.on_its_way(replica.top, replica.server, replica.ours.minus(replica.top.executed)):
        return None
    extra = excess(replica.ours, replica.top.executed)
    return Objection(
        f"has transactions that {replica.primary} lacks: {extra}",
        f"look at them with mariadb-binlog on {replica.server.name}, then build it anew from {replica.primary}",
    )


def obscure(replica: Replica) -> Objection | None:
    """It has transactions of which the primary cannot tell whether it has them."""
    if replica.top is None or _held(replica) is not Containment.UNKNOWN:
        return None
    extra = replica.ours.minus(replica.top.executed)
    return Objection(
        f"has transactions that {replica.primary} knows nothing of: {extra}; "
        f"either the history of {replica.primary} is missing, or they are errant",
        f"if {replica.primary} was built from a copy that had them, --force accepts it; "
        f"else build {replica.server.name} anew from {replica.primary}",
    )


# -- Settings ------------------------------------------------------------------------------------------------


def excluded(replica: Replica) -> Objection | None:
    if replica.server.name not in replica.policy.never:
        return None
    return Objection("is in the list never", f"take {replica.server.name} out of switchover.never")


def aside(replica: Replica) -> Objection | None:
    name = replica.server.name
    if name not in replica.policy.aside:
        return None
    if name in replica.policy.rebuilt:
        return Objection("is being rebuilt: its data are not whole yet", f"proxyroute rejoin {name}")
    return Objection("is in maintenance", f"proxyroute maintenance {name} off")


def other_flavour(replica: Replica) -> Objection | None:
    if replica.top is None or replica.top.flavour == replica.server.flavour:
        return None
    return Objection(
        f"is {replica.server.flavour}, {replica.primary} is {replica.top.flavour}",
        "ProxyRoute does not move a primary between MariaDB and MySQL",
    )


def without_binlog(replica: Replica) -> Objection | None:
    if replica.server.binlog:
        return None
    return Objection("writes no binary log", f"log_bin in the configuration of {replica.server.name}, then restart it")


def relays_nothing(replica: Replica) -> Objection | None:
    if replica.server.relays_updates or not replica.server.binlog:
        return None
    return Objection(
        "does not write what it replicates to its binary log",
        f"log_slave_updates=1 in the configuration of {replica.server.name}, then restart it",
    )


def permissive(replica: Replica) -> Objection | None:
    return anonymous(replica.server)


def anonymous(server: Status) -> Objection | None:
    """Returns what is wrong with a server of MySQL whose transactions need not have a GTID, whatever its role."""
    mode = server.settings.get("gtid_mode", "ON")
    if mode == "ON":
        return None
    steps = " ".join(f"SET GLOBAL gtid_mode={step};" for step in gtid_steps(server))
    return Objection(
        f"has gtid_mode={mode}: it accepts transactions without a GTID, which no position tells, and which nobody gets "
        "who asks for what comes after a position",
        f"on {server.name}: SET GLOBAL enforce_gtid_consistency=ON; {steps} each step on all servers before the next, "
        "the last one when Ongoing_anonymous_transaction_count is 0; and both in my.cnf",
    )


def gtid_steps(server: Status) -> Sequence[str]:
    """Returns the values that ``gtid_mode`` has to take on a server until it is ON, each after the one before."""
    modes = ("OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON")
    return modes[modes.index(server.settings.get("gtid_mode", "ON")) + 1 :]


def offline(replica: Replica) -> Objection | None:
    if replica.server.settings.get("offline_mode", "OFF") != "ON":
        return None
    return Objection(
        "is in offline_mode: it turns away every client that may not administer connections",
        f"on {replica.server.name}: SET GLOBAL offline_mode=OFF;",
    )


def backed_up(replica: Replica) -> Objection | None:
    """MySQL: as long as a backup locks the instance nobody can stop what applies (error 3857)."""
    found = replica.view.inspections.get(replica.server.name)
    if found is None or not found.backups or not replica.server.sources:
        return None
    session, whose = found.backups[0]
    return Objection(
        f"cannot stop replicating: session {session} of {whose} holds LOCK INSTANCE FOR BACKUP",
        f"wait until the backup has ended, or {replica.sql(f'KILL {session}')}",
    )


def other_format(replica: Replica) -> Objection | None:
    if replica.top is None or replica.top.binlog_format == replica.server.binlog_format:
        return None
    wanted = replica.top.binlog_format
    return Objection(
        f"has binlog_format={replica.server.binlog_format}, {replica.primary} has {wanted}",
        replica.sql(f"SET GLOBAL binlog_format='{wanted}'") + " and the same in its my.cnf",
    )


def older(replica: Replica) -> Objection | None:
    if replica.top is None or replica.server.version[:2] >= replica.top.version[:2]:
        return None
    return Objection(
        f"is {release(replica.server)}, older than {replica.primary} with {release(replica.top)}",
        f"upgrade {replica.server.name} first",
    )


def writable(replica: Replica) -> Objection | None:
    if not replica.server.writable or not replica.server.sources:
        return None
    return Objection(
        "takes writes although it is a replica",
        replica.sql("SET GLOBAL read_only=1") + " and read_only=1 in its my.cnf",
    )
