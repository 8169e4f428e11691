"""One server that hangs while everything is undone: it costs only itself, and nobody waits longer for writes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxyroute.errors import Aborted, Unreachable
from proxyroute.journal import read
from proxyroute.model import Deadline, Receipt, RouteTable
from tests.support.fakeworld import FakeServer, World, make_world
from tests.unit import test_failover_interrupted as failovers
from tests.unit.test_interrupted import POLICY, _start

_VERBS = ("look", "position", "write_state", "follow", "semi_sync", "start_receiver", "inspect", "connect")


def _deadline(args: tuple[Any, ...], named: dict[str, Any]) -> Deadline:
    return next(a for a in (*args, *named.values()) if isinstance(a, Deadline))


def hangs(server: FakeServer) -> None:
    """It accepts connections and answers nothing: whoever asks it waits for as long as he has."""

    def wait(*args: Any, **named: Any) -> None:
        time.sleep(_deadline(args, named).left)
        raise Unreachable(server.name, "no answer")

    for verb in _VERBS:
        setattr(server, verb, wait)


def heeds(server: FakeServer) -> None:
    """As on a real server nothing is done for those whose time is over."""
    for verb in _VERBS:
        plain = getattr(server, verb)

        def asked(*args: Any, plain: Callable[..., Any] = plain, **named: Any) -> Any:
            _deadline(args, named).require(f"{server.name} to answer")
            return plain(*args, **named)

        setattr(server, verb, asked)


def _fails(world: World, name: str, verb: str, meanwhile: Callable[[], None]) -> None:
    """``verb`` of server ``name`` fails, and something happens right then."""

    def fail(*_: Any, **__: Any) -> None:
        meanwhile()
        raise Unreachable(name, "is not to be had")

    setattr(world.servers[name], verb, fail)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / f"{n}.jsonl" for n in itertools.count())  # type: ignore[return-value]


def test_the_others_receive_again_when_a_failover_is_undone(files: Iterator[Path]) -> None:
    world, proxy = failovers.dead_world()
    heeds(world.servers["db2"])
    _fails(world, "db2", "detach", lambda: hangs(world.servers["db3"]))
    orders = replace(failovers.ORDERS, participants=("db3", "db2"))  # the one that hangs comes first
    with pytest.raises(Aborted, match="but for: start_receiver db3"):
        failovers.start(world, proxy, next(files), [], orders)
    assert world.servers["db2"].runs
    assert not world.servers["db3"].runs


def test_the_routes_are_back_when_the_candidate_of_a_failover_hangs(files: Iterator[Path]) -> None:
    world, proxy = failovers.dead_world()
    _fails(world, "db2", "detach", lambda: hangs(world.servers["db2"]))
    settle = proxy.settle

    def in_time(table: RouteTable, deadline: Deadline) -> Receipt:
        deadline.require("the proxy to answer")
        return settle(table, deadline)

    proxy.settle = in_time  # type: ignore[method-assign]
    with pytest.raises(Aborted) as raised:
        failovers.start(world, proxy, next(files), [])
    assert "release_routes" not in str(raised.value)
    assert proxy.primary == "db1"


def test_a_replica_that_was_moved_below_the_candidate_is_moved_back(files: Iterator[Path]) -> None:
    """The candidate hangs in the midst: what is undone there must not use up the time of the other."""
    world, proxy = make_world()
    world.servers["db1"].semi_primary = True
    for name in ("db2", "db3"):
        world.servers[name].semi_replica = True
        heeds(world.servers[name])
    _fails(world, "db2", "detach", lambda: hangs(world.servers["db2"]))
    file = next(files)
    began = time.monotonic()
    with pytest.raises(Aborted) as raised:
        _start(world, proxy, file, [])
    assert "follow db2" in str(raised.value)
    assert "follow db3" not in str(raised.value)
    assert world.servers["db3"].follows == "db1"
    assert world.servers["db3"].runs
    assert world.servers["db1"].writable
    assert time.monotonic() - began < 3 * POLICY.undo + 1.0, "what hangs has one budget, not one for each thing to undo"


def test_writes_do_not_wait_for_a_replica_that_hangs_when_it_is_turned_around(files: Iterator[Path]) -> None:
    world, proxy = make_world()
    failed: list[float] = []
    _fails(world, "db2", "accept_writes", lambda: (failed.append(time.monotonic()), hangs(world.servers["db3"]))[0])
    file = next(files)
    with pytest.raises(Aborted):
        _start(world, proxy, file, [])
    assert world.servers["db1"].writable
    assert not world.servers["db1"].holders
    assert (proxy.primary, proxy.held) == ("db1", False)
    ended = {r["name"]: r["t"] for r in read(file) if r["kind"] == "stepped"}
    wall = time.time() - time.monotonic()
    # each look at it, of which there were half a dozen, took three seconds
    assert ended["undo: restore writes"] - wall - failed[0] < 2.0
    assert ended["undo: release routes"] - wall - failed[0] < 3.5
