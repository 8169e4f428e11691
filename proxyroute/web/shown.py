"""What is shown of a cluster as JSON values: servers, proxies, topology, guarantee. Pure; for API and pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxyroute import topology
from proxyroute.config_values import ProxyConfig
from proxyroute.drift import differences
from proxyroute.jsonable import jsonable
from proxyroute.model import Observed, Silent, Source, Status, View
from proxyroute.standing import Standing
from proxyroute.web.state import ClusterState


def cluster_json(state: ClusterState, version: int) -> dict[str, Any]:
    """Returns everything that is seen of a cluster."""
    glance, config = state.glance, state.config
    diagnosis = glance.diagnosis if glance else None
    return {
        **summary_json(state),
        **moving_json(state),
        "intended": glance.intended if glance else None,
        "astray": glance.astray if glance else "",
        "diagnosis_text": diagnosis.text if diagnosis else "",
        "diagnosis_action": str(diagnosis.action) if diagnosis else "none",
        "failover_mode": config.failover.mode,
        "findings_switchover": jsonable(state.blocks_switchover),
        "findings_failover": jsonable(state.blocks_failover),
        "servers": servers_json(state),
        "proxies": proxies_json(state),
        "aside": [s.candidate for s in state.aside],
        "paused": jsonable(glance.standing.paused) if glance else None,
        "orders": list(glance.standing.lines()) if glance else [],
        "guarantee": guarantee(state),
        "version": version,
    }


def summary_json(state: ClusterState) -> dict[str, Any]:
    """Returns what an overview shows of a cluster, without what moves all the time."""
    return {
        "cluster": state.name,
        "truth": state.truth,
        "level": state.level,
        "primary": state.primary.name if state.primary else None,
        "diagnosis": state.glance.diagnosis.name if state.glance and state.glance.diagnosis else None,
        "blocks_switchover": jsonable([f.code for f in state.blocks_switchover]),
        "blocks_failover": jsonable([f.code for f in state.blocks_failover]),
        "unfinished": [s.operation for s in state.unfinished],
    }


def moving_json(state: ClusterState) -> dict[str, Any]:
    """Returns what an overview shows of a cluster and moves all the time."""
    lags = [lag for s in (state.view.seen if state.view else ()) if (lag := lag_of(s)) is not None]
    return {"seen_at": state.glance.at if state.glance else None, "lag_seconds": max(lags, default=None)}


def lag_of(server: Status) -> float | None:
    """Returns how far a server is behind by its own word, the worst of its channels; None when it says nothing."""
    return max((s.lag_seconds for s in server.sources if s.lag_seconds is not None), default=None)


def servers_json(state: ClusterState) -> list[dict[str, Any]]:
    """Returns every configured server, as it was seen last."""
    return [server_json(state, name) for name in state.config.servers]


def server_json(state: ClusterState, name: str) -> dict[str, Any]:
    """Returns a server as it was seen last. Raises KeyError when it is not configured."""
    configured, view = state.config.servers[name], state.view
    seen = view.servers.get(name) if view is not None else None
    orders = state.glance.standing if state.glance is not None else Standing()
    policy = orders.policy(state.config.policy)
    told: dict[str, Any] = {
        "name": name,
        "address": str(configured.address),
        "preferred": name in policy.prefer,
        "never": name in policy.never,
        "maintenance": jsonable(orders.maintenance.get(name)),
        "aside": name in {s.candidate for s in state.aside},
    }
    if view is None or not isinstance(seen, Status):
        nobody = dict.fromkeys(
            ("writable", "lag_seconds", "behind", "position", "server_id", "semi_sync", "binlog", "connections",
             "connections_limit", "uptime_seconds", "round_trip_seconds")
        )  # fmt: skip
        reason = seen.reason if isinstance(seen, Silent) else "has not been looked at yet"
        return told | nobody | {
            "role": "silent", "reason": reason, "astray": False, "following": False, "version": "", "channels": [],
        }  # fmt: skip
    primary = view.primary
    return told | {
        "role": role(view, seen),
        "reason": "",
        "writable": seen.writable,
        "astray": seen.writable and seen is not primary,
        "following": follows(view, seen),
        "lag_seconds": lag_of(seen),
        "behind": seen.behind(primary) if primary is not None and seen is not primary else None,
        "position": str(seen.executed),
        "version": seen.version_text,
        "server_id": seen.server_id,
        "channels": [_channel_json(view, source) for source in seen.sources],
        "semi_sync": {
            "primary_enabled": seen.semi_sync.primary_enabled,
            "primary_active": seen.semi_sync.primary_active,
            "replica_enabled": seen.semi_sync.replica_enabled,
            "replica_active": seen.semi_sync.replica_active,
            "clients": seen.semi_sync.clients,
            "wait_point": seen.semi_sync.wait_point,
        },
        "binlog": seen.binlog,
        "connections": seen.connections,
        "connections_limit": seen.connections_limit,
        "uptime_seconds": seen.uptime_seconds,
        "round_trip_seconds": seen.round_trip_seconds,
    }


def role(view: View, server: Status) -> str:
    """Returns ``primary``, ``replica`` or ``alone``."""
    return "primary" if server is view.primary else "replica" if server.sources else "alone"


def follows(view: View, server: Status) -> bool:
    """Tells whether events come from the primary to ``server``, through others or not, and all threads run."""
    primary = view.primary
    if primary is None or server is primary:
        return False
    way = topology.path(view, server.name)
    return way[-1] == primary.name and all(channel.running for channel in topology.channels(view, server.name))


def _channel_json(view: View, source: Source) -> dict[str, Any]:
    return {
        "channel": source.channel,
        "source": topology.source_of(view, source),
        "address": str(source.address),
        "receiver": str(source.receiver),
        "applier": source.applier,
        "received": str(source.received),
        "lag_seconds": source.lag_seconds,
        "delay_seconds": source.delay_seconds,
        "filtered": source.filtered,
        "error": source.error,
    }


def proxies_json(state: ClusterState) -> list[dict[str, Any]]:
    """Returns every configured proxy, as it was seen last."""
    seen = {o.proxy: o for o in state.observed}
    return [_proxy_json(state, proxy, seen.get(proxy.name)) for proxy in state.config.proxies]


def _proxy_json(state: ClusterState, proxy: ProxyConfig, seen: Observed | None) -> dict[str, Any]:
    told: dict[str, Any] = {"proxy": proxy.name, "type": proxy.type}
    if seen is None:
        empty: dict[str, Any] = {
            "readers": [], "sessions": {}, "held": False, "drift": [], "aside": [], "addresses": {},
        }  # fmt: skip
        return told | empty | {
            "reachable": None, "primary": None, "epoch": None, "published": None, "detail": "not asked yet",
        }  # fmt: skip
    return told | {
        "reachable": seen.reachable,
        "primary": seen.primary,
        "readers": list(seen.readers),
        "epoch": str(seen.epoch) if seen.epoch is not None else None,
        "published": str(seen.published) if seen.published is not None else None,
        "sessions": dict(seen.sessions),
        "held": seen.held,
        "drift": list(drift_of(state, seen)),
        "aside": list(seen.aside),
        "addresses": dict(seen.addresses),
        "detail": seen.detail,
    }


def drift_of(state: ClusterState, seen: Observed) -> tuple[str, ...]:
    """Returns where a proxy is not as it should be; only its own drift while nobody knows how it should be."""
    intended = state.glance.intended if state.glance else None
    return differences(intended, seen) if intended is not None else seen.drift


def topology_json(state: ClusterState) -> dict[str, Any]:
    """Returns who follows whom and where the proxies lead, as a graph."""
    view = state.view
    levels = _levels(view) if view is not None else {}
    nodes = [
        {"name": s["name"], "kind": "server", "role": s["role"], "level": levels.get(s["name"], -1)}
        for s in servers_json(state)
    ]
    nodes += [{"name": p.name, "kind": "proxy", "role": p.type, "level": -1} for p in state.config.proxies]
    return {
        "cluster": state.name,
        "primary": state.primary.name if state.primary else None,
        "nodes": nodes,
        "edges": [*_replication_edges(view), *_proxy_edges(state)],
    }


def _levels(view: View) -> dict[str, int]:
    primary = view.primary
    ways = {s.name: topology.path(view, s.name) for s in view.seen}
    return {name: len(way) - 1 for name, way in ways.items() if primary is not None and way[-1] == primary.name}


def _replication_edges(view: View | None) -> Iterator[dict[str, Any]]:
    for server in view.seen if view is not None else ():
        for source in server.sources:
            above = topology.source_of(view, source) if view is not None else None
            yield {
                "source": above or str(source.address), "target": server.name, "kind": "replication",
                "running": source.running, "lag_seconds": source.lag_seconds,
            }  # fmt: skip


def _proxy_edges(state: ClusterState) -> Iterator[dict[str, Any]]:
    for seen in state.observed:
        ways = [("writes", seen.primary)] if seen.primary is not None else []
        for kind, target in [*ways, *(("reads", name) for name in seen.readers)]:
            yield {
                "source": seen.proxy, "target": target, "kind": kind, "running": seen.reachable and not seen.held,
                "lag_seconds": None,
            }  # fmt: skip


def guarantee(state: ClusterState) -> dict[str, Any]:
    """Returns what could be promised if the primary died now, and why not more."""
    found = state.guarantee
    doubts = "; ".join(f.text for f in found.doubts) if found is not None else "nothing was seen yet"
    fenced = bool(state.config.scripts.moments.get("fence"))
    return {
        "lossless": found is not None and found.lossless,
        "lossless_why": doubts or "a commit is answered once a replica has it, and all that could have it take part"
        if found is None or found.primary is not None
        else "nobody knows who the primary is",
        "fenced": fenced,
        "fenced_why": "scripts.fence is run before another server is opened"
        if fenced
        else "no fence is configured: routes are closed, but who goes to the old primary directly is not kept away",
    }
