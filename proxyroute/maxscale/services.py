"""What clients of a MaxScale's services see of a switchover, by the settings of each service. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

RETRY = "delayed_retry=true transaction_replay=true"
RECONNECT = "master_reconnection=true master_failure_mode=fail_on_write"


@dataclass(frozen=True)
class Service:
    """One service: its router, its parameters, and the servers it may send clients to."""

    name: str
    router: str
    parameters: Mapping[str, Any]
    servers: frozenset[str]
    """Names of MaxScale's; those of its monitor for a service with ``cluster=``."""
    cluster: str = ""

    def on(self, parameter: str) -> bool:
        return self.parameters.get(parameter) in (True, "true", 1)

    @property
    def replays(self) -> bool:
        """Transactions that are cut off are done again."""
        return self.router == "readwritesplit" and self.on("transaction_replay")

    @property
    def retries(self) -> bool:
        """Single writes that are cut off are done again; ``transaction_replay`` has that in it."""
        return self.router == "readwritesplit" and (self.on("delayed_retry") or self.replays)

    @property
    def reconnects(self) -> bool:
        return self.on("master_reconnection") or self.replays

    @property
    def writes(self) -> bool:
        """Whether clients may write through it."""
        options = str(self.parameters.get("router_options") or "")
        return not (self.router == "readconnroute" and "slave" in options and "master" not in options)

    @property
    def waits(self) -> bool:
        """Whether writes and transactions wait while there is no Master, instead of failing."""
        return self.replays and self.parameters.get("master_failure_mode") != "fail_instantly"


class Order(StrEnum):
    """The order in which a MaxScale, the old and the new primary are told; docs/decisions/0023."""

    LOCK_EARLY = "lock early, kill late"
    """The old primary makes writes wait until the new Master is set and the old one cleared; only then sessions end."""
    CLEAR_FIRST = "Master cleared first"
    """The old primary refuses writes before the new one opens; until then there is no Master, and writes wait."""
    OVERLAP = "overlap"
    """The old primary refuses writes before the new one opens, and stays Master until then: writes meet that."""
    MONITOR = "by the monitor"
    """The monitor shows the new Master once it has seen that the old primary refuses writes."""


def order(services: Collection[Service], *, driving: bool, armed: bool) -> Order:
    """Returns the order for a MaxScale with ``services``.

    ``armed`` tells whether the old primary makes writes wait by itself, whoever dies, until the routes have moved.
    """
    if not driving:
        return Order.MONITOR
    if armed:
        return Order.LOCK_EARLY
    return Order.CLEAR_FIRST if queues(services) else Order.OVERLAP


def queues(services: Collection[Service]) -> bool:
    """Whether writes wait at every one of ``services`` that has any while there is no Master."""
    writing = [service for service in services if service.writes]
    return bool(writing) and all(service.waits for service in writing)


@dataclass(frozen=True)
class Outlook:
    """What clients of a service will see, and what would make it better."""

    service: str
    text: str
    cure: str = ""
    errors: bool = False
    """Whether clients that are doing nothing wrong see errors."""


def read(data: Sequence[Mapping[str, Any]], of_monitor: Mapping[str, frozenset[str]]) -> Iterator[Service]:
    """Yields the services in the ``data`` of ``GET /services``."""
    for item in data:
        related = item.get("relationships", {})
        servers = {str(s["id"]) for s in related.get("servers", {}).get("data", [])}
        monitors = [str(m["id"]) for m in related.get("monitors", {}).get("data", [])]
        for monitor in monitors:
            servers |= of_monitor.get(monitor, frozenset())
        attributes = item["attributes"]
        cluster = monitors[0] if monitors else ""
        yield Service(
            str(item["id"]),
            str(attributes.get("router", "")),
            attributes.get("parameters", {}),
            frozenset(servers),
            cluster,
        )


def outlook(service: Service, order: Order = Order.LOCK_EARLY) -> Outlook | None:
    """Returns what clients of ``service`` see in that ``order``; None for one that sends no writes to a Master."""
    if not service.writes:
        return None
    if service.router == "readwritesplit":
        return _readwritesplit(service, order)
    if service.router == "readconnroute":
        text = f"a session on the old primary ends once (2013) and must connect anew; newcomers {_NEWCOMERS[order]}"
        return Outlook(service.name, text, f"a readwritesplit with {RETRY} would hide it", errors=True)
    return Outlook(service.name, f"what the router {service.router} lets clients see is not known here")


_NEWCOMERS = {
    Order.LOCK_EARLY: "see nothing",
    Order.CLEAR_FIRST: "are refused until the new primary is open (1815)",
    Order.OVERLAP: "are refused, or their writes meet error 1290, until the new primary is open",
    Order.MONITOR: "are refused, or their writes meet error 1290, until the monitor has seen the new primary",
}


def _readwritesplit(service: Service, order: Order) -> Outlook:
    again = "a write whose reply was lost may be done twice (delayed_retry)"
    refused = _REFUSED.get(order, "")
    if service.retries and service.replays:
        free = "" if refused else " without an error"
        text = f"writes and transactions wait and go on at the new primary{free}, {_WAITS[order]}"
        return _outlook(service, text, refused, "a COMMIT that was under way may end with 2013", again)
    if service.retries:
        text = f"single writes wait and go on at the new primary, {_WAITS[order]}; an open transaction breaks (2013)"
        return _outlook(service, text, refused, again, cure="transaction_replay=true")
    if service.reconnects:
        text = "a session that is writing at that moment, or has a transaction open, ends once (2013); all others go on"
        return _outlook(service, text, refused, cure=RETRY)
    text = "every session that has used the primary ends once (2013) and must connect anew"
    return _outlook(service, text, refused, cure=f"{RECONNECT} {RETRY}")


_REFUSED = {
    Order.OVERLAP: "before it is open a write may meet error 1290",
    Order.MONITOR: "a write that is repeated before the monitor has seen it meets error 1290",
}

_WAITS = {
    Order.LOCK_EARLY: "for one it may take until the next full second",
    Order.CLEAR_FIRST: "which takes until the next full second",
    Order.OVERLAP: "for one it may take until the next full second",
    Order.MONITOR: "which takes until the next full second after the monitor has seen it",
}


def _outlook(service: Service, *texts: str, cure: str = "") -> Outlook:
    """Errors are to be expected where there is a cure, and where a text tells of refused writes."""
    told = [text for text in texts if text]
    line = f"maxctrl alter service {service.name} {cure}" if cure else ""
    return Outlook(service.name, "; ".join(told), line, errors=bool(cure) or any("1290" in text for text in told))


def told(order: Order, services: Collection[Service]) -> tuple[str, str]:
    """Returns what an order means, in words, and the setting that would make it better, if one would."""
    if order is not Order.OVERLAP:
        return f"{order}: {_MEANS[order]}", ""
    blunt = [service for service in services if service.writes and not service.waits]
    names = " and ".join(service.name for service in blunt) or "no service"
    cures = [f"maxctrl alter service {s.name} {RECONNECT} {RETRY}" for s in blunt if s.router == "readwritesplit"]
    text = f"{order}: {_MEANS[order]}; it is not cleared before, for writes through {names} would not wait"
    return text, "; ".join(("switchover: {order: lock_early, freeze: flush_tables}", *cures))


_MEANS = {
    Order.LOCK_EARLY: "writes wait at the locked old primary; when the new one is open it becomes Master, the old one "
    "is cleared, and only then its sessions end",
    Order.CLEAR_FIRST: "the old primary is cleared before it refuses writes, so that they wait in MaxScale; the new "
    "one becomes Master when it is open",
    Order.OVERLAP: "the old primary refuses writes and stays Master until the new one is open and Master",
    Order.MONITOR: "the old primary refuses writes, and the monitor, made to look at once, finds the new one",
}
