"""What MaxScales with ``config_sync_cluster`` share: run-time objects, by way of the Master of that monitor.

Not among the recordings: what is refused, and with which words, is as MaxScale's documentation and source have it
(``configmanager.cc``); the status is a guess.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from proxyroute.model import Address
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.machine import Machine, RefusedError


@dataclass
class ConfigSync:
    """One row of ``mysql.maxscale_config``."""

    interval: float = 0.3
    """Seconds after which a change of one MaxScale is taken over by the others."""
    version: int = 0
    servers: dict[str, Address] = field(default_factory=dict)
    """Those that were made at run time."""
    changed: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def elsewhere(self) -> None:
        """A MaxScale that is not looked at changes something."""
        self.version, self.changed = self.version + 1, time.monotonic()

    def take_over(self, machine: Machine) -> None:
        """``machine`` synchronises, if it is time to."""
        with self.lock:
            if machine.config_version == self.version or time.monotonic() < self.changed + self.interval:
                return
            for name in [s.name for s in machine.servers.values() if s.runtime and s.name not in self.servers]:
                del machine.servers[name]
            for name, address in self.servers.items():
                if name not in machine.servers:
                    machine.add_server(name, address, runtime=True)
            machine.config_version = self.version

    @contextmanager
    def change(self, machine: Machine) -> Iterator[None]:
        """For a ``with`` block: ``machine`` changes its objects, and with them those of all. Raises RefusedError."""
        with self.lock:
            if not any(Bit.MASTER | Bit.RUNNING in server.bits for server in machine.servers.values()):
                raise RefusedError(400, "No valid servers in cluster 'Mon'.")
            if machine.config_version != self.version:
                raise RefusedError(
                    400,
                    f"Configuration conflict detected: version stored in the cluster ({self.version}) is not the same "
                    f"as the local version ({machine.config_version}), MaxScale is out of sync.",
                )
            yield
            self.servers = {s.name: s.address for s in machine.servers.values() if s.runtime}
            self.elsewhere()
            machine.config_version = self.version
