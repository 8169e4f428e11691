"""The JSON:API documents of a MaxScale: what each object looks like, derived from recordings."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import Any

from tests.support.maxscale.bits import Bit
from tests.support.maxscale.command_lists import KEYED_SWITCHOVER, commands
from tests.support.maxscale.machine import Machine, Monitor, Server, Service
from tests.support.maxscale.versions import at_least, defaults

_BUCKETS = [f"{10.0**n:.6f}" for n in range(-6, 6)]
_CONFIG = "/etc/maxscale.cnf"
_PERSISTED = "/var/lib/maxscale/maxscale.cnf.d/{}.cnf"


class Documents:
    """Makes the documents of one MaxScale; ``base`` is how the client has reached it, e.g. ``http://h:8989/v1``."""

    def __init__(self, machine: Machine, base: str) -> None:
        self._m = machine
        self._base = base
        self._new = at_least(machine.version, 23, 2)

    def link(self, *path: str) -> str:
        return "/".join([self._base, *path, ""])

    def relation(self, kind: str, names: Sequence[str], *of: str) -> dict[str, Any]:
        return {
            "data": [{"id": name, "type": kind} for name in names],
            "links": {"related": self.link(kind), "self": self.link(*of, "relationships", kind)},
        }

    def resource(
        self, kind: str, name: str, attributes: dict[str, Any], relations: Mapping[str, Sequence[str]]
    ) -> dict[str, Any]:
        return {
            "attributes": attributes,
            "id": name,
            "links": {"self": self.link(kind, name)},
            "relationships": {k: self.relation(k, names, kind, name) for k, names in relations.items() if names},
            "type": kind,
        }

    # -- servers --

    def server(self, server: Server) -> dict[str, Any]:
        monitor = self._m.owner(server.name)
        monitored = monitor is not None and monitor.running
        kept = monitor is not None and server.read is not None
        attributes: dict[str, Any] = {
            "parameters": dict(server.parameters),
            "replication_lag": 0 if monitored and Bit.RUNNING in server.bits else -1,
            "source": self._source(server.name, runtime=server.runtime, persisted=server.persisted),
            "state": server.state,
            "statistics": self._statistics(server),
            "uptime": 177 if server.read else 0,
            "version_string": server.read.version if server.read else "",
        }
        if not self._new:
            attributes["state_details"] = None
        if kept:
            attributes.update(self._monitored(server))
        relations = {"monitors": [monitor.name] if monitor else [], "services": self.services_of(server.name)}
        return self.resource("servers", server.name, attributes, relations)

    def services_of(self, server: str) -> list[str]:
        monitor = self._m.owner(server)
        return sorted(
            s.name
            for s in self._m.services.values()
            if server in s.servers or (monitor is not None and s.cluster == monitor.name)
        )

    def _monitored(self, server: Server) -> dict[str, Any]:
        read = server.read
        assert read is not None
        source = self._name_of(server)
        return {
            **self._info(server),
            "last_event": server.event or ("master_up" if Bit.MASTER in server.bits else "slave_up"),
            "master_id": self._m.servers[source].read.server_id if source and self._m.servers[source].read else -1,  # type: ignore[union-attr]
            "node_id": read.server_id,
            "triggered_at": formatdate(self._m.started, usegmt=True),
        }

    def _name_of(self, server: Server) -> str | None:
        if server.read is None or server.read.source is None:
            return None
        return next((o.name for o in self._m.servers.values() if o.address == server.read.source), None)

    def _info(self, server: Server) -> dict[str, Any]:
        read, source = server.read, self._name_of(server)
        assert read is not None
        connections = []
        if read.source is not None:
            behind = self._m.servers[source].read if source else None
            connections.append(
                {
                    "connection_name": "",
                    "gtid_io_pos": read.gtid,
                    "last_io_error": "" if read.receiving == "Yes" else "error reconnecting to master",
                    "last_sql_error": "",
                    "master_host": read.source.host,
                    "master_port": read.source.port,
                    "master_server_id": behind.server_id if behind else -1,
                    "master_server_name": source or "",
                    "seconds_behind_master": 0 if read.receiving == "Yes" else None,
                    "slave_io_running": read.receiving,
                    "slave_sql_running": "Yes" if read.applying else "No",
                    **({"using_gtid": "Slave_Pos"} if self._new else {}),
                }
            )
        return {
            "gtid_binlog_pos": read.gtid,
            "gtid_current_pos": read.gtid,
            "lock_held": None,
            "master_group": None,
            "name": server.name,
            "read_only": read.read_only,
            "server_id": read.server_id,
            "slave_connections": connections,
            **({} if self._new else {"state_details": None}),
        }

    def _statistics(self, server: Server) -> dict[str, Any]:
        counts = [{"count": 0, "time": t, "total": 0.0} for t in _BUCKETS]
        times = {
            kind: {"distribution": copy.deepcopy(counts), "operation": kind, "range_base": 10}
            for kind in ("read", "write")
        }
        zero: tuple[str, ...] = (
            "active_operations",
            "connection_pool_empty",
            "failed_auths",
            "max_connections",
            "max_pool_size",
        )
        zero += ("persistent_connections", "reused_connections", "routed_packets", "total_connections")
        more = ("routed_reads", "routed_writes") if at_least(self._m.version, 24, 8) else ()
        return {
            **dict.fromkeys((*zero, *more), 0),
            "adaptive_avg_select_time": "0ns",
            "connections": server.connections,
            "response_time_distribution": times,
        }

    def _source(self, name: str, *, runtime: bool = False, persisted: bool = False) -> dict[str, Any]:
        if runtime:
            return {"file": None, "type": "runtime"}
        return {"file": _PERSISTED.format(name) if persisted else _CONFIG, "type": "static"}

    # -- monitors --

    def monitor(self, monitor: Monitor) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "module": "mariadbmon",
            "parameters": {**monitor.parameters, "password": "*****"},
            "source": self._source(monitor.name),
            "state": "Running" if monitor.running else "Stopped",
            "ticks": monitor.ticks,
        }
        if monitor.running:
            known = [self._m.servers[name] for name in monitor.servers]
            attributes["monitor_diagnostics"] = {
                "master": monitor.primary,
                "master_gtid_domain_id": 0,
                "primary": None,
                "server_info": [self._info(s) for s in known if s.read is not None],
                "state": f"Running {monitor.command}" if monitor.phase == "running" else "Idle",
            }
        names = [s.name for s in self._m.services.values() if s.cluster == monitor.name]
        services = sorted(names, reverse=not self._new)  # as configured, in 22.08
        return self.resource("monitors", monitor.name, attributes, {"servers": monitor.servers, "services": services})

    # -- services --

    def service(self, service: Service) -> dict[str, Any]:
        zero: tuple[str, ...] = (
            "active_operations",
            "connections",
            "failed_auths",
            "max_connections",
            "routed_packets",
        )
        zero += ("total_connections",)
        statistics: dict[str, Any] = dict.fromkeys(zero, 0)
        if self._new:
            statistics |= {"avg_sescmd_history_length": 0.0, "avg_session_lifetime": 0.0}
            statistics |= {"max_sescmd_history_length": 0, "max_session_lifetime": 0}
        if at_least(self._m.version, 24, 8):
            statistics |= {"routed_reads": 0, "routed_writes": 0}
        diagnostics: dict[str, Any] = {"queries": 0, "server_query_statistics": []}
        if service.router == "readwritesplit":
            names = ("replayed_transactions", "ro_transactions", "route_all", "route_master", "route_slave")
            diagnostics |= dict.fromkeys((*names, "rw_transactions", "trx_max_size_exceeded"), 0)
            if not self._new:
                diagnostics |= {"avg_sescmd_history_length": 0.0, "max_sescmd_history_length": 0}
        attributes = {
            "connections": 0,
            "listeners": [self.listener(service)],
            "parameters": {**service.parameters, "type": "service", "password": "*****"},
            "router": service.router,
            "router_diagnostics": diagnostics,
            "source": self._source(service.name),
            "started": formatdate(self._m.started, usegmt=True),
            "state": "Started",
            "statistics": statistics,
            "total_connections": 0,
            "users": [],
            "users_last_update": formatdate(self._m.started, usegmt=True),
        }
        relations = {
            "listeners": [f"{service.name}-Listener"],
            "monitors": [service.cluster] if service.cluster else [],
            "servers": service.servers,
        }
        return self.resource("services", service.name, attributes, relations)

    def listener(self, service: Service) -> dict[str, Any]:
        parameters = {**defaults("listener", self._m.version), "port": service.port, "service": service.name}
        attributes = {"parameters": parameters, "source": self._source(service.name), "state": "Running"}
        found = self.resource("listeners", f"{service.name}-Listener", attributes, {"services": [service.name]})
        del found["links"]
        return found

    # -- the rest --

    def session(self, number: int, service: str, server: str) -> dict[str, Any]:
        """A session that has one server; MaxScale's readwritesplit would have more."""
        attributes = {
            "client": {"cipher": "", "connection_attributes": {}},
            "connected": formatdate(self._m.started, usegmt=True),
            "connections": [{"cipher": "", "connection_id": number, "server": server}],
            "idle": 0.0,
            "io_activity": 0,
            "log": [],
            "memory": {},
            "parameters": dict.fromkeys(("log_error", "log_info", "log_notice", "log_warning"), False),
            "port": 0,
            "queries": [],
            "remote": "127.0.0.1",
            "seconds_alive": 0.0,
            "state": "Session started",
            "thread": 0,
            "user": "app",
        }
        return self.resource("sessions", str(number), attributes, {"services": [service]})

    def maxscale(self) -> dict[str, Any]:
        began = formatdate(self._m.started, usegmt=True)
        machine = {"cores_available": 2, "cores_physical": 2, "cores_virtual": 2.0}
        machine |= {"memory_available": 1, "memory_physical": 1}
        names = ("machine", "nodename", "release", "sysname", "version")
        attributes = {
            "activated_at": began,
            "commit": "0" * 40,
            "config_sync": None,
            "parameters": dict(self._m.parameters),
            "process_datadir": "/var/lib/maxscale/data1",
            "started_at": began,
            "system": {
                "machine": machine,
                "maxscale": {"query_classifier_cache_size": 1, "threads": 2},
                "os": dict.fromkeys(names, ""),
            },
            "uptime": int(time.time() - self._m.started),
            "version": self._m.version,
        }
        return {
            "attributes": attributes,
            "id": "maxscale",
            "type": "maxscale",
        }

    def user(self, name: str) -> dict[str, Any]:
        attributes = {"account": self._m.users[name][1], "created": None, "last_login": None, "last_update": None}
        path = ("users", "inet", name)
        return {
            "attributes": {**attributes, "name": name},
            "id": name,
            "links": {"self": self.link(*path)},
            "type": "inet",
        }

    def module(self) -> dict[str, Any]:
        listed = [self._command(*command) for command in commands(self._m.version)]
        if at_least(self._m.version, 24, 8):
            again = next(copy.deepcopy(c) for c in listed if c["id"] == "switchover")
            del again["attributes"]["arg_min"], again["attributes"]["arg_max"]
            again["attributes"]["parameters"] = [
                {"name": n, "description": d, "required": not k.startswith("["), "type": k}
                for n, d, k in KEYED_SWITCHOVER
            ]
            listed.append(again)
        return {
            "attributes": {"commands": listed},
            "id": "mariadbmon",
            "links": {"self": self.link("modules", "mariadbmon")},
            "type": "modules",
        }

    def _command(
        self, name: str, method: str, least: int, most: int, text: str, arguments: Sequence[tuple[str, str]]
    ) -> dict[str, Any]:
        parameters = [{"description": d, "required": not k.startswith("["), "type": k} for d, k in arguments]
        return {
            "attributes": {
                "arg_max": most, "arg_min": least, "description": text, "method": method, "parameters": parameters,
            },
            "id": name,
            "links": {"self": self.link("modules", "mariadbmon", name)},
            "type": "module_command",
        }  # fmt: skip
