"""What clients of a MaxScale's services see of a switchover, by the settings of each service. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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


def outlook(service: Service) -> Outlook | None:
    """Returns what clients of ``service`` see; None for one that sends no writes to a Master."""
    if service.router == "readwritesplit":
        return _readwritesplit(service)
    if service.router == "readconnroute":
        options = str(service.parameters.get("router_options") or "")
        if "slave" in options and "master" not in options:
            return None
        return Outlook(
            service.name,
            "a session on the old primary ends once (2013) and must connect anew; newcomers see nothing",
            f"a readwritesplit with {RETRY} would hide it",
            errors=True,
        )
    return Outlook(service.name, f"what the router {service.router} lets clients see is not known here")


def _readwritesplit(service: Service) -> Outlook:
    retry, replay = service.on("delayed_retry"), service.on("transaction_replay")
    reconnect = service.on("master_reconnection")
    again = "a write whose reply was lost may be done twice (delayed_retry)"
    if retry and replay:
        text = "writes and transactions wait and go on at the new primary without an error, for one it may take until "
        text += f"the next full second; a COMMIT that was under way may end with 2013; {again}"
        return Outlook(service.name, text)
    if retry:
        text = f"single writes wait and go on at the new primary; an open transaction breaks (2013); {again}"
        return Outlook(service.name, text, _alter(service, "transaction_replay=true"), errors=True)
    if reconnect:
        text = "a session that is writing at that moment, or has a transaction open, ends once (2013); all others go on"
        return Outlook(service.name, text, _alter(service, RETRY), errors=True)
    text = "every session that has used the primary ends once (2013) and must connect anew"
    return Outlook(service.name, text, _alter(service, f"{RECONNECT} {RETRY}"), errors=True)


def _alter(service: Service, settings: str) -> str:
    return f"maxctrl alter service {service.name} {settings}"
