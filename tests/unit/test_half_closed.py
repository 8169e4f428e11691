"""A server that refuses ordinary accounts only is closed to everybody by an operation, unless it is left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute.gtid import GTID, MariaDBPosition
from proxyroute.logged import HALF_BUILT
from proxyroute.model import Deadline
from proxyroute.parts import Parts
from tests.support.fakeworld import make_world
from tests.unit.test_failover_interrupted import dead_world, start
from tests.unit.test_interrupted import _start

MARK = MariaDBPosition((GTID(HALF_BUILT, 3, 1),))


@pytest.mark.parametrize(("aside", "loading"), [((), False), (("db3",), False), ((), True)])
def test_a_replica_that_is_half_closed_is_closed_unless_it_is_set_aside_or_gets_new_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aside: tuple[str, ...], loading: bool
) -> None:
    monkeypatch.setattr(Parts, "set_aside", lambda parts, op: frozenset(aside))
    world, proxy = make_world()
    replica = world.servers["db3"]
    replica.half_closed = True
    if loading:  # since the new primary is open, by an engine whose journal is elsewhere
        plain = replica.write_state
        replica.write_state = lambda *asked: replace(  # type: ignore[method-assign]
            plain(*asked), **({"position": MARK} if world.servers["db2"].writable else {})
        )
    _start(world, proxy, tmp_path / "op.jsonl", [])
    assert world.servers["db2"].writable
    assert replica.half_closed is bool(aside or loading)


@pytest.mark.parametrize(("aside", "loading"), [((), False), (("db1",), False), ((), True)])
def test_so_is_a_dead_primary_that_is_back_half_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aside: tuple[str, ...], loading: bool
) -> None:
    monkeypatch.setattr(Parts, "set_aside", lambda parts, op: frozenset(aside))
    world, proxy = dead_world()
    old, new = world.servers["db1"], world.servers["db2"]
    opened, plain = new.accept_writes, old.write_state

    def comes_back(deadline: Deadline) -> None:
        opened(deadline)
        old.alive, old.writable, old.half_closed = True, False, True

    new.accept_writes = comes_back  # type: ignore[method-assign]
    if loading:
        old.write_state = lambda *asked: replace(plain(*asked), position=MARK)  # type: ignore[method-assign]
    start(world, proxy, tmp_path / "op.jsonl", [])
    assert new.writable
    assert old.half_closed is bool(aside or loading)
