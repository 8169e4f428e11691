"""The bench behind ``scripts/bench agent``: what an agent on a proxy host costs, and how quickly it follows.

One real HAProxy and one real agent process follow a folder; nobody writes through them. What is measured from
publishing on ends with the receipt, read where the engine reads it: the route is in HAProxy's memory before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxyroute.adapters import find_adapter
from proxyroute.model import Address, Deadline, Endpoint, Epoch, Reader, Receipt, ReceiptState, RouteTable
from tests.support.bench import made_in
from tests.support.figures import figures
from tests.support.hosts import ProxyHost
from tests.support.process import Daemon, free_port
from tests.support.wait import until

CLUSTER = "bench"
_LOOKS_AGAIN = """
import sys
from proxyroute import agent, agent_watch
agent_watch._LOCAL = frozenset()  # as if the folder were on a network disk
sys.exit(agent.main(sys.argv[1:]))
"""


class Site:
    """One proxy host on ``shared``, and the adapter that an engine would use for it."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self.shared = shared
        self.host = ProxyHost(folder, shared, "edge1", CLUSTER)
        self.servers = tuple(Endpoint(f"db{n}", Address("127.0.0.1", free_port())) for n in (1, 2, 3))
        kind = find_adapter("haproxy-agents")
        settings = kind.Settings(folder=shared, key_file=self.host.key_file, write=f"127.0.0.1:{free_port()}")
        self.adapter = kind("edge1", CLUSTER, self.servers, settings)
        self._serial = 0

    def next(self) -> RouteTable:
        """Returns a route of a new epoch, to another server than the one before."""
        self._serial += 1
        primary = self.servers[self._serial % 2].name
        return RouteTable(CLUSTER, Epoch(1, self._serial), self.servers, primary, (Reader("db3", 100),))

    def start(self) -> None:
        """Starts agent and HAProxy; returns when the first route is served."""
        first = self.next()
        self.host.start_agent()
        self.adapter.prepare(first, first, _soon())
        self.host.start_haproxy()
        _done(self.adapter.settle(first, _soon()))

    def restart_agent(self, *, looks_again: bool) -> str:
        """Starts the agent anew, with or without events, and returns how it says that it learns of changes."""
        self.host.kill_agent()
        before = time.time()
        if looks_again:
            argv = [sys.executable, "-c", _LOOKS_AGAIN, str(self.host.agent_file)]
            self.host.agent = Daemon(argv, self.host.folder / "agent.log")
        else:
            self.host.start_agent()
        until(lambda: self.host.status().get("since", 0.0) > before, "the agent to have begun")
        _done(self.adapter.settle(self.next(), _soon()))
        return str(self.host.status()["watch"])

    @property
    def agent(self) -> int:
        assert self.host.agent is not None
        return self.host.agent.pid

    def close(self) -> None:
        self.adapter.close()
        self.host.close()


def measure(folder: Path, count: int, rounds: int, idle: float) -> dict[str, Any]:
    """Runs everything on a folder made in ``folder``; returns the result as JSON values.

    ``rounds`` changes of route are timed, and ``idle`` seconds looked at, for each way of learning of changes.
    """
    with contextlib.ExitStack() as ends:
        shared = ends.enter_context(made_in(folder))
        site = Site(Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="proxyroute-"))), shared)
        ends.callback(site.close)
        site.start()
        ways = {}
        for name, looks_again in (("default", False), ("polling", True)):
            watch = site.restart_agent(looks_again=looks_again)
            print(f"{name}: {watch}", file=sys.stderr, flush=True)
            ways[name] = {"watch": watch, **_way(site, rounds, idle)}
        site.restart_agent(looks_again=False)
        return {"folder": str(folder), "ways": ways, "in_a_row": _in_a_row(site, count)}


def _way(site: Site, rounds: int, idle: float) -> dict[str, Any]:
    """Measures one way of learning of changes: CPU when idle, and the time that a change takes."""
    percent = idle_percent(site.agent, idle)
    prepared, blue = [], []
    for _ in range(rounds):
        target = site.next()
        abort = replace(target, epoch=Epoch(1, target.epoch.serial - 1), primary=_other(site, target))
        receipt = site.adapter.prepare(target, abort, _soon())
        assert receipt.state is ReceiptState.PREPARED, receipt
        prepared.append(_timed(site, target))
        _done(site.adapter.settle(target, _soon()))
        unheard = site.next()
        blue.append(_timed(site, unheard))
        _done(site.adapter.settle(unheard, _soon()))
    return {"idle_cpu_percent": percent, "applied_ms": figures(prepared), "unprepared_ms": figures(blue)}


def _other(site: Site, table: RouteTable) -> str:
    return next(server.name for server in site.servers[:2] if server.name != table.primary)


def _timed(site: Site, table: RouteTable) -> float:
    """Returns the milliseconds from publishing ``table`` to the receipt that it is applied."""
    begun = time.monotonic()
    receipt = site.adapter.apply(table, _soon())
    took = (time.monotonic() - begun) * 1000
    _done(receipt)
    return took


def _in_a_row(site: Site, count: int) -> dict[str, Any]:
    """Publishes ``count`` releases, each proven before the next."""
    before, begun = resident(site.agent), time.monotonic()
    for number in range(count):
        _done(site.adapter.settle(site.next(), _soon()))
        if (number + 1) % 100 == 0:
            print(f"{number + 1} of {count} releases", file=sys.stderr, flush=True)
    took = time.monotonic() - begun
    held = site.shared / CLUSTER
    return {
        "count": count,
        "seconds": round(took, 2),
        "ms_each": round(took / count * 1000, 2),
        "releases_kept": len(list((held / "releases").iterdir())),
        "epochs_kept": len(list((held / "epochs").iterdir())),
        "rss_before_mb": before,
        "rss_after_mb": resident(site.agent),
    }


def idle_percent(pid: int, seconds: float) -> float:
    """Returns the CPU that process ``pid`` takes during ``seconds``, in percent of a core."""
    begun, before = time.monotonic(), _cpu_seconds(pid)
    until(lambda: time.monotonic() >= begun + seconds, "the time to pass", seconds + 5, pause=0.1)
    return round((_cpu_seconds(pid) - before) / (time.monotonic() - begun) * 100, 2)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Returns the memory of process ``pid`` in megabytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def _soon() -> Deadline:
    return Deadline.after(20.0)


def _done(receipt: Receipt) -> None:
    assert receipt.state is ReceiptState.DONE, receipt


def show(result: dict[str, Any]) -> None:
    """Prints the result."""
    print(f"\nAn agent that follows a folder in {result['folder']}")
    for way in result["ways"].values():
        print(f"  {way['watch']}")
        print(f"    CPU when idle                    {way['idle_cpu_percent']:.2f} % of a core")
        for key, text in (("applied_ms", "published to applied, prepared"), ("unprepared_ms", "… out of the blue")):
            found = way[key]
            beside = ", ".join(f"{field} {found[field]:.1f}" for field in ("min", "p95", "max"))
            print(f"    {text:<32} {found['median']:.1f} ms in the median ({beside})")
    row = result["in_a_row"]
    print(f"  {row['count']} releases in a row, each proven before the next")
    print(f"    time                             {row['seconds']:.1f} s, {row['ms_each']:.1f} ms each")
    print(f"    left in the folder               {row['releases_kept']} releases, {row['epochs_kept']} epochs")
    print(
        f"    memory of the agent              {row['rss_before_mb']:.1f} MB before, {row['rss_after_mb']:.1f} MB after"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the bench. Returns 0; figures are not judged."""
    parser = argparse.ArgumentParser(prog="scripts/bench", add_help=False)  # scripts/bench itself has the help
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--idle", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if min(options.count, options.rounds) < 1 or options.idle <= 0:
        parser.error("--count and --rounds must be 1 or more, --idle more than 0")
    if not options.folder.is_dir():
        parser.error(f"--folder {options.folder} is not a folder")
    try:
        result = measure(options.folder.resolve(), options.count, options.rounds, options.idle)
    except KeyboardInterrupt:
        print("\ninterrupted; everything has been taken down", file=sys.stderr)
        return 130
    show(result)
    if options.json:
        print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
