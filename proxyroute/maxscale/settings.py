"""What the configuration says about one MaxScale."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from proxyroute.config_secrets import Secret
from proxyroute.model import Address

DRIVING = "driving"
FOLLOWING = "following"
_MODES = {
    DRIVING: "no monitor owns the servers, and ProxyRoute sets their states",
    FOLLOWING: "MaxScale's monitor finds the primary by itself",
}
_LOOK = 10.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    """One MaxScale. How it works is said here and checked there, never guessed."""

    url: str
    """Its REST API: https://host:8989."""
    mode: str
    """``driving``: no monitor, ProxyRoute sets the states; ``following``: the monitor finds the primary."""
    user: str
    """An administrator of the REST API."""
    password: Secret = field(repr=False)
    auth: str = "basic"
    """``basic``, or ``token``: the password is sent once, then a token that is renewed when it dies."""
    ca: Path | None = None
    """The authority that has signed its certificate; without it the machine's own count."""
    verify: bool = True
    monitor: str = ""
    """Following: the monitor that owns the servers; empty: the one that does."""
    stop_monitor: bool = False
    """Driving: a monitor that runs and owns the servers is stopped, and that is said; otherwise it is an error."""
    services: tuple[str, ...] = ()
    """The services that clients of this cluster use; empty: all that have its servers."""
    timeout: float = 2.0
    """Seconds one request may take, when driving; see ``patience``."""
    apply_wait: float = 0.0
    """Following: seconds to wait, inside the blackout, for the monitor to show the new primary."""
    write_address: str = ""
    """Where clients reach the write route, for the proof; host:port."""
    read_address: str = ""
    config_file: Path = Path("/etc/maxscale.cnf")
    """Under which name ``proxyroute render`` shows a configuration; it is never written."""
    template: Path | None = None
    """An own template for ``proxyroute render`` in place of ours."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url: is not the address of a REST API; write e.g. https://maxscale1:8989")
        if parts.username or parts.password:
            raise ValueError("url: a secret is never written into this file; use user: and password:")
        if parts.path.strip("/") or parts.query:
            raise ValueError("url: goes on after host and port; write e.g. https://maxscale1:8989")
        try:
            _ = parts.port
        except ValueError as error:
            raise ValueError(f"url: {error}") from None
        if self.mode not in _MODES:
            told = "; ".join(f"{mode}: {what}" for mode, what in _MODES.items())
            raise ValueError(f"mode: must be one of them ({told})")
        if not self.user:
            raise ValueError("user: is empty; write an administrator of its REST API")
        if self.auth not in ("basic", "token"):
            raise ValueError("auth: must be basic or token")
        if self.timeout <= 0:
            raise ValueError("timeout: must be more than 0 seconds")
        if self.mode == FOLLOWING and self.stop_monitor:
            raise ValueError("stop_monitor: has no sense with mode: following, where the monitor does the work")
        for name in ("write_address", "read_address"):
            if text := getattr(self, name):
                try:
                    Address.parse(text)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None

    @property
    def driving(self) -> bool:
        return self.mode == DRIVING

    @property
    def patience(self) -> float:
        """Seconds one request may take.

        When following, a look of the monitor holds up every request, and waits for each server that does not answer. A
        request that is given up meanwhile goes on in MaxScale, and the next ones stand in line behind it.
        """
        return self.timeout if self.driving else max(self.timeout, _LOOK)

    @property
    def encrypted(self) -> bool:
        return urlsplit(self.url).scheme == "https"

    @property
    def address(self) -> Address:
        parts = urlsplit(self.url)
        return Address(parts.hostname or "", parts.port or 8989)

    @property
    def base(self) -> str:
        """The URL with its port and version."""
        return f"{urlsplit(self.url).scheme}://{self.address}/v1"

    @property
    def local(self) -> bool:
        """Whether requests stay on this host."""
        return self.address.host in _LOOPBACK
