"""The state of a cluster in one line. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from proxyroute import topology
from proxyroute.drift import differences
from proxyroute.model import Observed, Status, View
from proxyroute.standing import Standing


def truth(
    view: View, proxies: Sequence[Observed], unfinished: Sequence[object], standing: Standing | None = None
) -> tuple[str, str]:
    """Returns the state of a cluster in one line, and how good it is: ``good``, ``warn`` or ``bad``.

    ``standing`` are the orders of people: whoever is in maintenance is not missed, and a pause is a thing to know.
    """
    primary = view.primary
    aside = standing.maintenance if standing is not None else {}
    bad, warn = [], []
    if primary is None:
        bad.append(_without_primary(view))
    else:
        strays = [s.name for s in view.writable if s.name != primary.name]
        if strays:
            bad.append(f"{', '.join(strays)} takes writes although it is a replica")
    following, expected = _following(view, primary, aside) if primary is not None else (0, 0)
    if following < expected:
        warn.append(f"only {following} of {expected} replicas follow")
    for proxy in proxies:
        if not proxy.reachable:
            warn.append(f"proxy {proxy.proxy} cannot be read")
        elif primary is not None and proxy.primary != primary.name:
            bad.append(f"proxy {proxy.proxy} sends writes to {proxy.primary or 'nobody'}")
        elif proxy.drift or (primary is not None and differences(primary.name, proxy)):
            warn.append(f"proxy {proxy.proxy} has drifted")
        elif proxy.held:
            warn.append(f"proxy {proxy.proxy} holds newcomers")
    if standing is not None and standing.idle:
        orders = "serve pauses" if standing.paused is not None else "the standing orders cannot be read"
        warn.append(f"serve does nothing: {standing.withheld}" if standing.idle == standing.withheld else orders)
    if unfinished:
        warn.append("something is left to do, type 'proxyroute heal'")
    level = "bad" if bad else "warn" if warn else "good"
    start = f"{view.cluster}: {primary.name} takes writes" if primary else f"{view.cluster}"
    if level == "good":
        count = f"{following} of {expected} replicas follow"
        routed = f", {len(proxies)} of {len(proxies)} proxies send writes there" if proxies else ""
        set_aside = f", {', '.join(aside)} in maintenance" if aside else ""
        return f"{start}, {count}{set_aside}{routed}", level
    return f"{start}: {'; '.join(bad + warn)}", level


def _without_primary(view: View) -> str:
    if not view.seen:
        return "no server answers, so nobody can tell whether one takes writes"
    if view.writable:
        return f"SEVERAL SERVERS TAKE WRITES: {', '.join(s.name for s in view.writable)}"
    unread = f" ({', '.join(s.name for s in view.silent)} cannot be read)" if view.silent else ""
    return f"no server takes writes{unread}"


def _following(view: View, primary: Status, aside: Collection[str]) -> tuple[int, int]:
    """Returns how many servers follow ``primary``, and how many should: nobody misses those that are set ``aside``."""
    following = {s.name for s in view.seen if s is not primary and _follows(view, s, primary)}
    excused = [n for n in aside if n in view.servers and n not in following and n != primary.name]
    return len(following), len(view.servers) - 1 - len(excused)


def _follows(view: View, server: Status, primary: Status) -> bool:
    """Tells whether events come from ``primary`` to ``server``, through other replicas or not."""
    way = topology.path(view, server.name)
    return way[-1] == primary.name and all(channel.running for channel in topology.channels(view, server.name))
