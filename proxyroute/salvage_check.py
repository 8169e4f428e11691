"""Whether what a primary that dies leaves on its host could be read: tried while it lives, for ``proxyroute check``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proxyroute import room
from proxyroute.assembly import archive_folder, build_dead_server
from proxyroute.config_values import ClusterConfig, ServerConfig
from proxyroute.db.mysql_programs import require_own
from proxyroute.errors import ProxyRouteError, ScriptFailed
from proxyroute.host import Program, output
from proxyroute.model import Deadline, Finding, Severity
from proxyroute.operation import each
from proxyroute.salvage import APPLY, IGNORE

_TRY = 10.0
_SAY = 2.0
"""Seconds beyond that for one that hangs to be ended, and to say what it was."""


def salvage_findings(config: ClusterConfig, server_ids: Mapping[str, int], flavour: str) -> tuple[Finding, ...]:
    """Returns what would keep ``failover.dead_binlog`` from doing what it says, as warnings; nothing for ``ignore``.

    ``server_ids`` are those of the servers that answer, which are of ``flavour``.
    """
    if config.failover.dead_binlog == IGNORE:
        return ()
    found = list(_without(config)) if config.failover.dead_binlog == APPLY else []
    hosts = [s for s in config.servers.values() if s.host is not None]
    if hosts and server_ids:  # else nobody knows of which flavour they are
        found += _programs(config.failover.dead_binlog, flavour)
    deadline = Deadline.after(_TRY + _SAY)
    for name, outcome in each(hosts, lambda s: _try(config, s, server_ids.get(s.name), flavour), deadline).items():
        if isinstance(outcome.error, ProxyRouteError):
            cure = f"let the user of servers.{name}.host read it; where it lies elsewhere, set binlog_index there"
            text = f"what only it has could not be read after its death: {outcome.error}"
            found.append(Finding("host.binlog", Severity.WARNING, name, text, cure))
        else:
            found += outcome.get()
    return tuple(found)


def _without(config: ClusterConfig) -> Iterator[Finding]:
    for server in config.servers.values():
        if server.host is None:
            text = "what only it has could not be applied after its death: there is no way to its host"
            cure = f"configure servers.{server.name}.host"
            yield Finding("failover.dead_binlog", Severity.WARNING, server.name, text, cure)
    if config.rejoin is None:
        text = "dead_binlog: apply needs an account that may write transactions as they were"
        cure = "configure rejoin.account; proxyroute grants prints its SQL"
        yield Finding("failover.dead_binlog", Severity.WARNING, config.name, text, cure)


def _programs(mode: str, flavour: str) -> Iterator[Finding]:
    mysql = flavour == "mysql"
    reader, client = ("mysqlbinlog", "mysql") if mysql else ("mariadb-binlog", "mariadb")
    for program in (reader, *([client] if mode == APPLY else [])):
        deadline = Deadline.after(_TRY)
        try:
            if mysql:
                require_own(program, deadline)
            else:
                output(Program((program, "--no-defaults", "--version")), deadline)
        except ScriptFailed as error:
            cure = f"install {'the client package of MySQL' if mysql else 'the package mariadb-client'} on this host"
            text = f"what only a dead primary has cannot be {'read' if program == reader else 'applied'}: {error}"
            yield Finding("host.program", Severity.WARNING, program, text, cure)


def _try(config: ClusterConfig, server: ServerConfig, server_id: int | None, flavour: str) -> list[Finding]:
    """Looks as a failover would, and compares with what the server itself says, if it answers."""
    dead, deadline = build_dead_server(config, server.name, flavour), Deadline.after(_TRY)
    assert dead is not None
    remains = dead.look(deadline)
    if server_id is None:
        return []
    found = []
    largest = max(remains.logs.values(), default=0)
    if said := room.lacks(archive_folder(config), largest):
        text = (
            f"what only it has could not be kept after its death: a file of its binary log has {largest} bytes, {said}"
        )
        cure = "make room there; older archives may be moved away"
        found.append(Finding("host.room", Severity.WARNING, server.name, text, cure))
    writer = dead.written_by(deadline)
    if writer != server_id:
        text = f"the binary log found in {remains.folder} on its host was written by the server with id {writer}, not"
        cure = f"correct servers.{server.name}.host: data_dir, or binlog_index where the log lies elsewhere"
        found.append(Finding("host.binlog", Severity.WARNING, server.name, f"{text} by this one ({server_id})", cure))
    if not remains.running:
        text = "its process is not seen by the commands on its host: one that hangs would be taken for dead there"
        cure = f"let servers.{server.name}.host lead to where /proc shows the process, in {remains.folder}"
        found.append(Finding("host.process", Severity.WARNING, server.name, text, cure))
    return found


__all__ = ["salvage_findings"]
