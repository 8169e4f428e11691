"""The bench behind ``scripts/bench monitor``: what it costs to look at a thousand servers every second.

The real ``proxyroute serve`` (probing, keepers, web) runs in a process of its own on one core; the servers are light
stand-ins in this one. Latency is how long one look took; lateness how long after its time it began.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import requests
import yaml

from proxyroute.config import load
from proxyroute.model import Status
from proxyroute.sdnotify import Manager
from proxyroute.service import Service
from proxyroute.sight import Sighting, Sightings
from proxyroute.web.tokens import Scope, Tokens
from tests.support.figures import percentile
from tests.support.process import free_port
from tests.support.standins import Servers

_TICKS = os.sysconf("SC_CLK_TCK")
_UP = 180.0
"""Seconds until everything has been looked at for the first time."""
_SETTLE = 15.0
"""Seconds before the measuring: the first looks are all at once, and a new silence makes everybody look quickly."""


# -- the process that is measured -----------------------------------------------------------------------------


def measured(config: Path) -> None:
    """Serves until standard input ends; answers each line of it with what was seen since the line before."""
    service = Service(load(config), None, lambda notice: None, Manager({}))
    thread = threading.Thread(target=service.run, name="serve")
    thread.start()
    charges = service._daemon._charges
    known: dict[tuple[str, str], float] = {}
    for line in sys.stdin:
        period = float(line)
        found = Looks()
        for charge in list(charges.values()):
            found.add(charge.config.name, charge._sentry.sightings(), period, known)
        print(json.dumps(vars(found) | {"threads": threading.active_count()}), flush=True)
    service.ask_to_end()
    thread.join(120)


class Looks:
    """What became of the looks at all servers, in milliseconds."""

    def __init__(self) -> None:
        self.latency: list[float] = []
        """Of looks that were answered."""
        self.lateness: list[float] = []
        """Of looks at servers that answered the one before."""
        self.silent = 0
        self.reasons: dict[str, int] = {}
        self.complete = True

    def add(self, cluster: str, seen: Sightings, period: float, known: dict[tuple[str, str], float]) -> None:
        """Takes the looks at one cluster that are not ``known``, and makes them known."""
        self.complete = self.complete and seen.complete
        for name, track in seen.tracks.items():
            last: Sighting | None = None
            newest = known.get((cluster, name), 0.0)
            for look in track.recent:
                if look.at > newest:
                    self._take(look, last, period)
                last = look
            known[cluster, name] = last.at if last is not None else newest

    def _take(self, look: Sighting, before: Sighting | None, period: float) -> None:
        if isinstance(look.seen, Status):
            self.latency.append(round(1000 * (look.at - look.began), 2))
        else:
            self.silent += 1
            self.reasons[look.seen.reason] = self.reasons.get(look.seen.reason, 0) + 1
        if before is not None and isinstance(before.seen, Status):
            self.lateness.append(round(1000 * max(0.0, look.began - before.at - period), 2))


# -- the bench ------------------------------------------------------------------------------------------------


def sizes(servers: int, of: int = 3) -> list[int]:
    """Returns how many servers each cluster has: three, and the last what is left over as well."""
    found = [of] * (servers // of)
    found[-1] += servers % of
    return found


def write_config(folder: Path, servers: Servers, period: float, listen: str) -> Path:
    account = {"user": "probe", "password": {"env": "PROXYROUTE_BENCH_PASSWORD"}}
    clusters = {
        f"c{n:03}": {
            "account": account,
            "replication": account,
            "servers": {f"db{i}": str(address) for i, address in enumerate(addresses, 1)},
            "failover": {"probe_period": f"{period:g}s"},
        }
        for n, addresses in enumerate(servers.clusters, 1)
    }
    file = folder / "proxyroute.yml"
    values = {"version": 1, "state_dir": str(folder / "state"), "web": {"listen": listen}, "clusters": clusters}
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


class Measured:
    """The process that is measured, on one core."""

    def __init__(self, config: Path, core: int | None) -> None:
        environment = {**os.environ, "PROXYROUTE_BENCH_PASSWORD": "x"}
        pin = ["taskset", "-c", str(core)] if core is not None else []
        argv = [*pin, sys.executable, "-m", "tests.support.bench_monitor", "--measured", str(config)]
        self._child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.pid = self._child.pid

    def looks(self, period: float) -> dict[str, Any]:
        """Returns what was seen since the last call."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{period}\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise OSError("the process that is measured has ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mb(self) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def end(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(120)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def watch(process: Measured, period: float, seconds: float) -> dict[str, Any]:
    """Returns the figures of ``seconds``."""
    process.looks(period)
    began, cpu = time.monotonic(), process.cpu_seconds()
    latency: list[float] = []
    lateness: list[float] = []
    silent = 0
    reasons: Counter[str] = Counter()
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(5.0, left))  # not more looks than are remembered of each server
        found = process.looks(period)
        latency += found["latency"]
        lateness += found["lateness"]
        silent += found["silent"]
        reasons.update({re.sub(r"[0-9.]+", "#", reason): n for reason, n in found["reasons"].items()})
    took = time.monotonic() - began
    return {
        "seconds": round(took, 1),
        "cpu_percent": round(100 * (process.cpu_seconds() - cpu) / took, 1),
        "memory_mb": round(process.memory_mb(), 1),
        "threads": found["threads"],
        "looks_per_second": round((len(latency) + silent) / took, 1),
        "silent_looks": silent,
        "reasons": dict(reasons.most_common(3)),
        "latency_ms": _shares(latency),
        "lateness_ms": _shares(lateness),
    }


def _shares(values: Sequence[float]) -> dict[str, float]:
    """Returns the percentiles of ``values``; without any, infinity: nothing was in time."""
    return {name: percentile(values, share) if values else float("inf") for name, share in _SHARES.items()}


_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}


def pages(url: str, token: str, rounds: int = 10) -> dict[str, dict[str, float]]:
    """Returns what pages and API cost: milliseconds (median, worst) and bytes."""
    found = {}
    for path in ("/v1/clusters", "/"):
        times, answer = [], None
        for _ in range(rounds):
            began = time.monotonic()
            answer = requests.get(url + path, headers={"Authorization": f"Bearer {token}"}, timeout=60)
            times.append(1000 * (time.monotonic() - began))
        assert answer is not None
        found[path] = {
            "status": answer.status_code, "bytes": len(answer.content),
            "median_ms": round(percentile(times, 0.5), 1), "max_ms": round(max(times), 1),
        }  # fmt: skip
    return found


@contextlib.contextmanager
def running(servers: Servers, period: float, core: int | None) -> Iterator[tuple[Measured, str, str, float]]:
    """The process that is measured, its URL, a token, and the seconds until all was seen; for a ``with`` block."""
    with tempfile.TemporaryDirectory(prefix="proxyroute-bench-") as name:
        folder = Path(name)
        listen = f"127.0.0.1:{free_port()}"
        config = write_config(folder, servers, period, listen)
        (folder / "state").mkdir()
        token, _ = Tokens(folder / "state" / "tokens.json").create("bench", Scope.READ)
        began = time.monotonic()
        process = Measured(config, core)
        try:
            while not process.looks(period)["complete"]:
                if time.monotonic() - began > _UP:
                    raise OSError("not every server was looked at in time")
                time.sleep(0.5)
            yield process, f"http://{listen}", token, time.monotonic() - began
        finally:
            process.end()


def bench(number: int, period: float, seconds: float, hung: float, core: int | None) -> dict[str, Any]:
    """Returns the figures: everything well, the pages, and a part of the servers hung."""
    with (
        Servers(sizes(number), free_port()) as servers,
        running(servers, period, core) as (process, url, token, up),
    ):
        time.sleep(_SETTLE)
        well = watch(process, period, seconds)
        asked = pages(url, token)
        everyone = [address.host for addresses in servers.clusters for address in addresses]
        servers.hung = set(everyone[:: round(1 / hung)]) if hung else set()
        time.sleep(_SETTLE)
        return {
            "servers": number, "clusters": len(servers.clusters), "period": period, "pinned": core is not None,
            "up_seconds": round(up, 1), "well": well, "pages": asked,
            "hung": len(servers.hung), "with_hung": watch(process, period, seconds) if hung else None,
        }  # fmt: skip


def _print(found: dict[str, Any]) -> None:
    print(f"\n{found['servers']} servers in {found['clusters']} clusters, looked at every {found['period']:g} s")
    print(f"{'on one core' if found['pinned'] else 'not pinned to a core'}; all seen after {found['up_seconds']} s\n")
    columns = [("all well", found["well"])]
    if found["with_hung"]:
        columns.append((f"{found['hung']} hung", found["with_hung"]))
    print(f"{'':22}" + "".join(f"{title:>14}" for title, _ in columns))
    for label, key in (("CPU, % of a core", "cpu_percent"), ("memory, MB", "memory_mb"), ("threads", "threads"),
                       ("looks per second", "looks_per_second")):  # fmt: skip
        print(f"{label:22}" + "".join(f"{column[key]:14}" for _, column in columns))
    for title, column in columns:
        for reason, count in column["reasons"].items():
            print(f"{title}: {count} looks without an answer: {reason[:90]}")
    for label, key in (("latency", "latency_ms"), ("lateness", "lateness_ms")):
        for share in _SHARES:
            print(f"{f'{label} {share}, ms':22}" + "".join(f"{column[key][share]:14}" for _, column in columns))
    print()
    for path, cost in found["pages"].items():
        print(
            f"GET {path:18} {cost['status']}  {cost['median_ms']:8} ms (worst {cost['max_ms']}), {cost['bytes']} bytes"
        )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench monitor")
    parser.add_argument("--measured", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--period", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--hung", type=float, default=0.1)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.measured is not None:
        measured(options.measured)
        return 0
    core = options.core if options.core >= 0 else None
    if core is not None and len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {core})  # the stand-ins leave that core alone
    found = bench(options.servers, options.period, options.seconds, options.hung, core)
    _print(found)
    if options.json:
        print(json.dumps(found))
    late = [part["lateness_ms"]["p99"] for part in (found["well"], found["with_hung"]) if part]
    return 0 if max(late) <= 1000 * options.period else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
