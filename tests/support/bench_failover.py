"""The bench behind ``scripts/bench failover``: from the death of a primary to the next write that is accepted.

``proxyroute serve`` decides everything; the bench only kills and hangs primaries, and starts again what it has killed.
Replication is asynchronous unless asked otherwise: what the old primary acknowledged last may be lost, is counted, and
is no fault of the order in which things were done; a row on two primaries would be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pymysql

from proxyroute import journal
from proxyroute.assembly import journal_folder
from proxyroute.config import load
from proxyroute.journal import Record
from tests.support.broken import ready
from tests.support.figures import figures
from tests.support.lab import UNDER_LOAD, Lab
from tests.support.load import Load, Records, create_table, longest_gap, now, read_rows
from tests.support.mariadb import Node
from tests.support.serving import Serving, serving
from tests.support.verdict import Verdict, Window, judge
from tests.support.wait import until

PHASES = ("detect", "elect and close", "promote", "route")
TARGETS = {("default", "kill"): 3.0, ("default", "hang"): 5.0, ("aggressive", "kill"): 0.7}
"""Seconds that the median may take."""
UNLIMITED: Mapping[str, Any] = {
    "mode": "automatic",
    "single_engine": True,
    "policy": "most_advanced",
    "quiet_period": "1ms",
    "per_day": 100000,
}
"""Below ``failover``: one failover after the other, which nobody should want."""
_GONE = "failover"
_CALM = 1.5
"""Seconds of order before the next fault: what was last known of the primary is that of a quiet minute."""
_BACK = 60.0


@dataclass(frozen=True)
class Round:
    """One fault and what came of it; times are seconds from the fault."""

    profile: str
    fault: str
    old: str
    new: str
    total: float
    """To the next write that was accepted."""
    phases: tuple[float, ...]
    """How long each of PHASES took."""
    back: float
    """To the moment at which the dead one followed again, counted from its own start."""
    by_itself: bool
    """It came back without a command: it had nothing that the others lack."""
    window: Window
    """From the fault on, on the clock of the writers."""


class Bench:
    """Kills and hangs the primaries of ``lab``, which ``served`` keeps, and remembers what came of it."""

    def __init__(self, lab: Lab, served: Serving, load_: Load, profile: str) -> None:
        self._lab, self._served, self._load, self._profile = lab, served, load_, profile
        self._journals = journal_folder(load(lab.config).cluster(None))
        self._faults: list[dict[str, Any]] = []

    def steady(self) -> None:
        """Returns when everything is as it should be and writes have been flowing for a while."""
        cluster = self._lab.cluster
        until(lambda: len(cluster.writable) == 1, "one primary", _BACK)
        primary = cluster.primary
        until(lambda: all(n.replicates() for n in cluster if n is not primary), "all replicas to follow", _BACK)
        end = now() + _CALM
        until(lambda: now() >= end, "a while to pass", pause=0.05)
        self._load.await_more(20)

    def round(self, fault: str) -> None:
        """One fault, the failover, and the return of the dead one. Raises AssertionError when one does not come."""
        self.steady()
        old = self._lab.cluster.primary
        known = set(journal.journals(self._journals))
        wall, begun = time.time(), now()
        old.kill9() if fault == "kill" else old.sigstop()
        records = until(lambda: self._finished(known), f"a failover from {old.name}", 60.0)
        self._load.await_more(20)
        self._faults.append(
            {"fault": fault, "old": old.name, "wall": wall, "window": (begun, now()), "records": records}
        )
        self._faults[-1] |= self._bring_back(old, fault)

    def _finished(self, known: set[Any]) -> list[Record]:
        for file in journal.journals(self._journals):
            if file not in known:
                records = journal.read(file)
                if records and records[0]["operation_kind"] == "failover" and journal.outcome(records):
                    assert journal.outcome(records) == "done", records[-1]
                    return records
        return []

    def _bring_back(self, old: Node, fault: str) -> dict[str, Any]:
        """Starts the dead one, and helps it when it has something of its own, as a person would."""
        since = len(self._served.texts("blocked"))
        begun = now()
        old.start() if fault == "kill" else old.sigcont()
        until(lambda: _asked(lambda: not old.is_writable()), f"{old.name} to refuse writes", _BACK)

        def refused() -> bool:
            return any(old.name in text and "rejoin" in text for text in self._served.texts("blocked")[since:])

        until(lambda: _asked(old.replicates) or refused(), f"{old.name} to rejoin or to be refused", _BACK)
        by_itself = not refused()
        if not by_itself:
            if self._lab.run("rejoin", old.name, "--method", "flashback", "--yes").returncode:
                self._lab.run("rejoin", old.name, "--method", "reseed", "--yes", check=True)
            until(lambda: _asked(old.replicates), f"{old.name} to follow", _BACK)
        return {"back": now() - begun, "by_itself": by_itself}

    def rounds(self, records: Records) -> list[Round]:
        """Returns what the rounds came to, once the writers have told what became of their writes."""
        told = [n for n in self._served.told if n["kind"] == "diagnosis" and n["details"].get("action") == _GONE]
        return [self._round(fault, records, [n["at"] for n in told]) for fault in self._faults]

    def _round(self, fault: Mapping[str, Any], records: Records, gone: Sequence[float]) -> Round:
        begun, end = fault["window"]
        total = _next_write(records, begun, end) - begun
        steps = {r["name"]: r["t"] - fault["wall"] for r in fault["records"] if r["kind"] == "stepped"}
        start = fault["records"][0]["t"]
        # told when the name changes; without such a notice, what was there before was as good
        seen = [at for at in gone if fault["wall"] <= at <= start]
        detected = (seen[0] if seen else start) - fault["wall"]
        ends = (detected, steps["close routes"], steps["open"], total)
        phases = tuple(b - a for a, b in zip((0.0, *ends[:-1]), ends, strict=True))
        plan = fault["records"][0]["plan"]
        return Round(
            self._profile, fault["fault"], plan["primary"], plan["candidate"], total, phases,
            fault["back"], fault["by_itself"], fault["window"],
        )  # fmt: skip


def _asked(question: Callable[[], bool]) -> bool:
    """Returns the answer of a server that may be cutting off its clients just now, us among them; no then."""
    with contextlib.suppress(pymysql.err.Error, OSError):
        return question()
    return False


def _next_write(records: Records, begin: float, end: float) -> float:
    """Returns when the longest time without an acknowledged write ended, between ``begin`` and ``end``."""
    moments = sorted(w.acknowledged for w in records.acknowledged if begin <= w.acknowledged <= end)
    gap = longest_gap(moments, begin, end)
    edges = [begin, *moments]
    return next(later for earlier, later in zip(edges, [*moments, end], strict=True) if later - earlier >= gap)


@dataclass(frozen=True)
class Books:
    """What the rounds of one profile did to the clients."""

    rounds: tuple[Round, ...]
    verdict: Verdict
    semi_sync: bool

    def of(self, fault: str) -> list[Round]:
        return [r for r in self.rounds if r.fault == fault]

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON values; seconds."""
        faults = {}
        for fault in dict.fromkeys(r.fault for r in self.rounds):
            mine = self.of(fault)
            target = TARGETS.get((mine[0].profile, fault))
            total = figures([r.total for r in mine])
            faults[fault] = {
                "rounds": len(mine),
                "total_s": total,
                "phases_s": {name: figures([r.phases[n] for r in mine]) for n, name in enumerate(PHASES)},
                "back_s": figures([r.back for r in mine]),
                "back_by_itself": sum(r.by_itself for r in mine),
                "target_median_s": target,
                "target_met": None if target is None else total["median"] <= target,
                "each": [asdict(r) for r in mine],
            }
        v = self.verdict
        return {
            "profile": self.rounds[0].profile,
            "semi_sync": self.semi_sync,
            "faults": faults,
            "acknowledged": v.acknowledged,
            "lost": len(v.lost),
            "ambiguous": len(v.ambiguous),
            "double_primary": v.double_primary,
            "unexplained": len(v.unexplained),
        }


@contextlib.contextmanager
def site(profile: str, *, semi_sync: bool = False) -> Iterator[Lab]:
    """Three servers on disk and an HAProxy beside the engine, which fails over by itself as often as need be."""
    failover = {**UNLIMITED, "profile": profile}
    with Lab.start(3, disk=True, options=UNDER_LOAD, semi_sync=semi_sync, more={"failover": failover}) as lab:
        yield lab


def measure(
    profile: str, faults: Sequence[str], count: int, *, writers: int, rate: float, semi_sync: bool = False
) -> Books:
    """Runs ``count`` rounds of every fault under one profile, in turn, and closes the books."""
    with site(profile, semi_sync=semi_sync) as lab:
        create_table(lab.cluster["db1"])
        ready(lab)
        with serving(lab) as served, Load.start(lab.write, writers=writers, rate=rate, patience=2.0) as pooled:
            bench = Bench(lab, served, pooled, profile)
            try:
                for number in range(count):
                    for fault in faults:
                        bench.round(fault)
                    print(f"{profile}: {number + 1} of {count} done", file=sys.stderr, flush=True)
                bench.steady()
            except AssertionError:
                print(served.log.read_text(), file=sys.stderr, flush=True)
                raise
            records = pooled.stop()
            until(lambda: len({n.gtid() for n in lab.cluster}) == 1, "all servers to have the same", _BACK)
            rows, primary = read_rows(lab.cluster), lab.cluster.primary.name
            rounds = bench.rounds(records)
    verdict = judge(records, rows, primary, [r.window for r in rounds])
    return Books(tuple(rounds), verdict, semi_sync)


def show(books: Books) -> None:
    """Prints every value, then what they come to."""
    result = books.to_json()
    for fault, found in result["faults"].items():
        what = "kill -9" if fault == "kill" else "SIGSTOP"
        print(f"\n{what} of the primary, profile {result['profile']}: seconds to the next accepted write")
        print("  " + " ".join(f"{r.total:.2f}" for r in books.of(fault)))
        print(f"  {'':<16} {'min':>7} {'median':>7} {'max':>7}")
        for name, values in (("in all", found["total_s"]), *found["phases_s"].items()):
            print(f"  {name:<16} " + " ".join(f"{values[field]:>7.2f}" for field in ("min", "median", "max")))
        if found["target_median_s"] is not None:
            held = "met" if found["target_met"] else "MISSED"
            print(f"  the median should be {found['target_median_s']:g} s at most: {held}")
        back = found["back_s"]
        print(f"  the dead one follows again {back['median']:.1f} s after its start (at most {back['max']:.1f} s),")
        print(f"  by itself {found['back_by_itself']} of {found['rounds']} times; else it had writes of its own")
    sort = "semi-synchronous" if result["semi_sync"] else "asynchronous"
    print(f"\nWhat became of the writes, replication being {sort}")
    kinds = ", ".join(f"{n} × {kind}" for kind, n in sorted(books.verdict.errors.items())) or "none"
    print(f"  acknowledged           {result['acknowledged']}")
    lost = "" if result["semi_sync"] else " (acknowledged before any replica had them)"
    print(f"  lost                   {result['lost']}{lost}")
    print(f"  ambiguous              {result['ambiguous']} (errored, and there all the same)")
    print(f"  double-primary writes  {result['double_primary']}")
    print(f"  unexplained rows       {result['unexplained']}")
    print(f"  errors by kind         {kinds}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a bench.

    Returns 1 for a write on two primaries, a loss in spite of semi-sync, a target that is missed, a false failover, or
    a soak without the latencies that belong to it.
    """
    parser = argparse.ArgumentParser(prog="scripts/bench", add_help=False)  # scripts/bench itself has the help
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--fault", choices=["kill", "hang", "both"], default="both")
    parser.add_argument("--profile", choices=["default", "aggressive", "both"], default="both")
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--semi-sync", action="store_true")
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if options.count < 1 or (options.soak is not None and options.soak <= 0):
        parser.error("--count must be 1 or more, --soak more than 0 minutes")
    profiles = ("default", "aggressive") if options.profile == "both" else (options.profile,)
    faults = ("kill", "hang") if options.fault == "both" else (options.fault,)
    try:
        if options.soak is not None:
            return _soak(profiles, options)
        found = []
        for profile in profiles:
            load_of = {"writers": options.writers, "rate": options.rate}
            found.append(measure(profile, faults, options.count, **load_of, semi_sync=options.semi_sync))
            show(found[-1])
    except KeyboardInterrupt:
        print("\ninterrupted; everything has been taken down", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps([books.to_json() for books in found]), flush=True)
    return 1 if any(broken(books.to_json()) for books in found) else 0


def _soak(profiles: Sequence[str], options: argparse.Namespace) -> int:
    from tests.support.bench_soak import show_soak, soak

    found = []
    for profile in profiles:
        found.append(soak(profile, options.soak, writers=options.writers, rate=options.rate))
        show_soak(found[-1])
    if options.json:
        print(json.dumps(found), flush=True)
    return 1 if any(disturbed(result) for result in found) else 0


def disturbed(result: Mapping[str, Any]) -> bool:
    """Tells whether a soak, as JSON values, is no proof: a failover, a loss, or no latencies to be had."""
    return bool(result["false_failovers"] or result["lost"] or not result["with_latencies"])


def broken(result: Mapping[str, Any]) -> bool:
    """Tells whether rounds, as JSON values, broke a promise; a target that there is none of is not missed."""
    missed = any(fault["target_met"] is False for fault in result["faults"].values())
    loss = result["semi_sync"] and result["lost"]
    return bool(missed or loss or result["double_primary"] or result["unexplained"])


if __name__ == "__main__":
    sys.exit(main())
