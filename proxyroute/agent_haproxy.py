"""The HAProxy of a proxy host: driven like the one beside an engine, but a fresh start serves no writes.

Between changes the map file says that the write route is closed. A HAProxy that starts, for whatever reason, goes by
that file, so it is closed until the agent has found its epoch confirmed. Only for a reload that the agent itself
makes does the file say where writes go, so that nobody notices it.
"""

from __future__ import annotations

from dataclasses import replace

from proxyroute.adapters.haproxy import HAProxyAdapter
from proxyroute.errors import AdapterError, TimedOut
from proxyroute.haproxy import disk
from proxyroute.haproxy.loaded import read_pid, read_route
from proxyroute.haproxy.process import end_sessions
from proxyroute.haproxy.release import RELEASED
from proxyroute.haproxy.routemap import CLOSED, NO_HOLD, RouteMap
from proxyroute.haproxy.settings import Settings
from proxyroute.model import Deadline, Endpoint, Epoch, Receipt, ReceiptState, RouteTable


class SealedHAProxy(HAProxyAdapter):
    """One HAProxy whose map file is closed while nothing is being changed."""

    def __init__(
        self,
        name: str,
        cluster: str,
        servers: tuple[Endpoint, ...],
        settings: Settings,
        in_force: RouteTable | None,
    ) -> None:
        """``in_force`` is the route that counts; None before the first."""
        super().__init__(name, cluster, servers, settings)
        self._route = in_force

    def seal(self) -> bool:
        """Closes the map file, in case we were ended in the midst of a reload; tells whether it was open.

        Raises AdapterError.
        """
        found = disk.read(self.name, self._settings)
        if found.route is None or found.route.primary is None:
            return False
        table = disk.table_of(self._names.cluster, self._servers, found.route)
        return bool(disk.write_map(self.name, self._settings, self._at_rest(table)))

    def shut(self, epoch: Epoch, deadline: Deadline) -> None:
        """Closes the write route in memory, under ``epoch``, and ends its sessions. Raises AdapterError, TimedOut."""
        self._set_entries({"route": f"{CLOSED}/{epoch}"}, deadline)
        end_sessions(self._runtime, self._master, self._names, None, deadline)

    def follows(self, deadline: Deadline) -> bool:
        """Tells whether writes go by the route that counts. Raises AdapterError when HAProxy does not answer."""
        loaded = read_route(self._runtime, self._settings, deadline).get("route")
        return self._route is not None and loaded == RouteMap.of(self._route).route

    def pid(self, deadline: Deadline) -> int:
        """Returns the pid of the process that serves. Raises AdapterError when HAProxy does not answer."""
        return read_pid(self._runtime, deadline)

    def prepare(self, target: RouteTable, abort: RouteTable, deadline: Deadline) -> Receipt:
        """As beside an engine; a HAProxy that never had its files gets them, closed, so that it can be started."""
        receipt = super().prepare(target, abort, deadline)
        if receipt.state is not ReceiptState.FAILED or self._settings.config_file.exists():
            return receipt
        installed = self.install(self._at_rest(abort), deadline)
        if installed.state is ReceiptState.DONE:
            return replace(receipt, detail=f"{receipt.detail}; its files are there for its first start")
        return replace(receipt, detail=f"{receipt.detail}; its files could not be made: {installed.detail}")

    def apply(self, table: RouteTable, deadline: Deadline) -> Receipt:
        """Moves the write route and lets those go who wait, by one command: told apart, they would wait longer."""
        wanted = {"route": RouteMap.of(table).route, "hold": NO_HOLD}
        try:
            entries = self._entries(deadline)
            self._refuse_outdated(table, entries, None)
            if differing := {key: value for key, value in wanted.items() if entries.get(key) != value}:
                entries = self._set_entries(differing, deadline)
        except AdapterError as error:
            return self._receipt(ReceiptState.FAILED, table.epoch, str(error))
        except TimedOut as error:
            return self._receipt(ReceiptState.UNKNOWN, table.epoch, str(error))
        evidence = {"primary": table.primary, "route": entries["route"], RELEASED: True}
        return self._receipt(ReceiptState.DONE, table.epoch, evidence=evidence)

    def _at_rest(self, table: RouteTable) -> RouteTable:
        return replace(table, primary=None)

    def _in_force(self) -> RouteTable | None:
        return self._route

    def _reload(self, table: RouteTable, before: disk.OnDisk, deadline: Deadline) -> int:
        disk.write_map(self.name, self._settings, table)
        try:
            return super()._reload(table, before, deadline)
        finally:
            self._sealed(table)

    def _sealed(self, table: RouteTable) -> None:
        try:
            disk.write_map(self.name, self._settings, self._at_rest(table))
        except AdapterError as error:
            raise AdapterError(self.name, f"{error}; a HAProxy that starts now is open without being asked") from None
