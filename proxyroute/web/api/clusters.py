"""What is seen of clusters, servers and proxies now. Nobody is asked for it: keepers look all the time."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from proxyroute.drift import differences
from proxyroute.history import Summary
from proxyroute.jsonable import jsonable
from proxyroute.web import shown
from proxyroute.web.api.common import ClusterName, Reader, ServerName, TheHub, problems
from proxyroute.web.api.shapes import (
    ClusterShape,
    ProxyShape,
    ReceiptShape,
    ServerShape,
    StandingShape,
    SummaryShape,
    TopologyShape,
)
from proxyroute.web.hub import Hub
from proxyroute.web.problems import Problem
from proxyroute.web.state import ClusterState

router = APIRouter(prefix="/v1", tags=["clusters"])
_MISSING = problems(404)


@router.get("/clusters", summary="All clusters in short", response_model=list[SummaryShape], responses=problems())
def clusters(hub: TheHub, _: Reader) -> Any:
    """Every cluster in the order of the configuration: its line of truth, what blocks, and how far replicas are."""
    return [shown.summary_json(state) | shown.moving_json(state) for state in hub.states()]


@router.get(
    "/clusters/{cluster}", summary="Everything about a cluster", response_model=ClusterShape, responses=_MISSING
)
def one(cluster: ClusterName, hub: TheHub, _: Reader) -> Any:
    """Servers, proxies, diagnosis, what blocks a switchover or a failover, and which guarantee holds now."""
    return shown.cluster_json(state_of(hub, cluster), hub.version(cluster))


@router.get("/clusters/{cluster}/servers", summary="Its servers", response_model=list[ServerShape], responses=_MISSING)
def servers(cluster: ClusterName, hub: TheHub, _: Reader) -> Any:
    """Every configured server as it was seen last, also one that cannot be read."""
    return shown.servers_json(state_of(hub, cluster))


@router.get(
    "/clusters/{cluster}/servers/{server}", summary="One server", response_model=ServerShape, responses=_MISSING
)
def server(cluster: ClusterName, server: ServerName, hub: TheHub, _: Reader) -> Any:
    """A server as it was seen last."""
    state = state_of(hub, cluster)
    if server not in state.config.servers:
        raise Problem(
            404, f"{cluster} has no server {server!r}", where="path.server", cure=one_of(tuple(state.config.servers))
        )
    return shown.server_json(state, server)


@router.get(
    "/clusters/{cluster}/topology", summary="Who follows whom", response_model=TopologyShape, responses=_MISSING
)
def topology(cluster: ClusterName, hub: TheHub, _: Reader) -> Any:
    """Servers and proxies as a graph: replication, writes and reads."""
    return shown.topology_json(state_of(hub, cluster))


@router.get("/clusters/{cluster}/proxies", summary="Its proxies", response_model=list[ProxyShape], responses=_MISSING)
def proxies(cluster: ClusterName, hub: TheHub, _: Reader) -> Any:
    """What every proxy really does, read from the proxy: epoch, route, sessions, drift."""
    return shown.proxies_json(state_of(hub, cluster))


@router.get(
    "/clusters/{cluster}/receipts", summary="Which proxies agree", response_model=list[ReceiptShape], responses=_MISSING
)
def receipts(cluster: ClusterName, hub: TheHub, _: Reader) -> Any:
    """For every proxy whether it does what is meant, and what was read back there after the last operation."""
    state = state_of(hub, cluster)
    moved = next((s for s in reversed(state.history) if s.ended_with is not None), None)
    evidence = hub.report(cluster, moved.operation)["evidence"] if moved is not None else []
    return [_receipt(state, proxy.name, moved, evidence) for proxy in state.config.proxies]


@router.get(
    "/clusters/{cluster}/orders", summary="Its standing orders", response_model=StandingShape, responses=_MISSING
)
def orders(cluster: ClusterName, hub: TheHub, _: Reader) -> Any:
    """What people have ordered, and the last changes: who, when, why. As `proxyroute orders --json`."""
    state_of(hub, cluster)
    standing, changes = hub.orders(cluster)
    return jsonable({"standing": standing, "lines": standing.lines(), "changes": changes})


def _receipt(state: ClusterState, proxy: str, moved: Summary | None, evidence: list[dict[str, Any]]) -> dict[str, Any]:
    seen = next((o for o in state.observed if o.proxy == proxy), None)
    intended = state.glance.intended if state.glance else None
    known = seen is not None and seen.reachable and intended is not None
    wrong = differences(intended, seen) if known and seen is not None and intended is not None else ()
    return {
        "proxy": proxy,
        "agrees": not wrong if known else None,
        "epoch": str(seen.epoch) if seen is not None and seen.epoch is not None else None,
        "published": str(seen.published) if seen is not None and seen.published is not None else None,
        "differences": list(wrong),
        "operation": moved.operation if moved is not None else "",
        "evidence": [e for e in evidence if e["subject"] == proxy],
    }


def state_of(hub: Hub, cluster: str) -> ClusterState:
    """Returns the state of a cluster. Raises Problem (404) when there is none of this name."""
    if cluster not in hub.names:
        raise Problem(404, f"there is no cluster {cluster!r}", where="path.cluster", cure=one_of(hub.names))
    return hub.state(cluster)


def one_of(names: tuple[str, ...]) -> str:
    """Returns what to do about a name that there is not."""
    return f"name one of: {', '.join(names)}"
