"""``scripts/bench switchover --proxy maxscale``: the product's switchovers through a MaxScale, driven.

It measures on the MaxScale that ``PROXYROUTE_MAXSCALE_URL`` names, which must run on this host, for the cluster is on
loopback: servers, one readwritesplit with everything that hides a switchover, and its listener are made there for the
time of the bench and removed again. Where none is named it measures on the test double, and says so: what becomes of
the writes is told as of a MaxScale then, the milliseconds are Python's. There is no floor: the barest sequence has no
proxy of this kind.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import urllib.error
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from proxyroute.model import Address
from tests.support.lab import UNDER_LOAD, Lab, site_config
from tests.support.load import Load, create_table, doubled, now, read_rows
from tests.support.mariadb import LocalCluster
from tests.support.maxscale.counting import repeated_rows
from tests.support.maxscale.double import Double
from tests.support.maxscale.real import URL_VARIABLE, ask
from tests.support.process import free_port
from tests.support.verdict import blackout, judge
from tests.support.wait import until

_NAME = "proxyroute-bench"
_ACCOUNT = ("maxscale_bench", "lab-maxscale")
_RIGHTS = ("user", "db", "tables_priv", "columns_priv", "procs_priv", "proxies_priv", "roles_mapping", "global_priv")


class MaxScaleBench(Lab):
    """A cluster behind a MaxScale that is not ours."""

    @classmethod
    @contextlib.contextmanager
    def behind(
        cls, url: str, *, policy: Mapping[str, Any] | None = None, more: Mapping[str, Any] | None = None
    ) -> Iterator[MaxScaleBench]:
        """``policy`` and ``more`` as in :meth:`Lab.start`."""
        options: Any = UNDER_LOAD
        lab = cls(LocalCluster.start(3, options=options))
        try:
            lab._set_up(url, policy, more)
            yield lab
        finally:
            lab._take_down(url)
            lab.close()

    def _set_up(self, url: str, policy: Mapping[str, Any] | None, more: Mapping[str, Any] | None) -> None:
        user, password = _ACCOUNT
        primary = self.cluster.primary
        primary.sql(f"CREATE USER '{user}'@'%' IDENTIFIED BY '{password}'")
        for table in _RIGHTS:
            primary.sql(f"GRANT SELECT ON mysql.{table} TO '{user}'@'%'")
        primary.sql(f"GRANT SHOW DATABASES ON *.* TO '{user}'@'%'")
        self.cluster.await_synced()
        for node in self.cluster:
            where = {"address": node.address.host, "port": node.address.port}
            self._make(url, "servers", f"{_NAME}-{node.name}", where)
        settings = {"user": user, "password": password, "delayed_retry": True, "transaction_replay": True}
        members = {"servers": {"data": [{"id": f"{_NAME}-{n.name}", "type": "servers"} for n in self.cluster]}}
        self._make(url, "services", _NAME, settings, {"router": "readwritesplit"}, members)
        port = free_port()
        owner = {"services": {"data": [{"id": _NAME, "type": "services"}]}}
        self._make(url, "listeners", f"{_NAME}-listener", {"port": port, "address": "127.0.0.1"}, {}, owner)
        self.write = self.read = Address("127.0.0.1", port)
        parts = urlsplit(url)
        secret = self.folder / "maxscale.password"
        secret.touch(mode=0o600)
        secret.write_text(parts.password or "")
        proxy = {
            "type": "maxscale",
            "name": "mxs1",
            "url": f"{parts.scheme}://{parts.hostname}:{parts.port or 8989}",
            "mode": "driving",
            "user": parts.username,
            "password": {"file": str(secret)},
            "verify": False,
            "write_address": str(self.write),
        }
        values = site_config(self.cluster, self.folder, proxies=[proxy], policy=policy, more=more)
        self.config.write_text(yaml.safe_dump(values, sort_keys=False))
        self.run("publish", check=True)

    @staticmethod
    def states(url: str) -> dict[str, set[str]]:
        """Returns what the MaxScale shows of each server of ours, by our name."""
        found = {item["id"]: item["attributes"]["state"] for item in ask(url, "GET", "servers")["data"]}
        ours = {name.removeprefix(f"{_NAME}-"): text for name, text in found.items() if name.startswith(f"{_NAME}-")}
        return {name: set(text.split(", ")) for name, text in ours.items()}

    @staticmethod
    def _make(
        url: str, kind: str, name: str, parameters: Any, attributes: Any = None, relationships: Any = None
    ) -> None:
        made = {"id": name, "type": kind, "attributes": {"parameters": parameters, **(attributes or {})}}
        ask(url, "POST", kind, {"data": made | ({"relationships": relationships} if relationships else {})})

    @staticmethod
    def _take_down(url: str) -> None:
        for kind in ("listeners", "services", "servers"):
            with contextlib.suppress(OSError):
                for item in ask(url, "GET", kind)["data"]:
                    if item["id"].startswith((_NAME, "proxyroute-demo-")):
                        with contextlib.suppress(urllib.error.HTTPError):
                            ask(url, "DELETE", f"{kind}/{item['id']}?force=yes")


def main(count: int, writers: int, rate: float, mode: str, *, as_json: bool) -> int:
    """Measures and prints; returns 0 when no write was lost or left unexplained, or doubled without an explanation."""
    with contextlib.ExitStack() as ends:
        url, double = os.environ.get(URL_VARIABLE, ""), None
        if not url:
            double = ends.enter_context(Double.empty())
            url = double.login_url
            print(
                f"No MaxScale is named by {URL_VARIABLE}=http://USER:PASSWORD@127.0.0.1:8989: this is the test double."
            )
            print("What becomes of the writes is as with a MaxScale; the milliseconds are Python's, not a MaxScale's.")
        return _measure(url, double, count, writers, rate, mode, as_json=as_json)


def _measure(
    url: str, double: Double | None, count: int, writers: int, rate: float, mode: str, *, as_json: bool
) -> int:
    with MaxScaleBench.behind(url) as lab:
        create_table(lab.cluster.primary, unique=False)
        lab.cluster.await_synced()
        windows = []
        with Load.start(lab.write, writers=writers, rate=rate, mode=mode) as load:
            for _ in range(count):
                load.await_more(20)
                until(lambda: sum(n.replicates() for n in lab.cluster) == len(lab.cluster.nodes) - 1, "order")
                began = now()
                lab.run("switchover", "--yes", check=True)
                windows.append((began, now()))
                load.await_more(5)
            records = load.stop()
        lab.cluster.await_synced()
        verdict = judge(records, read_rows(lab.cluster), lab.cluster.primary.name)
        twice = frozenset(doubled(lab.cluster.primary))
    repeated = frozenset(repeated_rows(double.history.repeated)) if double is not None else None
    gaps = [blackout(records, window) * 1000 for window in windows]
    median = statistics.median(gaps)
    result = {
        "proxy": "maxscale",
        "double": double is not None,
        "blackout_ms": {"median": median, "max": max(gaps)},
        "errors": dict(verdict.errors),
        "lost": len(verdict.lost),
        "ambiguous": len(verdict.ambiguous),
        "unexplained": len(verdict.unexplained),
        "doubled": len(twice),
        "repeated": None if repeated is None else len(repeated),
    }
    print(f"{count} switchovers through {Path(urlsplit(url).netloc.rpartition('@')[2])}, {writers} × {rate:g} writes/s")
    print("  blackout        " + ", ".join(f"{gap:.0f}" for gap in gaps) + " ms")
    print(f"  median          {median:.0f} ms, longest {max(gaps):.0f} ms")
    print(f"  {verdict}")
    why = "" if repeated is None else f"; {len(repeated)} writes were repeated, because their reply was lost"
    print(f"  rows that are there twice: {len(twice)}{why}")
    if as_json:
        print(json.dumps(result), flush=True)
    # of a real MaxScale nobody here knows what it has repeated: then a row that is there twice is told, and not judged
    explained = repeated is None or twice <= repeated
    return 0 if verdict.clean and explained else 1
