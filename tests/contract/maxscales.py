"""A MaxScale under contract, in both ways of working: the double, or a real one.

The contract knows nothing of databases, and a MaxScale that follows does nothing but look at them. So there the cluster
behind it is made up, and moves as the engine would have moved it before it tells the proxies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxyroute.adapters import find_adapter
from proxyroute.config_secrets import Secret
from proxyroute.model import NO_EPOCH, Address, Deadline, Endpoint, Receipt, RouteTable
from tests.contract.subjects import CLUSTER, NAME, soon, table
from tests.support.maxscale.backends import MadeUp
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.double import Double
from tests.support.maxscale.real import ask
from tests.support.process import free_port


def password(folder: Path, text: str = "mariadb") -> Secret:
    file = folder / "maxscale.password"
    file.touch(mode=0o600)
    file.write_text(text)
    return Secret("file", str(file))


class MaxScaleSubject:
    """The double, with servers db1 to db3 under names of its own."""

    holds = False

    def __init__(self, folder: Path, mode: str, **settings: Any) -> None:
        self.mode = mode
        self.folder = folder
        self.servers = tuple(Endpoint(f"db{n}", Address("127.0.0.1", 3300 + n)) for n in (1, 2, 3))
        known = {f"server{n}": e.address for n, e in enumerate(self.servers, 1)}
        self.names = dict(zip((e.name for e in self.servers), known, strict=True))
        self.cluster = MadeUp.with_primary(known, "server1")
        quick = {
            "look_seconds": 0.005,
            "monitor": mode == "following",
            "monitor_parameters": {"monitor_interval": "60000ms"},
        }
        self.double = Double(known, self.cluster, **{**quick, **settings})
        self.kind = find_adapter("maxscale")
        self.settings = self.kind.Settings(
            url=self.double.url,
            mode=mode,
            user="admin",
            password=password(folder),
            write_address="127.0.0.1:3306",
            apply_wait=1.0,
        )
        self.highest = NO_EPOCH

    def adapter(self, **changes: Any) -> Any:
        made = self.kind(NAME, CLUSTER, self.servers, dataclasses.replace(self.settings, **changes))
        return made if self.mode == "driving" else _with_an_engine(made, self)

    def start(self) -> MaxScaleSubject:
        self.double.start()
        receipt = self.adapter().settle(table(self.servers, (1, 1), "db1"), soon())
        assert receipt.state == "done", receipt
        return self

    def break_down(self) -> None:
        self.double.stop()

    def edit(self, server: str) -> None:
        if self.mode == "driving":
            for name, known in self.names.items():
                self.double.machine.change(known, "set" if name == server else "clear", "master")
        else:
            self.move(server)
            self.double.machine.tick(self.double.machine.monitors["Mon"])

    def move(self, server: str | None) -> None:
        """The databases: ``server`` takes the writes, or nobody does."""
        if server is None:
            self.cluster.close()
        else:
            self.cluster.promote(self.double.machine.servers[self.names[server]].address)

    def bits(self) -> dict[str, Bit]:
        return {name: self.double.bits(known) for name, known in self.names.items()}

    def close(self) -> None:
        self.double.stop()


def _with_an_engine(adapter: Any, subject: MaxScaleSubject) -> Any:
    """Returns the adapter, told as an engine tells it: the databases have moved before; a stale one moves nothing."""

    def moved(verb: Callable[[RouteTable, Deadline], Receipt]) -> Callable[[RouteTable, Deadline], Receipt]:
        def told(route: RouteTable, deadline: Deadline) -> Receipt:
            seen = NO_EPOCH if deadline.passed else (adapter.observe(soon(1)).epoch or NO_EPOCH)
            if not deadline.passed and route.epoch >= seen and route.epoch > subject.highest:
                subject.move(route.primary)
                if route.primary is not None:  # a closed route opens under the same epoch
                    subject.highest = route.epoch
            return verb(route, deadline)

        return told

    adapter.apply, adapter.settle = moved(adapter.apply), moved(adapter.settle)
    return adapter


# -- The real thing ---------------------------------------------------------------------------------------------


class RealSubject:
    """A MaxScale that runs, with three server objects of the test's own in it that no service and no monitor uses."""

    holds = False

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self.servers = tuple(Endpoint(f"db{n}", Address("127.0.0.1", 10 + n)) for n in (1, 2, 3))
        self.names = {e.name: f"proxyroute-test-{e.name}" for e in self.servers}
        self.kind = find_adapter("maxscale")
        self.settings = self.kind.Settings(
            url=f"{parts.scheme}://{parts.hostname}:{parts.port or 8989}",
            mode="driving",
            user=parts.username or "",
            password=password(folder, parts.password or ""),
            verify=False,
            write_address="127.0.0.1:3306",
        )

    def adapter(self, **changes: Any) -> Any:
        return self.kind(NAME, CLUSTER, self.servers, dataclasses.replace(self.settings, **changes))

    def start(self) -> RealSubject:
        self.close()
        for endpoint in self.servers:
            parameters = {"address": endpoint.address.host, "port": endpoint.address.port}
            made = {"id": self.names[endpoint.name], "type": "servers", "attributes": {"parameters": parameters}}
            ask(self.url, "POST", "servers", {"data": made})
        receipt = self.adapter().settle(table(self.servers, (1, 1), "db1"), soon())
        assert receipt.state == "done", receipt
        return self

    def break_down(self) -> None:
        """It is not ours to stop: from now on we ask where nobody listens."""
        self.settings = dataclasses.replace(self.settings, url=f"http://127.0.0.1:{free_port()}")

    def edit(self, server: str) -> None:
        for name, known in self.names.items():
            ask(self.url, "PUT", f"servers/{known}/{'set' if name == server else 'clear'}?state=master")

    def close(self) -> None:
        """Everything of ours is taken out again."""
        for item in ask(self.url, "GET", "servers")["data"]:
            if item["id"].startswith(("proxyroute-test-db", f"proxyroute-{CLUSTER}-")):
                ask(self.url, "DELETE", f"servers/{item['id']}")
