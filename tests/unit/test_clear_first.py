"""Where nothing makes the old primary hold writes by itself, a proxy in which they wait is closed before it refuses."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from proxyroute.model import Deadline
from tests.support.fakeworld import Crash, FakeProxy, World, make_world
from tests.unit.test_interrupted import POLICY, Claims, _assert_legal, _heal, _start

UNARMED = [replace(POLICY, order="read_only_first"), replace(POLICY, freeze="backup_stage")]
EVENTS = ("edge1 route to None", "db1 refuse writes", "db2 accept writes", "edge1 route to db2")


@dataclass
class QueueingProxy(FakeProxy):
    """A proxy in which writes wait while it is closed, or not."""

    waits: bool = True

    def queues(self, deadline: Deadline) -> bool:
        return self.waits


def begun(waits: bool = True) -> tuple[World, QueueingProxy]:
    world, plain = make_world()
    return world, QueueingProxy(world, primary="db1", epoch=plain.epoch, waits=waits)


def in_order(world: World) -> list[str]:
    """Returns which of the events came first after the commit, in their order."""
    found = [what.removesuffix(": after") for what in world.trace if what.endswith(": after")]
    return list(dict.fromkeys(what for what in found if what in EVENTS))


@pytest.mark.parametrize("policy", UNARMED, ids=["read_only_first", "backup_stage"])
def test_it_is_closed_before_the_old_primary_refuses_writes(tmp_path: Path, policy: object) -> None:
    world, proxy = begun()
    _start(world, proxy, tmp_path / "op.jsonl", [], policy)  # type: ignore[arg-type]
    _assert_legal(world, proxy, "undisturbed")
    assert in_order(world) == list(EVENTS)


def test_it_is_left_alone_where_writes_would_fail_in_it(tmp_path: Path) -> None:
    world, proxy = begun(waits=False)
    _start(world, proxy, tmp_path / "op.jsonl", [], UNARMED[0])
    _assert_legal(world, proxy, "undisturbed")
    assert "edge1 route to None" not in in_order(world)


def test_it_is_left_alone_where_the_old_primary_holds_writes(tmp_path: Path) -> None:
    world, proxy = begun()
    _start(world, proxy, tmp_path / "op.jsonl", [])
    _assert_legal(world, proxy, "undisturbed")
    found = in_order(world)
    assert "edge1 route to None" not in found
    assert found.index("edge1 route to db2") < found.index("db1 refuse writes")


@pytest.mark.parametrize("soon", [True, False], ids=["guard-at-once", "heal-long-after"])
def test_killed_at_every_moment_it_is_open_again(tmp_path: Path, soon: bool) -> None:
    world, proxy = begun()
    _start(world, proxy, tmp_path / "undisturbed.jsonl", [], UNARMED[0])
    for moment in itertools.takewhile(lambda n: n <= world.moments, itertools.count(1)):
        mortal, proxy = begun()
        claims: Claims = []
        file = tmp_path / f"{moment}.jsonl"
        mortal.crash_at = moment
        with pytest.raises(Crash):
            _start(mortal, proxy, file, claims, UNARMED[0])
        told = f"killed at {moment}: {mortal.trace[-1]}"
        mortal.process_dies(long_ago=not soon)
        mortal.live()
        _heal(mortal, proxy, file, claims, continuous=soon)
        _assert_legal(mortal, proxy, told)
        assert mortal.most_open == 1, f"{told}: two servers took writes"
