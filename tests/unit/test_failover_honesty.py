"""What a failover claims: how long writes stood still, and that something keeps clients away from the old primary."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute.errors import Aborted, ScriptFailed
from proxyroute.failover import Orders, failover
from proxyroute.history import report_from, summarize
from proxyroute.journal import read
from proxyroute.model import Deadline
from proxyroute.operation import Operation
from proxyroute.parts import Parts
from proxyroute.routes import Routes
from proxyroute.site import Site
from proxyroute.words import stood_still
from tests.support.fakeworld import FakeLease, MortalJournal, NoHooks
from tests.unit.test_failover_interrupted import ORDERS, PLAN, dead_world, start


class BrokenFence(NoHooks):
    """There is a fence, and it does not work."""

    def configured(self, moment: str) -> Sequence[str]:
        return ("fence",) if moment == "fence" else ()

    def run(self, moment: str, environment: Mapping[str, str], deadline: Deadline) -> None:
        if moment == "fence":
            raise ScriptFailed("the power switch does not answer")


def without_proxies(file: Path, orders: Orders) -> list[str]:
    """Fails over where no proxy is; returns who takes writes afterwards."""
    world, proxy = dead_world()
    lease = FakeLease([])
    op = Operation.create(
        MortalJournal(world, file), lease, file.stem, "failover", lease.claim(proxy.epoch, file.stem), PLAN
    )
    try:
        failover(Parts(Site("shop", dict(world.servers)), Routes([]), BrokenFence(), continuous=True), op, orders)
    finally:
        op.journal.close()
    return [s.name for s in world.servers.values() if s.writable and s.alive]


def test_a_fence_that_fails_is_none_and_an_automatic_failover_opens_nobody_then(tmp_path: Path) -> None:
    with pytest.raises(Aborted, match=r"nothing keeps clients away from db1.*--fenced-by"):
        without_proxies(tmp_path / "a.jsonl", replace(ORDERS, accept_unfenced=False))
    assert without_proxies(tmp_path / "b.jsonl", ORDERS) == ["db2"], "a person, or a declaration, may"


def test_the_blackout_is_counted_from_the_last_sight_of_the_old_primary_taking_writes(tmp_path: Path) -> None:
    file = tmp_path / "seen.jsonl"
    start(*dead_world(), file, [], replace(ORDERS, seen_writing=time.time() - 30.0))
    summary = summarize(read(file))
    assert summary.blackout_from == "seen"
    assert summary.blackout_seconds is not None
    assert 30.0 <= summary.blackout_seconds < 60.0
    assert "at most 30" in report_from(read(file))["clients"]


def test_where_nobody_saw_it_alive_it_is_counted_from_the_first_step_and_told_as_the_least(tmp_path: Path) -> None:
    file = tmp_path / "begun.jsonl"
    start(*dead_world(), file, [])
    summary = summarize(read(file))
    assert summary.blackout_from == "begun"
    assert summary.blackout_seconds is not None
    assert summary.blackout_seconds < 30.0
    assert "at least" in report_from(read(file))["clients"]


def test_a_switchover_measures_itself_and_adds_nothing() -> None:
    assert stood_still(0.012, "") == "writes stood still for 12 ms"
