"""A whole site with a network of its own: databases, proxies with their agents, engines and clients, a host each.

Every host has its own address in 10.77.0.0/16 and listens on the usual ports. Files and AF_UNIX sockets are shared with
the machine: a server that is cut off from everybody can still be looked at through its socket. So is the folder that
the agents follow, unless it is told where each host sees it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pymysql
import yaml
from pymysql.cursors import DictCursor

from proxyroute.model import Address
from tests.support import netns
from tests.support.accounts import APPLICATION, Account
from tests.support.hosts import ProxyHost, write_key
from tests.support.lab import CLUSTER_NAME, PROGRAM, end_all, printed_object, run_to_end, site_config
from tests.support.load import Load
from tests.support.mariadb import Connection, LocalCluster
from tests.support.network import Network, virtual_address
from tests.support.process import workspace

WRITE, READ, STATS = 3306, 3307, 8404

Shared = Path | Mapping[str, Path] | Callable[[Network], Mapping[str, Path]]
"""The folder that the agents follow: one for all, or where each engine and each proxy host sees it; the latter can be
made by a function, which is called when the hosts are there and nothing runs on them yet."""


def names(kind: str, number: int) -> list[str]:
    return [f"{kind}{n}" for n in range(1, number + 1)]


class NetLab:
    """The site. ``hosts`` are the proxy hosts; ``network`` knows everybody; ``write`` and ``read`` are those of edge1.

    Helpers that connect from this process (tests.support.scene) work in a ``with lab.inside("client1")`` block.
    """

    def __init__(self, network: Network, cluster: LocalCluster, hosts: Sequence[ProxyHost]) -> None:
        self.network = network
        self.cluster = cluster
        self.folder = cluster.folder
        self.hosts = tuple(hosts)
        self.engines = tuple(name for name in network.hosts if name.startswith("engine"))
        self.virtual = Address(virtual_address(), WRITE)
        """Where clients go when an address moves between the proxies; nobody has it before a test puts it somewhere."""
        if hosts:
            self.write, self.read = hosts[0].write, hosts[0].read

    @classmethod
    def start(
        cls,
        databases: int = 3,
        proxies: int = 2,
        engines: int = 1,
        clients: int = 1,
        *,
        others: Sequence[str] = (),
        policy: Mapping[str, Any] | None = None,
        proof: bool = True,
        more: Mapping[str, Any] | None = None,
        shared: Shared | None = None,
        kept: tuple[str, Path] | None = None,
        provider: type[LocalCluster] | None = None,
        **cluster: Any,
    ) -> NetLab:
        """Starts everything; returns when clients can write through every proxy.

        Hosts are db1 …, edge1 …, engine1 …, client1 …, and ``others`` on which nothing runs. ``cluster`` goes to
        ``start`` of its ``provider``, ``policy``, ``proof`` and ``more`` into the configuration of every engine. What
        is ``kept``, with a mark of its names and a folder of its own, outlives this process. Raises netns.Unavailable
        where hosts cannot be had, with the reason.
        """
        netns.require()
        mark, folder = kept or (netns.mark(), workspace())
        everybody = [
            *names("db", databases),
            *names("edge", proxies),
            *names("engine", engines),
            *names("client", clients),
            *others,
        ]
        outlive = kept is not None
        network = None
        try:
            network = Network.build(mark, folder, everybody, outlive=outlive)
            places = {name: network.place(name, 3306) for name in names("db", databases)}
            views = _views(network, shared, folder)
            kind = provider or LocalCluster
            started = kind.start(databases, folder=folder, places=places, outlive=outlive, **cluster)
            hosts = [_proxy_host(network, folder, name, views[name], outlive) for name in names("edge", proxies)]
            lab = cls(network, started, hosts)
        except BaseException:
            if network is not None:
                network.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            write_key(folder / "shared.key")
            for engine in lab.engines:
                lab._configure(engine, views[engine], policy, proof, more)
            lab._start_proxies()
        except BaseException:
            lab.close()
            raise
        return lab

    def _configure(
        self,
        engine: str,
        sees: Path,
        policy: Mapping[str, Any] | None,
        proof: bool,
        more: Mapping[str, Any] | None,
    ) -> None:
        home = self.folder / engine
        home.mkdir()
        proxies = [host.for_engine(sees, self.folder / "shared.key", STATS) for host in self.hosts]
        values = site_config(self.cluster, home, proxies=proxies, policy=policy, proof=proof, more=more)
        self.config_of(engine).write_text(yaml.safe_dump(values, sort_keys=False))

    def _start_proxies(self) -> None:
        """As the guide says: agents, the first publish gives the hosts their files, HAProxy, the second opens it."""
        if not self.hosts:
            return
        for host in self.hosts:
            host.start_agent()
        run_to_end(self.command("publish"))
        for host in self.hosts:
            host.start_haproxy()
        run_to_end(self.command("publish"), check=True)

    # On the hosts

    def inside(self, host: str) -> contextlib.AbstractContextManager[None]:
        """For a ``with`` block this thread, its new sockets and whatever it starts are on a host."""
        return self.network.inside(host)

    def run(
        self, host: str, argv: Sequence[str], *, check: bool = False, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program on a host to its end. Raises RuntimeError with its words when ``check`` and it fails."""
        full = [*self.network.launcher(host), *argv]
        return run_to_end(full, check=check, environment=environment)

    def popen(self, host: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Starts a program on a host; ``options`` are those of subprocess.Popen. It ends when the site does."""
        return subprocess.Popen([*self.network.launcher(host), *argv], **{"text": True, **options})

    def connect(self, host: str, address: Address, account: Account = APPLICATION, **settings: Any) -> Connection:
        """Opens a session from a host, as an application there does. The caller closes it."""
        usual: dict[str, Any] = {"autocommit": True, "connect_timeout": 10, "read_timeout": 30}
        with self.inside(host):
            return pymysql.connect(
                host=address.host,
                port=address.port,
                user=account.user,
                password=account.password,
                cursorclass=DictCursor,
                ssl_disabled=True,
                **(usual | settings),
            )

    def load(
        self, address: Address | Sequence[Address] | None = None, *, client: str = "client1", **options: Any
    ) -> Load:
        """Starts writers on a client's host, through edge1 or whoever ``address`` says; see :meth:`Load.start`."""
        return Load.start(address or self.write, launcher=self.network.launcher(client), **options)

    # The command line

    @property
    def config(self) -> Path:
        """The configuration file of the first engine."""
        return self.config_of("engine1")

    def config_of(self, engine: str) -> Path:
        """The configuration file of an engine; each has state of its own beside it."""
        return self.folder / engine / "proxyroute.yml"

    def command(self, *arguments: str, engine: str = "engine1") -> list[str]:
        """Returns the argv of the product's command line on an engine's host."""
        config = str(self.config_of(engine))
        return [*self.network.launcher(engine), str(PROGRAM), "--config", config, *arguments]

    def json(
        self, *arguments: str, engine: str = "engine1", environment: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Runs a command with ``--json`` on an engine's host; returns its exit status and the object it printed.

        Raises RuntimeError with its words when it printed none.
        """
        argv = self.command(*arguments, "--json", engine=engine)
        return printed_object(run_to_end(argv, environment=environment))

    # What is wrong with the cables; see Network

    def cut(self, host: str, other: str | None = None) -> None:
        """Pulls the cable of a host; with ``other``, nothing passes between these two any more, and all else does."""
        self.network.cut(host, other)

    def cut_one_way(self, source: str, target: str) -> None:
        """What ``source`` sends to ``target`` is lost; the other way all is well."""
        self.network.cut_one_way(source, target)

    def slow(self, host: str, milliseconds: float) -> None:
        """Every frame to or from a host takes so much longer; a round trip twice that."""
        self.network.slow(host, milliseconds)

    def lossy(self, host: str, percent: int) -> None:
        """So many of a hundred frames to a host, and from it, are lost."""
        self.network.lossy(host, percent)

    def mend(self, host: str | None = None, other: str | None = None) -> None:
        """Takes back whatever is wrong with everybody, with a host, or between two."""
        self.network.mend(host, other)

    # The end

    def close(self) -> None:
        """Ends everything that belongs to this site, and removes it: processes, namespaces, folder."""
        for host in self.hosts:
            host.kill_agent()
            host.haproxy.kill9()
        end_all(self.folder)
        self.network.close()
        self.cluster.close()

    def __enter__(self) -> NetLab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _views(network: Network, shared: Shared | None, folder: Path) -> dict[str, Path]:
    """Returns where each host sees the shared folder."""
    if callable(shared):
        return dict(shared(network))
    if isinstance(shared, Mapping):
        return dict(shared)
    one = shared or folder / "shared"
    one.mkdir(exist_ok=True)
    return dict.fromkeys(network.hosts, one)


def _proxy_host(network: Network, folder: Path, name: str, shared: Path, outlive: bool) -> ProxyHost:
    host = ProxyHost(folder, shared, name, CLUSTER_NAME, outlive=outlive, launcher=network.launcher(name))
    host.write, host.read = Address(network.hosts[name], WRITE), Address(network.hosts[name], READ)
    return host
