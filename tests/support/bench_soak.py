"""``scripts/bench failover --soak``: nothing dies, and everything is done to make the engine believe that it has.

Under load the engine is kept from the processor, stopped in bursts, and (as root, where hosts with cables can be had)
a server or the engine itself becomes slow for some seconds. Every failover is a false one.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from proxyroute import journal
from proxyroute.assembly import journal_folder
from proxyroute.config import load
from tests.support import netns
from tests.support.bench_failover import UNLIMITED
from tests.support.lab import UNDER_LOAD, Lab
from tests.support.load import Load, create_table, longest_gap, now, read_rows
from tests.support.netlab import NetLab
from tests.support.serving import Serving, serving
from tests.support.verdict import judge
from tests.support.wait import until

LATE = 200.0
"""Milliseconds by which every frame to and from a slow host is late."""
_SPELL = 4.0
"""Seconds that one disturbance lasts,"""
_REST = 1.0
"""and between two of them."""
_BURN = "import time\nend = time.monotonic() + float(__import__('sys').argv[1])\nwhile time.monotonic() < end: pass"


class Soak:
    """Disturbs the engine that keeps ``lab``, one way after the other."""

    def __init__(self, lab: Lab | NetLab, served: Serving) -> None:
        self._lab, self._served = lab, served
        self._chance = random.Random(4)
        self.done: Counter[str] = Counter()

    @property
    def ways(self) -> tuple[Callable[[], None], ...]:
        return (self.starve, self.stop, *((self.slow,) if isinstance(self._lab, NetLab) else ()))

    def starve(self) -> None:
        """Two busy programs want the one processor on which the engine may run, and the engine is polite."""
        pid, everywhere = self._served.daemon.pid, os.sched_getaffinity(0)
        one = min(everywhere)
        _place(pid, {one}, nice=10)
        busy = [subprocess.Popen([sys.executable, "-c", _BURN, str(_SPELL)]) for _ in range(2)]
        try:
            for program in busy:
                os.sched_setaffinity(program.pid, {one})
            for program in busy:
                program.wait(10 * _SPELL)
        finally:
            for program in busy:
                program.kill()
                program.wait()
            _place(pid, everywhere, nice=0)

    def stop(self) -> None:
        """The engine stands still for a moment, or for long, again and again."""
        end = now() + _SPELL
        while now() < end:
            self._served.daemon.send(signal.SIGSTOP)
            try:
                _pass(self._chance.choice((0.2, 0.6, 1.5, 3.0)))
            finally:
                self._served.daemon.send(signal.SIGCONT)
            _pass(self._chance.uniform(0.05, 0.5))

    def slow(self) -> None:
        """Everything to and from one host is late, and then it is not."""
        assert isinstance(self._lab, NetLab)
        host = self._chance.choice(("db1", "db1", "db2", "engine1"))
        for _ in range(2):
            self._lab.slow(host, LATE)
            _pass(_SPELL / 4)
            self._lab.mend(host)
            _pass(_SPELL / 4)

    def run(self, minutes: float) -> None:
        """Disturbs for so long, in turn."""
        end = now() + 60 * minutes
        while now() < end:
            for way in self.ways:
                way()
                self.done[way.__name__] += 1
                _pass(_REST)
            print(f"{max(0.0, end - now()) / 60:.1f} minutes left", file=sys.stderr, flush=True)


def _place(pid: int, processors: set[int], nice: int) -> None:
    """Puts every thread of a process on ``processors``."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        # a thread may have just ended, and only root may be less polite again
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.sched_setaffinity(int(task.name), processors)
            os.setpriority(os.PRIO_PROCESS, int(task.name), nice)


def _pass(seconds: float) -> None:
    end = now() + seconds
    until(lambda: now() >= end, "the time to pass", seconds + 60, pause=0.02)


@contextlib.contextmanager
def _site(profile: str) -> Iterator[Lab | NetLab]:
    more = {"failover": {**UNLIMITED, "profile": profile}}
    try:
        netns.require()
    except netns.Unavailable as error:
        print(f"WITHOUT latencies: {error}", file=sys.stderr, flush=True)
        with Lab.start(3, disk=True, options=UNDER_LOAD, more=more) as lab:
            yield lab
        return
    with NetLab.start(3, 1, more=more, options=UNDER_LOAD) as hosts:
        yield hosts


def soak(profile: str, minutes: float, *, writers: int, rate: float) -> dict[str, Any]:
    """Disturbs for so many minutes; returns what came of it as JSON values."""
    with _site(profile) as lab:
        create_table(lab.cluster["db1"])
        lab.cluster.await_synced()
        folder = journal_folder(load(lab.config).cluster(None))
        start = lab.load if isinstance(lab, NetLab) else lambda **options: Load.start(lab.write, **options)
        with serving(lab) as served, start(writers=writers, rate=rate) as writing:
            disturbed = Soak(lab, served)
            begun = now()
            disturbed.run(minutes)
            ended = now()
            writing.await_more(20)
            records = writing.stop()
            told = Counter(n["details"]["name"] for n in served.told if n["kind"] == "diagnosis")
            false = [r for f in journal.journals(folder) if (r := journal.read(f)) and _is_failover(r)]
            if false:
                print(served.log.read_text(), file=sys.stderr, flush=True)
        until(lambda: len({n.gtid() for n in lab.cluster}) == 1, "all servers to have the same", 60.0)
        verdict = judge(records, read_rows(lab.cluster), lab.cluster.primary.name)
        slow = isinstance(lab, NetLab)
    return {
        "profile": profile,
        "minutes": round((ended - begun) / 60, 2),
        "disturbances": dict(disturbed.done),
        "with_latencies": slow,
        "false_failovers": len(false),
        "diagnoses": dict(told),
        "acknowledged": verdict.acknowledged,
        "lost": len(verdict.lost),
        "errors": dict(verdict.errors),
        "longest_gap_s": round(longest_gap((w.acknowledged for w in records.acknowledged), begun, ended), 2),
    }


def _is_failover(records: list[dict[str, Any]]) -> bool:
    return bool(records[0]["operation_kind"] == "failover")


def show_soak(result: dict[str, Any]) -> None:
    """Prints the result."""
    ways = ", ".join(f"{n} × {way}" for way, n in result["disturbances"].items())
    print(f"\n{result['minutes']:.1f} minutes of disturbance, profile {result['profile']}: {ways}")
    if not result["with_latencies"]:
        print("  WITHOUT latencies: hosts with cables could not be had here")
    told = ", ".join(f"{n} × {name}" for name, n in result["diagnoses"].items()) or "nothing"
    print(f"  false failovers        {result['false_failovers']}")
    print(f"  diagnoses told         {told}")
    print(f"  acknowledged, lost     {result['acknowledged']}, {result['lost']}")
    print(f"  longest write gap      {result['longest_gap_s']:.2f} s")
