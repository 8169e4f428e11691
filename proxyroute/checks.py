"""What preflight looks at, a small function for each rule; the table of rules is in preflight.py. Pure.

Each function yields, for every case it finds, whom it is about, the facts, and the exact statement or command that
helps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from proxyroute import conditions, topology
from proxyroute.conditions import Condition, Replica, seconds
from proxyroute.decided import Plan
from proxyroute.inspection import Inspection
from proxyroute.model import Status, View
from proxyroute.policy import Policy

CROWDED = 0.9
"""Share of the connection limit from which on the application is about to exhaust it."""
HEARTBEAT = 1.0
NET_TIMEOUT = 4.0
"""Seconds; a replica that waits longer notices a frozen primary late."""


class Said(NamedTuple):
    """One case that a rule has found."""

    subject: str
    text: str
    cure: str = ""


@dataclass(frozen=True)
class Case:
    """What is judged: a view, and a plan if there is one."""

    view: View
    policy: Policy
    plan: Plan | None = None
    target: str | None = None
    """Who is to take over; None while nobody is chosen."""

    @property
    def primary(self) -> Status | None:
        return self.view.primary

    @property
    def candidate(self) -> Status | None:
        return self.view.status(self.target) if self.target else None

    @property
    def replicas(self) -> Iterator[Replica]:
        """The servers that answered, besides primary and candidate."""
        if self.primary is not None:
            for server in self.view.seen:
                if server.name not in (self.primary.name, self.target):
                    yield Replica(self.view, self.primary.name, server, self.policy)

    @property
    def inspection(self) -> Inspection | None:
        return self.view.inspections.get(self.primary.name) if self.primary else None


# -- The cluster ----------------------------------------------------------------------------------------------


def _names(servers: Iterable[Status]) -> str:
    return ", ".join(server.name for server in servers)


def galera(case: Case) -> Iterator[Said]:
    nodes = [server for server in case.view.seen if server.galera]
    if nodes:
        yield Said(
            case.view.cluster,
            f"{_names(nodes)} run Galera, which chooses its writers itself",
            "let the proxy choose by wsrep state; ProxyRoute moves primaries of ordinary replication",
        )


def group(case: Case) -> Iterator[Said]:
    members = [server for server in case.view.seen if server.group]
    if members:
        yield Said(
            case.view.cluster,
            f"{_names(members)} run Group Replication, which chooses its primary itself",
            "SELECT group_replication_set_as_primary('…'); there; ProxyRoute moves primaries of ordinary replication",
        )


def ring(case: Case) -> Iterator[Said]:
    members = topology.ring(case.view)
    if members:
        yield Said(
            case.view.cluster,
            f"a ring: {' follows '.join((*members, members[0]))}",
            "decide for one primary; on it: STOP SLAVE; RESET SLAVE ALL; on the others: SET GLOBAL read_only=1;",
        )


def multi_primary(case: Case) -> Iterator[Said]:
    independent = [server for server in case.view.writable if not server.sources]
    if len(independent) > 1:
        yield Said(
            case.view.cluster,
            f"{_names(independent)} all take writes and follow nobody: a multi-primary topology, or a split brain",
            "decide whose data counts; on the others: SET GLOBAL read_only=1; then build them anew as replicas",
        )


def mixed_flavours(case: Case) -> Iterator[Said]:
    if told := topology.mixed({server.name: server.flavour for server in case.view.seen}):
        yield Said(case.view.cluster, told, topology.ONE_FLAVOUR)


def duplicate_ids(case: Case) -> Iterator[Said]:
    by_id: dict[int, list[Status]] = {}
    for server in case.view.seen:
        by_id.setdefault(server.server_id, []).append(server)
    for server_id, servers in by_id.items():
        if len(servers) > 1:
            yield Said(
                case.view.cluster,
                f"{_names(servers)} share the server id {server_id}",
                f"on {servers[-1].name}: another server_id in my.cnf, then restart it",
            )


def no_primary(case: Case) -> Iterator[Said]:
    if case.primary or any(any(rule(case)) for rule in (multi_primary, ring, silent_primary)):
        return
    if not case.view.seen:
        yield Said(
            case.view.cluster,
            "no server answers, so nobody can tell whether one takes writes",
            "look from another host first; open nothing while none can be read",
        )
        return
    roots = {topology.path(case.view, server.name)[-1] for server in case.view.seen if server.sources}
    followed = ", ".join(name for name in case.view.servers if name in roots)
    hint = f"; {followed} is followed by the others and refuses writes" if followed else ""
    yield Said(
        case.view.cluster,
        f"no server takes writes{hint}",
        "proxyroute heal, if an operation was interrupted; else SET GLOBAL read_only=0; on the one with all data",
    )


def silent_primary(case: Case) -> Iterator[Said]:
    for silent in case.view.silent:
        followers = [s for s in case.view.seen if topology.channel(case.view, s, silent.name) is not None]
        # below another primary it is only a replica that others follow
        if followers and (case.primary is None or case.primary in followers):
            yield Said(
                silent.name,
                f"is followed by {_names(followers)} and did not answer: {silent.reason}",
                "if it is dead: proxyroute failover; a switchover needs a living primary",
            )


def moved_primary(case: Case) -> Iterator[Said]:
    if case.plan and case.primary and case.primary.name != case.plan.primary:
        yield Said(
            case.plan.primary,
            f"is not the primary any more, {case.primary.name} is",
            f"proxyroute plan --to {case.plan.candidate}",
        )


def replicating_primary(case: Case) -> Iterator[Said]:
    if case.primary and case.primary.source:
        source = case.primary.source
        above, named = topology.source_of(case.view, source), f" '{source.channel}'" if source.channel else ""
        end = f"STOP SLAVE{named}; RESET SLAVE{named} ALL;"
        cure = f"on {case.primary.name}: SET GLOBAL read_only=1; or, if it is the primary, {end}"
        if above is None:
            cure = f"on {case.primary.name}: {end} afterwards set that channel up on the new primary"
        yield Said(case.primary.name, f"takes writes and replicates from {above or source.address}", cure)


# -- The primary ----------------------------------------------------------------------------------------------


def primary_without_binlog(case: Case) -> Iterator[Said]:
    if case.primary and not case.primary.binlog:
        yield Said(case.primary.name, "writes no binary log", "log_bin in my.cnf, then restart it")


def statement_format(case: Case) -> Iterator[Said]:
    yield from _settings(
        case,
        lambda server: server.binlog_format == "STATEMENT",
        "has binlog_format=STATEMENT; statements may have other effects on replicas than on the primary",
        "SET GLOBAL binlog_format='ROW'; and binlog_format=ROW in my.cnf",
    )


def mixed_format(case: Case) -> Iterator[Said]:
    yield from _settings(
        case,
        lambda server: server.binlog_format == "MIXED",
        "has binlog_format=MIXED; ROW is advised",
        "SET GLOBAL binlog_format='ROW'; and binlog_format=ROW in my.cnf",
    )


def short_row_image(case: Case) -> Iterator[Said]:
    yield from _settings(
        case,
        lambda server: server.row_image != "FULL",
        "does not log full rows, so that errant transactions cannot be flashed back",
        "SET GLOBAL binlog_row_image='FULL'; and binlog_row_image=FULL in my.cnf",
    )


def lenient(case: Case) -> Iterator[Said]:
    yield from _settings(
        case,
        lambda server: server.flavour == "mariadb" and not server.strict,
        "accepts GTIDs out of order, so that a position does not prove what is before it",
        "SET GLOBAL gtid_strict_mode=1; and gtid_strict_mode=1 in my.cnf",
    )


def binlog_filters(case: Case) -> Iterator[Said]:
    for name, inspection in case.view.inspections.items():
        if inspection.binlog_filters:
            yield Said(
                name,
                f"leaves schemas out of its binary log ({', '.join(inspection.binlog_filters)}), so that replicas "
                "never get them",
                f"take binlog_do_db and binlog_ignore_db out of my.cnf on {name}, then restart it",
            )


def _settings(case: Case, wrong: Callable[[Status], bool], text: str, cure: str) -> Iterator[Said]:
    for server in case.view.seen:
        if wrong(server):
            yield Said(server.name, text, f"on {server.name}: {cure}")


def crowded(case: Case) -> Iterator[Said]:
    server = case.primary
    if server and server.connections_limit and server.connections >= CROWDED * server.connections_limit:
        yield Said(
            server.name,
            f"has {server.connections} of {server.connections_limit} connections in use",
            f"on {server.name}: SET GLOBAL max_connections={2 * server.connections_limit}; or extra_port in my.cnf",
        )


# -- Witnesses ------------------------------------------------------------------------------------------------


def slow_heartbeat(case: Case) -> Iterator[Said]:
    for server in case.view.seen:
        for source in server.sources:
            if not 0 < source.heartbeat_seconds <= HEARTBEAT:
                name = f" '{source.channel}'" if source.channel else ""
                every = f"every {seconds(source.heartbeat_seconds)}" if source.heartbeat_seconds else "never"
                yield Said(
                    server.name,
                    f"asks its source for a heartbeat {every}; a silent source is noticed late",
                    f"on {server.name}: STOP SLAVE{name}; CHANGE MASTER{name} TO MASTER_HEARTBEAT_PERIOD=1; "
                    f"START SLAVE{name};",
                )


def chosen_sources(case: Case) -> Iterator[Said]:
    for server in case.view.seen:
        for source in server.sources:
            if source.chooses_source:
                name = f" '{source.channel}'" if source.channel else ""
                yield Said(
                    server.name,
                    f"looks for another source by itself when it loses {source.address}: when the primary is gone "
                    "replicas may follow each other in a ring, and nobody can take over",
                    f"on {server.name}: STOP SLAVE{name} IO_THREAD; CHANGE MASTER{name} TO "
                    f"MASTER_CONNECTION_AUTO_FAILOVER=0; START SLAVE{name} IO_THREAD;",
                )


def slow_net_timeout(case: Case) -> Iterator[Said]:
    yield from _settings(
        case,
        lambda server: not 0 < server.net_timeout_seconds <= NET_TIMEOUT,
        f"has slave_net_timeout above {seconds(NET_TIMEOUT)}; a frozen primary is noticed late",
        f"SET GLOBAL slave_net_timeout={NET_TIMEOUT:.0f}; and the same in my.cnf; then STOP SLAVE; START SLAVE;",
    )


# -- Replicas besides the candidate ----------------------------------------------------------------------------


def newer(case: Case) -> Iterator[Said]:
    winner = case.candidate
    for server in case.view.seen:
        if winner and server.name != winner.name and server.version[:2] < winner.version[:2]:
            yield Said(
                server.name,
                f"is {conditions.release(server)} and would follow {winner.name} with {conditions.release(winner)}; "
                "an older server may not understand what a newer one logs",
                f"upgrade {server.name} soon",
            )


def silent_replicas(case: Case) -> Iterator[Said]:
    expected = {said.subject for said in silent_primary(case)} | {case.target} | {*case.policy.aside}
    for silent in case.view.silent:
        if silent.name not in expected:
            yield Said(
                silent.name,
                f"did not answer: {silent.reason}; it joins the new primary when it returns",
                f"start it, or see whether {silent.address} can be reached from here",
            )


def set_aside(case: Case) -> Iterator[Said]:
    for name in case.policy.aside:
        if name in case.policy.rebuilt:
            yield Said(name, "is being rebuilt: it is left as it is until then", f"proxyroute rejoin {name}")
        elif name in case.view.servers:
            yield Said(name, "is in maintenance: it is left as it is", f"proxyroute maintenance {name} off")


def each(condition: Condition, *, single: bool = False, everybody: bool = False) -> Callable[[Case], Iterator[Said]]:
    """Returns the look of a rule that applies ``condition`` to every replica besides the candidate.

    ``single`` leaves multi-source replicas out: what came from elsewhere cannot be told from what is errant. One in
    maintenance is left alone, however it is, but for what concerns ``everybody``.
    """

    def look(case: Case) -> Iterator[Said]:
        for replica in case.replicas:
            if replica.server.name in case.policy.aside and not everybody:
                continue
            if single and len(replica.server.sources) > 1:
                continue
            if objection := condition(replica):
                yield Said(replica.server.name, *objection)

    return look


def kept(condition: Condition) -> Callable[[Case], Iterator[Said]]:
    """As :func:`each`, for what only matters to a candidate and is left as it is on the others."""

    def look(case: Case) -> Iterator[Said]:
        for said in each(condition)(case):
            yield Said(said.subject, f"{said.text}; it stays so, and is never elected unasked")

    return look
