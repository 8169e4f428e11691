"""The old primary dies in the midst of a switchover: before the commit its record is no hindrance to a failover."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute.errors import Aborted, ProxyRouteError, Superseded, Unfinished, Unreachable
from proxyroute.gtid import MariaDBPosition
from proxyroute.journal import first, outcome, read
from proxyroute.operation import Operation
from tests.support.fakeworld import Crash, FakeProxy, World, make_world
from tests.unit import test_failover_interrupted as failovers
from tests.unit.test_interrupted import POLICY, Claims, _assert_legal, _heal, _start

BRIEF = replace(POLICY, undo=0.3)
FROZEN = "db1 block writes: after"


def when(world: World, what: str | int, then: Callable[[], None]) -> None:
    """``then`` happens once, at the moment ``what``, told by its name or its number."""
    plain = world.moment

    def moment(name: str) -> None:
        if what in (name, world.moments):
            world.moment = plain  # type: ignore[method-assign]
            then()
        plain(name)

    world.moment = moment  # type: ignore[method-assign]


def dies(world: World, name: str = "db1") -> Callable[[], None]:
    return lambda: setattr(world.servers[name], "alive", False)


def died(file: Path, claims: Claims, what: str | int = FROZEN) -> tuple[World, FakeProxy]:
    """A switchover whose old primary died at the moment ``what``, and that was undone but for it."""
    world, proxy = make_world()
    when(world, what, dies(world))
    with pytest.raises(Aborted, match=r"restore_writes db1.*db1 takes no writes .*if it is gone: proxyroute failover"):
        _start(world, proxy, file, claims, BRIEF)
    return world, proxy


def back(world: World, *, restarted: bool) -> None:
    """db1 answers again; a restart has ended what held writes back there, and it refuses them as it is configured."""
    old = world.servers["db1"]
    old.alive = True
    if restarted:
        old.holders.clear()
        old.writable = False


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    numbers = itertools.count()
    return (tmp_path / f"{n:04}.jsonl" for n in numbers)  # type: ignore[return-value]


@pytest.mark.parametrize("what", ["edge1 hold: after", "db1 block writes: before", FROZEN])
def test_who_dies_before_the_commit_is_left_to_do_and_a_failover_opens_another(
    files: Iterator[Path], what: str
) -> None:
    claims: Claims = []
    file = next(files)
    world, proxy = died(file, claims, what)
    assert outcome(read(file)) == "aborted"
    assert ("restore_writes", "db1") in Operation.leftovers_of(read(file))
    failovers.assert_as_before(world, proxy, what)
    failovers.start(world, proxy, next(files), claims)
    failovers.assert_moved(world, proxy, what)
    assert world.most_open == 1


def test_at_every_moment_the_record_is_closed_or_says_what_to_type(files: Iterator[Path]) -> None:
    world, proxy = make_world()
    _start(world, proxy, next(files), [], BRIEF)
    total = world.moments
    for number in range(total):
        world, proxy = make_world()
        when(world, number, dies(world))
        file, told = next(files), f"died at {number}"
        try:
            _start(world, proxy, file, [], BRIEF)
        except ProxyRouteError as error:
            told = f"{told}: {error}"
        records = read(file)
        if outcome(records) is None:
            assert first(records, "commit") is not None, told
            assert "proxyroute heal --declare-lost db1" in told
        assert len([s for s in world.servers.values() if s.alive and s.writable]) <= 1, told


@pytest.mark.parametrize("restarted", [False, True])
def test_when_it_is_back_and_still_the_primary_the_rest_is_undone(files: Iterator[Path], restarted: bool) -> None:
    """One that restarted is not opened by the record: it may have lost what others have."""
    claims: Claims = []
    file = next(files)
    world, proxy = died(file, claims)
    old = world.servers["db1"]
    back(world, restarted=restarted)
    if restarted:
        acts = len(world.trace)
        with pytest.raises(Unfinished, match=r"db1 is back and refuses writes.*SET GLOBAL read_only=0"):
            _heal(world, proxy, file, claims, continuous=False)
        assert [act for act in world.trace[acts:] if not act.startswith("journal")] == []
        old.writable = True
    _heal(world, proxy, file, claims, continuous=False)
    _assert_legal(world, proxy, "healed")
    assert old.writable
    assert not Operation.leftovers_of(read(file))


@pytest.mark.parametrize("lost", [False, True])
def test_one_that_is_back_at_once_and_closed_is_not_opened_by_the_record(files: Iterator[Path], lost: bool) -> None:
    """It may have lost in the crash what others have received, be it before the frozen position or not."""
    claims: Claims = []
    file = next(files)
    world, proxy = make_world()
    old = world.servers["db1"]

    def restarts() -> None:
        back(world, restarted=True)
        if lost:
            old.executed = old.executed.minus(MariaDBPosition(old.executed.entries[-1:]))
        raise Unreachable("db1", "the connection is gone")

    when(world, FROZEN, restarts)
    with pytest.raises(Aborted, match=r"restore_writes db1.*db1 takes no writes"):
        _start(world, proxy, file, claims, BRIEF)
    assert outcome(read(file)) == "aborted"
    assert not [s for s in world.servers.values() if s.writable]


@pytest.mark.parametrize("writable", [False, True])
def test_when_a_failover_has_happened_since_nothing_is_undone_there(files: Iterator[Path], writable: bool) -> None:
    claims: Claims = []
    file = next(files)
    world, proxy = died(file, claims)
    failovers.start(world, proxy, next(files), claims)
    back(world, restarted=True)
    world.servers["db1"].writable = writable
    before = len(world.trace)
    with pytest.raises(Superseded, match="nothing was touched"):
        _heal(world, proxy, file, claims, continuous=False)
    assert [act for act in world.trace[before:] if not act.startswith("journal")] == []
    assert world.servers["db2"].writable
    assert proxy.primary == "db2"


def test_a_candidate_that_somebody_has_opened_meanwhile_is_no_case_for_it(files: Iterator[Path]) -> None:
    world, proxy = make_world()

    def both() -> None:
        dies(world)()
        world.servers["db2"].writable = True

    when(world, FROZEN, both)
    with pytest.raises(Unfinished, match="--declare-lost db1"):
        _start(world, proxy, next(files), [], BRIEF)


def test_whoever_heals_after_a_death_in_the_midst_of_undoing_goes_on(files: Iterator[Path]) -> None:
    """The engine dies as well; heal restores the writes of one that is back by then, and forgets that it was gone."""
    claims: Claims = []
    file = next(files)
    world, proxy = make_world()
    when(world, "journal: leftover restore_writes", lambda: setattr(world, "dead", True))
    when(world, FROZEN, dies(world))
    with pytest.raises(Crash):
        _start(world, proxy, file, claims, BRIEF)
    world.process_dies()
    back(world, restarted=False)
    _heal(world, proxy, file, claims, continuous=False)
    _assert_legal(world, proxy, "healed")
    assert world.servers["db1"].writable
    assert not Operation.leftovers_of(read(file))
