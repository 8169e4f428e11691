"""What the configuration says about one HAProxy, and the names that follow from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from proxyroute.model import Address

_NAME = re.compile(r"[A-Za-z0-9_.:-]+")
_ANY_HOST = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Settings:
    """One HAProxy. It serves this cluster only: the whole configuration file is ours."""

    config_file: Path
    """Rendered here; the map and the Lua file are written beside it."""
    write: str
    """Where clients reach the primary: host:port, ``*`` for every address of this host."""
    read: str = ""
    """Where clients reach the replicas; empty: no read route."""
    stats: str = ""
    """Where the statistics page is served; empty: not at all."""
    runtime_socket: Path = Path("/run/haproxy/admin.sock")
    master_socket: Path = Path("/run/haproxy-master.sock")
    """What HAProxy was started with as ``-S``; Debian's service uses this one."""
    binary: str = "haproxy"
    template: Path | None = None
    """An own template in place of ours, which it may extend."""
    user: str = ""
    """Whom HAProxy runs as after it has bound its ports; empty: whoever starts it."""
    group: str = ""
    socket_user: str = ""
    """Owner of the runtime socket, when ProxyRoute does not run as the user that starts HAProxy."""
    hard_stop_after: float = 30.0
    """Seconds after a reload until an old process ends its last sessions."""

    def __post_init__(self) -> None:
        for field in ("write", "read", "stats"):
            if text := getattr(self, field):
                try:
                    _bound(text)
                except ValueError as error:
                    raise ValueError(f"{field}: {error}") from None
        if not self.write:
            raise ValueError("write: is empty; write host:port, e.g. 127.0.0.1:3306")
        for field in ("config_file", "runtime_socket", "master_socket"):
            if re.search(r"[\s\"'\\#$]", str(getattr(self, field))):
                raise ValueError(f"{field}: HAProxy takes no path with blanks, quotes, backslashes, # or $")
        for field in ("user", "group", "socket_user"):
            if (text := getattr(self, field)) and not _NAME.fullmatch(text):
                raise ValueError(f"{field}: {text!r} is not the name of an account")
        if self.hard_stop_after <= 0:
            raise ValueError("hard_stop_after: must be more than 0 seconds")

    @property
    def unshared(self) -> Mapping[str, object]:
        """Values that no other HAProxy of this host may have as well, by the names of their fields."""
        fields = ("config_file", "runtime_socket", "master_socket", "write", "read", "stats")
        return {field: value for field in fields if (value := getattr(self, field))}

    @property
    def map_file(self) -> Path:
        """The map that says where writes go; read by HAProxy when it starts, changed at run time."""
        return self.config_file.with_name(f"{self.config_file.stem}.route.map")

    @property
    def lua_file(self) -> Path:
        return self.config_file.with_name(f"{self.config_file.stem}.hold.lua")


def _bound(text: str) -> Address:
    address = Address.parse(text, default_port=0)  # port 0 is refused: a bind names its port
    if not _NAME.fullmatch(address.host) and address.host != "*":
        raise ValueError(f"{address.host!r} is not a host")
    return address


def bind(text: str) -> str:
    """Returns a configured address as HAProxy's ``bind`` wants it."""
    return str(_bound(text))


def reachable(text: str) -> Address:
    """Returns where a client on this host reaches a configured address."""
    address = _bound(text)
    return Address(_ANY_HOST.get(address.host, address.host), address.port)


def bound_at(text: str, own: str) -> str:
    """Returns a configured address with ``own`` in place of "every address of this host".

    As it is when there is no ``own``, or it names a host already. Raises ValueError when ``own`` is no IP address.
    """
    if not text or not own:
        return text
    own, address = str(ip_address(own)), _bound(text)
    return str(Address(own, address.port)) if address.host in _ANY_HOST else text


@dataclass(frozen=True)
class Names:
    """What frontends and backends of a cluster are called in HAProxy."""

    cluster: str

    def __post_init__(self) -> None:
        check_name("cluster", self.cluster)

    @property
    def write(self) -> str:
        """The write frontend; also what the names of the write backends begin with."""
        return f"{self.cluster}_write"

    @property
    def read(self) -> str:
        """The read frontend and the read backend."""
        return f"{self.cluster}_read"

    @property
    def stats(self) -> str:
        return f"{self.cluster}_stats"

    def write_backend(self, server: str) -> str:
        return f"{self.write}_{server}"


def check_name(what: str, name: str) -> None:
    """Raises ValueError when HAProxy would not take ``name``."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"HAProxy takes only letters, digits and _ . : - in names; the {what} {name!r} has others")
