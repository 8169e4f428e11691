"""A proxy host under contract: a shared folder, a real HAProxy and a real agent process."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from proxyroute.adapters import find_adapter
from proxyroute.model import Address, ReceiptState, RouteTable
from tests.contract.standin import Client, Servers
from tests.contract.subjects import CLUSTER, NAME, soon, table
from tests.support.hosts import ProxyHost
from tests.support.process import free_port
from tests.support.wait import until


class AgentsSubject:
    """The adapter for a proxy host, with stand-ins behind its HAProxy."""

    holds = True

    def __init__(
        self,
        folder: Path,
        *,
        read: bool = True,
        shared: Path | None = None,
        seen: Path | None = None,
        write: str = "127.0.0.1",
        **settings: Any,
    ) -> None:
        """``seen`` is the ``shared`` folder as the host sees it, ``write`` what the engine says that hosts bind."""
        self.stand_ins = Servers(3)
        self.servers = self.stand_ins.endpoints
        self.folder = folder
        self._clients: list[Client] = []
        self.shared = shared or folder / "shared"
        self.shared.mkdir(exist_ok=True)
        self.host = ProxyHost(folder, seen or self.shared, NAME, CLUSTER, address="127.0.0.1" if write == "*" else "")
        self.write = Address("127.0.0.1", free_port())
        self.kind = find_adapter("haproxy-agents")
        self.settings = self.kind.Settings(
            folder=self.shared,
            key_file=self.host.key_file,
            write=f"{write}:{self.write.port}",
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
