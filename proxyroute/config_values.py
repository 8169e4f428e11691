"""What a configuration says, as plain values: nothing here knows YAML, lines or pydantic."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxyroute.config_lease import LeaseConfig
from proxyroute.config_receivers import NoticeConfig
from proxyroute.config_secrets import Secret
from proxyroute.config_vrrp import VrrpConfig
from proxyroute.config_web import WebConfig
from proxyroute.config_yaml import suggest
from proxyroute.db.replication import ReplicationLogin
from proxyroute.db.session import Login
from proxyroute.errors import ConfigError
from proxyroute.host import Host
from proxyroute.model import Address, Endpoint, Finding, Severity
from proxyroute.policy import FailoverPolicy, Policy
from proxyroute.trust import machines_own


@dataclass(frozen=True)
class Tls:
    """TLS towards a server. Without ``ca`` the machine's own certificate authorities count."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.ca, self.cert, self.key) if path is not None)

    def named(self, prefix: str) -> dict[str, str]:
        """Returns the paths that are set, as options: ``ca``, ``cert`` and ``key`` after ``prefix``."""
        paths = {"ca": self.ca, "cert": self.cert, "key": self.key}
        return {f"{prefix}{option}": str(path) for option, path in paths.items() if path is not None}

    def context(self) -> ssl.SSLContext:
        """Returns a context to share between connections. Raises ConfigError when a file cannot be used."""
        for path in self.files:
            if not os.access(path, os.R_OK):
                raise ConfigError(f"the TLS file {path} cannot be read; check its path and its owner")
        try:
            context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
            if self.cert is not None:
                context.load_cert_chain(str(self.cert), str(self.key))
        except (ssl.SSLError, OSError) as error:
            names = ", ".join(str(path) for path in self.files)
            raise ConfigError(f"the TLS files cannot be used: {error}; check {names}") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True)
class Account:
    """An account of the database servers."""

    user: str
    password: Secret
    tls: Tls | None = None

    def login(self) -> Login:
        """Returns what a session needs. Raises ConfigError when the password or a TLS file cannot be read."""
        return Login(self.user, self.password.reveal(), self.tls.context() if self.tls else None)

    def replication_login(self) -> ReplicationLogin:
        """Returns what a replica needs to log in at its source; the paths of TLS files are those on that replica.

        Without TLS settings a channel keeps the ones it has. Raises ConfigError when the password cannot be read.
        """
        options: dict[str, Any] = {}
        if self.tls is not None:
            options = {"ssl": True, "ssl_verify": self.tls.verify, **self.tls.named("ssl_")}
        return ReplicationLogin(self.user, self.password.reveal(), options)

    def client_options(self, flavour: str = "mariadb") -> dict[str, Any]:
        """Returns what client programs of ``flavour`` need in their option file. Raises ConfigError likewise."""
        options: dict[str, Any] = {"user": self.user, "password": self.password.reveal()}
        mysql = flavour == "mysql"
        if self.tls is None:
            # without TLS the usual authentication of MySQL wants the server's public key
            return options | ({"ssl-mode": "PREFERRED", "get-server-public-key": True} if mysql else {"skip-ssl": True})
        if mysql:
            options |= {"ssl-mode": "VERIFY_IDENTITY" if self.tls.verify else "REQUIRED"}
            options |= machines_own() if self.tls.verify and self.tls.ca is None else {}
        else:
            options |= {"ssl": True, f"{'' if self.tls.verify else 'skip-'}ssl-verify-server-cert": True}
        return options | self.tls.named("ssl-")


@dataclass(frozen=True)
class ServerConfig:
    """One database server. ``replication`` is set when this server logs in at its source differently.

    ``host`` is how commands run on the machine it lives on; None where they cannot.
    """

    name: str
    address: Address
    replication: Account | None = None
    host: Host | None = None
    node: str = ""
    """The name of its host in the cluster manager; empty: its own."""


@dataclass(frozen=True)
class ProofConfig:
    """The probe row of the proof: in which schema, and by which account."""

    schema: str
    account: Account


@dataclass(frozen=True)
class ScriptsConfig:
    """The site's own scripts, as argv by moment."""

    timeout: float = 10.0
    """Seconds each of them may take."""
    arguments: str = "environment"
    """``replication-manager`` appends that tool's seven positional arguments."""
    moments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ProxyConfig:
    """One proxy. ``settings`` is an instance of its adapter's ``Settings``."""

    type: str
    name: str
    absent: bool
    settings: Any


@dataclass(frozen=True)
class ServeConfig:
    """What ``proxyroute serve`` does, and how often. Durations in seconds."""

    period: float = 1.0
    """Between two readings of the servers."""
    proxies_period: float = 2.0
    """Between two readings of the proxies."""
    assert_routes: bool = True
    """Proxies that are not as they are meant to be are told again."""

    def __post_init__(self) -> None:
        for name in ("period", "proxies_period"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be more than 0 seconds")


@dataclass(frozen=True)
class ClusterConfig:
    """Everything configured about one cluster."""

    name: str
    file: str
    """Where it came from, for messages."""
    state_dir: Path
    account: Account
    replication: Account
    servers: Mapping[str, ServerConfig]
    policy: Policy
    proof: ProofConfig | None
    scripts: ScriptsConfig
    proxies: tuple[ProxyConfig, ...]
    serve: ServeConfig = ServeConfig()
    lease: LeaseConfig = field(default_factory=LeaseConfig)
    failover: FailoverPolicy = field(default_factory=FailoverPolicy)
    rejoin: Account | None = None
    """The account that reads binary logs and data, and puts them in place; without it the engine's own."""
    notices: tuple[NoticeConfig, ...] = ()
    """Who is told, in the order of the file."""
    vrrp: VrrpConfig | None = None
    """A virtual address that keepalived moves between proxy hosts."""
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)
    """In which line of the file each field stands, by its path below the cluster; what is not there is a default."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All servers, in the order of the file."""
        return tuple(Endpoint(server.name, server.address) for server in self.servers.values())

    @property
    def with_hosts(self) -> tuple[str, ...]:
        """The servers on whose hosts commands can be run."""
        return tuple(s.name for s in self.servers.values() if s.host is not None)

    def replication_of(self, server: str) -> Account:
        """Returns the account with which ``server`` logs in at its source. Raises KeyError for another name."""
        return self.servers[server].replication or self.replication

    def findings(self) -> tuple[Finding, ...]:
        """Returns what is wrong with the files, variables and programs this configuration refers to."""
        local = {"account": self.account} | ({"proof.account": self.proof.account} if self.proof else {})
        local |= {"rejoin.account": self.rejoin} if self.rejoin else {}
        remote = {"replication": self.replication}
        remote |= {f"{s.name}.replication": s.replication for s in self.servers.values() if s.replication}
        found = [account.password.finding(subject) for subject, account in (local | remote).items()]
        found += [_tls_finding(subject, account.tls) for subject, account in local.items()]
        found += self.lease.findings()
        found += [_program_finding(moment, argv) for moment, argv in self.scripts.moments.items()]
        for number, notice in enumerate(self.notices):
            found += notice.findings(f"notices[{number}]")
        return tuple(finding for finding in found if finding is not None)


@dataclass(frozen=True)
class Config:
    """A configuration file: its clusters by name."""

    path: Path
    clusters: Mapping[str, ClusterConfig]
    state_dir: Path = Path()
    web: WebConfig | None = None
    """None: nothing is offered over HTTP."""
    log: str = ""
    """How ``serve`` writes: ``console`` or ``json``; by default for people on a terminal, else as JSON."""

    @property
    def tokens_file(self) -> Path:
        """Where the hashes of the tokens for the web are."""
        return (self.web.tokens if self.web is not None else None) or self.state_dir / "tokens.json"

    def cluster(self, name: str | None) -> ClusterConfig:
        """Returns cluster ``name``; without a name the only one. Raises ConfigError, saying what to type."""
        names = ", ".join(self.clusters)
        if name is None:
            if len(self.clusters) == 1:
                return next(iter(self.clusters.values()))
            raise ConfigError(f"{self.path} has several clusters; add --cluster NAME with one of: {names}")
        if name not in self.clusters:
            raise ConfigError(f"{self.path} has no cluster {name!r}; {suggest(name, self.clusters)}")
        return self.clusters[name]


def _tls_finding(subject: str, tls: Tls | None) -> Finding | None:
    if tls is None:
        return None
    try:
        tls.context()
    except ConfigError as error:
        what, _, cure = str(error).partition("; ")
        return Finding("config.tls", Severity.ERROR, subject, what, cure)
    if tls.verify:
        return None
    text = "the server's certificate is not verified: anybody in between can read the password"
    return Finding("config.tls-unverified", Severity.WARNING, subject, text, "set verify: true and name the ca")


def _program_finding(moment: str, argv: tuple[str, ...]) -> Finding | None:
    if any(os.access(Path(folder, argv[0]), os.X_OK) for folder in os.get_exec_path()):
        return None
    text = f"the program {argv[0]} does not exist or is not executable"
    return Finding("config.script", Severity.ERROR, moment, text, f"correct scripts.{moment}, or chmod +x {argv[0]}")
