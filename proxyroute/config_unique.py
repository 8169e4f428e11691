"""What may stand only once in a file, whichever of its clusters names it: two that have it would undo each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from proxyroute.config_shape import parse_address
from proxyroute.config_values import ProxyConfig
from proxyroute.config_yaml import Document, Where


class Cluster(Protocol):
    """What is asked of one cluster of the file."""

    name: str

    def addresses(self) -> list[tuple[Where, Any]]: ...
    def proxies(self) -> list[tuple[Where, ProxyConfig]]: ...


def check_addresses(clusters: Mapping[str, Cluster], document: Document) -> None:
    """Reports a server that stands in two places: it would be switched twice at once."""
    seen: dict[tuple[str, int], str] = {}
    for cluster in clusters.values():
        for where, text in cluster.addresses():
            try:
                address = parse_address(text)
            except ValueError:
                continue  # noted by the shape
            key = (address.host.lower().rstrip("."), address.port)
            if key in seen:
                document.report(where, f"{address} is already the address of {seen[key]}; one of the two is wrong")
            seen.setdefault(key, f"{cluster.name}.{where[3]}")


def check_proxies(clusters: Mapping[str, Cluster], document: Document) -> None:
    """Reports what two proxies of this host would both have: a file, a socket, a port (``Settings.unshared``)."""
    seen: dict[tuple[str, str], str] = {}
    for cluster in clusters.values():
        for where, proxy in cluster.proxies():
            for field, value in getattr(proxy.settings, "unshared", {}).items():
                if owner := seen.get((field, str(value))):
                    text = f"{value} is that of {owner} already; each needs its own, and a process of its own"
                    document.report((*where, field), text)
                seen.setdefault((field, str(value)), f"{cluster.name}.{proxy.name}")
