"""What the configuration says about the web: where it listens, how, and which files it keeps."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from proxyroute.model import Address

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class WebConfig:
    """Pages, API, health and metrics of ``proxyroute serve``. Durations in seconds."""

    listen: Address = field(default_factory=lambda: Address("127.0.0.1", 8480))
    cert: Path | None = None
    """The certificate, with its chain, for TLS."""
    key: Path | None = None
    plain: bool = False
    """Declares that something in front of it does TLS, so that it may listen elsewhere than on loopback without."""
    tokens: Path | None = None
    """The file of hashes of tokens; by default ``tokens.json`` in ``state_dir``."""
    origins: tuple[str, ...] = ()
    """Further origins, as browsers send them, from which its own pages are used: what stands in front of it."""
    hosts: tuple[str, ...] = ()
    """Further names by which it is reached; addresses and the name of this host need not be told."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses of what stands in front of it: who it says that asks (X-Forwarded-For, -Proto) is believed."""
    health: str = "open"
    """Who may ask for the health of servers: ``open`` to everybody, or only with a ``token`` (scope read)."""
    metrics: str = "token"
    """Who may read the metrics: only with a ``token`` (scope read), or ``open`` to everybody."""
    session: float = 8 * 3600.0
    """After this time one has to log in again."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert: cert and key come together; give both or none")
        if not (self.loopback or self.tls or self.plain):
            raise ValueError(
                f"listen: {self.listen} can be reached from elsewhere, and tokens would go there in the clear; "
                "give cert and key, or plain: true when something in front of it does TLS"
            )
        for name in ("health", "metrics"):
            if getattr(self, name) not in ("open", "token"):
                raise ValueError(f"{name}: must be open or token")
        for address in self.trusted_proxies:
            try:
                ipaddress.ip_network(address)
            except ValueError:
                raise ValueError(f"trusted_proxies: {address!r} is not an address or network") from None
        for origin in self.origins:
            if (sent := _as_sent(origin)) != origin:
                hint = f"; write {sent}" if sent else "; write e.g. https://proxies.example.org"
                raise ValueError(f"origins: {origin!r} is not what a browser sends{hint}")
        for host in self.hosts:
            if not host or set(host) & set("/:@ "):
                raise ValueError(f"hosts: {host!r} is not a name; write it without scheme and port, e.g. x.example.org")
        if self.session <= 0:
            raise ValueError("session: must be more than 0 seconds")

    @property
    def tls(self) -> bool:
        return self.cert is not None

    @property
    def loopback(self) -> bool:
        if self.listen.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.listen.host).is_loopback
        except ValueError:
            return False


def _as_sent(origin: str) -> str:
    """Returns an origin as browsers send it: no path, no port that goes without saying; empty when it is none."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in _PORTS or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, _PORTS[parts.scheme]) else "")
