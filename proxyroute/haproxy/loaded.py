"""What a running HAProxy has loaded and does, read from its runtime socket."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from proxyroute.errors import AdapterError
from proxyroute.haproxy.routemap import NO_HOLD, RouteMap, hold_until, parse_runtime
from proxyroute.haproxy.runtime import Master, Runtime
from proxyroute.haproxy.settings import Names, Settings
from proxyroute.model import Address, Deadline, RouteTable

_DESCRIPTION = re.compile(r"proxyroute \S+ ([0-9a-f]{16})")
_ADMIN_OUT = 0x01 | 0x02 | 0x08 | 0x10 | 0x20
"""Bits of srv_admin_state that keep traffic away; 0x04 only says that the file had ``disabled``."""


@dataclass(frozen=True)
class ServerState:
    """One server line of one backend."""

    host: str
    port: int
    weight: int
    out: bool
    """In maintenance or draining: set so, not found dead."""


@dataclass(frozen=True)
class Loaded:
    """One reading of the process that answers the runtime socket."""

    pid: int
    version: str
    structure: str
    """Digest of the configuration this process has loaded; empty when it is not one of ours."""
    entries: Mapping[str, str]
    """The route map as it is in memory."""
    servers: Mapping[tuple[str, str], ServerState] = field(default_factory=dict)
    """By backend and server."""
    sessions: Mapping[str, int] = field(default_factory=dict)
    """Open sessions of the write backends, by server."""

    @property
    def route(self) -> RouteMap:
        """The route in memory. Raises ValueError when somebody put in what we never write."""
        return RouteMap.parse(self.entries)

    @property
    def held_until(self) -> float:
        """Unix time until which newcomers wait."""
        return hold_until(self.entries.get("hold", NO_HOLD))


class NotOursError(AdapterError):
    """The process that answers has not loaded our route map."""


def read_route(runtime: Runtime, settings: Settings, deadline: Deadline) -> dict[str, str]:
    """Returns the entries of the route map in memory. Raises NotOursError when this process has no such map."""
    answer = runtime.ask(f"show map {settings.map_file}", deadline)
    if answer.startswith("Unknown map"):
        raise NotOursError(
            runtime.proxy, f"haproxy runs a configuration that is not ours; start it with -f {settings.config_file}"
        )
    return parse_runtime(answer)


def read_pid(runtime: Runtime, deadline: Deadline) -> int:
    """Returns the pid of the process that answers the runtime socket."""
    return int(_info(runtime, deadline).get("Pid", "0"))


def read_loaded(runtime: Runtime, settings: Settings, names: Names, deadline: Deadline) -> Loaded:
    """Reads everything. Raises AdapterError when HAProxy does not answer."""
    info = _info(runtime, deadline)
    try:
        entries = read_route(runtime, settings, deadline)
    except NotOursError:
        entries = {}
    described = _DESCRIPTION.fullmatch(info.get("description", ""))
    return Loaded(
        pid=int(info.get("Pid", "0")),
        version=info.get("Version", ""),
        structure=described[1] if described else "",
        entries=entries,
        servers=dict(_server_states(runtime.ask("show servers state", deadline))),
        sessions=write_sessions(runtime.ask("show stat", deadline), names),
    )


def old_sessions(master: Master, names: Names, deadline: Deadline) -> dict[str, int]:
    """Returns the open write sessions by server of all processes that have been replaced and still run."""
    found: dict[str, int] = {}
    for pid in master.processes(deadline).old:
        try:
            answer = master.ask(pid, "show stat", deadline)
        except AdapterError:
            if pid in master.processes(deadline).old:
                raise
            continue  # it has just ended
        for server, count in write_sessions(answer, names).items():
            found[server] = found.get(server, 0) + count
    return found


def write_sessions(stat: str, names: Names) -> dict[str, int]:
    """Returns the sessions of each write backend, by server, from the answer to ``show stat``."""
    prefix = names.write_backend("")
    found = {}
    for row in csv.DictReader(stat.removeprefix("# ").splitlines()):
        if row.get("svname") == "BACKEND" and (row.get("pxname") or "").startswith(prefix):
            found[row["pxname"].removeprefix(prefix)] = int(row["scur"] or 0)
    return found


def memory_differences(
    table: RouteTable, structure: str, loaded: Loaded, names: Names, *, reads: bool
) -> Iterator[str]:
    """Yields, in words, where ``loaded`` is not what ``table`` and ``structure`` ask for."""
    wanted = RouteMap.of(table)
    try:
        if loaded.route != wanted:
            yield f"writes go by {loaded.route.route}, not {wanted.route}, in the memory of haproxy"
    except ValueError as error:
        yield f"the route in the memory of haproxy cannot be understood: {error}"
    if not loaded.structure:
        yield "haproxy has loaded a configuration that is not ours"
        return
    if loaded.structure != structure:
        yield f"haproxy has loaded configuration {loaded.structure}, not {structure}"
        return
    weights = {reader.name: reader.weight for reader in table.readers}
    for endpoint in table.servers:
        for backend in (names.write_backend(endpoint.name), *([names.read] if reads else [])):
            state = loaded.servers.get((backend, endpoint.name))
            if state is None:
                yield f"haproxy has no server {backend}/{endpoint.name}"
            elif not _same_place(endpoint.address, state):
                yield f"{backend}/{endpoint.name} is {state.host}:{state.port}, not {endpoint.address}"
            elif backend == names.read and (endpoint.name in weights) == state.out:
                yield f"{endpoint.name} {'gets no reads' if state.out else 'gets reads'} in the memory of haproxy"
            elif backend == names.read and not state.out and state.weight != weights[endpoint.name]:
                yield f"{endpoint.name} reads with weight {state.weight}, not {weights[endpoint.name]}"
            elif backend != names.read and state.out:
                yield f"{backend}/{endpoint.name} is in maintenance"


def _same_place(address: Address, state: ServerState) -> bool:
    if address.port != state.port:
        return False
    try:
        return ip_address(address.host) == ip_address(state.host)
    except ValueError:
        return True  # a host name: HAProxy has looked it up, and shows what it found


def _info(runtime: Runtime, deadline: Deadline) -> dict[str, str]:
    lines = runtime.ask("show info", deadline).splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _server_states(answer: str) -> Iterator[tuple[tuple[str, str], ServerState]]:
    names: list[str] = []
    for line in answer.splitlines():
        fields = line.split()
        if line.startswith("# "):
            names = fields[1:]
        elif names and len(fields) >= len(names):
            row = dict(zip(names, fields, strict=False))
            yield (
                (row["be_name"], row["srv_name"]),
                ServerState(
                    host=row["srv_addr"],
                    port=int(row["srv_port"]),
                    weight=int(row["srv_uweight"]),
                    out=bool(int(row["srv_admin_state"]) & _ADMIN_OUT),
                ),
            )
