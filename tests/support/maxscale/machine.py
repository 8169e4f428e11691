"""MaxScale's inside: servers with their bits, one monitor with its tick, services, users. It knows no HTTP.

One main thread serves the REST API of a MaxScale: whoever calls :meth:`Machine.main` holds up everybody else, as a
synchronous command does, and a set or clear that waits for the monitor.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxyroute.model import Address
from tests.support.maxscale.backends import Backend, Reading
from tests.support.maxscale.bits import ASIDE, ROLES, Bit, render, word
from tests.support.maxscale.versions import at_least, defaults

if TYPE_CHECKING:
    from tests.support.maxscale.config_sync import ConfigSync


class RefusedError(Exception):
    """What the REST API answers with a status and, unless ``detail`` is empty, ``errors``."""

    def __init__(self, status: int, *details: str, meta: bool = False, both: bool = False) -> None:
        super().__init__("; ".join(details))
        self.status = status
        self.details = details
        self.meta = meta or both
        self.top = both or not meta


@dataclass
class Server:
    """One server object. ``read`` is what a monitor has found last; it stays when the server has died."""

    name: str
    parameters: dict[str, Any]
    bits: Bit = Bit.NONE
    connections: int = 0
    read: Reading | None = None
    runtime: bool = False
    persisted: bool = False
    event: str = ""

    @property
    def address(self) -> Address:
        return Address(self.parameters["address"], self.parameters["port"])

    @property
    def state(self) -> str:
        return render(self.bits, self.connections)


@dataclass
class Service:
    """One service with its listener. Its servers are those of ``cluster``, or are listed."""

    name: str
    router: str
    parameters: dict[str, Any]
    port: int
    cluster: str = ""
    servers: list[str] = field(default_factory=list)


@dataclass
class Monitor:
    """mariadbmon."""

    name: str
    parameters: dict[str, Any]
    servers: list[str]
    running: bool = True
    ticks: int = 0
    primary: str | None = None
    """Whom it takes for the primary; it goes on naming one that has died."""
    missed: int = 0
    """Looks in a row at which that one did not answer."""
    command: str = ""
    phase: str = ""
    """``pending`` or ``running`` while there is a command."""
    result: str | list[str] | None = None

    @property
    def interval(self) -> float:
        return float(str(self.parameters["monitor_interval"]).removesuffix("ms")) / 1000


class Machine:
    """One MaxScale from its start to its end. ``look_seconds`` is how long a set or clear waits for the tick."""

    def __init__(
        self, version: str, backend: Backend, *, look_seconds: float = 0.1, command_seconds: float = 0.2
    ) -> None:
        self.version = version
        self.backend = backend
        self.look_seconds = look_seconds
        self.command_seconds = command_seconds
        self.parameters = defaults("maxscale", version)
        self.servers: dict[str, Server] = {}
        self.services: dict[str, Service] = {}
        self.monitors: dict[str, Monitor] = {}
        self.users: dict[str, tuple[str, str]] = {"admin": ("mariadb", "admin")}
        self.sync: ConfigSync | None = None
        """Shared with other MaxScales."""
        self.config_version = 0
        self.started = time.time()
        self.listeners: list[Callable[[str, Bit, Bit, bool], None]] = []
        """Called with a server's name, its bits before and after, and whether its sessions end at once."""
        self._main = threading.RLock()
        self._ticking = threading.RLock()
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    # -- set up --

    def add_server(self, name: str, address: Address, *, runtime: bool = False, **more: Any) -> Server:
        parameters = {**defaults("server", self.version), "address": address.host, "port": address.port, **more}
        self.servers[name] = Server(name, parameters, runtime=runtime)
        return self.servers[name]

    def add_service(self, name: str, router: str, port: int, *, cluster: str = "", **parameters: Any) -> Service:
        kind = router if router in ("readwritesplit", "readconnroute") else "readconnroute"
        servers = [] if cluster else list(self.servers)
        self.services[name] = Service(
            name, router, {**defaults(kind, self.version), "router": router, **parameters}, port, cluster, servers
        )
        return self.services[name]

    def add_monitor(self, name: str, *, running: bool = True, **parameters: Any) -> Monitor:
        given = {**defaults("monitor", self.version), **parameters}
        self.monitors[name] = Monitor(name, given, list(self.servers), running)
        return self.monitors[name]

    def start(self) -> None:
        """The monitors look once, then by themselves."""
        for monitor in self.monitors.values():
            if monitor.running:
                self.tick(monitor)
        self._thread = threading.Thread(target=self._run, name="mariadbmon", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5)

    def _run(self) -> None:
        due = {name: time.monotonic() + m.interval for name, m in self.monitors.items()}
        while not self._ended.is_set():
            now = time.monotonic()
            for name, monitor in list(self.monitors.items()):
                if now >= due.get(name, now) and monitor.running:
                    self.tick(monitor)
                    due[name] = time.monotonic() + monitor.interval
            left = min((at - time.monotonic() for at in due.values()), default=1.0)
            self._wake.wait(max(0.01, min(left, 0.5)))

    @contextmanager
    def main(self) -> Iterator[None]:
        """The one thread that serves everything."""
        with self._main:
            yield

    @contextmanager
    def changed_objects(self) -> Iterator[None]:
        """For a ``with`` block: objects are made or removed. Raises RefusedError."""
        with self.sync.change(self) if self.sync is not None else nullcontext():
            yield

    # -- bits --

    def owner(self, server: str) -> Monitor | None:
        """Returns the monitor that has ``server``, running or not."""
        return next((m for m in self.monitors.values() if server in m.servers), None)

    def change(self, name: str, verb: str, state: str, *, force: bool = False) -> None:
        """``PUT …/set`` and ``…/clear``. Raises RefusedError."""
        server = self.servers[name]
        bit = word(state) if state else None
        if bit is None:
            raise RefusedError(400, "Invalid or missing value for the `state` parameter")
        monitor = self.owner(name)
        if monitor is None or not monitor.running:
            self._put(server, server.bits | bit if verb == "set" else server.bits & ~bit)
        else:
            self._change_monitored(monitor, server, verb, bit)
        if force and verb == "set" and bit is Bit.MAINTENANCE:
            for listener in self.listeners:
                listener(name, server.bits, server.bits, True)

    def _change_monitored(self, monitor: Monitor, server: Server, verb: str, bit: Bit) -> None:
        new = at_least(self.version, 23, 2)
        if bit not in ASIDE:
            raise RefusedError(
                400,
                f"Server  {server.name} is monitored so only maintenance and drain status can be altered manually. "
                "Status was not modified."
                if at_least(self.version, 24, 2)
                else "The server is monitored, so only the maintenance status can be set/cleared manually. "
                "Status was not modified.",
            )
        if verb == "set" and Bit.MASTER in server.bits:
            raise RefusedError(
                400,
                f"The server is {'primary' if new else 'master'}, so it cannot be set in maintenance or draining mode. "
                "First perform a switchover and then retry the operation.",
            )
        ends = time.monotonic() + self.look_seconds
        with self._ticking:  # while a command runs the monitor does not tick: everybody waits for its end
            self._put(server, server.bits | bit if verb == "set" else server.bits & ~bit)
            time.sleep(max(0.0, ends - time.monotonic()))
            self.tick(monitor)

    def _put(self, server: Server, bits: Bit) -> None:
        before, server.bits = server.bits, bits
        if before != bits:
            for listener in self.listeners:
                listener(server.name, before, bits, False)

    # -- the monitor --

    def tick(self, monitor: Monitor) -> None:
        """One look at all servers of ``monitor``; it overwrites every role bit, and running."""
        with self._ticking:
            found = {name: self.backend.read(self.servers[name].address) for name in monitor.servers}
            for name, reading in found.items():
                if reading is not None:
                    self.servers[name].read = reading
            monitor.primary = self._primary(monitor, found)
            for name, reading in found.items():
                server = self.servers[name]
                bits = server.bits & ~(Bit.RUNNING | ROLES)
                if reading is not None:
                    bits |= Bit.RUNNING
                    if name == monitor.primary and not reading.read_only:
                        bits |= Bit.MASTER
                    elif name != monitor.primary and self._follows(found, name, monitor.primary):
                        bits |= Bit.SLAVE
                self._put(server, bits)
            monitor.ticks += 1

    def _primary(self, monitor: Monitor, found: Mapping[str, Reading | None]) -> str | None:
        now = monitor.primary
        reading = found.get(now) if now else None
        monitor.missed = monitor.missed + 1 if now and reading is None else 0
        if now and reading is None and now in found:
            hopeless = monitor.missed > int(monitor.parameters["failcount"])
            if not hopeless or any(self._follows(found, other, now) for other in found):
                return now  # dead: it goes on naming it while a replica of it runs, and failover is another matter
        if reading is not None and self._may_lead(found, reading):
            return now
        others = [n for n, r in found.items() if r is not None and self._may_lead(found, r) and self._usable(n)]
        if not others:
            return now
        return max(others, key=lambda n: (sum(self._follows(found, o, n) for o in found), -list(found).index(n)))

    def _usable(self, name: str) -> bool:
        return Bit.MAINTENANCE not in self.servers[name].bits

    def _may_lead(self, found: Mapping[str, Reading | None], reading: Reading) -> bool:
        known = {self.servers[name].address for name in found}
        return not reading.read_only and not (reading.replicates and reading.source in known)

    def _follows(self, found: Mapping[str, Reading | None], name: str, primary: str | None) -> bool:
        by_address = {self.servers[other].address: other for other in found}
        seen: set[str] = set()
        while name not in seen:
            seen.add(name)
            reading = found.get(name)
            if reading is None or not reading.replicates or reading.source is None:
                return False
            name = by_address.get(reading.source, "")
            if name == primary:
                return True
        return False

    def set_running(self, monitor: Monitor, running: bool) -> None:
        """Stop freezes the states, start overwrites the role bits at its first tick. Raises RefusedError."""
        if not running and monitor.phase == "running":
            raise RefusedError(400, f"Could not stop monitor '{monitor.name}'. Command '{monitor.command}' is running.")
        if not running:
            monitor.running = False
        elif not monitor.running:
            monitor.running = True
            threading.Thread(target=self.tick, args=(monitor,), daemon=True).start()

    @contextmanager
    def no_tick(self) -> Iterator[None]:
        """While a command runs the monitor does not look."""
        with self._ticking:
            yield

    def put(self, name: str, bits: Bit) -> None:
        """Sets all bits of a server, as a command does on its way."""
        self._put(self.servers[name], bits)

    # -- the end and the next beginning --

    def after_restart(self) -> Machine:
        """Returns this MaxScale as it is after a restart.

        Objects and parameters are kept as far as they are saved; states are not, but maintenance and drain of a
        monitored server; a stopped monitor runs again, and no token is valid.
        """
        saved = bool(self.parameters["load_persisted_configs"])
        new = Machine(self.version, self.backend, look_seconds=self.look_seconds, command_seconds=self.command_seconds)
        new.parameters, new.users = dict(self.parameters), dict(self.users)
        new.listeners = self.listeners
        new.sync, new.config_version = self.sync, self.config_version
        for name, server in self.servers.items():
            if server.runtime and not saved:
                continue
            kept = server.bits & ASIDE if self.owner(name) is not None else Bit.NONE
            again = Server(name, dict(server.parameters), kept, runtime=server.runtime, persisted=server.persisted)
            new.servers[name] = again
        for name, service in self.services.items():
            new.services[name] = copy.deepcopy(service)
        for name, monitor in self.monitors.items():
            new.monitors[name] = Monitor(name, dict(monitor.parameters), list(monitor.servers))
        return new
