"""Proxy hosts under contract: a shared folder, a real HAProxy and a real agent process for each host."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from proxyroute.adapters import find_adapter
from proxyroute.model import Address, ReceiptState, RouteTable
from tests.contract.standin import Client, Servers
from tests.contract.subjects import CLUSTER, NAME, soon, table
from tests.support.haproxy import LocalHAProxy
from tests.support.process import Daemon, free_port
from tests.support.wait import until

KEY = b"0123456789abcdef0123456789abcdef"


class ProxyHost:
    """One host: HAProxy, agent, and a place of their own for their files."""

    def __init__(self, folder: Path, shared: Path, name: str = NAME, **config: Any) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.shared = shared
        self.haproxy = LocalHAProxy(self.folder)
        self.config_file = self.folder / "haproxy.cfg"
        self.map_file = self.folder / "haproxy.route.map"
        self.state_dir = self.folder / "state"
        self.key_file = self.folder / "key"
        self.key_file.write_bytes(KEY)
        self.key_file.chmod(0o600)
        self.agent_file = self.folder / "agent.yml"
        self.write_agent_file(**config)
        self.agent: Daemon | None = None

    def write_agent_file(self, **changes: Any) -> None:
        values = {
            "version": 1,
            "host": self.name,
            "cluster": CLUSTER,
            "folder": str(self.shared),
            "key_file": str(self.key_file),
            "state_dir": str(self.state_dir),
            "config_file": str(self.config_file),
            "runtime_socket": str(self.haproxy.runtime_socket),
            "master_socket": str(self.haproxy.master_socket),
            "binary": self.haproxy.binary,
            **changes,
        }
        self.agent_file.write_text(yaml.safe_dump(values))

    def start_agent(self, **environment: str) -> None:
        argv = [sys.executable, "-m", "proxyroute.agent", str(self.agent_file)]
        self.agent = Daemon(argv, self.folder / "agent.log", environment=environment)

    def kill_agent(self) -> None:
        """Ends the agent as a crash would."""
        if self.agent is not None:
            self.agent.kill()
        self.agent = None

    def status(self) -> dict[str, Any]:
        """What the agent says on its own disk; empty before it has said anything."""
        file = self.state_dir / "status.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return found

    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    def route(self) -> str:
        """The write route in the memory of HAProxy."""
        for line in self.haproxy.ask(f"show map {self.map_file}").splitlines():
            fields = line.split(" ", 2)
            if len(fields) == 3 and fields[1] == "route":
                return fields[2]
        return ""

    def close(self) -> None:
        self.kill_agent()
        self.haproxy.stop()


class AgentsSubject:
    """The adapter for a proxy host, with stand-ins behind its HAProxy."""

    holds = True

    def __init__(self, folder: Path, *, read: bool = True, shared: Path | None = None, **settings: Any) -> None:
        self.stand_ins = Servers(3)
        self.servers = self.stand_ins.endpoints
        self.folder = folder
        self._clients: list[Client] = []
        self.shared = shared or folder / "shared"
        self.shared.mkdir(exist_ok=True)
        self.host = ProxyHost(folder, self.shared)
        self.write = Address("127.0.0.1", free_port())
        self.kind = find_adapter("haproxy-agents")
        self.settings = self.kind.Settings(
            folder=self.shared,
            key_file=self.host.key_file,
            write=str(self.write),
            read=f"127.0.0.1:{free_port()}" if read else "",
            write_address=str(self.write),
            **settings,
        )
        self._adapters: list[Any] = []

    def start(self, first: RouteTable) -> None:
        """Publishes ``first``, by which the host gets its files, starts HAProxy and waits until it is open."""
        self.host.start_agent()
        adapter = self.adapter()
        receipt = adapter.settle(first, soon())
        assert "next start" in receipt.detail, (receipt, self.host.log())
        self.host.haproxy.start(self.host.config_file)
        until(lambda: self.host.route() == f"{first.primary}/{first.epoch}", "the agent to confirm the route")
        until(lambda: adapter.settle(first, soon()).state is ReceiptState.DONE, "the first route")

    def adapter(self, **changes: Any) -> Any:
        made = self.kind(NAME, CLUSTER, self.servers, dataclasses.replace(self.settings, **changes))
        self._adapters.append(made)
        return made

    def table(self, epoch: tuple[int, int], primary: str | None, readers: dict[str, int] | None = None) -> RouteTable:
        return table(self.servers, epoch, primary, readers)

    def break_down(self) -> None:
        self.host.haproxy.kill9()

    def edit(self, server: str) -> None:
        self.host.haproxy.ask(f"set map {self.host.map_file} route {server}/1.1")

    def client(self) -> Client:
        """Returns a new connection to the write route; closed at the end of the test if not before."""
        self._clients.append(Client(self.write))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for adapter in self._adapters:
            adapter.close()
        self.host.close()
        self.stand_ins.__exit__(None, None, None)
