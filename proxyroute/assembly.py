"""Builds the parts of a cluster from its configuration: which driver, which adapter, which lease."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from proxyroute.adapters import find_adapter
from proxyroute.config_receivers import EmailNotices, NoticeConfig, ScriptNotices, WebhookNotices
from proxyroute.config_values import ClusterConfig
from proxyroute.db.mariadb_compare import MariaDBCompare
from proxyroute.db.mariadb_heir import MariaDBHeir
from proxyroute.db.mariadb_rebuild import MariaDBRebuild
from proxyroute.db.mariadb_remains import MariaDBRemains
from proxyroute.db.mysql_compare import MySQLCompare
from proxyroute.db.mysql_heir import MySQLHeir
from proxyroute.db.mysql_rebuild import MySQLRebuild, named
from proxyroute.db.mysql_remains import MySQLRemains
from proxyroute.db.probe import RowProbe
from proxyroute.db.recognised import recognised
from proxyroute.db.remains import HostRemains
from proxyroute.db.seat import LockSeat
from proxyroute.history import Ledger, rebuilt
from proxyroute.hooks import Scripts
from proxyroute.lease.claims import Claims
from proxyroute.lease.database import DatabaseLease
from proxyroute.lease.local import LocalLease
from proxyroute.lease.pacemaker import PacemakerLease
from proxyroute.lease.pacemaker_cluster import PacemakerCluster
from proxyroute.notify import Ended, Notifier
from proxyroute.notify_choice import kinds_of
from proxyroute.notify_receivers import Mail, Receiver, Script, Webhook
from proxyroute.parts import Parts, Salvage
from proxyroute.ports import Adapter, Lease, Server
from proxyroute.routes import Routes
from proxyroute.site import Site
from proxyroute.standing import Book
from proxyroute.trust import authorities


class _Permits(TypedDict):
    permit: Callable[[], None] | None
    claim: Callable[[], None] | None


def build_parts(config: ClusterConfig, *, continuous: bool = False, permit: Callable[[], None] | None = None) -> Parts:
    """Returns the parts of one cluster; nothing is connected yet. Raises ConfigError when a secret cannot be read.

    ``permit`` raises LeaseLost when a new connection may change nothing any more.
    """
    ledger = Ledger(journal_folder(config))
    return Parts(
        site=Site(config.name, build_servers(config, permit)),
        routes=Routes(build_adapters(config), [p.name for p in config.proxies if p.absent]),
        hooks=Scripts(config.scripts.moments, config.scripts.timeout, config.scripts.arguments),
        probe=RowProbe(config.proof.schema, config.proof.account.login()) if config.proof else None,
        salvage=Salvage(
            dead=lambda name, flavour: build_dead_server(config, name, flavour),
            heir=lambda name, flavour: build_heir(config, name, flavour, permit),
            archive=archive_folder(config),
        ),
        continuous=continuous,
        aside=lambda: _aside(config),
        rebuilt=lambda: rebuilt(ledger.summaries()),
    )


def _aside(config: ClusterConfig) -> tuple[str, ...] | None:
    standing = Book(standing_file(config)).read()
    return None if standing.unreadable else tuple(standing.maintenance)


def build_servers(config: ClusterConfig, permit: Callable[[], None] | None = None) -> dict[str, Server]:
    """Returns a driver for each server; nothing is connected yet. Raises ConfigError when a secret cannot be read."""
    login = config.account.login()
    return {
        s.name: recognised(
            s.name,
            s.address,
            login,
            config.replication_of(s.name).replication_login(),
            config.policy.monitor_users,
            permit,
        )
        for s in config.servers.values()
    }


def build_adapters(config: ClusterConfig) -> list[Adapter]:
    """Returns an adapter for each configured proxy; one that nobody uses is not even imported."""
    return [find_adapter(p.type)(p.name, config.name, config.endpoints, p.settings) for p in config.proxies]


def cluster_folder(config: ClusterConfig) -> Path:
    """Returns where the lease and the epochs of the cluster are kept."""
    return config.state_dir / config.name


def standing_file(config: ClusterConfig) -> Path:
    """Returns where the standing orders of the cluster are kept."""
    return cluster_folder(config) / "standing.json"


def journal_folder(config: ClusterConfig) -> Path:
    """Returns where the cluster's journals are kept."""
    return cluster_folder(config) / "journal"


def build_rebuilders(
    config: ClusterConfig,
    flavour: str,
    permit: Callable[[], None] | None = None,
    claim: Callable[[], None] | None = None,
) -> dict[str, MariaDBRebuild] | dict[str, MySQLRebuild]:
    """Returns what takes each server apart and puts it together again, for servers of ``flavour``.

    ``permit`` and ``claim`` raise LeaseLost when the lease of the cluster, and that on the one server that is rebuilt,
    is lost. Raises ConfigError as ``build_parts`` does.
    """
    account, servers = config.rejoin or config.account, config.servers.values()
    login, client = account.login(), account.client_options(flavour)
    asked: _Permits = {"permit": permit, "claim": claim}
    if flavour == "mysql":
        tls = {s.name: config.replication_of(s.name).tls for s in servers}
        files = {name: found.named("clone_ssl_") for name, found in tls.items() if found is not None}
        return {
            s.name: MySQLRebuild(s.name, s.address, login, client, named(s.host), tls=files.get(s.name), **asked)
            for s in servers
        }
    return {s.name: MariaDBRebuild(s.name, s.address, login, client, s.host, **asked) for s in servers}


def build_dead_server(config: ClusterConfig, name: str, flavour: str) -> HostRemains | None:
    """Returns the host of server ``name``, to read what is left there; None where no commands run on it."""
    host = config.servers[name].host
    if host is None:
        return None
    return MySQLRemains(name, host) if flavour == "mysql" else MariaDBRemains(name, host)


def build_heir(
    config: ClusterConfig, name: str, flavour: str, permit: Callable[[], None] | None = None
) -> MariaDBHeir | MySQLHeir:
    """Returns server ``name`` as one that gets what a dead primary had. Raises ConfigError as ``build_parts`` does."""
    account, address = config.rejoin or config.account, config.servers[name].address
    kind = MySQLHeir if flavour == "mysql" else MariaDBHeir
    return kind(name, address, account.login(), account.client_options(flavour), permit)


def build_comparers(
    config: ClusterConfig, flavour: str, claim: Callable[[], None] | None = None
) -> dict[str, MariaDBCompare] | dict[str, MySQLCompare]:
    """Returns each server's side of a comparison; ``claim`` as above. Raises ConfigError as ``build_parts`` does."""
    login, servers = (config.rejoin or config.account).login(), config.servers.values()
    if flavour == "mysql":
        return {s.name: MySQLCompare(s.name, s.address, login, claim) for s in servers}
    return {s.name: MariaDBCompare(s.name, s.address, login, claim) for s in servers}


def archive_folder(config: ClusterConfig) -> Path:
    """Returns where transactions are kept that only one server had."""
    return cluster_folder(config) / "archive"


def build_claim(config: ClusterConfig, server: str) -> Lease:
    """Returns what keeps two engines from rebuilding one server at once; the cluster's lease may be free meanwhile."""
    folder = cluster_folder(config) / "rejoin" / server
    return _build_lease(config, f"{config.name}/rejoin/{server}", f"rejoin/{config.name}/{server}", folder)


def build_lease(config: ClusterConfig) -> Lease:
    """Returns the lease of a cluster; nothing is connected yet. Raises ConfigError when a secret cannot be read."""
    return _build_lease(config, config.name, f"lease/{config.name}", cluster_folder(config))


def _build_lease(config: ClusterConfig, name: str, lock: str, folder: Path) -> Lease:
    """``name`` is that of the lease in etcd, ``lock`` that of the lock on the servers; ``folder`` has its files."""
    lease = config.lease
    if lease.type == "etcd":
        # its HTTP client takes a while to import, and a guard starts before every freeze
        from proxyroute.lease.etcd import EtcdLease
        from proxyroute.lease.etcd_client import EtcdClient

        return EtcdLease(
            EtcdClient(
                lease.endpoints,
                attempt=min(1.0, lease.time / 6),
                verify=authorities(lease.ca),
                cert=(str(lease.cert), str(lease.key)) if lease.cert else None,
                user=lease.user,
                password=lease.password.reveal() if lease.password else "",
            ),
            name,
            lease.time,
        )
    if lease.type == "database":
        login = config.account.login()

        def seats() -> list[LockSeat]:
            return [LockSeat(s.name, s.address, login, lock, lease.time) for s in config.servers.values()]

        return DatabaseLease(seats, len(config.servers), Claims(folder / "epochs"), lease.time)
    if lease.type == "pacemaker":
        return PacemakerLease(PacemakerCluster(lease.node), lease.resource, folder, lease.time)
    return LocalLease(folder)


def permit_of(lease: Lease) -> Callable[[], None] | None:
    """Returns what a new connection has to ask before it changes anything; nothing where nobody else can have it."""
    return lease.check if lease.distributed else None


def build_notifier(config: ClusterConfig, ended: Ended, attempts: int) -> Notifier:
    """Returns what tells the receivers of the cluster; ``ended`` gets what became of each notice. Reads no secret."""
    receivers = [
        (_receiver(f"notices[{number}] {notice.type}", notice), kinds_of(notice.on))
        for number, notice in enumerate(config.notices)
    ]
    return Notifier(receivers, notices_log(config), ended, attempts)


def notices_log(config: ClusterConfig) -> Path:
    """Returns the file that keeps the notices that could not be sent."""
    return cluster_folder(config) / "notices.log"


def _receiver(label: str, of: NoticeConfig) -> Receiver:
    if isinstance(of, WebhookNotices):
        value = of.header_value.reveal if of.header_value else None
        return Webhook(label, of.url.reveal, of.header, value, of.ca, of.timeout)
    if isinstance(of, EmailNotices):
        password = of.password.reveal if of.password else None
        return Mail(label, of.host, of.port_used, of.sender, of.to, of.tls, of.user, password, of.ca, of.timeout)
    assert isinstance(of, ScriptNotices)
    return Script(label, of.run, of.timeout)
