"""The guard is told how long each step of a failover may take: it must not end an engine that keeps every deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxyroute import failover as room
from proxyroute.failover import Orders, failover
from proxyroute.gtid import Position
from proxyroute.model import Deadline, Peer
from proxyroute.operation import Operation
from tests.support.fakeworld import FakeLease, FakeProxy, FakeServer, MortalJournal, World, make_world
from tests.unit.test_failover_interrupted import PLAN, assert_moved, parts

PATIENCE = 0.8
"""Seconds that a step is given here,"""
TAKES = 0.7
"""and how long it takes: nothing is late."""


class Guard:
    """Ends nobody, and remembers when it would have."""

    def __init__(self) -> None:
        self.until = float("inf")
        self.late: list[float] = []

    def _heard(self) -> None:
        if (over := time.monotonic() - self.until) > 0:
            self.late.append(over)

    def begin(self) -> None:
        self.until = float("inf")

    def start(self, deadline: Deadline) -> None: ...

    def expect(self, seconds: float) -> None:
        self._heard()
        self.until = time.monotonic() + seconds

    def dismiss(self) -> None:
        self._heard()


class Slow(FakeServer):
    """Has much to apply, and takes as long to follow another one."""

    def wait_for(self, goal: Position, deadline: Deadline) -> None:
        time.sleep(min(TAKES, deadline.left))
        super().wait_for(goal, deadline)

    def follow(
        self,
        source: Peer,
        deadline: Deadline,
        *,
        instead_of: Peer | None = None,
        source_has: Callable[[], Position] | None = None,
        source_purged: Callable[[], Position | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        time.sleep(TAKES if source.name == "db3" else 0.0)
        super().follow(
            source, deadline, instead_of=instead_of, source_has=source_has, source_purged=source_purged, options=options
        )


def slow_world() -> tuple[World, FakeProxy]:
    """db1 is dead; db2 takes over, and db3 has more than it."""
    world, proxy = make_world()
    for name in ("db2", "db3"):
        plain = world.servers[name]
        slow = Slow(world, plain.name, plain.server_id, plain.address, executed=plain.executed, follows="db1")
        world.servers[name] = slow
    world.servers["db2"].runs = False
    for _ in range(3):
        world.moment("a write")
    world.servers["db1"].alive = False
    return world, proxy


def test_a_guard_does_not_count_on_less_than_the_steps_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have to apply much, what one has more is fetched, and the guard hears of it before its time is over."""
    for name, seconds in {"_GUARD": 0.3, "_CLOSE": 0.1, "_STOP": 0.1, "_ANSWER": 0.2}.items():
        monkeypatch.setattr(room, name, seconds)
    world, proxy = slow_world()
    lease, guard = FakeLease([]), Guard()
    epoch = lease.claim(proxy.epoch, "op")
    op = Operation.create(MortalJournal(world, tmp_path / "op.jsonl"), lease, "op", "failover", epoch, PLAN)
    orders = Orders(
        participants=("db2", "db3"), patience=PATIENCE, fetch_patience=PATIENCE, server_ids={"db1": 1}, fetch_from="db3"
    )
    began = time.monotonic()
    failover(replace(parts(world, proxy, tmp_path), guard=guard), op, orders)
    op.journal.close()
    guard.dismiss()
    assert_moved(world, proxy, "slowly")
    assert guard.late == [], "it would have ended an engine that was within every deadline"
    applied = next(r for r in op.journal.records if r["kind"] == "stepped" and r["name"] == "apply what was received")
    assert applied["seconds"] < 2 * TAKES, "both apply at once"
    assert time.monotonic() - began > 3 * TAKES, "the steps have taken their time"
