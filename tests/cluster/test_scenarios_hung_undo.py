"""A server that hangs while a switchover is undone costs only itself: writes go on in time, the others follow again."""

from __future__ import annotations

import sys
from collections.abc import Callable

from proxyroute.journal import read
from tests.support.lab import Lab
from tests.support.scene import assert_order, beat, configured
from tests.support.wait import until

FLAVOURS = ("mysql",)
STOP = "import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGSTOP)"
BUDGET, UNDO = 1.0, 4.0
LATE = 3.5
"""Seconds from the freeze to writes: the budget, a second for the answer that does not come, and a busy machine."""


def test_a_candidate_that_hangs_under_the_freeze_costs_neither_writes_nor_the_other_replica(
    start_lab: Callable[..., Lab],
) -> None:
    policy = {"freeze_budget": f"{BUDGET:g}s", "undo": f"{UNDO:g}s", "prove": "3s"}
    with start_lab(3, semi_sync=True, policy=policy) as lab:
        old, hung, other = lab.cluster
        assert hung.process is not None
        script = [sys.executable, "-c", STOP, str(hung.process.pid)]
        until(lambda: old.acknowledging() == 2, "both replicas to acknowledge")
        try:
            with configured(lab, scripts={"timeout": "5s", "address_down": script}):
                status, value = lab.json("switchover", "--yes", "--to", hung.name)
            assert (status, value["error"]["kind"]) == (4, "Aborted"), value
            assert old.is_writable()
            assert beat(lab) == old.name
            until(other.replicates, f"{other.name} to follow")
            assert other.source_port() == old.port, "it had been moved below the candidate, and is moved back"
            (file,) = (lab.folder / "state").rglob("2*.jsonl")
            records = read(file)
            left = {r["server"] for r in records if r["kind"] == "leftover" and r["reason"]}
            assert left == {hung.name}
            began = {r["name"]: r["t"] for r in records if r["kind"] == "step"}
            ended = {r["name"]: r["t"] for r in records if r["kind"] == "stepped"}
            assert ended["undo: restore writes"] - began["freeze"] < LATE
            assert ended["undo: release routes"] - began["freeze"] < LATE
            assert records[-1]["t"] - ended["undo: release routes"] < 2 * UNDO, "what hangs has one budget"
        finally:
            hung.sigcont()
        assert lab.run("heal").returncode == 0
        assert_order(lab, old.name)
