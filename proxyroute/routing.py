"""Where proxies must send reads and writes, from one view. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from proxyroute import topology
from proxyroute.model import Endpoint, Epoch, Reader, RouteTable, View
from proxyroute.policy import Policy

WEIGHTS: tuple[tuple[float, int], ...] = ((1.0, 100), (3.0, 75), (10.0, 50), (30.0, 25))
"""Lag in seconds up to which a reader gets a weight. Few steps, so that the usual ups and downs change nothing."""
LEAST = 10
"""Weight of a reader that is further behind and still within the policy."""


def route(view: View, primary: str | None, policy: Policy, epoch: Epoch, endpoints: Sequence[Endpoint]) -> RouteTable:
    """Returns the routes while ``primary`` takes the writes; None closes the write route.

    Reads go to the replicas that run, directly or through a chain, are not in maintenance, and are at most
    ``policy.max_replica_lag_reads`` behind; to the primary when there is none. ``primary`` may be a replica in
    ``view``, one that is about to take over: then those that follow the same server as it does will follow it.
    """
    top = topology.path(view, primary)[-1] if primary is not None else None
    readers = []
    for endpoint in endpoints:
        above = topology.path(view, endpoint.name)[-1]
        lag = _lag(view, endpoint.name)
        if endpoint.name == primary or endpoint.name in policy.aside or top not in (None, above) or lag is None:
            continue
        if lag <= policy.max_replica_lag_reads:
            readers.append(Reader(endpoint.name, weight(lag)))
    if not readers and primary is not None:
        readers.append(Reader(primary, WEIGHTS[0][1]))
    return RouteTable(view.cluster, epoch, tuple(endpoints), primary, tuple(readers))


def bereaved(
    view: View, gone: str, primary: str | None, policy: Policy, epoch: Epoch, endpoints: Sequence[Endpoint]
) -> RouteTable:
    """Returns the routes while ``gone`` is dead: reads go on at every replica that is there, and not in maintenance.

    How far behind they are nobody can say, for there is nobody to be behind of.
    """
    readers = tuple(
        Reader(s.name, WEIGHTS[0][1]) for s in view.seen if s.name != gone and s.name not in policy.aside and s.sources
    )
    return RouteTable(view.cluster, epoch, tuple(endpoints), primary, readers)


def weight(lag: float) -> int:
    """Returns the weight of a reader that is ``lag`` seconds behind; never more for more lag."""
    return next((value for limit, value in WEIGHTS if lag < limit), LEAST)


def _lag(view: View, name: str) -> float | None:
    """Returns how far a replica is behind the top of its path, in seconds; None when events do not flow.

    The lag of a replica counts from when an event was written on the primary, so a chain is not summed up.
    """
    sources = topology.channels(view, name)
    lags = [source.lag_seconds for source in sources if source.running and source.lag_seconds is not None]
    return max(lags) if sources and len(lags) == len(sources) else None
