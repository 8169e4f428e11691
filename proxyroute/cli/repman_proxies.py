"""The proxies of a configuration of replication-manager, in our words."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

CONVERTED, BY_HAND_WORD, NOT_NEEDED_WORD = "converted", "by hand", "not needed"
ENCRYPTED = "hash_"
"""How replication-manager marks a value that only its own key can read."""
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_ETC, _RUN = Path("/etc/haproxy"), Path("/run/haproxy")


class Cluster(Protocol):
    """What is asked of the cluster that is on its way."""

    name: str
    options: Mapping[str, Any]
    out: dict[str, Any]

    @property
    def alone(self) -> bool: ...
    def true(self, option: str) -> bool: ...
    def list_of(self, option: str) -> list[str]: ...
    def secret(self, option: str, file: str) -> dict[str, str]: ...
    def note(self, option: str, verdict: str, text: str) -> None: ...


def is_true(value: Any) -> bool:
    """Returns whether an option is on, in whichever way that is written."""
    return value is True or str(value).lower() in ("true", "1", "on", "yes")


def short_name(host: str) -> str:
    """Returns the first part of a host's name; of an address nothing."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.partition(".")[0]
    return ""


def haproxy_here(options: Mapping[str, Any]) -> bool:
    """Returns whether the cluster has an HAProxy on the host of replication-manager, which is to be ours."""
    return is_true(options.get("haproxy", False)) and [host for host in _hosts(options) if host not in _LOCAL] == []


def haproxies(cluster: Cluster) -> list[dict[str, Any]]:
    """Returns the HAProxy of this host, or says how those of other hosts are configured."""
    options = cluster.options
    write = _bind(options.get("haproxy-ip-write-bind"), options.get("haproxy-write-port", 3306))
    read = _bind(options.get("haproxy-ip-read-bind"), options.get("haproxy-read-port", 3307))
    if not haproxy_here(options):
        hosts = list(_hosts(options))
        cluster.note(
            "haproxy", BY_HAND_WORD, f"HAProxy runs elsewhere ({', '.join(hosts)}): each host needs an agent and a "
            "shared folder (docs/guide/agents.md); then add proxies: "
            + "; ".join(
                f"{{type: haproxy-agents, name: {short_name(h) or f'edge{n}'}, folder: /mnt/proxyroute, "
                f"key_file: /etc/proxyroute/release.key, write: '{write}', read: '{read}'}}"
                for n, h in enumerate(hosts, 1)
            )
        )  # fmt: skip
        return []
    own: dict[str, Any] = {"type": "haproxy", "name": "haproxy", "config_file": str(_ETC / "haproxy.cfg")}
    text = (
        "proxies: haproxy on this host; its configuration is rendered whole, so add what else stands in the present "
        "one by a template, and look first: proxyroute render"
    )
    if not cluster.alone:
        sockets = {"runtime_socket": str(_RUN / f"{cluster.name}.sock"), "master_socket": f"{_RUN}-{cluster.name}.sock"}
        own |= {"config_file": str(_ETC / f"{cluster.name}.cfg"), **sockets}
        text += (
            f"; each cluster needs an HAProxy of its own here: haproxy -W -f {own['config_file']} "
            f"-S {own['master_socket']}"
        )
    cluster.note("haproxy", CONVERTED if cluster.alone else BY_HAND_WORD, text)
    return [{**own, "write": write, "read": read}]


def maxscales(cluster: Cluster) -> list[dict[str, Any]]:
    """Returns every MaxScale of the cluster."""
    hosts = cluster.list_of("maxscale-servers") or ["127.0.0.1"]
    driving = cluster.options.get("maxscale-monitor") is False or cluster.true("maxscale-disable-monitor")
    password = cluster.secret("maxscale-pass", "maxscale.password")
    cluster.note(
        "maxscale", CONVERTED, f"proxies: maxscale, {'driving' if driving else 'following'}; the port of its REST "
        "API is taken to be 8989 and its certificate to be trusted here: `proxyroute check` says more"
    )  # fmt: skip
    return [
        {
            "type": "maxscale",
            "name": f"maxscale{number}" if len(hosts) > 1 else "maxscale",
            "url": f"https://{f'[{host}]' if ':' in host else host}:8989",
            "mode": "driving" if driving else "following",
            "user": str(cluster.options.get("maxscale-user", "admin")),
            "password": password,
        }
        for number, host in enumerate(map(_without_port, hosts), 1)
    ]


def _hosts(options: Mapping[str, Any]) -> Iterator[str]:
    named = [part.strip() for part in str(options.get("haproxy-servers", "")).split(",") if part.strip()]
    return map(_without_port, named or ["127.0.0.1"])


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text if text.count(":") != 1 else text.partition(":")[0]


def _bind(address: Any, port: Any) -> str:
    host = str(address or "*")
    return f"{'*' if host in ('0.0.0.0', '::') else host}:{port}"
