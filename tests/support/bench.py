"""The bench behind ``scripts/bench``: what a switchover costs its clients, beside the barest one there can be.

Both kinds run in turn on one cluster, behind the same proxies, under one load: two of the floor (there and back), two
of the product, and so on. The blackout of one switchover is the longest time without an acknowledged write over all
writers; the window it is looked for in is the whole run of the command for the product, the repointing of replicas
included, and the bare sequence with what follows at once for the floor, without its repointing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.figures import figures
from tests.support.floor import Floor
from tests.support.lab import UNDER_LOAD, Lab
from tests.support.load import Load, Records, create_table, now, read_rows
from tests.support.mariadb import LocalCluster
from tests.support.mysql import MySQLCluster
from tests.support.verdict import Verdict, Window, blackout, judge
from tests.support.wait import until

FLAVOURS: dict[str, type[LocalCluster]] = {"mariadb": LocalCluster, "mysql": MySQLCluster}
FRESH_RATE = 50
STEADY_SECONDS = 0.5
ABOVE_FLOOR: Mapping[str, tuple[float, float]] = {"haproxy": (15, 40), "agents": (40, 65), "network disk": (100, 125)}
"""Milliseconds that the median and the 95th percentile of the blackout may be above those of the floor: agents have to
notice what is published, and a network disk takes its time for that."""
BARS: Mapping[str, tuple[float, str]] = {
    "errors_per_session": (1, "errors of a session that is kept"),
    "fresh_errors": (0, "errors when connecting anew"),
    "refused_new": (0, "refused connections"),
    "lost": (0, "acknowledged writes lost"),
    "double_primary": (0, "double-primary writes"),
    "ambiguous": (0, "ambiguous writes"),
    "unexplained": (0, "unexplained rows"),
}
"""What else is promised of a switchover: the most that a figure may be, and its name. On every flavour the same."""


@dataclass(frozen=True)
class Run:
    """One switchover."""

    product: bool
    old: str
    new: str
    window: Window
    predicted_ms: float | None = None


@dataclass(frozen=True)
class Books:
    """What the runs did to the clients."""

    runs: tuple[Run, ...]
    records: Records
    fresh: Records
    whole: Verdict
    product: Verdict
    """Of the product's runs alone."""
    transport: str = "haproxy"
    given: bool = False
    """Whether the folder that agents share was named: then it may be on a network disk."""

    def blackouts(self, *, product: bool) -> list[float]:
        """Returns the blackout of each run of one kind, in milliseconds."""
        return [blackout(self.records, r.window) * 1000 for r in self.runs if r.product is product]

    @property
    def errors_per_session(self) -> Counter[int]:
        """How many sessions had how many errors, counted per writer and run of the product."""
        writers = {w.writer for w in self.records.acknowledged}
        found: Counter[int] = Counter()
        for run in self.runs:
            if run.product:
                errors = Counter(f.writer for f in self.records.between(*run.window).failed)
                found.update(errors[writer] for writer in writers)
        return found

    @property
    def fresh_errors(self) -> int:
        """Errors of the client that connects anew for each write, in the runs of the product."""
        return sum(len(self.fresh.between(*run.window).failed) for run in self.runs if run.product)

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON values."""
        ours, floor = figures(self.blackouts(product=True)), figures(self.blackouts(product=False))
        return {
            "transport": self.transport,
            "blackout_ms": ours,
            "floor_ms": floor,
            "ratio_median": round(ours["median"] / floor["median"], 2),
            "above_floor_median_ms": round(ours["median"] - floor["median"], 2),
            "above_floor_p95_ms": round(ours["p95"] - floor["p95"], 2),
            "errors_per_session": max(self.errors_per_session, default=0),
            "refused_new": self.product.refused,
            "ambiguous": len(self.product.ambiguous),
            "lost": len(self.whole.lost),
            "double_primary": self.whole.double_primary,
            "fresh_errors": self.fresh_errors,
            "unexplained": len(self.whole.unexplained),
        }

    @property
    def bars(self) -> dict[str, tuple[float, str]]:
        """Returns the most that each figure may be, and its name."""
        median, p95 = ABOVE_FLOOR["network disk" if self.given else self.transport]
        above = "of the blackout above the floor's, in ms"
        first = {"above_floor_median_ms": (median, f"median {above}"), "above_floor_p95_ms": (p95, f"p95 {above}")}
        return {**first, **BARS}

    @property
    def held(self) -> dict[str, bool]:
        """Whether each of the bars is held."""
        result = self.to_json()
        return {name: result[name] <= most for name, (most, _) in self.bars.items()}


class Bench:
    """Switches ``lab`` over under load, and remembers when."""

    def __init__(self, lab: Lab, floor: Floor, pooled: Load, fresh: Load) -> None:
        self._lab = lab
        self._floor = floor
        self._loads = (pooled, fresh)
        self.runs: list[Run] = []

    def steady(self) -> None:
        """Returns when everything is as it should be and writes have been flowing for a while."""
        cluster = self._lab.cluster
        primary = cluster.primary
        until(lambda: all(n.replicates() for n in cluster if n is not primary), "all replicas to follow")
        end = now() + STEADY_SECONDS
        until(lambda: now() >= end, "a while to pass", pause=0.05)
        for load in self._loads:
            load.await_more(5)

    def floor(self, old: str, new: str) -> None:
        """One switchover of the barest kind."""
        self.steady()
        begun, _ = self._floor.switch(old, new, self._lab.flipper())
        for load in self._loads:
            load.await_more(20)
        self.runs.append(Run(False, old, new, (begun, now())))
        self._floor.repoint(old, new)

    def product(self, old: str, new: str) -> None:
        """One switchover by the product's command line. Raises RuntimeError with its words when it fails."""
        self.steady()
        _, plan = self._lab.json("plan", "--to", new)
        begun = now()
        self._lab.run("switchover", "--to", new, "--yes", "--json", check=True)
        for load in self._loads:
            load.await_more(20)
        predicted = plan["predicted_seconds"]
        window = (begun, now())
        self.runs.append(Run(True, old, new, window, None if predicted is None else predicted * 1000))


def measure(
    count: int,
    writers: int,
    rate: float,
    mode: str,
    transport: str = "haproxy",
    folder: Path | None = None,
    flavour: str = "mariadb",
) -> Books:
    """Runs the whole bench and closes the books.

    ``transport`` is ``haproxy``, one beside the engine, or ``agents``: two hosts that follow a folder made in
    ``folder``, by default on the disk of the databases.
    """
    with contextlib.ExitStack() as ends:
        shared = ends.enter_context(made_in(folder)) if folder is not None else None
        hosts = 2 if transport == "agents" else 0
        provider = FLAVOURS[flavour]
        lab = ends.enter_context(
            Lab.start(3, hosts=hosts, shared=shared, disk=True, options=UNDER_LOAD, provider=provider)
        )
        places = [host.write for host in lab.hosts] or [lab.write]
        create_table(lab.cluster["db1"])
        lab.cluster.await_synced()
        with (
            Load.start(places, writers=writers, rate=rate, mode=mode) as pooled,
            Load.start(places, writers=1, rate=FRESH_RATE, mode="fresh", first=writers) as fresh,
            Floor(lab.cluster) as floor,
        ):
            bench = Bench(lab, floor, pooled, fresh)
            for number in range(0, count, 2):
                for switch in (bench.floor, bench.product):
                    switch("db1", "db2")
                    switch("db2", "db1")
                print(f"{number + 2} of {count} done", file=sys.stderr, flush=True)
            records, anew = pooled.stop(), fresh.stop()
        until(lambda: len({n.gtid() for n in lab.cluster}) == 1, "all servers to catch up")
        rows, primary = read_rows(lab.cluster), lab.cluster.primary.name
    everything = records + anew
    windows = [run.window for run in bench.runs]
    whole = judge(everything, rows, primary, windows)
    failed = tuple(f for run in bench.runs if run.product for f in everything.between(*run.window).failed)
    product = judge(Records(everything.acknowledged, failed), rows, primary)
    return Books(tuple(bench.runs), records, anew, whole, product, transport, folder is not None)


@contextlib.contextmanager
def made_in(folder: Path) -> Iterator[Path]:
    """Makes a folder in ``folder`` for a ``with`` block: on a disk that is somebody else's nothing is left."""
    made = Path(tempfile.mkdtemp(prefix="proxyroute-bench-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def show(books: Books) -> None:
    """Prints every value, then what they come to."""
    result = books.to_json()
    print("\nBlackout as the clients saw it, in milliseconds, in the order of the runs")
    for product, name in ((False, "floor"), (True, "proxyroute")):
        values = " ".join(f"{value:.1f}" for value in books.blackouts(product=product))
        print(f"  {name:<11} {values}")
    print(f"\n  {'':<11} {'min':>8} {'median':>8} {'p95':>8} {'max':>8}")
    for name, key in (("floor", "floor_ms"), ("proxyroute", "blackout_ms")):
        found = result[key]
        print(f"  {name:<11} " + " ".join(f"{found[field]:>8.1f}" for field in ("min", "median", "p95", "max")))
    ratio, above = result["ratio_median"], result["above_floor_median_ms"]
    print(f"  ratio of the medians: {ratio:.2f}, difference: {above:.1f} ms")
    show_prediction(books)
    print("\nWhat became of the writes")
    sessions = ", ".join(f"{n} sessions had {errors}" for errors, n in sorted(books.errors_per_session.items()))
    print(f"  errors per session     {sessions} (a session counts once per switchover by proxyroute)")
    kinds = ", ".join(f"{n} × {kind}" for kind, n in sorted(books.product.errors.items())) or "none"
    print(f"  errors by kind         {kinds}")
    print(f"  refused connections    {result['refused_new']}")
    print(f"  connecting anew        {result['fresh_errors']} errors in {len(books.fresh.acknowledged)} writes")
    print(f"  acknowledged           {books.whole.acknowledged}")
    print(f"  lost                   {result['lost']}")
    print(f"  ambiguous              {result['ambiguous']} (and {_floor_ambiguous(books)} with the floor)")
    print(f"  double-primary writes  {result['double_primary']}")
    print(f"  unexplained rows       {result['unexplained']}")
    print("\nBars, the same on every flavour")
    for name, held in books.held.items():
        most, what = books.bars[name]
        print(f"  {what:<49} {result[name]:g}, should be {most:g} at most: {'held' if held else 'NOT HELD'}")


def show_prediction(books: Books) -> None:
    ours = [run for run in books.runs if run.product]
    pairs = [
        (run.predicted_ms, seen)
        for run, seen in zip(ours, books.blackouts(product=True), strict=True)
        if run.predicted_ms is not None
    ]
    if not pairs:
        print("\nPrediction against outcome: the plans predicted nothing")
        return
    print("\nPrediction against outcome, in milliseconds")
    print("  " + " ".join(f"{predicted:.1f}→{seen:.1f}" for predicted, seen in pairs))
    off = statistics.median(abs(seen - predicted) for predicted, seen in pairs)
    print(f"  off by {off:.1f} in the median")


def _floor_ambiguous(books: Books) -> int:
    return len(books.whole.ambiguous) - len(books.product.ambiguous)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a bench. Returns 1 when one of the bars is not held, or a switchover fails."""
    # scripts/bench itself has the help, and looks for --flavour mysql as it is written out
    parser = argparse.ArgumentParser(prog="scripts/bench", add_help=False, allow_abbrev=False)
    parser.add_argument("what", choices=["switchover"])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--mode", choices=["pooled", "fresh"], default="pooled")
    parser.add_argument("--proxy", choices=["haproxy", "maxscale"], default="haproxy")
    parser.add_argument("--transport", choices=["haproxy", "agents"], default="haproxy")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--flavour", choices=list(FLAVOURS), default="mariadb")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if options.count < 2 or options.count % 2:
        parser.error("--count must be an even number of 2 or more: it goes there and back")
    if options.folder is not None and (options.transport != "agents" or not options.folder.is_dir()):
        parser.error(
            "--folder names the folder that the agents are to share: with --transport agents, and it must exist"
        )
    if options.proxy == "maxscale" and options.flavour != "mariadb":
        parser.error("--proxy maxscale goes with --flavour mariadb: MaxScale and MySQL are not measured")
    if options.proxy == "maxscale":
        from tests.support.maxscale.bench import main as through_maxscale

        return through_maxscale(options.count, options.writers, options.rate, options.mode, as_json=options.json)
    try:
        books = measure(
            options.count,
            options.writers,
            options.rate,
            options.mode,
            options.transport,
            options.folder,
            options.flavour,
        )
    except KeyboardInterrupt:
        print("\ninterrupted; everything has been taken down", file=sys.stderr)
        return 130
    except RuntimeError as error:  # a switchover that was undone, in its own words
        print(f"\n{error}\nno figures: everything has been taken down", file=sys.stderr)
        return 1
    show(books)
    if options.json:
        print(json.dumps(books.to_json() | {"bars_held": books.held}), flush=True)
    return 0 if all(books.held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
