"""One reading of a MaxScale: its servers as we name them, its monitors, and the epochs it keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proxyroute.errors import AdapterError
from proxyroute.maxscale.marker import Marker, markers
from proxyroute.maxscale.rest import Rest
from proxyroute.maxscale.settings import FOLLOWING, Settings
from proxyroute.maxscale.states import Known, match
from proxyroute.model import Deadline, Endpoint, RouteTable

_ACTS = {
    "auto_failover": "promotes another server by itself when the primary seems dead",
    "auto_rejoin": "makes servers follow by itself",
    "switchover_on_low_disk_space": "moves the primary by itself when a disk is nearly full",
}
_ENFORCES = "enforce_"


@dataclass(frozen=True)
class Monitor:
    """One monitor of a MaxScale."""

    name: str
    module: str
    running: bool
    servers: frozenset[str]
    """Names of MaxScale's."""
    parameters: Mapping[str, Any]

    @property
    def own_will(self) -> Iterator[tuple[str, str]]:
        """Yields, for each parameter by which it would act by itself, what it would do, and the cure."""
        for name, value in self.parameters.items():
            does = _ACTS.get(name) or ("changes servers by itself" if name.startswith(_ENFORCES) else "")
            if does and _on(value):
                yield (
                    f"monitor {self.name} would act by itself: {name} {does}, and two would move the primary",
                    f"maxctrl alter monitor {self.name} {name}=false",
                )


def _on(value: Any) -> bool:
    """24.08 says ``"false"``, ``"true"`` and ``"safe"`` where older versions say false and true."""
    return value not in (None, False, "", "false", "off", "no", "0", 0)


@dataclass(frozen=True)
class Look:
    """What one MaxScale is like now."""

    known: Known
    markers: tuple[Marker, ...]
    monitors: tuple[Monitor, ...]
    """Those that own a server of ours, running or not."""

    @property
    def marker(self) -> Marker | None:
        """The highest epoch it keeps."""
        return self.markers[-1] if self.markers else None

    @property
    def running(self) -> tuple[Monitor, ...]:
        return tuple(m for m in self.monitors if m.running)


def look(rest: Rest, settings: Settings, cluster: str, servers: tuple[Endpoint, ...], deadline: Deadline) -> Look:
    """Reads servers and monitors. Raises AdapterError and ConfigError."""
    data = states(rest, deadline)
    known = match(servers, data)
    ours = {shown.name for shown in known.by_name.values()}
    ours |= {shown.name for same in known.twice.values() for shown in same}
    found = tuple(m for m in _monitors(rest, deadline) if m.servers & ours)
    return Look(known, tuple(markers(cluster, servers, data)), found)


def states(rest: Rest, deadline: Deadline) -> list[Mapping[str, Any]]:
    """Returns the servers with state and address, and nothing else: it is read inside the blackout, too."""
    found: list[Mapping[str, Any]] = rest.data(
        "servers", deadline, fields__servers="state,parameters/address,parameters/port", pretty="false"
    )
    return found


def _monitors(rest: Rest, deadline: Deadline) -> Iterator[Monitor]:
    for item in rest.data("monitors", deadline, pretty="false"):
        attributes = item["attributes"]
        related = item.get("relationships", {}).get("servers", {}).get("data", [])
        yield Monitor(
            str(item["id"]),
            str(attributes.get("module", "")),
            attributes.get("state") == "Running",
            frozenset(str(server["id"]) for server in related),
            attributes.get("parameters", {}),
        )


def refuse_unknown(proxy: str, table: RouteTable, known: Known) -> None:
    """Raises AdapterError when it does not know the primary of ``table``, or not as one server."""
    if not known.by_name:
        raise AdapterError(proxy, "it knows none of the servers; proxyroute check")
    if table.primary is not None and table.primary not in known.by_name:
        how = "several times" if table.primary in known.twice else "not at all"
        text = f"it knows {table.primary} ({table.address(table.primary)}) {how}"
        raise AdapterError(proxy, f"{text}; proxyroute check tells the line to type")


def refuse_aside(proxy: str, table: RouteTable, known: Known) -> None:
    """Raises AdapterError when the primary of ``table`` is in maintenance or drained there."""
    shown = known.by_name.get(table.primary) if table.primary else None
    if shown is not None and shown.aside:
        what = "maintenance" if shown.maintenance else "drain"
        text = f"{table.primary} is set aside in MaxScale ({shown.name} is {shown.text}): clients would not get there"
        raise AdapterError(proxy, f"{text}; maxctrl clear server {shown.name} {what}")


def obstacle(look: Look, settings: Settings) -> tuple[str, str] | None:
    """Returns what about the monitors does not fit the way of working, and the cure; None when all fits."""
    if settings.mode == FOLLOWING:
        return _following(look, settings)
    if look.running and not settings.stop_monitor:
        name = look.running[0].name
        return (
            f"monitor {name} runs and owns the servers: their states cannot be set",
            f"maxctrl stop monitor {name}, and take it out of the configuration (it runs again after a restart); or "
            "stop_monitor: true; or mode: following",
        )
    return None


def _following(look: Look, settings: Settings) -> tuple[str, str] | None:
    monitors = [m for m in look.monitors if settings.monitor in ("", m.name)]
    ours = {shown.name for shown in look.known.by_name.values()}
    if not monitors:
        named = f"monitor {settings.monitor}" if settings.monitor else "no monitor"
        verb = "does not own" if settings.monitor else "owns"
        return f"{named} {verb} the servers: nobody would find the primary", "set monitor:, or mode: driving"
    if len(monitors) > 1:
        names = " and ".join(m.name for m in monitors)
        return (
            f"the servers are divided between the monitors {names}",
            "leave them to one monitor, and name it: monitor:",
        )
    (monitor,) = monitors
    if monitor.module != "mariadbmon":
        return f"monitor {monitor.name} is a {monitor.module}, not a mariadbmon", "mode: driving, or use a mariadbmon"
    if not monitor.running:
        return (
            f"monitor {monitor.name} is stopped: the states stay as they are",
            f"maxctrl start monitor {monitor.name}",
        )
    if alone := ours - monitor.servers:
        names = " ".join(sorted(alone))
        return f"monitor {monitor.name} does not have {names}", f"maxctrl link monitor {monitor.name} {names}"
    return next(monitor.own_will, None)
