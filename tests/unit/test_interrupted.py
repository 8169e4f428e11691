"""The switchover in a world of fakes, killed at every moment, and its heal killed at every moment again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute.election import elect, make_plan
from proxyroute.errors import Aborted, ProxyRouteError, SplitBrain, Unfinished
from proxyroute.gtid import Containment, MariaDBPosition
from proxyroute.inspection import WriteState
from proxyroute.journal import Journal, outcome, read
from proxyroute.model import Deadline, Epoch
from proxyroute.opening import Standing
from proxyroute.operation import Operation, resume
from proxyroute.parts import Parts
from proxyroute.policy import Policy
from proxyroute.recovery import Way, recover, way
from proxyroute.routes import Routes
from proxyroute.site import Site
from proxyroute.switchover import switchover
from tests.support.fakeworld import Crash, FakeLease, FakeProxy, MortalJournal, NoHooks, World, make_world

POLICY = Policy(drain=0.0, freeze_budget=1.0, settle=1.0, prove=0.1, undo=1.0, long_wait=0.0, warm_up=0.2)
Claims = list[tuple[Epoch, str]]


def _parts(world: World, proxy: FakeProxy, *, continuous: bool = True) -> Parts:
    site = Site("shop", dict(world.servers))
    return Parts(site, Routes([proxy]), NoHooks(), continuous=continuous)


def _start(world: World, proxy: FakeProxy, file: Path, claims: Claims, policy: Policy = POLICY) -> None:
    """Runs a switchover from db1 to db2, until it ends or dies."""
    lease = FakeLease(claims, world)
    view = Site("shop", dict(world.servers)).look(Deadline.after(1.0))
    plan = make_plan(view, "db1", elect(view, "db1", policy, "db2"), policy)
    epoch = lease.claim(proxy.epoch, "op")
    op = Operation.create(MortalJournal(world, file), lease, "op", "switchover", epoch, plan)
    try:
        switchover(_parts(world, proxy), op)
    finally:
        op.journal.close()


def _heal(world: World, proxy: FakeProxy, file: Path, claims: Claims, *, continuous: bool) -> None:
    op = resume(file, FakeLease(claims, world), "test", open_journal=lambda f, _: MortalJournal(world, f))
    if op is None:
        return
    try:
        recover(_parts(world, proxy, continuous=continuous), op)
    finally:
        op.journal.close()


def _assert_legal(world: World, proxy: FakeProxy, told: str) -> None:
    open_now = [s for s in world.servers.values() if s.writable]
    assert [s.name for s in open_now] in (["db1"], ["db2"]), told
    (primary,) = open_now
    assert proxy.primary == primary.name, told
    assert not proxy.held, told
    for server in world.servers.values():
        assert not server.holders, told
        assert server.limit == 100, told
        if server is not primary:
            assert server.follows == primary.name, f"{told}: {server}"
            assert server.runs, f"{told}: {server}"
    lost = [w for w in world.acknowledged if not _has(primary.executed, w)]
    assert not lost, f"{told}: {lost[:3]}"


def _has(position: MariaDBPosition, write: tuple[str, object]) -> bool:
    return position.contains(MariaDBPosition((write[1],))) is Containment.YES  # type: ignore[arg-type]


def _moments(file: Path, *, first: int | None = None) -> int:
    """Returns how many moments there are: in a switchover, or in the heal after one killed at moment ``first``."""
    world, proxy = make_world()
    claims: Claims = []
    world.crash_at = first
    if first is None:
        _start(world, proxy, file, claims)
        return world.moments
    with pytest.raises(Crash):
        _start(world, proxy, file, claims)
    world.process_dies()
    before = world.moments
    _heal(world, proxy, file, claims, continuous=True)
    return world.moments - before


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    """An endless supply of journal files."""
    numbers = itertools.count()
    return (tmp_path / f"{n}.jsonl" for n in numbers)  # type: ignore[return-value]


def test_undisturbed(files: Iterator[Path]) -> None:
    world, proxy = make_world()
    _start(world, proxy, next(files), [])
    _assert_legal(world, proxy, "undisturbed")
    assert world.servers["db2"].writable
    assert world.most_open == 1


@pytest.mark.parametrize("soon", [True, False], ids=["guard-at-once", "heal-long-after"])
def test_killed_at_every_moment(files: Iterator[Path], soon: bool) -> None:
    total = _moments(next(files))
    assert total > 80, "the sweep has nothing to sweep"
    for moment in range(1, total + 1):
        world, proxy = make_world()
        claims: Claims = []
        file = next(files)
        world.crash_at = moment
        with pytest.raises(Crash):
            _start(world, proxy, file, claims)
        told = f"killed at {moment}: {world.trace[-1]}"
        world.process_dies(long_ago=not soon)
        world.live()
        _heal(world, proxy, file, claims, continuous=soon)
        _assert_legal(world, proxy, told)
        assert world.most_open == 1, f"{told}: two servers took writes"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.full)])
def test_heal_killed_at_every_moment_as_well(files: Iterator[Path], stride: int) -> None:
    """The guard heals and is killed itself; long after, somebody types heal."""
    total = _moments(next(files))
    for first in range(1, total + 1, stride):
        for second in range(1 + first % stride, _moments(next(files), first=first) + 1, stride):
            world, proxy = make_world()
            claims: Claims = []
            file = next(files)
            world.crash_at = first
            with pytest.raises(Crash):
                _start(world, proxy, file, claims)
            told = f"killed at {first}: {world.trace[-1]}, "
            world.process_dies()
            world.crash_at = world.moments + second
            try:
                _heal(world, proxy, file, claims, continuous=True)
            except Crash:
                told += f"then at {second}: {world.trace[-1]}"
            world.process_dies(long_ago=True)
            world.live()
            _heal(world, proxy, file, claims, continuous=False)
            _assert_legal(world, proxy, told)
            assert world.most_open == 1, f"{told}: two servers took writes"


def test_somebody_else_acted_meanwhile(files: Iterator[Path]) -> None:
    """SIGKILL after the freeze; an operator fails over to a third server from elsewhere; the first one heals."""
    total = _moments(next(files))
    for moment in range(1, total + 1):
        world, proxy = make_world()
        claims: Claims = []
        file = next(files)
        world.crash_at = moment
        with pytest.raises(Crash):
            _start(world, proxy, file, claims)
        world.process_dies(long_ago=True)
        for server in world.servers.values():
            server.writable = server.name == "db3"
            server.follows = None if server.name == "db3" else "db3"
        proxy.primary, proxy.epoch = "db3", Epoch(7, 1)
        if outcome(read(file)) is not None:  # killed after it was over: there is nothing to heal
            continue
        before = [(s.name, s.writable, s.follows) for s in world.servers.values()]
        with pytest.raises(ProxyRouteError, match="somebody else acted"):
            _heal(world, proxy, file, claims, continuous=False)
        assert [(s.name, s.writable, s.follows) for s in world.servers.values()] == before
        assert proxy.primary == "db3"


def test_candidate_cannot_be_opened_turns_around(files: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    world, proxy = make_world()
    claims: Claims = []

    def refuse(deadline: Deadline) -> None:
        raise Unfinished("the statement is refused")

    monkeypatch.setattr(world.servers["db2"], "accept_writes", refuse)
    with pytest.raises(Aborted):
        _start(world, proxy, next(files), claims)
    _assert_legal(world, proxy, "turned around")
    assert world.servers["db1"].writable


def test_a_turned_around_candidate_does_not_wait_for_acknowledgements_of_its_own(
    files: Iterator[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, proxy = make_world()
    world.servers["db1"].semi_primary = True
    for name in ("db2", "db3"):
        world.servers[name].semi_replica = True

    def refuse(deadline: Deadline) -> None:
        raise Unfinished("the statement is refused")

    monkeypatch.setattr(world.servers["db2"], "accept_writes", refuse)
    with pytest.raises(Aborted):
        _start(world, proxy, next(files), [])
    _assert_legal(world, proxy, "turned around")
    assert "db2 semi-sync primary: after" in world.trace, "it was switched on on the way"
    assert not world.servers["db2"].semi_primary
    assert world.servers["db1"].semi_primary


def test_candidate_dies_before_it_is_told_to_open(files: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    world, proxy = make_world()
    file = next(files)
    detach = world.servers["db2"].detach

    def detach_and_die(source: object, deadline: Deadline) -> None:
        detach(source, deadline)  # type: ignore[arg-type]
        world.servers["db2"].alive = False

    monkeypatch.setattr(world.servers["db2"], "detach", detach_and_die)
    with pytest.raises(ProxyRouteError):
        _start(world, proxy, file, [])
    assert world.servers["db1"].writable
    assert not world.servers["db1"].holders
    assert world.servers["db1"].limit == 100


CASES: list[tuple[bool, bool, tuple[bool, tuple[str, ...]], bool | None, Way | type[ProxyRouteError]]] = [
    # committed, told to open, old (writable, holders), new (writable) or None when silent, way
    (True, True, (True, ()), True, Way.FORWARD),
    (True, True, (True, ("armed",)), False, Way.FORWARD),
    (True, True, (False, ()), False, Way.FORWARD),
    (True, True, (True, ()), False, Way.BACK),
    (True, False, (True, ("armed",)), None, Way.BACK),
    (True, True, (True, ("armed",)), None, Unfinished),
    (False, False, (True, ("armed",)), None, Way.BACK),
    (False, False, (True, ()), False, Way.BACK),
    (False, False, (False, ()), True, Way.FORWARD),
    (False, False, (True, ()), True, SplitBrain),
]


def test_a_heal_after_a_restart_does_not_believe_that_a_silent_candidate_was_never_told(tmp_path: Path) -> None:
    """The record that it was told may have gone with the power."""
    world, _ = make_world()
    view = Site("shop", dict(world.servers)).look(Deadline.after(1.0))
    plan = make_plan(view, "db1", elect(view, "db1", POLICY, "db2"), POLICY)
    goal = world.servers["db1"].executed
    op = Operation.create(Journal(tmp_path / "j"), FakeLease([]), "op", "switchover", Epoch(1, 1), plan)
    op.commit(goal)
    standing = Standing({"db1": WriteState(False, frozenset(), goal)}, {"db2": "dead"})
    try:
        assert way(op, standing) is Way.BACK
        with pytest.raises(Unfinished, match="declare-lost db2"):
            way(op, standing, continuous=False)
        assert way(op, standing, ["db2"], continuous=False) is Way.BACK
    finally:
        op.journal.close()


@pytest.mark.parametrize(("committed", "told", "old", "new", "expected"), CASES)
def test_way(
    tmp_path: Path,
    committed: bool,
    told: bool,
    old: tuple[bool, tuple[str, ...]],
    new: bool | None,
    expected: Way | type[ProxyRouteError],
) -> None:
    world, _ = make_world()
    view = Site("shop", dict(world.servers)).look(Deadline.after(1.0))
    plan = make_plan(view, "db1", elect(view, "db1", POLICY, "db2"), POLICY)
    goal = world.servers["db1"].executed
    op = Operation.create(Journal(tmp_path / "j"), FakeLease([]), "op", "switchover", Epoch(1, 1), plan)
    op.keep("goal", goal.to_json())
    if committed:
        op.commit(goal)
    if told:
        op.opening()
    states = {"db1": WriteState(old[0], frozenset(old[1]), goal)}
    silent = {"db2": "dead"} if new is None else {}
    if new is not None:
        states["db2"] = WriteState(new, frozenset(), goal)
    standing = Standing(states, silent)
    try:
        if isinstance(expected, Way):
            assert way(op, standing) is expected
        else:
            with pytest.raises(expected):
                way(op, standing)
    finally:
        op.journal.close()


@pytest.mark.parametrize(("writable", "expected"), [(False, Way.BACK), (True, Way.FORWARD)])
def test_what_a_silent_primary_may_have_fed_is_no_sign_that_somebody_has_opened_the_candidate(
    tmp_path: Path, writable: bool, expected: Way
) -> None:
    """A failover that died while it was undone: the candidate receives again, from one that only we do not hear."""
    world, _ = make_world()
    view = Site("shop", dict(world.servers)).look(Deadline.after(1.0))
    plan = make_plan(view, "db1", elect(view, "db1", POLICY, "db2"), POLICY)
    goal = world.servers["db1"].executed
    op = Operation.create(Journal(tmp_path / "j"), FakeLease([]), "op", "failover", Epoch(1, 1), plan)
    op.keep("goal", goal.to_json())
    world.servers["db1"].write()
    beyond = world.servers["db1"].executed
    standing = Standing({"db2": WriteState(writable, frozenset(), beyond)}, {"db1": "no answer"})
    try:
        assert way(op, standing) is expected
    finally:
        op.journal.close()
