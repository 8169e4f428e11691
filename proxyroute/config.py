"""Reads the configuration file, tells all its mistakes at once, and hands out plain values.

An operation keeps a snapshot of its cluster's configuration in its journal and is healed with that one,
whatever the file says by then: :func:`snapshot` and :func:`from_snapshot` are each other's inverse. A snapshot
has absolute paths and names where secrets are; it never holds one.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from proxyroute.adapters import find_adapter, installed_adapters
from proxyroute.config_fill import check_shape, fill, secret_of
from proxyroute.config_lease import LeaseConfig
from proxyroute.config_notices import read_notices, settings_of
from proxyroute.config_secrets import Secret
from proxyroute.config_shape import (
    EXAMPLES,
    LONGEST_SCRIPT,
    NAME_HELP,
    AccountShape,
    ClusterShape,
    FileShape,
    HostShape,
    LeaseShape,
    is_name,
)
from proxyroute.config_unique import check_addresses, check_proxies
from proxyroute.config_values import (
    Account,
    ClusterConfig,
    Config,
    ProofConfig,
    ProxyConfig,
    ScriptsConfig,
    ServeConfig,
    ServerConfig,
    Tls,
)
from proxyroute.config_vrrp import read_vrrp
from proxyroute.config_web import WebConfig
from proxyroute.config_yaml import Document, InvalidConfig, Problem, Where, dotted, read_document, suggest
from proxyroute.errors import ConfigError
from proxyroute.host import Host, prefix
from proxyroute.model import Address
from proxyroute.policy import AGGRESSIVE, FailoverPolicy, Policy

__all__ = [
    "DEFAULT_PATH",
    "Account",
    "ClusterConfig",
    "Config",
    "InvalidConfig",
    "Problem",
    "ProofConfig",
    "ProxyConfig",
    "ScriptsConfig",
    "Secret",
    "ServerConfig",
    "Tls",
    "config_path",
    "from_snapshot",
    "load",
    "snapshot",
]

VERSION = 1
DEFAULT_PATH = Path("/etc/proxyroute/proxyroute.yml")
PATH_VARIABLE = "PROXYROUTE_CONFIG"

_MOMENTS = ("address_down", "address_up", "fence")
_POLICY_HIDDEN = ("probe_schema", "aside", "rebuilt")
_POLICY_CHOICES = {"freeze": ("flush_tables", "backup_stage"), "order": ("lock_early", "read_only_first")}
_POLICY_ABOVE_ZERO = ("freeze_budget", "lock_attempt", "warm_up", "settle", "undo")


def config_path(option: str | Path | None = None) -> Path:
    """Returns the file to read: ``option`` (``--config``), else ``$PROXYROUTE_CONFIG``, else the default."""
    return Path(option or os.environ.get(PATH_VARIABLE) or DEFAULT_PATH)


def load(path: Path) -> Config:
    """Reads a configuration file.

    Raises ConfigError when it cannot be read, and InvalidConfig with every mistake in it: file, line, field,
    what is wrong and what would be right. Secrets are not read.
    """
    document = read_document(path)
    values = document.values
    _check_file(values, document)
    clusters = _mapping(_mapping(values).get("clusters"))
    built = {name: _Cluster(name, _mapping(v), document, ("clusters", name)) for name, v in clusters.items()}
    check_addresses(built, document)
    check_proxies(built, document)
    web = _mapping(values).get("web")
    settings = fill(WebConfig, _mapping(web), document, ("web",)) if web is not None else None
    document.finish()
    shape = FileShape.model_validate(values)
    state_dir = document.base / shape.state_dir
    clusters_of = {name: built[name].assemble(part, state_dir, shape.lease) for name, part in shape.clusters.items()}
    return Config(path, clusters_of, state_dir, settings, shape.log or "")


def snapshot(cluster: ClusterConfig) -> dict[str, Any]:
    """Returns ``cluster`` as JSON values: absolute paths, references to secrets, never a secret."""
    policy = {k: _json(v) for k, v in dataclasses.asdict(cluster.policy).items() if k not in _POLICY_HIDDEN}
    servers = {
        s.name: {"address": str(s.address)}
        | ({"replication": _account_json(s.replication)} if s.replication else {})
        | ({"host": _host_json(s.host)} if s.host else {})
        | ({"node": s.node} if s.node else {})
        for s in cluster.servers.values()
    }
    values: dict[str, Any] = {
        "account": _account_json(cluster.account),
        "replication": _account_json(cluster.replication),
        "servers": servers,
        "switchover": policy,
        "scripts": {
            "timeout": cluster.scripts.timeout,
            "arguments": cluster.scripts.arguments,
            **{moment: list(argv) for moment, argv in cluster.scripts.moments.items()},
        },
        "proxies": [
            {"type": p.type, "name": p.name, "absent": p.absent, **_settings_json(p.settings)} for p in cluster.proxies
        ],
    }
    if cluster.lease != LeaseConfig():
        values["lease"] = cluster.lease.to_json()
    if cluster.serve != ServeConfig():
        values["serve"] = dataclasses.asdict(cluster.serve)
    if cluster.failover != FailoverPolicy():
        values["failover"] = dataclasses.asdict(cluster.failover)
    if cluster.notices:
        values["notices"] = [settings_of(notice) for notice in cluster.notices]
    if cluster.vrrp:
        values["vrrp"] = _settings_json(cluster.vrrp)
    if cluster.proof:
        values["proof"] = {"schema": cluster.proof.schema, "account": _account_json(cluster.proof.account)}
    if cluster.rejoin:
        values["rejoin"] = {"account": _account_json(cluster.rejoin)}
    return {
        "version": VERSION,
        "file": cluster.file,
        "state_dir": str(cluster.state_dir),
        "name": cluster.name,
        "cluster": values,
    }


def from_snapshot(value: Mapping[str, Any]) -> ClusterConfig:
    """Rebuilds what :func:`snapshot` was given. Raises InvalidConfig, e.g. when an adapter is gone."""
    name = str(value["name"])
    document = Document(file=f"{value['file']} as it was when the operation began", base=Path("/"))
    if value["version"] != VERSION:
        text = f"has version {value['version']}, and this program reads {VERSION}; use the program that wrote it"
        raise InvalidConfig([Problem(document.file, 0, "version", text)])
    cluster = _within_bounds(value["cluster"])
    check_shape(ClusterShape, cluster, document, ("clusters", name))
    built = _Cluster(name, cluster, document, ("clusters", name))
    document.finish()
    config = built.assemble(ClusterShape.model_validate(cluster), Path(value["state_dir"]), LeaseShape())
    return dataclasses.replace(config, file=str(value["file"]))


def _within_bounds(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a snapshot in which a time-out of scripts is one: a former version took any, and that is to be healed."""
    scripts = dict(cluster.get("scripts", {}))
    if "timeout" in scripts:
        scripts["timeout"] = min(scripts["timeout"], LONGEST_SCRIPT) or LONGEST_SCRIPT
    return {**cluster, **({"scripts": scripts} if scripts else {})}


def _check_file(values: Any, document: Document) -> None:
    check_shape(FileShape, values, document)
    clusters = _mapping(values).get("clusters")
    if isinstance(clusters, dict) and not clusters:
        document.report(("clusters",), f"is empty; write {EXAMPLES['clusters']}")
    for name in _mapping(clusters):
        if not is_name(name):
            document.report(("clusters", name), f"is not a name; {NAME_HELP}")


class _Cluster:
    """One cluster of the file: judges what the shape alone cannot, and assembles the values.

    It works on the raw values, so that a mistake in one place does not hide those in others.
    """

    def __init__(self, name: str, values: Mapping[str, Any], document: Document, where: Where) -> None:
        self.name = name
        self._values = values
        self._document = document
        self._where = where
        self._servers = _mapping(values.get("servers"))
        self._check_servers()
        self._policy = self._read_policy()
        self._serve = fill(ServeConfig, _mapping(values.get("serve")), document, (*where, "serve"))
        self._failover = self._read_failover()
        self._proxies = self._read_proxies()
        self._vrrp = read_vrrp(values.get("vrrp"), _sequence(values.get("proxies")), document, (*where, "vrrp"))
        self._notices = read_notices(_sequence(values.get("notices")), document, (*where, "notices"))

    def addresses(self) -> list[tuple[Where, Any]]:
        """Returns each configured server address and where it stands."""
        found: list[tuple[Where, Any]] = []
        for name, server in self._servers.items():
            here = (*self._where, "servers", name)
            if isinstance(server, Mapping):
                found.append(((*here, "address"), server.get("address")))
            else:
                found.append((here, server))
        return found

    def proxies(self) -> list[tuple[Where, ProxyConfig]]:
        """Returns each proxy that could be understood and where it stands."""
        return self._proxies

    def _check_servers(self) -> None:
        if isinstance(self._values.get("servers"), dict) and not self._servers:
            self._document.report((*self._where, "servers"), f"is empty; write {EXAMPLES['servers']}")
        for name in self._servers:
            if not is_name(name):
                self._document.report((*self._where, "servers", name), f"is not a name; {NAME_HELP}")

    def _read_policy(self) -> Policy | None:
        where = (*self._where, "switchover")
        values = _mapping(self._values.get("switchover"))
        for key in ("prefer", "never"):
            names = values.get(key)
            for n, name in enumerate(names if isinstance(names, list) else []):
                if str(name) not in self._servers:
                    text = f"there is no server {name!r}; {suggest(str(name), self._servers)}"
                    self._document.report((*where, key, n), text)
                elif key == "never" and name in _sequence(values.get("prefer")):
                    self._document.report((*where, key, n), f"{name} is preferred as well; remove it from one of them")
        for key, choices in _POLICY_CHOICES.items():
            if isinstance(values.get(key), str) and values[key] not in choices:
                self._document.report((*where, key), f"must be {' or '.join(choices)}")
        policy = fill(Policy, values, self._document, where, hidden=_POLICY_HIDDEN)
        if policy is not None:
            for key in _POLICY_ABOVE_ZERO:
                if getattr(policy, key) <= 0:
                    self._document.report((*where, key), "must be above zero, or nothing could ever be done in it")
            if policy.max_connections < 0:
                self._document.report((*where, "max_connections"), "must be 1 or more, or 0 to leave the limit alone")
        return policy

    def _read_failover(self) -> FailoverPolicy | None:
        """What is written counts; for what is not, the profile."""
        given = {k: v for k, v in _mapping(self._values.get("failover")).items() if v is not None}
        base = AGGRESSIVE if given.get("profile") == "aggressive" else {}
        return fill(FailoverPolicy, {**base, **given}, self._document, (*self._where, "failover"))

    def _read_proxies(self) -> list[tuple[Where, ProxyConfig]]:
        proxies: list[tuple[Where, ProxyConfig]] = []
        names: set[str] = set()
        for n, values in enumerate(_sequence(self._values.get("proxies"))):
            where = (*self._where, "proxies", n)
            if isinstance(values, Mapping) and (proxy := self._read_proxy(values, where, names)) is not None:
                proxies.append((where, proxy))
        return proxies

    def _read_proxy(self, values: Mapping[str, Any], where: Where, names: set[str]) -> ProxyConfig | None:
        rest = dict(values)
        kind, name, absent = rest.pop("type", None), rest.pop("name", None), rest.pop("absent", None)
        if name is None:
            self._document.report((*where, "name"), f"is missing; write {EXAMPLES['name']}")
        elif isinstance(name, int | float):
            self._document.report((*where, "name"), "must be text; put it into quotes")
        elif not isinstance(name, str) or not is_name(name):
            self._document.report((*where, "name"), f"is not a name; {NAME_HELP}")
        elif name in names:
            self._document.report((*where, "name"), f"another proxy is already called {name}; names are unique")
        names.add(str(name))
        if not isinstance(absent, bool | None):
            self._document.report((*where, "absent"), "must be true or false")
        settings = self._read_settings(kind, rest, where)
        return ProxyConfig(str(kind), str(name), bool(absent), settings) if settings is not None else None

    def _read_settings(self, kind: Any, values: Mapping[str, Any], where: Where) -> object | None:
        """Returns the settings of an adapter; only the one that is asked for is imported."""
        try:
            known = installed_adapters()
            if isinstance(kind, str) and kind in known:
                return fill(find_adapter(kind).Settings, values, self._document, where)
        except ConfigError as error:
            self._document.report((*where, "type"), str(error))
            return None
        text = f"is missing; write {EXAMPLES['type']}" if kind is None else f"there is no adapter {kind!r}"
        self._document.report((*where, "type"), f"{text}; {suggest(str(kind), known)}")
        return None

    def assemble(self, shape: ClusterShape, state_dir: Path, lease: LeaseShape) -> ClusterConfig:
        """Returns the values, with ``lease`` unless the cluster has one; called only when nothing was noted."""
        assert self._policy is not None
        assert self._serve is not None
        assert self._failover is not None
        base = self._document.base
        # ours as well: it writes only on a server that rejoins
        trusted = [*self._policy.monitor_users, *([shape.rejoin.account.user] if shape.rejoin else [])]
        proof = None
        if shape.proof is not None:
            proof = ProofConfig(shape.proof.schema_, _account(shape.proof.account, base))
        moments = {moment: getattr(shape.scripts, moment) for moment in _MOMENTS if getattr(shape.scripts, moment)}
        return ClusterConfig(
            name=self.name,
            file=self._document.file,
            state_dir=state_dir,
            account=_account(shape.account, base),
            replication=_account(shape.replication, base, remote=True),
            servers={
                name: ServerConfig(
                    name,
                    s.address,
                    _account(s.replication, base, remote=True) if s.replication else None,
                    _host(name, s.address, s.host) if s.host else None,
                    s.node,
                )
                for name, s in shape.servers.items()
            },
            policy=dataclasses.replace(
                self._policy, probe_schema=proof.schema if proof else "", monitor_users=tuple(dict.fromkeys(trusted))
            ),
            proof=proof,
            scripts=ScriptsConfig(shape.scripts.timeout, shape.scripts.arguments, moments),
            proxies=tuple(proxy for _, proxy in self._proxies),
            serve=self._serve,
            lease=_lease(shape.lease or lease, base),
            failover=self._failover,
            rejoin=_account(shape.rejoin.account, base) if shape.rejoin else None,
            notices=self._notices,
            vrrp=self._vrrp,
            lines={dotted(w[2:]): n for w, n in self._document.lines.items() if w[:2] == self._where and len(w) > 2},
        )


def _lease(shape: LeaseShape, base: Path) -> LeaseConfig:
    files = {name: base / path for name in ("ca", "cert", "key") if (path := getattr(shape, name)) is not None}
    password = secret_of(shape.password, base) if shape.password is not None else None
    endpoints = tuple(endpoint.rstrip("/") for endpoint in shape.endpoints)
    named: dict[str, Any] = {"user": shape.user, "resource": shape.resource, "node": shape.node}
    return LeaseConfig(shape.type, shape.time, endpoints, password=password, **named, **files)


def _account(shape: AccountShape, base: Path, *, remote: bool = False) -> Account:
    """Returns the account; the TLS files of a ``remote`` one lie on the database servers, not here."""
    secret = secret_of(shape.password, base)
    if shape.tls is None:
        return Account(shape.user, secret)
    found = {name: path for name in ("ca", "cert", "key") if (path := getattr(shape.tls, name)) is not None}
    paths = found if remote else {name: base / path for name, path in found.items()}
    return Account(shape.user, secret, Tls(**paths, verify=shape.tls.verify))


def _host(server: str, address: Address, shape: HostShape) -> Host:
    data_dir = "" if shape.data_dir == "auto" else shape.data_dir.rstrip("/")
    index = "" if shape.binlog_index == "auto" else shape.binlog_index
    return Host(server, prefix(shape.shell, shape.user, address.host), data_dir, shape.stop, shape.start, index)


def _host_json(host: Host) -> dict[str, Any]:
    return {
        "shell": list(host.shell),
        "data_dir": host.data_dir or "auto",
        "binlog_index": host.binlog_index or "auto",
        "stop": list(host.stop),
        "start": list(host.start),
    }


def _account_json(account: Account) -> dict[str, Any]:
    value: dict[str, Any] = {"user": account.user, "password": account.password.reference}
    if account.tls:
        value["tls"] = {name: _json(item) for name, item in dataclasses.asdict(account.tls).items()}
    return value


def _settings_json(settings: Any) -> dict[str, Any]:
    values: dict[str, Any] = TypeAdapter(type(settings)).dump_python(settings, mode="json")
    secrets = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    return values | {name: found.reference for name, found in secrets.items() if isinstance(found, Secret)}


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
