"""The metrics, each with its name, what it says and its labels: a collector that reads what the hub has, when asked.

Gauges tell the present. Counters and histograms count the operations that ended since the daemon began, whoever asked
for them: they are taken from the journals, each once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from proxyroute import __version__
from proxyroute.errors import ProxyRouteError
from proxyroute.history import Summary
from proxyroute.model import Status
from proxyroute.outcome import Verdict
from proxyroute.web.hub import Hub
from proxyroute.web.shown import drift_of, follows, guarantee, lag_of
from proxyroute.web.state import ClusterState
from proxyroute.web.wellness import Health

FINE = "NoProblem"
LEVELS = ("good", "warn", "bad")
_BLACKOUTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PHASES = (0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0)
_SERIALS = 1_000_000
_KINDS = ("switchover", "failover", "rejoin")
_RESULTS = ("done", "refused", "aborted", "superseded")

_CLUSTER, _SERVER, _PROXY = ("cluster",), ("cluster", "server"), ("cluster", "proxy")
GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "proxyroute_level": ("How a cluster is: 1 for the level that holds, else 0.", ("cluster", "level")),
    "proxyroute_diagnosis": (
        "What is the matter: 1 for the diagnosis that holds, 0 for earlier ones.",
        ("cluster", "diagnosis"),
    ),
    "proxyroute_primaries": ("How many servers take writes.", _CLUSTER),
    "proxyroute_switchover_blocked": ("1 for each reason that would block a switchover now.", ("cluster", "reason")),
    "proxyroute_failover_blocked": ("1 for each reason that blocks an automatic failover.", ("cluster", "reason")),
    "proxyroute_failover_automatic": ("Whether a failover is done without asking anybody.", _CLUSTER),
    "proxyroute_lossless": ("Whether every commit waits until a replica has it.", _CLUSTER),
    "proxyroute_fenced": ("Whether something keeps an old primary from taking writes, whatever it does.", _CLUSTER),
    "proxyroute_paused": ("Whether people let the daemon do nothing by itself.", _CLUSTER),
    "proxyroute_operations_unfinished": ("Operations that wait for heal.", _CLUSTER),
    "proxyroute_servers_aside": ("Servers that could not rejoin, and wait for a person.", _CLUSTER),
    "proxyroute_seen_timestamp_seconds": ("When the cluster was looked at last.", _CLUSTER),
    "proxyroute_maintenance": ("Whether people have put the server into maintenance.", _SERVER),
    "proxyroute_up": ("Whether the server answered the last look.", _SERVER),
    "proxyroute_primary": ("Whether the server is the one that takes writes.", _SERVER),
    "proxyroute_server_writable": ("Whether ordinary accounts may write there.", _SERVER),
    "proxyroute_server_connections": ("Sessions that are open.", _SERVER),
    "proxyroute_server_connections_limit": ("How many sessions may be open.", _SERVER),
    "proxyroute_replication_running": ("Whether events come from the primary, all threads running.", _SERVER),
    "proxyroute_replication_lag_seconds": ("How far a replica is behind, by its own word.", _SERVER),
    "proxyroute_replication_behind_transactions": ("Transactions that a replica has not executed yet.", _SERVER),
    "proxyroute_semi_sync_active": ("Whether acknowledgements arrive (primary) or are sent (replica).", _SERVER),
    "proxyroute_probe_age_seconds": ("How long ago the last look at the server ended.", _SERVER),
    "proxyroute_probe_round_trip_seconds": ("How long the last look took.", _SERVER),
    "proxyroute_proxy_up": ("Whether the proxy could be read.", _PROXY),
    "proxyroute_proxy_epoch": ("The epoch it has loaded: its term times a million, plus its serial.", _PROXY),
    "proxyroute_proxy_drift": ("In how many ways it is not as it should be.", _PROXY),
    "proxyroute_proxy_held": ("Whether newcomers wait there.", _PROXY),
    "proxyroute_proxy_sessions": ("Open sessions of the write route.", ("cluster", "proxy", "server")),
    "proxyroute_event_streams": ("Who listens to events.", ()),
}
"""What each says, and its labels."""


class Operations:
    """Counts the operations that have ended since it began."""

    def __init__(self, registry: CollectorRegistry, began: float) -> None:
        self._began = began
        self._begun: set[str] = set()
        """The clusters of which something was told: 0 at first, for what is born at 1 has not increased."""
        self._counted: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._total = Counter(
            "proxyroute_operations", "Operations that have ended.", ("cluster", "kind", "result"), registry=registry
        )
        self._duration = Histogram(
            "proxyroute_operation_duration_seconds", "How long each step of an operation took.",
            ("cluster", "kind", "phase"), buckets=_PHASES, registry=registry,
        )  # fmt: skip
        self._blackout = Histogram(
            "proxyroute_blackout_seconds", "How long no write was accepted, as the engine saw it.",
            ("cluster", "kind"), buckets=_BLACKOUTS, registry=registry,
        )  # fmt: skip
        self._verdict = Counter(
            "proxyroute_proofs", "Proofs after operations.", ("cluster", "kind", "verdict"), registry=registry
        )

    def count(self, hub: Hub) -> None:
        """Counts what has ended since the last time."""
        with self._lock:
            for cluster in hub.names:
                if cluster not in self._begun:
                    self._begin(cluster)
                    continue  # what has ended already is told the next time
                with contextlib.suppress(ProxyRouteError):  # no record can be read now, or the cluster is gone
                    self._count(hub, cluster)

    def _begin(self, cluster: str) -> None:
        self._begun.add(cluster)
        for kind in _KINDS:
            for result in _RESULTS:
                self._total.labels(cluster, kind, result)
            for verdict in Verdict:
                self._verdict.labels(cluster, kind, verdict)

    def _count(self, hub: Hub, cluster: str) -> None:
        for summary in hub.history(cluster):
            key = (cluster, summary.operation)
            over = summary.outcome not in ("open", "begun")
            if not over or key in self._counted or summary.started + summary.seconds < self._began:
                continue
            self._counted.add(key)
            self._one(cluster, summary)
            self._duration.labels(cluster, summary.kind, "total").observe(summary.seconds)
            for record in hub.records(cluster, summary.operation):
                if record["kind"] == "stepped":
                    self._duration.labels(cluster, summary.kind, record["name"]).observe(record["seconds"])

    def _one(self, cluster: str, summary: Summary) -> None:
        self._total.labels(cluster, summary.kind, summary.outcome).inc()
        if summary.blackout_seconds is not None:
            self._blackout.labels(cluster, summary.kind).observe(summary.blackout_seconds)
        if summary.verdict is not None:
            self._verdict.labels(cluster, summary.kind, summary.verdict).inc()


class Present(Collector):
    """Everything that is so now."""

    def __init__(self, hub: Hub, streams: Callable[[], int]) -> None:
        self._hub = hub
        self._streams = streams
        self._diagnoses: dict[str, set[str]] = {}
        """By cluster, what was the matter at some time: those are 0 now, and the others are not told at all."""

    def collect(self) -> Iterable[Metric]:
        """Returns the metrics. What cannot be known is left out, and never a whole cluster: an alert would end."""
        gauges = {name: GaugeMetricFamily(name, told, labels=labels) for name, (told, labels) in GAUGES.items()}
        for state in self._hub.states():
            for name, labels, value in (*_cluster(state), *self._diagnosis(state), *_servers(state), *_proxies(state)):
                gauges[name].add_metric((state.name, *labels), float(value))
        gauges["proxyroute_event_streams"].add_metric((), self._streams())
        yield from gauges.values()
        yield InfoMetricFamily("proxyroute_build", "The version of ProxyRoute.", {"version": __version__})

    def _diagnosis(self, state: ClusterState) -> Iterator[Sample]:
        if state.glance is None or state.glance.diagnosis is None:
            return
        name = state.glance.diagnosis.name
        known = self._diagnoses.setdefault(state.name, {FINE})
        known.add(name)
        for one in sorted(known):
            yield "proxyroute_diagnosis", (one,), one == name


Sample = tuple[str, tuple[str, ...], float]
"""The name of a gauge, its labels but for the cluster, its value."""


def _cluster(state: ClusterState) -> Iterator[Sample]:
    for level in LEVELS:
        yield "proxyroute_level", (level,), state.level == level
    yield "proxyroute_failover_automatic", (), state.config.failover.mode == "automatic"
    if not state.unread:
        yield "proxyroute_operations_unfinished", (), len(state.unfinished)
        yield "proxyroute_servers_aside", (), len(state.aside)
    glance = state.glance
    if glance is None:
        return
    yield "proxyroute_seen_timestamp_seconds", (), glance.at
    yield "proxyroute_paused", (), bool(glance.standing.idle)
    for name, findings in (("switchover", state.blocks_switchover), ("failover", state.blocks_failover)):
        for code in sorted({f.code for f in findings}):
            yield f"proxyroute_{name}_blocked", (code,), 1
    promised = guarantee(state)
    yield "proxyroute_lossless", (), promised["lossless"]
    yield "proxyroute_fenced", (), promised["fenced"]


def _servers(state: ClusterState) -> Iterator[Sample]:
    """By what is looked at now, as health is: whoever keeps the cluster shows nothing while it moves the primary."""
    glance, now = state.glance, time.monotonic()
    health = Health(state.config, glance, now, time.time())
    view = health.view
    if glance is None or view is None:
        return
    if not any(health.stale(name) for name in state.config.servers):
        yield "proxyroute_primaries", (), len(view.writable)
    tracks = glance.live().tracks if glance.live is not None else {}
    for name in state.config.servers:
        seen, own = view.servers.get(name), (name,)
        track = tracks.get(name)
        if track is not None and track.last is not None:
            yield "proxyroute_probe_age_seconds", own, max(0.0, now - track.last.at)
        yield "proxyroute_maintenance", own, name in glance.standing.maintenance
        if health.stale(name):
            continue
        yield "proxyroute_up", own, isinstance(seen, Status)
        yield "proxyroute_primary", own, seen is not None and seen is view.primary
        if not isinstance(seen, Status):
            continue
        yield "proxyroute_server_writable", own, seen.writable
        yield "proxyroute_server_connections", own, seen.connections
        yield "proxyroute_server_connections_limit", own, seen.connections_limit
        yield "proxyroute_probe_round_trip_seconds", own, seen.round_trip_seconds
        sync = seen.semi_sync
        yield "proxyroute_semi_sync_active", own, sync.primary_active if seen is view.primary else sync.replica_active
        if seen is view.primary:
            continue
        yield "proxyroute_replication_running", own, follows(view, seen)
        if (lag := lag_of(seen)) is not None:
            yield "proxyroute_replication_lag_seconds", own, lag
        behind = seen.behind(view.primary) if view.primary is not None else None
        if behind is not None:
            yield "proxyroute_replication_behind_transactions", own, behind


def _proxies(state: ClusterState) -> Iterator[Sample]:
    for seen in state.observed:
        own = (seen.proxy,)
        yield "proxyroute_proxy_up", own, seen.reachable
        if not seen.reachable:
            continue
        yield "proxyroute_proxy_drift", own, len(drift_of(state, seen))
        yield "proxyroute_proxy_held", own, seen.held
        if seen.epoch is not None:
            yield "proxyroute_proxy_epoch", own, seen.epoch.term * _SERIALS + seen.epoch.serial
        for server, number in seen.sessions.items():
            yield "proxyroute_proxy_sessions", (seen.proxy, server), number
