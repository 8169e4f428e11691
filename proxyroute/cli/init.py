"""``proxyroute init``: writes a commented configuration by asking the servers."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from proxyroute.cli.context import Context, common_options, on_terminal, pass_context
from proxyroute.cli.moving import make_folder, move_over, require_writable, write_new
from proxyroute.config import Account, Secret, Tls, load
from proxyroute.config_shape import NAME_HELP, is_name
from proxyroute.db.discovery import Discovery, discover
from proxyroute.db.session import Login
from proxyroute.errors import ConfigError, Refused
from proxyroute.model import Address, Status, View

_TEMPLATE = """\
# Configuration of ProxyRoute; docs/reference/configuration.md explains every field.
# Secrets are never written here: {{file: PATH}}, {{env: NAME}} or {{credential: NAME}} (systemd) say where they are.
# Durations: 250ms, 3s, 2m, 1h, or a number of seconds.
version: 1
state_dir: {state_dir}   # journals, lease, epochs

clusters:
  {cluster}:
    account:                       # ours, the same on every server; `proxyroute grants` prints its SQL
      user: {user}
      password: {password}{tls}

    replication:                   # the account with which a replica logs in at its source
      user: {replication_user}
      password: {replication_password}

    servers:                       # as found on {primary_note}
{servers}

    # switchover:                  # the defaults
    #   prefer: []                 # candidates to take first, best first
    #   never: []                  # servers that never become primary
    #   max_lag: 10s               # a candidate further behind is refused at once
    #   long_transaction: 2s       # writing transactions older than this are waited for ...
    #   long_wait: 10s             # ... this long, then the switchover is refused
    #   freeze_budget: 3s          # writes are blocked no longer than this before all is undone

    # proof:                       # a row written through each route after an operation; opt-in
    #   schema: proxyroute
    #   account: {{user: proxyroute_probe, password: {{file: {folder}/probe.password}}}}

    # scripts:                     # argv lists, no shell
    #   timeout: 10s
    #   address_down: [/usr/local/lib/proxyroute/vip, hook, 10.0.0.100/24, eth0]
    #   address_up: [/usr/local/lib/proxyroute/vip, hook, 10.0.0.100/24, eth0]

    # proxies:
    #   - type: haproxy            # an HAProxy on this host; its configuration is rendered by us
    #     name: edge1
    #     config_file: /etc/haproxy/haproxy.cfg
    #     runtime_socket: /run/haproxy/admin.sock
    #     master_socket: /run/haproxy-master.sock
    #     write: 0.0.0.0:3306
    #     read: 0.0.0.0:3307
    #     stats: 127.0.0.1:8404
"""


@click.command(short_help="Write a commented configuration by asking the servers.")
@click.option("--server", "servers", multiple=True, metavar="HOST:PORT", help="May be repeated.")
@click.option("--user", help="The account with which ProxyRoute logs in.")
@click.option("--password-file", type=click.Path(path_type=Path), help="File that holds its password.")
@click.option("--password-env", metavar="NAME", help="Environment variable that holds its password.")
@click.option("--replication-password-file", type=click.Path(path_type=Path), help="Where replication's will be.")
@click.option("--tls-ca", type=click.Path(path_type=Path), help="Connect by TLS and trust this authority.")
@click.option("--state-dir", type=click.Path(path_type=Path), default=Path("/var/lib/proxyroute"), show_default=True)
@click.option(
    "--from-replication-manager",
    "repman_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Instead of asking: convert replication-manager's config.toml.",
)
@common_options
@pass_context
def init(
    ctx: Context,
    servers: Sequence[str],
    user: str | None,
    password_file: Path | None,
    password_env: str | None,
    replication_password_file: Path | None,
    tls_ca: Path | None,
    state_dir: Path,
    repman_file: Path | None,
) -> None:
    """Write a commented configuration by asking the servers.

    One --server of a cluster is enough: the others are found by following sources and replicas. The cluster is
    called as --cluster says, else "main". Never overwrites a file. Without --password-file and --password-env
    the password is asked for, and kept in a file of mode 600 beside the configuration.

    With --from-replication-manager nobody is asked: what that tool is configured to do is said in our words, with
    what became of each of its options; passwords go to files of mode 600 beside the configuration.

    \b
    Exit codes
      0  written
      2  an option is wrong
      3  refused: the file is there already, or no server answers
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the folder that you are in is gone; type it in another one: cd /") from None
    target, cluster = ctx.config_file.absolute(), ctx.cluster_option or "main"
    if target.exists():
        raise Refused(f"{target} is there already and is never overwritten; name another one by --config FILE")
    if repman_file is not None:
        if servers or user or password_file or password_env or replication_password_file or tls_ca:
            raise ConfigError("--from-replication-manager takes everything from its file; leave the other options out")
        move_over(ctx, repman_file.absolute(), target, state_dir.absolute())
        return
    if not servers or user is None:
        raise ConfigError(
            "--server HOST:PORT and --user USER are needed to ask the servers; or --from-replication-manager FILE"
        )
    if not is_name(cluster):
        raise ConfigError(f"{cluster!r} is not a name for a cluster; {NAME_HELP}")
    addresses = [_address(text) for text in servers]
    require_writable(target.parent)
    tls = Tls(ca=tls_ca.absolute()) if tls_ca else None
    secret, new_password = _secret(password_file, password_env, target.parent / "engine.password", user)
    if new_password is not None:
        login = Login(user, new_password, tls.context() if tls else None)
    else:
        login = Account(user, secret, tls).login()
    found = discover(addresses, login)
    if not found.servers:
        raise Refused("no server answers:\n" + "\n".join(f"  {reason}" for reason in found.silent.values()))
    named = name_servers(found.servers)
    replication = Secret("file", str((replication_password_file or target.parent / "replication.password").absolute()))
    text = _render(target, cluster, Account(user, secret, tls), replication, named, state_dir.absolute())
    make_folder(target.parent)
    if new_password is not None:
        write_new(Path(secret.source), new_password + "\n", 0o600)
    write_new(target, text, 0o644)
    load(target)
    _tell(ctx, target, cluster, named, found, replication)


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise ConfigError(f"--server: {error}") from None


def _secret(file: Path | None, variable: str | None, default: Path, user: str) -> tuple[Secret, str | None]:
    """Returns where the password is, and the password itself when it was typed in and is still to be kept there."""
    if file is not None:
        return Secret("file", str(file.absolute())), None
    if variable is not None:
        return Secret("env", variable), None
    if not on_terminal():
        raise ConfigError(f"the password of {user} is missing; add --password-file FILE or --password-env NAME")
    if default.exists():
        raise Refused(f"{default} is there already; use it by --password-file {default}, or remove it")
    return Secret("file", str(default)), click.prompt(f"Password of {user}", hide_input=True)


def name_servers(servers: Sequence[Status]) -> dict[str, Status]:
    """Gives each server a name, the primary first: the short host names where they tell them apart, else db1, db2, …"""
    view = View("", {str(s.address): s for s in servers})
    ordered = sorted(servers, key=lambda s: (s is not view.primary, s.address))
    hosts = [_short(s.address.host) for s in ordered]
    if len(set(hosts)) < len(hosts) or not all(is_name(host) for host in hosts):
        hosts = [f"db{number}" for number in range(1, len(ordered) + 1)]
    return dict(zip(hosts, ordered, strict=True))


def _short(host: str) -> str:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.partition(".")[0]
    return ""


def _render(
    target: Path, cluster: str, account: Account, replication: Secret, named: dict[str, Status], state_dir: Path
) -> str:
    primary = _primary(named)
    users = [s.source.user for s in named.values() if s.source]
    tls = f"\n      tls: {{ca: {_yaml(str(account.tls.ca))}}}" if account.tls else ""
    width = max(len(name) for name in named)
    rows = [
        f"      {name}:{' ' * (width - len(name))} {_yaml(str(s.address))}   # {_remark(s, name == primary)}"
        for name, s in named.items()
    ]
    return _TEMPLATE.format(
        state_dir=_yaml(str(state_dir)),
        cluster=cluster,
        user=_yaml(account.user),
        password=_reference(account.password),
        tls=tls,
        replication_user=_yaml(users[0] if users else "replication"),
        replication_password=_reference(replication),
        primary_note=f"{primary}, the primary" if primary else "these servers; none of them is clearly the primary",
        servers="\n".join(rows),
        folder=target.parent,
    )


def _primary(named: dict[str, Status]) -> str | None:
    primary = View("", named).primary
    return next((name for name, status in named.items() if status is primary), None)


def _remark(status: Status, primary: bool) -> str:
    role = "the primary" if primary else "replica" if status.sources else "follows nobody"
    return f"{role}, server id {status.server_id}, {status.version_text}"


def _reference(secret: Secret) -> str:
    return f"{{{secret.kind}: {_yaml(secret.source)}}}"


def _yaml(text: str) -> str:
    """Returns ``text`` as a YAML scalar, quoted unless it is read back as the same text without."""
    if re.fullmatch(r"[\w/.:-]+", text) and yaml.safe_load(text) == text:
        return text
    return json.dumps(text, ensure_ascii=False)


def _tell(
    ctx: Context, target: Path, cluster: str, named: dict[str, Status], found: Discovery, replication: Secret
) -> None:
    primary = _primary(named)
    missing = None if Path(replication.source).exists() else replication.source
    if ctx.as_json:
        value: dict[str, Any] = {
            "config": target,
            "cluster": cluster,
            "primary": primary,
            "servers": {name: status.address for name, status in named.items()},
            "silent": {str(address): reason for address, reason in found.silent.items()},
            "missing_files": [missing] if missing else [],
        }
        ctx.out.json(value)
        return
    for name, status in named.items():
        ctx.out.raw(f"  {name}  {status.address}  {_remark(status, name == primary)}")
    for address, reason in found.silent.items():
        ctx.out.line(f"not written, because it does not answer: {address} ({reason})", "warn")
    ctx.out.raw(f"{target} is written.")
    if primary is None:
        ctx.out.line("None of the servers is clearly the primary: `proxyroute check` says more.", "warn")
    if missing:
        ctx.out.raw(f"Put the replication account's password into {missing} (mode 600).")
    ctx.out.raw(f"Next: {ctx.command_line('grants')}, then {ctx.command_line('check')}")
