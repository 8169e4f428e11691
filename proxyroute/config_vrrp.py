"""What the configuration says about a virtual address that keepalived moves between proxy hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from proxyroute.config_fill import fill
from proxyroute.config_yaml import Document, Where, suggest

_INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
_WORD = re.compile(r"[^\s\"'\\#!{}]+")


@dataclass(frozen=True)
class VrrpConfig:
    """One group of hosts, of which one has the addresses. Only ``proxyroute render keepalived`` and checks use it."""

    addresses: tuple[str, ...]
    """The virtual addresses with the length of their network, ``10.0.0.100/24``; they move together."""
    hosts: Mapping[str, str]
    """The address of each proxy host in the same network, by its name; the highest has it when all start at once."""
    interface: str
    """The network interface that has the address."""
    router_id: int
    """Tells groups in one network apart, 1 to 255."""
    interfaces: Mapping[str, str] = field(default_factory=dict)
    """Hosts whose interface has another name."""
    advertisement: float = 1.0
    """Seconds between two signs of life; who hears none for about three times that takes the address."""
    check: tuple[str, ...] = ("/usr/local/lib/proxyroute/check",)
    """What says whether a host may hold the address, with its arguments."""
    priority_file: str = "/var/lib/proxyroute-agent/priority"
    """Where the agent of each host says by how much it steps back: ``priority`` in its state_dir."""
    script_user: str = "root"
    """Whom keepalived runs the check as: it reads HAProxy's socket and the agent's state_dir."""
    track_process: str = ""
    """A process without which the host loses the address at once, before the check is asked; empty: none."""

    def __post_init__(self) -> None:
        """Raises ValueError, naming the field."""
        if not self.addresses:
            raise ValueError("addresses: is empty; write [10.0.0.100/24]")
        for text in self.addresses:
            _require(_is_interface(text), "addresses", text, "an IPv4 address with its network, e.g. 10.0.0.100/24")
        if len(self.hosts) < 2:
            raise ValueError("hosts: needs two hosts at least; write {edge1: 10.0.0.11, edge2: 10.0.0.12}")
        for text in self.hosts.values():
            _require(_is_address(text), "hosts", text, "an IPv4 address without a port, e.g. 10.0.0.11")
            if text in self.plain:
                raise ValueError(f"hosts: {text} is the virtual address; each host has an address of its own")
        if len(set(self.hosts.values())) < len(self.hosts):
            raise ValueError("hosts: two hosts have the same address; each has one of its own")
        for name in self.interfaces:
            if name not in self.hosts:
                raise ValueError(f"interfaces: there is no host {name!r} among {', '.join(self.hosts)}")
        for text in (self.interface, *self.interfaces.values()):
            where = "interface" if text == self.interface else "interfaces"
            _require(_INTERFACE.fullmatch(text) is not None, where, text, "an interface, e.g. eth0")
        if not 1 <= self.router_id <= 255:
            raise ValueError("router_id: must be from 1 to 255, and unlike that of any other group in the network")
        if not 0.05 <= self.advertisement <= 40:
            raise ValueError("advertisement: must be from 50ms to 40s")
        if not self.check:
            raise ValueError("check: is empty; write [/usr/local/lib/proxyroute/check]")
        if not self.check[0].startswith("/"):
            raise ValueError(f"check: {self.check[0]!r} must be an absolute path: keepalived has no search path")
        if not self.priority_file.startswith("/"):
            raise ValueError(f"priority_file: {self.priority_file!r} must be an absolute path")
        named = {"check": self.check, "priority_file": [self.priority_file], "script_user": [self.script_user]}
        for name, words in named.items():
            for word in words:
                _require(_WORD.fullmatch(word) is not None, name, word, "a word without blanks and quotes")
        if self.track_process:
            _require(_WORD.fullmatch(self.track_process) is not None, "track_process", self.track_process, "a name")

    @property
    def plain(self) -> tuple[str, ...]:
        """The virtual addresses without their network."""
        return tuple(str(IPv4Interface(text).ip) for text in self.addresses if _is_interface(text))

    def interface_of(self, host: str) -> str:
        """Returns the interface of ``host``."""
        return self.interfaces.get(host, self.interface)


def _require(fits: bool, field_name: str, text: str, example: str) -> None:
    if not fits:
        raise ValueError(f"{field_name}: {text!r} is not {example}")


def _is_interface(text: str) -> bool:
    try:
        return "/" in text and IPv4Interface(text) is not None
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    try:
        return IPv4Address(text) is not None
    except ValueError:
        return False


def read_vrrp(values: object, proxies: Sequence[Any], document: Document, where: Where) -> VrrpConfig | None:
    """Returns what ``values`` describe, None for nothing; what is wrong with them is noted in ``document``.

    ``hosts`` are called like ``proxies`` of the cluster: what belongs together must be found together.
    """
    if not isinstance(values, Mapping):
        return None  # noted by the shape, if there is something
    found = fill(VrrpConfig, values, document, where)
    names = [str(proxy.get("name")) for proxy in proxies if isinstance(proxy, Mapping)]
    for host in found.hosts if found is not None else ():
        if host not in names:
            document.report((*where, "hosts", host), f"there is no proxy {host!r}; {suggest(host, names)}")
    return found
