"""The adapters under contract, each with a world it can act on, that can be broken and edited by hand."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Protocol

from proxyroute.adapters import find_adapter
from proxyroute.model import Address, Deadline, Endpoint, Epoch, Reader, RouteTable
from proxyroute.ports import Adapter
from tests.contract.standin import Client, Servers
from tests.support.haproxy import LocalHAProxy
from tests.support.process import free_port

CLUSTER = "shop"
NAME = "edge1"


def soon(seconds: float = 10.0) -> Deadline:
    return Deadline.after(seconds)


class Subject(Protocol):
    """One proxy and its surroundings."""

    servers: tuple[Endpoint, ...]
    holds: bool

    def adapter(self) -> Any:
        """Returns a new adapter for it, as another process would have it."""

    def break_down(self) -> None:
        """From now on nobody answers."""

    def edit(self, server: str) -> None:
        """Somebody sends the writes to ``server`` by hand."""


def table(
    servers: tuple[Endpoint, ...], epoch: tuple[int, int], primary: str | None, readers: dict[str, int] | None = None
) -> RouteTable:
    """Returns a route; without ``readers`` all others read with weight 100."""
    if readers is None:
        readers = {e.name: 100 for e in servers if e.name != primary} if primary else {}
    return RouteTable(
        CLUSTER, Epoch(*epoch), servers, primary, tuple(Reader(name, weight) for name, weight in readers.items())
    )


class HAProxySubject:
    """A real HAProxy with stand-ins behind it."""

    holds = True

    def __init__(self, folder: Path, *, read: bool = True, **settings: Any) -> None:
        self.stand_ins = Servers(3)
        self.servers = self.stand_ins.endpoints
        self.folder = folder
        self._clients: list[Client] = []
        self.haproxy = LocalHAProxy(folder)
        self.write = Address("127.0.0.1", free_port())
        self.read = Address("127.0.0.1", free_port())
        self.kind = find_adapter("haproxy")
        self.settings = self.kind.Settings(
            config_file=folder / "haproxy.cfg",
            write=str(self.write),
            read=str(self.read) if read else "",
            runtime_socket=self.haproxy.runtime_socket,
            master_socket=self.haproxy.master_socket,
            binary=self.haproxy.binary,
            **settings,
        )

    def start(self, first: RouteTable) -> None:
        """Writes the files for ``first`` and starts HAProxy with them."""
        receipt = self.adapter().install(first, soon())
        assert receipt.state == "done", receipt
        self.haproxy.start(self.settings.config_file)

    def adapter(self, **changes: Any) -> Any:
        return self.kind(NAME, CLUSTER, self.servers, dataclasses.replace(self.settings, **changes))

    def table(self, epoch: tuple[int, int], primary: str | None, readers: dict[str, int] | None = None) -> RouteTable:
        return table(self.servers, epoch, primary, readers)

    def runtime(self, command: str) -> str:
        """Types a command at the runtime socket, as somebody at a terminal."""
        return self.haproxy.ask(command)

    def break_down(self) -> None:
        self.haproxy.kill9()

    def edit(self, server: str) -> None:
        self.runtime(f"set map {self.settings.map_file} route {server}/1.1")

    def client(self) -> Client:
        """Returns a new connection to the write route; closed at the end of the test if not before."""
        self._clients.append(Client(self.write))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.haproxy.stop()
        self.stand_ins.__exit__(None, None, None)


class HookSubject:
    """A proxy behind two programs; its whole state is a file."""

    holds = False

    def __init__(self, folder: Path) -> None:
        self.servers = tuple(Endpoint(f"db{n}", Address("127.0.0.1", 3300 + n)) for n in (1, 2, 3))
        self.folder = folder
        self.state = folder / "route"
        self._program(
            "set",
            "import os, pathlib\n"
            "name = os.environ['PROXYROUTE_PRIMARY_NAME'] or 'closed'\n"
            f"pathlib.Path({str(self.state)!r}).write_text(name + ' ' + os.environ['PROXYROUTE_EPOCH'])\n",
        )
        self._program("read", f"import pathlib\nprint(pathlib.Path({str(self.state)!r}).read_text())\n")
        self.kind = find_adapter("hook")
        self.settings = self.kind.Settings(
            set=(str(folder / "set"),), read=(str(folder / "read"),), write_address="127.0.0.1:3306"
        )

    def _program(self, name: str, text: str) -> None:
        file = self.folder / name
        file.write_text(f"#!{sys.executable} -S\n{text}")
        file.chmod(0o755)

    def adapter(self, **changes: Any) -> Any:
        return self.kind(NAME, CLUSTER, self.servers, dataclasses.replace(self.settings, **changes))

    def start(self) -> None:
        receipt = self.adapter().apply(table(self.servers, (1, 1), "db1"), soon())
        assert receipt.state == "done", receipt

    def break_down(self) -> None:
        (self.folder / "read").unlink()
        (self.folder / "set").unlink()

    def edit(self, server: str) -> None:
        self.state.write_text(f"{server} 1.1")


class ToySubject:
    """The adapter of another package, found by its entry point."""

    holds = True

    def __init__(self, folder: Path) -> None:
        self.servers = tuple(Endpoint(f"db{n}", Address("127.0.0.1", 3300 + n)) for n in (1, 2, 3))
        self.file = folder / "toy.json"
        self.file.touch()
        self.kind = find_adapter("toy")

    def adapter(self) -> Any:
        return self.kind(NAME, CLUSTER, self.servers, self.kind.Settings(self.file, "127.0.0.1:3306"))

    def start(self) -> None:
        receipt = self.adapter().apply(table(self.servers, (1, 1), "db1"), soon())
        assert receipt.state == "done", receipt

    def break_down(self) -> None:
        self.file.unlink()

    def edit(self, server: str) -> None:
        self.file.write_text(json.dumps({**json.loads(self.file.read_text()), "primary": server, "by_hand": True}))


def is_adapter(thing: object) -> bool:
    return isinstance(thing, Adapter)
