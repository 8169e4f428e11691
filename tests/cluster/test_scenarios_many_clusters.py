"""Two engines that both keep many clusters, and one of them dies in the midst of its work."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from proxyroute import journal
from tests.support.accounts import ENGINE
from tests.support.engines import GUARD_DIES, on_host
from tests.support.etcd import Etcd
from tests.support.lab import CLUSTER_NAME, PROGRAM, site_config
from tests.support.mariadb import LocalCluster
from tests.support.process import Daemon, workspace
from tests.support.serving import notices
from tests.support.wait import until

FLAVOURS = ("mysql",)
TIME = 4
FAILOVER = {
    "mode": "automatic",
    "accept_unfenced": True,
    "policy": "most_advanced",
    "quiet_period": "0s",
    "per_day": 100,
}
_COUNT = "(SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER='{}')"


class Realm:
    """Clusters c1 … cN of two servers each, in one configuration for both engines, who share its state."""

    def __init__(self, folder: Path, etcd: Etcd, clusters: Sequence[LocalCluster]) -> None:
        self.folder = folder
        self._etcd = etcd
        self.clusters = {f"c{number}": cluster for number, cluster in enumerate(clusters, 1)}
        self.config = folder / "proxyroute.yml"
        lease = {"type": "etcd", "endpoints": etcd.endpoints, "time": f"{TIME}s"}
        parts = {}
        for name, cluster in self.clusters.items():
            values = site_config(cluster, folder, proof=False, more={"lease": lease, "failover": FAILOVER})
            parts[name] = values["clusters"][CLUSTER_NAME]
        self.config.write_text(yaml.safe_dump({**values, "clusters": parts}, sort_keys=False))

    def holders(self) -> set[str]:
        """Returns the hosts that have the lease of a cluster now."""
        found = self._etcd.content("/proxyroute/").items()
        return {json.loads(text)["holder"].partition(":")[0] for key, text in found if key.endswith("/lease")}

    def closed(self, clusters: Iterable[str]) -> bool:
        """Tells whether no operation of these is open."""
        folders = (self.folder / "state" / cluster / "journal" for cluster in clusters)
        return all(journal.outcome(journal.read(file)) for folder in folders for file in journal.journals(folder))


@pytest.fixture
def realm(servers: type[LocalCluster]) -> Iterator[Realm]:
    """Twenty clusters; four are of the other flavour where there is one, and these are among those that move."""
    with contextlib.ExitStack() as ends:
        folder = workspace()
        etcd = ends.enter_context(Etcd.start(folder / "etcd"))
        kinds = [servers if number % 5 == 0 else LocalCluster for number in range(20)]
        clusters = [ends.enter_context(kind.start(2)) for kind in kinds]
        yield Realm(folder, etcd, clusters)


class Engine:
    """``proxyroute serve`` for all clusters, on a host of its own name."""

    def __init__(self, realm: Realm, host: str, **environment: str) -> None:
        self.log = realm.folder / f"{host}.log"
        argv = [str(PROGRAM), "--config", str(realm.config), "serve", "--json"]
        self.daemon = Daemon(argv, self.log, environment=environment, launcher=on_host(host))

    def told(self, kind: str, cluster: str) -> list[str]:
        return [n["text"] for n in notices(self.log) if (n["kind"], n["cluster"]) == (kind, cluster)]

    def await_all(self, realm: Realm) -> None:
        until(lambda: all(self.told("state", name) for name in realm.clusters), "every cluster to be told of", 60)

    def cost(self, realm: Realm, seconds: float = 5.0) -> dict[str, float]:
        """Returns how many threads it has, how many connections on one server at the most, and its part of a CPU."""
        began, used = time.monotonic(), self._processor()
        until(lambda: time.monotonic() - began > seconds, "the time to pass", 2 * seconds, pause=0.1)
        part = (self._processor() - used) / (time.monotonic() - began)
        servers = [node for cluster in realm.clusters.values() for node in cluster]
        connections = max(int(node.value(_COUNT.format(ENGINE.user))) for node in servers)
        threads = len(os.listdir(f"/proc/{self.daemon.pid}/task"))
        return {"threads": threads, "connections": connections, "processor": round(part, 3)}

    def _processor(self) -> float:
        fields = Path(f"/proc/{self.daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.full
def test_one_of_two_engines_dies_and_the_other_keeps_every_cluster(realm: Realm) -> None:
    """It dies while it fails over several of them; the other one finishes these, and then keeps the rest as well."""
    names = list(realm.clusters)
    first, later = names[:3], names[10:13]
    dying = f"serve/mariadb.stop_receiver:after:{len(first)},{GUARD_DIES}"
    one = Engine(realm, "one", PROXYROUTE_FAULT=dying)
    one.await_all(realm)
    two = Engine(realm, "two")
    try:
        two.await_all(realm)
        quiet = two.cost(realm)
        two.daemon.stop()  # else nobody knows which of them is the quicker one
        for name in first:
            realm.clusters[name]["db1"].kill9()
        until(lambda: not one.daemon.running, "the first engine to die", 30)
        died = time.monotonic()
        assert realm.holders() == {"one"}, "it has died in the midst of its work"
        two.daemon.go_on()
        until(lambda: realm.closed(first), "what it has left open to be closed", 2 * TIME)
        until(
            lambda: "one" not in realm.holders(), "no lease to be its own any more", died + 2 * TIME - time.monotonic()
        )
        for name in later:
            realm.clusters[name]["db1"].kill9()
        moved = first + later
        for name in moved:
            until(realm.clusters[name]["db2"].is_writable, f"{name} to have a primary", 30)
        until(lambda: realm.closed(moved), "everything to be done", 30)
        for name in names:
            writable = [node.name for node in realm.clusters[name] if node.running and node.is_writable()]
            assert writable == ["db2" if name in moved else "db1"], name
        for name in moved:
            realm.clusters[name]["db1"].start()
        for name in moved:
            until(realm.clusters[name]["db1"].replicates, f"{name}/db1 to rejoin", 60)
        busy = two.cost(realm)
        print(f"one engine for {len(names)} clusters: {quiet}; after {len(moved)} failovers: {busy}")
        assert busy["threads"] <= quiet["threads"] + 5, "threads are left over"
        assert busy["connections"] <= quiet["connections"] + 1, "connections are left over"
    finally:
        two.daemon.terminate(100)
    assert two.daemon.wait() == 0, two.log.read_text()
