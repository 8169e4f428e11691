"""A server that was silent when a switchover was planned, and answers in its midst, keeps nobody closed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute.errors import Aborted, ProxyRouteError, Refused
from proxyroute.gtid import GTID, MariaDBPosition
from proxyroute.journal import outcome, read
from proxyroute.model import Deadline, Epoch
from tests.support.fakeworld import Crash, FakeServer, World, make_world
from tests.unit.test_interrupted import Claims, _heal, _start

_OWN = MariaDBPosition((GTID(0, 3, 9007),))
"""Transactions of its own: years old, or of a moment ago."""


def _silent(world: World, *, until: str, writable: bool = False) -> FakeServer:
    """db3 has transactions of its own, and is silent until ``until`` stands in the world's trace."""
    away = world.servers["db3"]
    away.alive, away.runs, away.writable = False, False, writable
    away.executed = away.executed.merge(_OWN)
    live = world.live

    def back() -> None:
        if any(until in what for what in world.trace):
            away.alive = True
        live()

    world.live = back  # type: ignore[method-assign]
    return away


def _told(file: Path) -> str:
    return " ".join(r["text"] for r in read(file) if r["kind"] == "note")


def _only_open(world: World) -> str:
    (name,) = (s.name for s in world.servers.values() if s.writable)
    assert not world.servers[name].holders
    return name


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / f"{n}.jsonl" for n in itertools.count())  # type: ignore[return-value]


@pytest.mark.parametrize("until", ["db1 block writes", "journal: commit", "db1 arm: after"])
def test_what_it_has_of_its_own_does_not_keep_the_new_primary_closed(files: Iterator[Path], until: str) -> None:
    world, proxy = make_world()
    file = next(files)
    _silent(world, until=until)
    _start(world, proxy, file, [])
    assert _only_open(world) == "db2"
    assert proxy.primary == "db2"
    assert outcome(read(file)) == "done"
    assert "db3 was silent when this began, and has 0-3-9007" in _told(file)
    assert world.servers["db3"].follows == "db1", "what diverged is not made to follow"
    assert [r for r in read(file) if r["kind"] == "leftover" and r["server"] == "db3" and r["verb"] == "follow"]


def test_nor_the_old_primary_when_everything_is_undone(files: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    world, proxy = make_world()
    _silent(world, until="db2 detach")

    def stuck(source: object, deadline: Deadline) -> None:
        world.moment("db2 detach fails")
        raise Refused("it does not stop")

    monkeypatch.setattr(world.servers["db2"], "detach", stuck)
    with pytest.raises(Aborted, match="db1 takes writes"):
        _start(world, proxy, next(files), [])
    assert _only_open(world) == "db1"


def test_nor_what_somebody_writes_on_a_closed_replica_meanwhile(files: Iterator[Path]) -> None:
    """An account with privileges writes past read_only, between the preflight and the opening."""
    world, proxy = make_world()
    file, live = next(files), world.live

    def write() -> None:
        if any("db1 block writes" in what for what in world.trace):
            world.servers["db3"].executed = world.servers["db3"].executed.merge(_OWN)
        live()

    world.live = write  # type: ignore[method-assign]
    with pytest.raises(Aborted, match=r"db3 has executed .* beyond the frozen position"):
        _start(world, proxy, file, [])
    assert _only_open(world) == "db1"
    assert proxy.primary == "db1"
    assert "db3 has 0-3-9007, which db1 lacks" in _told(file)


@pytest.mark.parametrize("until", ["db1 block writes", "journal: commit"])
def test_one_that_comes_back_taking_writes_is_closed(files: Iterator[Path], until: str) -> None:
    world, proxy = make_world()
    file = next(files)
    _silent(world, until=until, writable=True)
    _start(world, proxy, file, [])
    assert _only_open(world) == "db2"
    assert "db3, which was silent, came back taking writes and was closed" in _told(file)


def test_one_that_is_back_and_takes_writes_before_anything_waits_ends_it(files: Iterator[Path]) -> None:
    world, proxy = make_world()
    _silent(world, until="stepped preflight", writable=True)
    with pytest.raises((Refused, Aborted), match="db3, which was silent, is back and takes writes"):
        _start(world, proxy, next(files), [])
    assert "db1 block writes: before" not in world.trace
    assert world.servers["db1"].writable
    assert world.servers["db2"].follows == "db1"


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("until", ["stepped preflight", "db1 block writes", "journal: commit"])
def test_killed_at_every_moment(files: Iterator[Path], until: str, writable: bool) -> None:
    """The guard heals: it has been there since the operation began."""
    for moment in itertools.count(1):
        world, proxy = make_world()
        claims: Claims = []
        file = next(files)
        _silent(world, until=until, writable=writable)
        world.crash_at = moment
        try:
            _start(world, proxy, file, claims)
        except Crash:
            told = f"killed at {moment}: {world.trace[-1]}"
        except ProxyRouteError:
            break
        else:
            break
        world.process_dies()
        _heal(world, proxy, file, claims, continuous=True)
        open_now = [s.name for s in world.servers.values() if s.writable and (s.name != "db3" or not writable)]
        assert open_now in (["db1"], ["db2"]), told
        assert proxy.primary in open_now, told
        assert not any(s.holders for s in world.servers.values()), told
    assert moment > (20 if writable and until == "stepped preflight" else 80)


@pytest.mark.parametrize("overtaken", ["epoch", "healer"])
def test_it_is_not_touched_where_somebody_else_may_have_acted(files: Iterator[Path], overtaken: str) -> None:
    """SIGKILL after the freeze; elsewhere somebody opens the server that the dead engine did not see."""
    for moment in itertools.count(1):
        world, proxy = make_world()
        claims: Claims = []
        file = next(files)
        away = _silent(world, until="nothing that ever happens")
        world.crash_at = moment
        with pytest.raises(Crash):
            _start(world, proxy, file, claims)
        if world.trace[-1] == "db1 block writes: after":
            break
    world.process_dies()
    away.alive = away.writable = True
    if overtaken == "epoch":
        claims.append((Epoch(7, 1), "another"))
    with pytest.raises(ProxyRouteError):
        _heal(world, proxy, file, claims, continuous=overtaken == "epoch")
    assert away.writable
    assert not world.servers["db2"].writable
