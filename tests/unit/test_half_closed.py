"""A server that refuses ordinary accounts only is closed to everybody by an operation, unless it is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyroute.parts import Parts
from tests.support.fakeworld import make_world
from tests.unit.test_interrupted import _start


@pytest.mark.parametrize("aside", [(), ("db3",)])
def test_a_replica_that_is_half_closed_is_closed_unless_it_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aside: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Parts, "set_aside", lambda parts, op: frozenset(aside))
    world, proxy = make_world()
    world.servers["db3"].half_closed = True
    _start(world, proxy, tmp_path / "op.jsonl", [])
    assert world.servers["db2"].writable
    assert world.servers["db3"].half_closed is bool(aside)
