"""``proxyroute grants``: the SQL of the accounts, for the version that the servers have."""

from __future__ import annotations

from dataclasses import dataclass

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.config import ClusterConfig
from proxyroute.db import mariadb_grants, mysql_grants
from proxyroute.db.discovery import greeting
from proxyroute.db.grants import Accounts
from proxyroute.db.mysql_spelling import FLOOR
from proxyroute.db.rows import parse_version
from proxyroute.db.session import flavour_of
from proxyroute.errors import ConfigError, Refused, Unreachable
from proxyroute.model import Deadline

_SECONDS = 5.0
_NAMES = {"mariadb": "MariaDB", "mysql": "MySQL"}
_FLOORS = {"mariadb": mariadb_grants.FLOOR, "mysql": FLOOR}
_MARIADB_HAS_NO = range(6, 10)
"""These major versions; MySQL has some of them."""


@dataclass(frozen=True)
class _Asked:
    """What the servers say about themselves; ``scheduler`` is None when nobody could log in."""

    flavour: str
    version: tuple[int, int, int]
    scheduler: bool | None


@click.command(short_help="Print the SQL of the least-privileged accounts.")
@click.option("--version-of", metavar="VERSION", help="For this server version, e.g. 10.11.6, without asking.")
@click.option("--flavour", type=click.Choice(["mariadb", "mysql"]), help="With --version-of; mariadb by default.")
@click.option("--scheduler", is_flag=True, help="The event scheduler is on; found out when servers can be asked.")
@click.option("--force", is_flag=True, help="Include what `switchover --force` needs to lock accounts.")
@click.option("--engine-host", default="%", show_default=True, help="From where ProxyRoute connects.")
@click.option("--replica-host", default="%", show_default=True, help="From where replicas connect.")
@common_options
@pass_context
def grants(
    ctx: Context,
    version_of: str | None,
    flavour: str | None,
    scheduler: bool,
    force: bool,
    engine_host: str,
    replica_host: str,
) -> None:
    """Print the SQL of the least-privileged accounts.

    To be run once, on the primary, with the passwords filled in; again does no harm. User names come from the
    configuration; with --version-of none is needed. The servers are asked for their version even when the account
    is not there yet.
    """
    cluster = None if version_of and not ctx.config_file.exists() else ctx.cluster
    if flavour and not version_of:
        raise ConfigError("--flavour goes with --version-of; servers that are asked tell theirs")
    asked = _Asked(flavour or "mariadb", _version(version_of), None) if version_of else _ask(ctx, ctx.cluster)
    _refuse_unsupported(asked)
    mysql = asked.flavour == "mysql"
    scheduled = not mysql and (scheduler or bool(asked.scheduler))
    proof = cluster.proof if cluster else None
    accounts = Accounts(
        cluster.account.user if cluster else "proxyroute",
        engine_host,
        replication_user=cluster.replication.user if cluster else "replication",
        replication_host=replica_host,
        probe_user=proof.account.user if proof else "",
        probe_host=engine_host,
        probe_schema=proof.schema if proof else "",
    )
    if mysql:
        statements = mysql_grants.account_statements(asked.version, accounts, force=force)
        privileges = mysql_grants.engine_privileges(asked.version, force=force)
    else:
        statements = mariadb_grants.account_statements(asked.version, accounts, scheduler=scheduled, force=force)
        privileges = mariadb_grants.engine_privileges(asked.version, scheduler=scheduled, force=force)
    if cluster and cluster.rejoin:
        rebuild = mysql_grants.rebuild_statements if mysql else mariadb_grants.rebuild_statements
        statements += rebuild(asked.version, cluster.rejoin.user, engine_host)
    version = ".".join(map(str, asked.version))
    if ctx.as_json:
        told = {"flavour": asked.flavour, "version": version, "statements": statements, "privileges": privileges}
        ctx.out.json(told)
        return
    ctx.out.raw(f"-- {_NAMES[asked.flavour]} {version}. Run this once, on the primary; fill the passwords in.")
    ctx.out.raw("-- An account that is there keeps its password.")
    if asked.scheduler is None and not scheduler and not mysql:
        ctx.out.raw("-- If event_scheduler is ON there, add --scheduler.")
    for statement in statements:
        ctx.out.raw(f"{statement};")
    ctx.out.raw("\n-- What each privilege is for:")
    for privilege in privileges:
        ctx.out.raw(f"--   {privilege}: {privilege.reason}")
    others = sorted(_further_users(cluster)) if cluster else []
    if others:
        ctx.out.raw(f"-- Replication also logs in as {', '.join(others)}: GRANT REPLICATION SLAVE to them as well.")


def _version(text: str) -> tuple[int, int, int]:
    try:
        return parse_version(text)
    except ValueError:
        raise ConfigError(f"--version-of {text!r} is not a version; write e.g. 10.11.6") from None


def _refuse_unsupported(asked: _Asked) -> None:
    """Raises ConfigError for a version that the flavour does not have, or that is too old for us."""
    if asked.flavour == "mariadb" and asked.version[0] in _MARIADB_HAS_NO:
        raise ConfigError(f"MariaDB has no {asked.version[0]}.{asked.version[1]}; add --flavour mysql")
    floor = _FLOORS[asked.flavour]
    if asked.version < floor:
        told, least = (".".join(map(str, version)) for version in (asked.version, floor))
        raise ConfigError(f"{_NAMES[asked.flavour]} {told} is too old: ProxyRoute needs {least} or later")


def _ask(ctx: Context, cluster: ClusterConfig) -> _Asked:
    """Asks the servers as ourselves; where that is not possible yet, only for what they say before a login."""
    try:
        with ctx.engine(reads=True) as engine:
            seen = engine.look().seen
    except ConfigError:
        seen = ()
    if seen:
        return _Asked(seen[0].flavour, min(s.version for s in seen), any(s.event_scheduler for s in seen))
    reasons = []
    for server in cluster.servers.values():
        try:
            told = greeting(server.address, Deadline.after(_SECONDS))
            return _Asked(flavour_of(told), parse_version(told), None)
        except (Unreachable, ValueError) as error:
            reasons.append(f"  {error}")
    raise Refused("no server says its version; give it by --version-of\n" + "\n".join(reasons))


def _further_users(cluster: ClusterConfig) -> set[str]:
    found = {s.replication.user for s in cluster.servers.values() if s.replication is not None}
    return found - {cluster.replication.user}
