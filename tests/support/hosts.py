"""Proxy hosts that follow a shared folder: a real HAProxy and a real agent process each, in a folder of its own.

On one machine every host has its own loopback address, so that all can have the same ports, as hosts have.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from proxyroute.config_agent import load_agent
from proxyroute.haproxy.release import Answer
from proxyroute.haproxy.share import Share, read_key
from proxyroute.model import Address
from tests.support.haproxy import LocalHAProxy
from tests.support.process import Daemon

KEY = b"0123456789abcdef0123456789abcdef"


class ProxyHost:
    """One host: HAProxy, agent, and a place of their own for their files.

    ``shared`` is the folder as this host sees it, ``address`` what the host binds where the engine says ``*``.
    ``write`` and ``read`` are where clients reach it; whoever sets the site up says so. ``config`` are more fields
    of the agent's file, and ``launcher`` the argv that starts programs on the host, where it has a network of its own.
    """

    def __init__(
        self,
        folder: Path,
        shared: Path,
        name: str,
        cluster: str,
        *,
        address: str = "",
        key: bytes = KEY,
        outlive: bool = False,
        launcher: Sequence[str] = (),
        **config: Any,
    ) -> None:
        self.name = name
        self.cluster = cluster
        self.address = address
        self.folder = folder / name
        self.folder.mkdir()
        self.shared = shared
        self.haproxy = LocalHAProxy(self.folder, outlive=outlive, launcher=launcher)
        self.config_file = self.folder / "haproxy.cfg"
        self.map_file = self.folder / "haproxy.route.map"
        self.state_dir = self.folder / "state"
        self.key_file = self.folder / "key"
        write_key(self.key_file, key)
        self.agent_file = self.folder / "agent.yml"
        self.write_agent_file(**config)
        self.agent: Daemon | None = None
        self.write = self.read = Address(address or "127.0.0.1", 0)
        self._outlive = outlive
        self._launcher = tuple(launcher)

    def write_agent_file(self, **changes: Any) -> None:
        """Writes the agent's configuration, with ``changes``; the agent reads it when it starts."""
        values = {
            "version": 1,
            "host": self.name,
            "cluster": self.cluster,
            "folder": str(self.shared),
            "key_file": str(self.key_file),
            "state_dir": str(self.state_dir),
            "config_file": str(self.config_file),
            "runtime_socket": str(self.haproxy.runtime_socket),
            "master_socket": str(self.haproxy.master_socket),
            "binary": self.haproxy.binary,
            "address": self.address,
            **changes,
        }
        self.agent_file.write_text(yaml.safe_dump(values))

    def for_engine(self, shared: Path, key_file: Path, stats: int) -> dict[str, Any]:
        """Returns this host's entry in the configuration of an engine, who sees ``shared``; ``stats`` is a port."""
        return {
            "type": "haproxy-agents",
            "name": self.name,
            "folder": str(shared),
            "key_file": str(key_file),
            "write": f"*:{self.write.port}",
            "read": f"*:{self.read.port}",
            "stats": f"*:{stats}",
            "write_address": str(self.write),
            "read_address": str(self.read),
        }

    # Life

    def start_agent(self, **environment: str) -> None:
        self.agent = Daemon(
            self.agent_argv,
            self.folder / "agent.log",
            environment=environment,
            outlive=self._outlive,
            launcher=self._launcher,
        )

    @property
    def agent_argv(self) -> list[str]:
        """What starts the agent on its host."""
        return [sys.executable, "-m", "proxyroute.agent", str(self.agent_file)]

    def kill_agent(self) -> None:
        """Ends the agent as a crash would."""
        if self.agent is not None:
            self.agent.kill()
        self.agent = None

    def start_haproxy(self) -> None:
        """Starts HAProxy with the files that the agent has written; returns when it serves, writes closed."""
        self.haproxy.start(self.config_file)

    def close(self) -> None:
        self.kill_agent()
        self.haproxy.stop()

    # What is known of it

    def status(self) -> dict[str, Any]:
        """What the agent says on its own disk; empty before it has said anything."""
        file = self.state_dir / "status.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return found

    def receipt(self) -> Answer:
        """What the agent says in the shared folder. Raises ShareError when there is no receipt."""
        config = load_agent(self.agent_file)
        return Share(config.folder, config.cluster, read_key(config.key_file)).answer(self.name)

    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    def route(self) -> str:
        """The write route in the memory of HAProxy, ``server/epoch``; empty when there is none."""
        for line in self.haproxy.ask(f"show map {self.map_file}").splitlines():
            fields = line.split(" ", 2)
            if len(fields) == 3 and fields[1] == "route":
                return fields[2]
        return ""


def write_key(file: Path, key: bytes = KEY) -> None:
    """Writes the key with which everything in a shared folder is signed, readable by its owner alone."""
    file.touch(mode=0o600)
    file.write_bytes(key)
