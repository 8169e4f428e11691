"""HAProxy beside the engine, on the same host: its files, its runtime socket, its processes.

The write route moves by one command that changes one entry of a map in HAProxy's memory; files and reloads come
before the freeze (:meth:`HAProxyAdapter.prepare`) or after the flip (:meth:`HAProxyAdapter.settle`).
docs/decisions/0003-haproxy-routing-by-map-and-lua-hold.md tells why.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from proxyroute.errors import AdapterError, ConfigError, TimedOut
from proxyroute.haproxy import disk
from proxyroute.haproxy import settings as haproxy_settings
from proxyroute.haproxy.findings import Examination, drift
from proxyroute.haproxy.loaded import (
    Loaded,
    memory_differences,
    old_sessions,
    read_loaded,
    read_route,
)
from proxyroute.haproxy.process import elsewhere, end_sessions, reload, try_out
from proxyroute.haproxy.render import Rendered, render
from proxyroute.haproxy.routemap import NO_HOLD, RouteMap, parse_route
from proxyroute.haproxy.runtime import Master, Runtime
from proxyroute.haproxy.settings import Names
from proxyroute.model import (
    NO_EPOCH,
    Address,
    Deadline,
    Endpoint,
    Epoch,
    Finding,
    Observed,
    Published,
    Receipt,
    ReceiptState,
    RouteTable,
)

_ANSWERS = 1.5
"""Seconds in which a HAProxy that is well has long answered: whoever waits for its word has little more, and whoever
drives it must look at the shared folder again."""


class _OutdatedError(AdapterError):
    """The table is older than what is published, or says something else under the same epoch."""


class HAProxyAdapter:
    """One HAProxy that serves one cluster. Keeps no connection and no state: what counts is read each time."""

    Settings = haproxy_settings.Settings

    def __init__(
        self, name: str, cluster: str, servers: tuple[Endpoint, ...], settings: haproxy_settings.Settings
    ) -> None:
        """Raises ConfigError when HAProxy would not take the cluster's name."""
        self.name = name
        self._servers = servers
        self._settings = settings
        try:
            self._names = Names(cluster)
        except ValueError as error:
            raise ConfigError(f"proxy {name}: {error}") from None
        self._runtime = Runtime(name, settings.runtime_socket)
        self._master = Master(name, settings.master_socket)

    # Reading

    def check(self, deadline: Deadline) -> Sequence[Finding]:
        """Returns what would keep this proxy from following: binary, files, processes, drift."""
        look = Examination(
            self.name, self._names, self._servers, self._settings, self._runtime, self._master, self._in_force()
        )
        return tuple(look.findings(deadline))

    def observe(self, deadline: Deadline) -> Observed:
        """Returns what HAProxy does now; ``reachable`` only when replaced processes could be asked as well."""
        try:
            loaded = read_loaded(self._runtime, self._settings, self._names, deadline)
        except AdapterError as error:
            return Observed(self.name, reachable=False, detail=str(error))
        sessions, detail = dict(loaded.sessions), ""
        try:
            for server, count in old_sessions(self._master, self._names, deadline).items():
                sessions[server] = sessions.get(server, 0) + count
        except AdapterError as error:
            detail = f"replaced processes could not be asked: {error}"
        try:
            route: RouteMap | None = loaded.route
        except ValueError:
            route = None
        readers = tuple(
            e.name
            for e in self._servers
            if (state := loaded.servers.get((self._names.read, e.name))) is not None and not state.out
        )
        return Observed(
            self.name,
            reachable=not detail,
            epoch=route.epoch if route and loaded.entries else None,
            primary=route.primary if route else None,
            readers=readers,
            sessions=sessions,
            held=loaded.held_until > time.time(),
            drift=drift(self.name, self._names, self._servers, self._settings, loaded, self._in_force()),
            detail=detail,
            published=self._published(),
        )

    def routes(self, kind: str) -> Sequence[Address]:
        """Returns where a client on this host reaches the ``write`` or ``read`` route."""
        text = {"write": self._settings.write, "read": self._settings.read}.get(kind, "")
        return (haproxy_settings.reachable(text),) if text else ()

    def render(self, table: RouteTable) -> Mapping[str, str]:
        """Returns the files for ``table``, by path. Raises ConfigError when a template is wrong."""
        rendered = render(table, self._settings)
        s = self._settings
        return {str(s.config_file): rendered.config, str(s.map_file): rendered.map, str(s.lua_file): rendered.lua}

    # Changing

    def install(self, table: RouteTable, deadline: Deadline) -> Receipt:
        """Writes the files for ``table``, tried out, for a HAProxy that is not started yet. Tells no process."""
        try:
            written = self._write(table, deadline)
        except (AdapterError, ConfigError) as error:
            return self._receipt(ReceiptState.FAILED, table.epoch, str(error))
        return self._receipt(ReceiptState.DONE, table.epoch, evidence={"written": written})

    def prepare(self, target: RouteTable, abort: RouteTable, deadline: Deadline) -> Receipt:
        """Makes sure that only a runtime command is left to do.

        Both routes are rendered; where HAProxy has loaded another configuration than is rendered now, it is tried
        out, written and reloaded here, with the route of ``abort``, so before anything is blocked.
        """
        try:
            rendered = [render(table, self._settings) for table in (target, abort)]
            on_disk = disk.read(self.name, self._settings)
            disk.refuse_foreign(self.name, self._settings, on_disk)
            self._refuse_outdated(target, self._entries(deadline), on_disk)
            loaded = read_loaded(self._runtime, self._settings, self._names, deadline)
            processes = self._master.processes(deadline)
            if loaded.pid not in processes.current:
                text = f"process {loaded.pid} answers the runtime socket, the master's is {processes.current}"
                raise AdapterError(self.name, f"{text}: another haproxy uses our socket; ps -fp {loaded.pid}")
            evidence: dict[str, Any] = {"pid": loaded.pid}
            if reason := self._reload_reason(rendered[0], loaded):
                try_out(self.name, target, self._settings, deadline)
                self._write(abort, deadline)
                evidence = {"pid": self._reload(abort, on_disk, deadline), "reload": reason}
                loaded = read_loaded(self._runtime, self._settings, self._names, deadline)
                if unmet := self._unmet(abort, rendered[1], loaded):
                    raise AdapterError(self.name, f"after the reload: {'; '.join(unmet)}")
            disk.rehearse(self.name, self._settings, rendered[0])
        except (AdapterError, ConfigError) as error:
            return self._receipt(ReceiptState.FAILED, target.epoch, str(error))
        except TimedOut as error:
            return self._receipt(ReceiptState.UNKNOWN, target.epoch, str(error))
        return self._receipt(ReceiptState.PREPARED, target.epoch, evidence=evidence)

    def hold(self, operation: str, deadline: Deadline) -> Receipt:
        """Makes newcomers of the write route wait until ``deadline`` at the latest. Nobody needs to release them.

        HAProxy itself must take that at once.
        """
        length = deadline.left
        until = time.time() + length
        return self._set_hold(
            f"{math.floor(until * 1000)}/{math.ceil(length * 1000)}", deadline, {"operation": operation, "until": until}
        )

    def release(self, deadline: Deadline) -> Receipt:
        """Lets those who wait go where the route points now, within some 10 ms."""
        return self._set_hold(NO_HOLD, deadline, {})

    def apply(self, table: RouteTable, deadline: Deadline) -> Receipt:
        """Moves the write route by one runtime command and reads it back. No file is touched."""
        try:
            entries = self._move(table, None, deadline)
        except AdapterError as error:
            return self._receipt(ReceiptState.FAILED, table.epoch, str(error))
        except TimedOut as error:
            return self._receipt(ReceiptState.UNKNOWN, table.epoch, str(error))
        evidence = {"primary": table.primary, "route": entries["route"]}
        return self._receipt(ReceiptState.DONE, table.epoch, evidence=evidence)

    def settle(self, table: RouteTable, deadline: Deadline) -> Receipt:
        """Makes ``table`` true and lasting: memory, sessions, files, and a reload where only that helps.

        A HAProxy that does not run gets its files all the same, so that it starts with this route.
        """
        evidence: dict[str, Any] = {}
        try:
            before = disk.read(self.name, self._settings)
            try:
                self._move(table, before, deadline)
            except _OutdatedError:
                raise
            except AdapterError as error:
                installed = self.install(table, deadline)
                files = f"say {RouteMap.of(self._at_rest(table)).route} for its next start"
                if installed.state is not ReceiptState.DONE:
                    files = f"could not be made: {installed.detail}"
                text = f"{error}; its files {files}"
                return self._receipt(ReceiptState.FAILED, table.epoch, text, installed.evidence)
            loaded = self._set_readers(table, deadline)
            evidence["ended"] = self._end_sessions(table, deadline)
            disk.refuse_foreign(self.name, self._settings, before)
            # whatever becomes of the rest: a restart goes this way
            evidence["written"] = disk.write_map(self.name, self._settings, self._at_rest(table))
            rendered = render(table, self._settings)
            evidence["written"] += self._write(table, deadline)
            if reason := self._reload_reason(rendered, loaded):
                evidence["reload"] = reason
                self._reload(table, before, deadline)
                evidence["ended"] = self._end_sessions(table, deadline) | evidence["ended"]
            return self._proved(table, rendered, evidence, deadline)
        except (AdapterError, ConfigError) as error:
            return self._receipt(ReceiptState.FAILED, table.epoch, str(error), evidence)
        except TimedOut as error:
            return self._receipt(ReceiptState.UNKNOWN, table.epoch, str(error), evidence)

    def close(self) -> None:
        """Nothing is kept open."""

    # What the map file says while nothing is being changed; others may keep the truth elsewhere

    def _at_rest(self, table: RouteTable) -> RouteTable:
        """Returns the route that the map file is to have for ``table``: a HAProxy that starts goes by it."""
        return table

    def _in_force(self) -> RouteTable | None:
        """Returns the route that counts, None when it is the one in the map file."""
        return None

    def _published(self) -> Published | None:
        """Returns the route that a HAProxy which starts now would be given; None when there is none to read."""
        with contextlib.suppress(AdapterError):
            route = self._in_force() or disk.read(self.name, self._settings).route
            return Published(route.primary, route.epoch) if route is not None else None
        return None

    # Parts of the verbs; they raise AdapterError, or TimedOut when an outcome is unknown

    def _move(self, table: RouteTable, on_disk: disk.OnDisk | None, deadline: Deadline) -> dict[str, str]:
        """Sets the route in memory and returns the map as it is then."""
        entries = self._entries(deadline)
        self._refuse_outdated(table, entries, on_disk)
        route = RouteMap.of(table).route
        if entries.get("route") != route:
            entries = self._set_entries({"route": route}, deadline)
        return entries

    def _entries(self, deadline: Deadline) -> dict[str, str]:
        """Returns the route map in memory: the first question, soon answered or not at all."""
        return read_route(self._runtime, self._settings, deadline.within(_ANSWERS))

    def _refuse_outdated(self, table: RouteTable, entries: Mapping[str, str], on_disk: disk.OnDisk | None) -> None:
        """Raises _OutdatedError when memory or disk has a higher epoch, or another server under this epoch."""
        known: list[tuple[str | None, Epoch]] = []
        with contextlib.suppress(ValueError):  # not set, or not by us: there is nothing to go back behind
            known.append(parse_route(entries.get("route", "")))
        if on_disk is not None and on_disk.route is not None:
            known.append((on_disk.route.primary, on_disk.route.epoch))
        for primary, epoch in known:
            text = f"route {epoch} to {primary or 'nobody'} is published"
            if epoch > table.epoch:
                raise _OutdatedError(self.name, f"superseded: {text}, {table.epoch} is older")
            if epoch == table.epoch and primary not in (None, table.primary):
                raise _OutdatedError(self.name, f"conflict: {text}, the same epoch cannot mean {table.primary}")

    def _set_entries(self, wanted: Mapping[str, str], deadline: Deadline) -> dict[str, str]:
        """Sets entries of the route map by one command and returns the map read back.

        Raises AdapterError when one is not set, TimedOut when that could not be read back.
        """
        file = self._settings.map_file
        text = ", ".join(f"{key} {value}" for key, value in wanted.items())
        said = self._runtime.tell("; ".join(f"set map {file} {k} {v}" for k, v in wanted.items()), deadline)
        try:
            entries = read_route(self._runtime, self._settings, deadline)
            missing = [key for key in wanted if key not in entries]
            if missing:  # somebody has cleared the map, and "set" does not add
                said = self._runtime.tell("; ".join(f"add map {file} {k} {wanted[k]}" for k in missing), deadline)
                entries = read_route(self._runtime, self._settings, deadline)
        except AdapterError as error:
            raise TimedOut(f"{text} was sent and not read back: {error}") from None
        if any(entries.get(key) != value for key, value in wanted.items()):
            raise AdapterError(self.name, f"haproxy did not take {text}: {said.strip()}")
        return entries

    def _set_hold(self, value: str, deadline: Deadline, evidence: Mapping[str, Any]) -> Receipt:
        soon = deadline.within(_ANSWERS)  # the deadline may be the end of the hold
        try:
            entries = self._entries(soon)
            if entries.get("hold") != value:
                entries = self._set_entries({"hold": value}, soon)
        except AdapterError as error:
            return self._receipt(ReceiptState.FAILED, NO_EPOCH, str(error), evidence)
        except TimedOut as error:
            return self._receipt(ReceiptState.UNKNOWN, NO_EPOCH, str(error), evidence)
        try:
            epoch = RouteMap.parse(entries).epoch
        except ValueError:
            epoch = NO_EPOCH
        return self._receipt(ReceiptState.DONE, epoch, evidence={**evidence, "hold": value})

    def _set_readers(self, table: RouteTable, deadline: Deadline) -> Loaded:
        """Gives reads to the readers of ``table`` and to nobody else; returns what was loaded before."""
        loaded = read_loaded(self._runtime, self._settings, self._names, deadline)
        wanted = RouteMap.of(table).readers_text or ","
        if loaded.entries.get("readers") != wanted:
            self._set_entries({"readers": wanted}, deadline)
        weights = {r.name: r.weight for r in table.readers}
        # newcomers to the pool first, so that it is never empty in between
        for server in sorted((e.name for e in table.servers), key=lambda name: name not in weights):
            state = loaded.servers.get((self._names.read, server))
            if state is None:
                continue
            line = f"{self._names.read}/{server}"
            if server in weights and state.weight != weights[server]:
                self._runtime.tell(f"set server {line} weight {weights[server]}", deadline)
            if (server in weights) == state.out:
                self._runtime.tell(f"set server {line} state {'ready' if state.out else 'maint'}", deadline)
        return loaded

    def _write(self, table: RouteTable, deadline: Deadline) -> list[str]:
        """Writes the files, tried out by HAProxy when the configuration changes. Returns the names of those written."""
        rendered = render(self._at_rest(table), self._settings)
        on_disk = disk.read(self.name, self._settings)
        disk.refuse_foreign(self.name, self._settings, on_disk)
        self._refuse_outdated(table, {}, on_disk)
        if (on_disk.config, on_disk.lua) != (rendered.config, rendered.lua):
            try_out(self.name, table, self._settings, deadline)
        return disk.write(self.name, self._settings, rendered)

    def _reload_reason(self, rendered: Rendered, loaded: Loaded) -> str:
        if loaded.structure == rendered.structure:
            return ""
        if not loaded.structure:
            raise AdapterError(
                self.name,
                f"process {loaded.pid} runs a configuration that is not ours; start haproxy with "
                f"-f {self._settings.config_file}",
            )
        return f"configuration {rendered.structure} is to replace {loaded.structure}"

    def _reload(self, table: RouteTable, before: disk.OnDisk, deadline: Deadline) -> int:
        try:
            return reload(self.name, self._master, self._runtime, deadline)
        except AdapterError:
            disk.restore(self.name, self._settings, before)
            raise

    def _end_sessions(self, table: RouteTable, deadline: Deadline) -> dict[str, int]:
        """Ends the write sessions that are elsewhere; what is left is for the proof to find."""
        with contextlib.suppress(TimedOut, AdapterError):
            soon = deadline.within(deadline.left / 2)
            return end_sessions(self._runtime, self._master, self._names, table.primary, soon)
        return {}

    def _unmet(self, table: RouteTable, rendered: Rendered, loaded: Loaded) -> list[str]:
        reads = bool(self._settings.read)
        return list(memory_differences(table, rendered.structure, loaded, self._names, reads=reads))

    def _proved(self, table: RouteTable, rendered: Rendered, evidence: dict[str, Any], deadline: Deadline) -> Receipt:
        """Reads everything back and says what became of ``table``."""
        loaded = read_loaded(self._runtime, self._settings, self._names, deadline)
        evidence |= {
            "primary": table.primary,
            "route": loaded.entries.get("route", ""),
            "readers": loaded.entries.get("readers", ""),
            "pid": loaded.pid,
            "structure": loaded.structure,
        }
        wrong = self._unmet(table, rendered, loaded)
        try:
            if loaded.pid not in self._master.processes(deadline).current:
                wrong.append(f"process {loaded.pid} answers the runtime socket and is not the master's")
            left = elsewhere(loaded.sessions, table.primary) | elsewhere(
                old_sessions(self._master, self._names, deadline), table.primary
            )
        except AdapterError as error:
            text = f"replaced processes could not be asked: {error}"
            state = ReceiptState.FAILED if wrong else ReceiptState.UNKNOWN
            return self._receipt(state, table.epoch, "; ".join([*wrong, text]), evidence)
        wrong += [f"{count} write sessions are left on {server}" for server, count in left.items()]
        if wrong:
            return self._receipt(ReceiptState.FAILED, table.epoch, "; ".join(wrong), evidence)
        return self._receipt(ReceiptState.DONE, table.epoch, evidence=evidence)

    def _receipt(
        self, state: ReceiptState, epoch: Epoch, detail: str = "", evidence: Mapping[str, Any] | None = None
    ) -> Receipt:
        return Receipt(self.name, state, epoch, detail.removeprefix(f"{self.name}: "), dict(evidence or {}))
