"""The agent's own configuration file: one host, one cluster, where things are on this host. Nothing of the engine."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from proxyroute.config_fill import fill
from proxyroute.config_yaml import read_document
from proxyroute.errors import ConfigError
from proxyroute.haproxy.release import Shape
from proxyroute.haproxy.settings import Names, Settings, bound_at, check_name

DEFAULT_PATH = Path("/etc/proxyroute/agent.yml")


@dataclass(frozen=True)
class AgentConfig:
    """What an agent must know before it has read anything from the shared folder."""

    version: int
    """The format of the file: 1."""
    cluster: str
    folder: Path
    """The shared folder, as it is mounted on this host."""
    key_file: Path
    config_file: Path
    """Where HAProxy's configuration is written on this host."""
    mount_point: str = ""
    """Where the disk of ``folder`` must be mounted; empty: where it was when a route was read there first."""
    host: str = field(default_factory=socket.gethostname)
    """The name of this proxy in the engine's configuration."""
    state_dir: Path = Path("/var/lib/proxyroute-agent")
    """On a local disk: what must be known when the shared one is gone."""
    runtime_socket: Path = Path("/run/haproxy/admin.sock")
    master_socket: Path = Path("/run/haproxy-master.sock")
    address: str = ""
    """Bound where ``write``, ``read`` and ``stats`` say ``*``; empty: every address of this host."""
    binary: str = "haproxy"
    user: str = ""
    group: str = ""
    socket_user: str = ""
    virtual_addresses: tuple[str, ...] = ()
    """Addresses that move between hosts: the engine is told whether this host has them."""
    disk_timeout: float = 2.0
    """Seconds after which an access to the shared folder is given up."""

    on_silence: str = "keep"
    """When nothing can be heard from the folder: ``keep`` the last route, or ``close_writes`` after ``silence``."""
    silence: float = 10.0
    """Seconds, by a clock that goes on while this host sleeps."""

    def __post_init__(self) -> None:
        if self.on_silence not in ("keep", "close_writes"):
            raise ValueError("on_silence: must be keep or close_writes")
        if self.silence < self.disk_timeout:
            raise ValueError(f"silence: must be at least disk_timeout, {self.disk_timeout:g} s")
        if self.version != 1:
            raise ValueError("version: must be 1")
        if self.disk_timeout <= 0:
            raise ValueError("disk_timeout: must be more than 0 seconds")
        for name in ("host", "cluster"):
            try:
                check_name(name, getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        Names(self.cluster)
        try:
            bound_at("*:3306", self.address)
        except ValueError as error:
            raise ValueError(f"address: {error}; write the address without a port, e.g. 10.0.0.11") from None
        if self.mount_point and not self.folder.is_relative_to(self.mount_point):
            raise ValueError(f"mount_point: {self.folder} does not lie in {self.mount_point}")
        for text in self.virtual_addresses:
            try:
                ip_address(text)
            except ValueError:
                why = f"{text!r} is not an address; write one without port and network, e.g. [10.0.0.100]"
                raise ValueError(f"virtual_addresses: {why}") from None
        self.local(Shape(write="127.0.0.1:3306"), None)

    @property
    def closes_after(self) -> float:
        """Seconds of silence after which writes are closed here; 0 for never."""
        return self.silence if self.on_silence == "close_writes" else 0.0

    @property
    def status_file(self) -> Path:
        return self.state_dir / "status.json"

    def local(self, shape: Shape, template: Path | None) -> Settings:
        """Returns how HAProxy is set up on this host. Raises ValueError, naming the field."""
        return Settings(
            config_file=self.config_file,
            write=bound_at(shape.write, self.address),
            read=bound_at(shape.read, self.address),
            stats=bound_at(shape.stats, self.address),
            runtime_socket=self.runtime_socket,
            master_socket=self.master_socket,
            binary=self.binary,
            template=template,
            user=self.user,
            group=self.group,
            socket_user=self.socket_user,
            hard_stop_after=shape.hard_stop_after,
        )


def load_agent(path: Path) -> AgentConfig:
    """Reads the agent's file. Raises ConfigError, and InvalidConfig with every mistake in it."""
    if not path.exists():
        raise ConfigError(f"there is no agent file {path}; docs/guide/agents.md shows one, or name yours with --config")
    document = read_document(path)
    if not isinstance(document.values, dict):
        raise ConfigError(f"{path}: must hold fields, beginning with version: 1")
    found = fill(AgentConfig, document.values, document, ())
    document.finish()
    assert found is not None, "a file without a mistake fills the configuration"
    return found
