"""What would keep an HAProxy from following, each with its cure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from proxyroute.errors import AdapterError, ConfigError
from proxyroute.haproxy import disk
from proxyroute.haproxy.listeners import strangers
from proxyroute.haproxy.loaded import Loaded, memory_differences, read_loaded
from proxyroute.haproxy.process import inspect, try_out
from proxyroute.haproxy.render import render
from proxyroute.haproxy.routemap import RouteMap
from proxyroute.haproxy.runtime import Master, Processes, Runtime
from proxyroute.haproxy.settings import Names, Settings, bind
from proxyroute.model import NO_EPOCH, Address, Deadline, Endpoint, Finding, RouteTable, Severity

_OLDEST = (2, 4)
"""lua-load-per-thread and ``act.wake_time`` came by then."""


class Examination:
    """Looks at one HAProxy and its files; changes nothing but a folder for the trial of the configuration."""

    def __init__(
        self,
        proxy: str,
        names: Names,
        servers: tuple[Endpoint, ...],
        settings: Settings,
        runtime: Runtime,
        master: Master,
        in_force: RouteTable | None = None,
    ) -> None:
        self._proxy = proxy
        self._names = names
        self._servers = servers
        self._settings = settings
        self._runtime = runtime
        self._master = master
        self._in_force = in_force

    def findings(self, deadline: Deadline) -> Iterator[Finding]:
        """Yields the findings; the worst that can be found out first."""
        yield from self._binary(deadline)
        yield from self._files(deadline)
        yield from self._names_not_addresses()
        yield from self._processes(deadline)

    def _binary(self, deadline: Deadline) -> Iterator[Finding]:
        try:
            binary = inspect(self._proxy, self._settings.binary, deadline)
        except AdapterError as error:
            yield self._error("haproxy.binary", str(error), "apt-get install haproxy, or set binary:")
            return
        text = ".".join(map(str, binary.version))
        if binary.version < _OLDEST:
            yield self._error("haproxy.version", f"haproxy {text} is too old", "install haproxy 2.4 or newer")
        if not binary.lua:
            yield self._error(
                "haproxy.lua",
                f"haproxy {text} was built without Lua: newcomers could not wait during a switchover",
                "install a build with USE_LUA=1 (Debian's and Ubuntu's packages have it): haproxy -vv | grep -o +LUA",
            )

    def _files(self, deadline: Deadline) -> Iterator[Finding]:
        try:
            on_disk = disk.read(self._proxy, self._settings)
            if on_disk.foreign:
                text = f"{self._settings.config_file} was not written by ProxyRoute and is not overwritten"
                yield self._error("haproxy.foreign", text, disk.foreign_cure(self._settings))
            route = on_disk.route or RouteMap(None, NO_EPOCH)
            table = disk.table_of(self._names.cluster, self._servers, route)
            render(table, self._settings)
        except ConfigError as error:
            yield self._error("haproxy.template", str(error), "correct the template at that line")
            return
        except AdapterError as error:
            yield self._error("haproxy.files", str(error), f"ls -l {self._settings.config_file.parent}")
            return
        try:
            try_out(self._proxy, table, self._settings, deadline)
        except AdapterError as error:
            yield self._error("haproxy.rejected", str(error), "correct the settings or the template named there")

    def _names_not_addresses(self) -> Iterator[Finding]:
        for endpoint in self._servers:
            try:
                ip_address(endpoint.address.host)
            except ValueError:
                yield Finding(
                    "haproxy.lookup",
                    Severity.INFO,
                    self._proxy,
                    f"HAProxy looks {endpoint.address.host} ({endpoint.name}) up only when it starts or reloads, and "
                    "does not start when it cannot",
                    "give the server's IP address",
                )

    def _processes(self, deadline: Deadline) -> Iterator[Finding]:
        try:
            loaded = read_loaded(self._runtime, self._settings, self._names, deadline)
        except AdapterError as error:
            yield self._error("haproxy.silent", str(error), f"start it: {self._start_command()}")
            return
        level = self._runtime.ask("show cli level", deadline).strip()
        if level != "admin":
            text = f"the runtime socket {self._settings.runtime_socket} gives the level {level or 'unknown'}"
            yield self._error("haproxy.level", text, "stats socket … level admin, as in the rendered configuration")
        try:
            processes = self._master.processes(deadline)
        except AdapterError as error:
            text = f"sessions in replaced processes could not be seen or ended: {error}"
            yield self._error("haproxy.master", text, f"start it in master-worker mode: {self._start_command()}")
        else:
            if loaded.pid not in processes.current:
                text = f"process {loaded.pid} answers the runtime socket, the master's is {processes.current}"
                yield self._error("haproxy.process", text, f"end the other haproxy: ps -fp {loaded.pid}")
            yield from self._shared_ports(processes)
        yield from self._drift(loaded)

    def _shared_ports(self, processes: Processes) -> Iterator[Finding]:
        for text in filter(None, (self._settings.write, self._settings.read)):
            address = Address.parse(bind(text))
            for pid in strangers(address, processes.all):
                text = f"process {pid} listens on port {address.port} as well and takes some of the clients"
                yield self._error("haproxy.shared", text, f"ps -fp {pid}, and end it: kill {pid}")

    def _drift(self, loaded: Loaded) -> Iterator[Finding]:
        for text in drift(self._proxy, self._names, self._servers, self._settings, loaded, self._in_force):
            yield Finding("haproxy.drift", Severity.WARNING, self._proxy, text, "proxyroute publish")

    def _start_command(self) -> str:
        s = self._settings
        owner = f",user,{s.socket_user},mode,600" if s.socket_user else ""
        return f"{s.binary} -W -S {s.master_socket},level,admin{owner} -f {s.config_file} (or systemctl start haproxy)"

    def _error(self, code: str, text: str, cure: str) -> Finding:
        return Finding(code, Severity.ERROR, self._proxy, text.removeprefix(f"{self._proxy}: "), cure)


def drift(
    proxy: str,
    names: Names,
    servers: tuple[Endpoint, ...],
    settings: Settings,
    loaded: Loaded,
    in_force: RouteTable | None = None,
) -> tuple[str, ...]:
    """Returns, in words, where files, memory and what would be rendered are not the same.

    ``in_force`` is the route to compare memory with, when it is not the one in the map file.
    """
    try:
        on_disk = disk.read(proxy, settings)
    except AdapterError as error:
        return (str(error),)
    found = list(disk.differences(names.cluster, servers, settings, on_disk))
    if on_disk.route is None:
        return tuple(found)
    table = in_force or disk.table_of(names.cluster, servers, on_disk.route)
    try:
        structure = render(table, settings).structure
    except ConfigError:
        return tuple(found)
    return (*found, *memory_differences(table, structure, loaded, names, reads=bool(settings.read)))
