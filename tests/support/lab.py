"""A whole site on loopback: a cluster, an HAProxy beside the engine or some proxy hosts, and the command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from proxyroute.model import Address
from tests.support.accounts import APPLICATION, ENGINE, PROBE, PROBE_SCHEMA, REPLICATION, Account
from tests.support.haproxy import LocalHAProxy
from tests.support.hosts import ProxyHost, write_key
from tests.support.mariadb import LocalCluster, Node
from tests.support.process import free_port

CLUSTER_NAME = "demo"
UNDER_LOAD = {"innodb-log-file-size": "96M", "innodb-buffer-pool-size": "64M", "slave-parallel-threads": 4}
"""Options for hundreds of durable writes per second on a disk: a log that does not fill up in mid-run, and replicas
that apply in parallel. A single applier thread cannot keep up there, and its lag would be what is measured."""
PROGRAM = Path(sys.executable).with_name("proxyroute")


def _secret(folder: Path, account: Account) -> dict[str, str]:
    file = folder / f"{account.user}.password"
    file.touch(mode=0o600)
    file.write_text(account.password)
    return {"file": str(file)}


def site_config(
    cluster: LocalCluster,
    folder: Path,
    *,
    proxies: Sequence[Mapping[str, Any]] = (),
    policy: Mapping[str, Any] | None = None,
    proof: bool = True,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the values of a configuration file for ``cluster``; writes the password files it names to ``folder``.

    ``policy`` is what stands below ``switchover``, ``more`` whatever else the cluster's part should hold.
    """
    shop: dict[str, Any] = {
        "account": {"user": ENGINE.user, "password": _secret(folder, ENGINE)},
        "replication": {"user": REPLICATION.user, "password": _secret(folder, REPLICATION)},
        "servers": {node.name: str(node.address) for node in cluster},
    }
    if policy:
        shop["switchover"] = dict(policy)
    if proof:
        shop["proof"] = {
            "schema": PROBE_SCHEMA,
            "account": {"user": PROBE.user, "password": _secret(folder, PROBE)},
        }
    if proxies:
        shop["proxies"] = [dict(proxy) for proxy in proxies]
    return {
        "version": 1,
        "state_dir": str(folder / "state"),
        "clusters": {CLUSTER_NAME: {**shop, **(more or {})}},
    }


ENGINE_SEES = "engine"
"""In the mapping of mounts, the place where the engine has the shared folder."""


class Lab:
    """The site. ``write`` and ``read`` are where clients go; ``config`` is the file of the command line.

    With ``hosts``, these and ``haproxy`` are those of the first of them.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        *,
        outlive: bool = False,
        hosts: int = 0,
        shared: Path | Mapping[str, Path] | None = None,
    ) -> None:
        self.cluster = cluster
        self.folder = cluster.folder
        self.config = self.folder / "proxyroute.yml"
        addresses = [f"127.0.0.{n + 1}" for n in range(max(hosts, 1))]
        self.write, self.read, self.stats = (Address(addresses[0], free_port(*addresses)) for _ in range(3))
        self.shared: Path | None = None
        """The shared folder as the engine sees it."""
        self.hosts: tuple[ProxyHost, ...] = ()
        if hosts:
            self.hosts = self._make_hosts(addresses, shared or self.folder / "shared", outlive=outlive)
            self.haproxy_config = self.hosts[0].config_file
            self.haproxy = self.hosts[0].haproxy
        else:
            self.haproxy_config = self.folder / "haproxy.cfg"
            self.haproxy = LocalHAProxy(self.folder, cluster.haproxy, outlive=outlive)

    def _make_hosts(
        self, addresses: Sequence[str], shared: Path | Mapping[str, Path], *, outlive: bool
    ) -> tuple[ProxyHost, ...]:
        self.shared = shared[ENGINE_SEES] if isinstance(shared, Mapping) else shared
        self.shared.mkdir(exist_ok=True)
        write_key(self.folder / "shared.key")
        made = []
        for number, address in enumerate(addresses, 1):
            name = f"edge{number}"
            sees = shared[name] if isinstance(shared, Mapping) else shared
            host = ProxyHost(self.folder, sees, name, CLUSTER_NAME, address=address, outlive=outlive)
            host.write, host.read = Address(address, self.write.port), Address(address, self.read.port)
            made.append(host)
        return tuple(made)

    @classmethod
    def start(
        cls,
        n: int = 3,
        *,
        policy: Mapping[str, Any] | None = None,
        proof: bool = True,
        more: Mapping[str, Any] | None = None,
        outlive: bool = False,
        hosts: int = 0,
        shared: Path | Mapping[str, Path] | None = None,
        provider: type[LocalCluster] | None = None,
        **cluster: Any,
    ) -> Lab:
        """Starts everything; returns when clients can write. ``cluster`` goes to ``start`` of its ``provider``.

        With ``hosts``, so many proxy hosts edge1, edge2 … follow a ``shared`` folder, by default one in the site's
        folder; a mapping names it for each host and for the engine (ENGINE_SEES), who see it under mounts of their
        own. Without, an HAProxy stands beside the engine.
        """
        made = (provider or LocalCluster).start(n, outlive=outlive, **cluster)
        try:
            lab = cls(made, outlive=outlive, hosts=hosts, shared=shared)
        except BaseException:
            made.close()
            raise
        try:
            proxies = lab._hosts_config() or [lab._haproxy_config()]
            values = site_config(lab.cluster, lab.folder, proxies=proxies, policy=policy, proof=proof, more=more)
            lab.config.write_text(yaml.safe_dump(values, sort_keys=False))
            if lab.hosts:
                lab._start_hosts()
            else:
                lab._start_proxy()
        except BaseException:
            lab.close()
            raise
        return lab

    def _haproxy_config(self) -> dict[str, Any]:
        return {
            "type": "haproxy",
            "name": "edge1",
            "config_file": str(self.haproxy_config),
            "runtime_socket": str(self.haproxy.runtime_socket),
            "master_socket": str(self.haproxy.master_socket),
            "write": str(self.write),
            "read": str(self.read),
            "stats": str(self.stats),
            "binary": self.haproxy.binary,
        }

    def _hosts_config(self) -> list[dict[str, Any]]:
        key = self.folder / "shared.key"
        return [h.for_engine(self.shared, key, self.stats.port) for h in self.hosts] if self.shared else []

    def _start_hosts(self) -> None:
        """As the guide says: agents, the first publish gives the hosts their files, HAProxy, the second opens it."""
        for host in self.hosts:
            host.start_agent()
        self.here("publish")
        for host in self.hosts:
            host.start_haproxy()
        checked(self.here("publish"))

    def _start_proxy(self) -> None:
        """As an operator does it for the first time: the files, the program, then the product takes over."""
        _, rendered = printed_object(self.here("render", "--json"))
        for files in rendered.values():
            for file, text in files.items():
                Path(file).parent.mkdir(parents=True, exist_ok=True)
                Path(file).write_text(text)
        self.haproxy.start(self.haproxy_config)
        checked(self.here("publish"))

    # The command line

    def command(self, *arguments: str) -> list[str]:
        """Returns the argv of the product's command line with this site's configuration."""
        return [str(PROGRAM), "--config", str(self.config), *arguments]

    def run(
        self, *arguments: str, check: bool = False, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, with more ``environment``, and returns its status and output.

        Raises RuntimeError with its words when ``check`` and it fails.
        """
        return run_to_end(self.command(*arguments), check=check, environment=environment)

    def json(self, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        """Runs a command with ``--json``; returns its exit status and the object it printed.

        Raises RuntimeError with its words when it printed none.
        """
        return printed_object(self.run(*arguments, "--json", environment=environment))

    def here(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as ``run`` does, without a process of its own, for what is no test of the command line.

        Most of a short command is the start of its Python: a site is made hundreds of times, a sweep asks as often.
        Not for several threads at once: what is printed meanwhile is taken for its output.
        """
        from click.testing import CliRunner

        from proxyroute.cli import main

        argv = self.command(*arguments)
        done = CliRunner().invoke(main, argv[1:])
        words = done.stderr + (repr(done.exception) if done.exception else "")
        return subprocess.CompletedProcess(argv, done.exit_code, done.stdout, words)

    def look(self) -> dict[str, Any]:
        """Returns what ``status --json`` prints. Raises RuntimeError with its words when it printed no object."""
        return printed_object(self.here("status", "--json"))[1]

    # Who is where

    def shown(self, dead: Node) -> str | None:
        """Returns whom the proxies show as the one that gets writes while the routes lead to a ``dead`` server."""
        return dead.name

    def runtime(self, command: str) -> str:
        """Returns the answer of HAProxy, that of the first host, to a command at its runtime socket."""
        return runtime(self.haproxy.runtime_socket, command)

    def flipper(self) -> Callable[[str], None]:
        """Returns what moves the write route to the server it is given, by one runtime command for each HAProxy.

        For the floor, behind the back of the product.
        """
        beside = [(self.haproxy.runtime_socket, self.haproxy_config)]
        places = [(h.haproxy.runtime_socket, h.config_file) for h in self.hosts] or beside
        told = [_flipper(path, config.with_suffix(".route.map")) for path, config in places]

        def flip(server: str) -> None:
            for each in told:
                each(server)

        return flip

    def sessions(self) -> dict[str, int]:
        """Returns the application's sessions by server, counted at the servers."""
        count = "SELECT COUNT(*) AS n FROM information_schema.PROCESSLIST WHERE USER=%s"
        return {node.name: int(node.sql(count, (APPLICATION.user,))[0]["n"]) for node in self.cluster if node.running}

    def proxied(self) -> dict[str, int]:
        """Returns the open sessions by server, over all hosts and backends, as HAProxy counts them."""
        found: Counter[str] = Counter()
        for haproxy in [h.haproxy for h in self.hosts] or [self.haproxy]:
            found += open_sessions(haproxy, self.cluster)
        return dict(found)

    # The end

    def close(self) -> None:
        """Ends everything that belongs to this site, and removes its folder."""
        for host in self.hosts:
            host.kill_agent()
        for haproxy in [h.haproxy for h in self.hosts] or [self.haproxy]:
            haproxy.kill9()
        end_all(self.folder)
        self.cluster.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_sessions(haproxy: LocalHAProxy, cluster: LocalCluster) -> Counter[str]:
    """Returns the open sessions of an HAProxy by server, over all backends; only servers that have some."""
    found: Counter[str] = Counter()
    for line in runtime(haproxy.runtime_socket, "show stat").lstrip("# ").splitlines():
        fields = line.split(",")
        if len(fields) > 4 and fields[1] in cluster.nodes and fields[4].isdigit():
            found[fields[1]] += int(fields[4])
    return +found


def run_to_end(
    argv: Sequence[str], *, check: bool = False, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, with more ``environment``. Raises RuntimeError with its words when ``check``."""
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=150,
        env={**os.environ, **(environment or {})},
    )
    return checked(done) if check else done


def checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Returns what has ended well. Raises RuntimeError with its words when it has not."""
    if done.returncode:
        raise RuntimeError(f"{' '.join(done.args)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def printed_object(done: subprocess.CompletedProcess[str]) -> tuple[int, dict[str, Any]]:
    """Returns exit status and the object that was printed. Raises RuntimeError with the words when there is none."""
    with contextlib.suppress(ValueError):
        value = json.loads(done.stdout)
        if isinstance(value, dict):
            return done.returncode, value
    raise RuntimeError(f"{' '.join(done.args)} printed no object:\n{done.stdout}{done.stderr}")


def runtime(path: Path, command: str) -> str:
    """Sends one command to a runtime socket of HAProxy and returns the answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.sendall(command.encode() + b"\n")
        answer = b""
        while part := client.recv(65536):
            answer += part
    return answer.decode()


def _flipper(socket_file: Path, map_file: Path) -> Callable[[str], None]:
    for line in runtime(socket_file, f"show map {map_file}").splitlines():
        _, key, value = line.split()
        if key == "route":
            epoch = value.partition("/")[2]
            return lambda server: _tell(socket_file, f"set map {map_file} route {server}/{epoch}")
    raise LookupError(f"HAProxy has no route in {map_file}")


def _tell(socket_file: Path, command: str) -> None:
    answer = runtime(socket_file, command).strip()
    if answer:
        raise RuntimeError(f"HAProxy answers {answer!r} to {command!r}")


def processes_of(folder: Path) -> list[int]:
    """Returns our processes whose command line names ``folder`` or something in it; never this one."""
    mark = str(folder).encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                named = any(mark in word and not word[word.index(mark) + len(mark) :][:1].isalnum() for word in words)
                if named and process.stat().st_uid == os.getuid():
                    found.append(int(process.name))
    return sorted(found)


def end_all(folder: Path) -> None:
    """Ends at once whatever still runs for the site in ``folder``: a guard, an old worker, a server left running."""
    for pid in processes_of(folder):
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)
