"""The failover in a world of fakes, killed at every moment, healed, and tried again when it was undone."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute.decided import Plan
from proxyroute.errors import ProxyRouteError, Refused
from proxyroute.failover import Orders, failover
from proxyroute.gtid import Containment, MariaDBPosition
from proxyroute.journal import outcome, read
from proxyroute.model import Deadline, Epoch, Receipt, ReceiptState, RouteTable
from proxyroute.operation import Operation, resume
from proxyroute.parts import Parts, Salvage
from proxyroute.policy import Policy
from proxyroute.recovery import recover
from proxyroute.routes import Routes
from proxyroute.site import Site
from tests.support.fakesalvage import FakeHeir, FakeRemains
from tests.support.fakeworld import Crash, FakeLease, FakeProxy, MortalJournal, NoHooks, World, make_world

POLICY = Policy(settle=1.0, prove=0.1, undo=1.0)
PLAN = Plan("shop", "db1", "db2", ("db3",), policy=POLICY)
ORDERS = Orders(participants=("db2", "db3"), patience=0.5, server_ids={"db1": 1})
ALONE = 3
APPLY = replace(ORDERS, dead_binlog="apply")
Claims = list[tuple[Epoch, str]]


def parts(world: World, proxy: FakeProxy, folder: Path, *, continuous: bool = True) -> Parts:
    salvage = Salvage(
        lambda name, _: FakeRemains(world, world.servers[name]),
        lambda name, _: FakeHeir(world, world.servers[name]),
        folder / "archive",
    )
    return Parts(Site("shop", dict(world.servers)), Routes([proxy]), NoHooks(), salvage=salvage, continuous=continuous)


def dead_world(alone: int = 0) -> tuple[World, FakeProxy]:
    """A world in which db1 is dead, with so many transactions that nobody received.

    Where there are any, db2 is set to wait for acknowledgements and db3 gives them.
    """
    world, proxy = make_world()
    world.servers["db2"].semi_primary = world.servers["db3"].semi_replica = alone > 0
    world.live()
    world.servers["db1"].alive = False
    for _ in range(alone):
        world.servers["db1"].write()
    return world, proxy


def start(world: World, proxy: FakeProxy, file: Path, claims: Claims, orders: Orders = ORDERS) -> None:
    lease = FakeLease(claims)
    epoch = lease.claim(proxy.epoch, file.stem)
    op = Operation.create(MortalJournal(world, file), lease, file.stem, "failover", epoch, PLAN)
    try:
        failover(parts(world, proxy, file.parent), op, orders)
    finally:
        op.journal.close()


def heal(world: World, proxy: FakeProxy, file: Path, claims: Claims, *, continuous: bool) -> None:
    op = resume(file, FakeLease(claims), "test", open_journal=lambda f, _: MortalJournal(world, f))
    if op is None:
        return
    try:
        recover(parts(world, proxy, file.parent, continuous=continuous), op)
    finally:
        op.journal.close()


def has(position: MariaDBPosition, gtid: object) -> bool:
    return position.contains(MariaDBPosition((gtid,))) is Containment.YES  # type: ignore[arg-type]


def assert_moved(world: World, proxy: FakeProxy, told: str) -> None:
    assert [s.name for s in world.servers.values() if s.writable and s.alive] == ["db2"], told
    assert (proxy.primary, proxy.held) == ("db2", False), told
    new, other = world.servers["db2"], world.servers["db3"]
    assert (other.follows, other.runs, new.follows) == ("db2", True, None), told
    assert new.semi_primary is other.semi_replica, f"{told}: it waits for acknowledgements where it did before"
    lost = [w for w in world.acknowledged if not has(new.executed, w[1])]
    assert not lost, f"{told}: {lost[:3]}"


def assert_as_before(world: World, proxy: FakeProxy, told: str) -> None:
    assert not [s.name for s in world.servers.values() if s.writable and s.alive], told
    assert (proxy.primary, proxy.held) == ("db1", False), told
    for name in ("db2", "db3"):
        server = world.servers[name]
        assert (server.follows, server.runs, server.applies) == ("db1", True, True), f"{told}: {name}"
    assert world.servers["db2"].semi_primary is world.servers["db3"].semi_replica, f"{told}: as it was"


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    numbers = itertools.count()
    return (tmp_path / f"{n:04}.jsonl" for n in numbers)  # type: ignore[return-value]


def moments(file: Path, orders: Orders = ORDERS, alone: int = 0) -> int:
    world, proxy = dead_world(alone)
    before = world.moments
    start(world, proxy, file, [], orders)
    assert_moved(world, proxy, "undisturbed")
    return world.moments - before


def test_undisturbed(files: Iterator[Path]) -> None:
    world, proxy = dead_world()
    start(world, proxy, next(files), [])
    assert_moved(world, proxy, "undisturbed")
    assert world.most_open == 1
    acts = [t for t in world.trace if t.endswith(": after")]
    closed = acts.index("edge1 route to None: after")
    assert closed < acts.index("db2 accept writes: after"), "it closes before it opens"
    assert acts.index("db2 accept writes: after") < acts.index("db3 change source: after"), "siblings keep their logs"


@pytest.mark.parametrize("ran", [True, False])
def test_events_run_on_the_new_primary_if_they_ran_on_the_old_one(files: Iterator[Path], ran: bool) -> None:
    """Whoever was a replica may have had its scheduler off: its events would be enabled, and never run."""
    world, proxy = dead_world()
    start(world, proxy, next(files), [], replace(ORDERS, event_scheduler=ran))
    assert_moved(world, proxy, "with events")
    assert [s.name for s in world.servers.values() if s.scheduler] == (["db2"] if ran else [])


def test_semi_sync_comes_back_when_nothing_more_is_applied(files: Iterator[Path]) -> None:
    """Undone too early, what is still applied would wait for acknowledgements that nobody can give."""
    world, proxy = dead_world(ALONE)
    start(world, proxy, next(files), [], APPLY)
    applied = next(n for n, told in enumerate(world.trace, 1) if told.startswith("db2 replay"))
    world, proxy = dead_world(ALONE)
    claims: Claims = []
    file = next(files)
    world.crash_at = applied
    with pytest.raises(Crash):
        start(world, proxy, file, claims, APPLY)
    assert not world.servers["db2"].semi_primary
    world.process_dies()
    heal(world, proxy, file, claims, continuous=False)
    assert_as_before(world, proxy, "undone")
    undone = world.trace[applied:]
    assert undone.index("db2 settle replay: after") < undone.index("db2 semi-sync primary: before")


@pytest.mark.parametrize("continuous", [True, False], ids=["guard", "heal"])
def test_killed_at_every_moment(files: Iterator[Path], continuous: bool) -> None:
    total = moments(next(files))
    assert total > 40, "the sweep has nothing to sweep"
    for moment in range(1, total + 1):
        world, proxy = dead_world()
        claims: Claims = []
        file = next(files)
        world.crash_at = world.moments + moment
        with pytest.raises(Crash):
            start(world, proxy, file, claims)
        told = f"killed at {moment}: {world.trace[-1]}"
        world.process_dies()
        heal(world, proxy, file, claims, continuous=continuous)
        if outcome(read(file)) == "aborted" or not read(file):
            assert_as_before(world, proxy, told)
            start(world, proxy, next(files), claims)
        assert_moved(world, proxy, told)
        assert world.most_open <= 1, told


@pytest.mark.parametrize("continuous", [True, False], ids=["guard", "heal"])
def test_killed_at_every_moment_of_what_only_the_dead_one_has(files: Iterator[Path], continuous: bool) -> None:
    """All of it is applied in the end, once; who was killed in the midst opens nothing."""
    total = moments(next(files), APPLY, ALONE)
    assert total > moments(next(files)) + 2 * ALONE
    for moment in range(1, total + 1):
        world, proxy = dead_world(ALONE)
        claims: Claims = []
        file = next(files)
        world.crash_at = world.moments + moment
        with pytest.raises(Crash):
            start(world, proxy, file, claims, APPLY)
        told = f"killed at {moment}: {world.trace[-1]}"
        world.process_dies()
        heal(world, proxy, file, claims, continuous=continuous)
        if outcome(read(file)) == "aborted" or not read(file):
            assert_as_before(world, proxy, told)
            start(world, proxy, next(files), claims, APPLY)
        assert_moved(world, proxy, told)
        assert world.most_open <= 1, told
        for name in ("db2", "db3"):
            has_it = world.servers[name].executed.contains(world.servers["db1"].executed)
            assert has_it is Containment.YES, f"{told}: {name}"
        assert world.servers["db2"].executed == world.servers["db3"].executed, told
        shutil.rmtree(file.parent / "archive", ignore_errors=True)


@pytest.mark.parametrize("continuous", [True, False], ids=["guard", "heal"])
def test_killed_at_every_moment_with_something_to_save(files: Iterator[Path], continuous: bool) -> None:
    orders = replace(ORDERS, dead_binlog="save")
    total = moments(next(files), orders, ALONE)
    for moment in range(1, total + 1):
        world, proxy = dead_world(ALONE)
        claims: Claims = []
        file = next(files)
        archive = file.parent / "archive"
        shutil.rmtree(archive, ignore_errors=True)
        world.crash_at = world.moments + moment
        with pytest.raises(Crash):
            start(world, proxy, file, claims, orders)
        told = f"killed at {moment}: {world.trace[-1]}"
        over = outcome(read(file)) is not None
        world.process_dies()
        heal(world, proxy, file, claims, continuous=continuous)
        if outcome(read(file)) == "aborted" or not read(file):
            start(world, proxy, next(files), claims, orders)
        assert_moved(world, proxy, told)
        saved = list(archive.glob("db1-*/summary.json"))
        assert len(saved) == 1, f"{told}, {over}: {saved}"
        assert len(json.loads(saved[0].read_text())["transactions"]) == ALONE, told
        assert world.servers["db2"].executed.contains(world.servers["db1"].executed) is Containment.NO


def test_what_cannot_be_read_from_the_dead_one_holds_nobody_up(files: Iterator[Path]) -> None:
    for orders, broken in itertools.product((APPLY, replace(APPLY, dead_binlog="save")), ("look", "fetch")):
        world, proxy = dead_world(ALONE)
        world.servers["db1"].broken = broken
        file = next(files)
        start(world, proxy, file, [], orders)
        assert_moved(world, proxy, broken)
        (end,) = [r["value"] for r in read(file) if r["kind"] == "keep" and r["name"] == "salvage"][-1:]
        assert (end["state"], end["last"]) == ("unread", True)
        assert "the binary log of db1 could not be read: broken" in end["told"]


def test_whose_replay_cannot_be_ended_is_not_started_from_before_it(files: Iterator[Path]) -> None:
    """Its replication position does not know what was applied: it would get that once more."""
    world, proxy = dead_world(ALONE)
    new, file = world.servers["db2"], next(files)
    claims: Claims = []
    new.broken = "settle"
    with pytest.raises(ProxyRouteError, match="settle_replay db2, start_receiver db2 "):
        start(world, proxy, file, claims, APPLY)
    assert (new.writable, new.runs, new.applies) == (False, False, False)
    assert world.servers["db3"].runs
    old = world.servers["db1"]
    old.alive = True
    for _ in range(2):  # it goes on as long as it cannot be ended
        heal(world, proxy, file, claims, continuous=False)
        assert (new.runs, new.applies) == (False, False)
        assert outcome(read(file)) == "aborted"
        assert set(Operation.leftovers_of(read(file))) == {("settle_replay", "db2"), ("start_receiver", "db2")}
    new.broken = ""
    heal(world, proxy, file, claims, continuous=False)
    assert (new.follows, new.runs, new.applies) == ("db1", True, True)
    assert not Operation.leftovers_of(read(file))
    acts = world.trace
    assert acts.index("db2 settle replay: after") < acts.index("db2 start receiver: before")


@pytest.mark.parametrize("more", [0, 1], ids=["complete", "with-more"])
@pytest.mark.parametrize(("orders", "alone"), [(ORDERS, 0), (APPLY, ALONE)], ids=["nothing-else", "applied"])
def test_the_old_primary_comes_back_after_a_kill_at_every_moment(
    files: Iterator[Path], more: int, orders: Orders, alone: int
) -> None:
    """Whoever heals then: one server takes writes, and nothing that was acknowledged before is lost."""
    total = moments(next(files), orders, alone)
    for moment in range(1, total + 1):
        world, proxy = dead_world(alone)
        claims: Claims = []
        file = next(files)
        world.crash_at = world.moments + moment
        with pytest.raises(Crash):
            start(world, proxy, file, claims, orders)
        told = f"killed at {moment}: {world.trace[-1]}"
        world.process_dies()
        if outcome(read(file)) is not None:  # it was over: who closes a primary that comes back later is serve
            continue
        acknowledged = list(world.acknowledged)
        old = world.servers["db1"]
        old.alive = True
        for _ in range(more):
            old.write()  # it had something that nobody received
        try:
            heal(world, proxy, file, claims, continuous=False)
        except ProxyRouteError as error:
            told = f"{told}: {error}"
            if world.servers["db2"].writable:
                old.writable = False  # two open: a person decides
                heal(world, proxy, file, claims, continuous=False)
        taking = [s.name for s in world.servers.values() if s.writable]
        assert len(taking) == 1, f"{told}: {taking}"
        assert proxy.primary == taking[0], told
        has_all = world.servers[taking[0]].executed
        assert not [w for w in acknowledged if not has(has_all, w[1])], told


def test_a_primary_that_answers_is_no_case_for_a_failover(files: Iterator[Path]) -> None:
    world, proxy = make_world()
    with pytest.raises(Refused, match="takes writes"):
        start(world, proxy, next(files), [])
    assert proxy.primary == "db1"


class Blind(FakeProxy):
    """Told by a program that cannot read back what became of it."""

    def settle(self, table: RouteTable, deadline: Deadline) -> Receipt:
        super().settle(table, deadline)
        return Receipt(self.name, ReceiptState.UNKNOWN, table.epoch, "no read-back", {"blind": True})


def test_a_proxy_that_can_show_nothing_has_not_acknowledged_and_is_named(files: Iterator[Path]) -> None:
    world, _ = dead_world()
    proxy = Blind(world, primary="db1", epoch=Epoch(1, 0))
    with pytest.raises(ProxyRouteError, match="--proxy-fenced edge1"):
        start(world, proxy, next(files), [])
    assert not world.servers["db2"].writable
    start(world, proxy, next(files), [(Epoch(9, 1), "")], replace(ORDERS, fenced_proxies=("edge1",)))
    assert world.servers["db2"].writable


def test_what_only_a_sibling_has_is_fetched_first(files: Iterator[Path]) -> None:
    world, proxy = make_world()
    world.servers["db2"].runs = False
    for _ in range(3):
        world.moment("a write")
    world.servers["db1"].alive = False
    orders = Orders(participants=("db2", "db3"), patience=0.5, server_ids={"db1": 1}, fetch_from="db3")
    start(world, proxy, next(files), [], orders)
    assert_moved(world, proxy, "fetched")


def test_what_cannot_be_had_is_no_failover_unless_it_is_forced(files: Iterator[Path]) -> None:
    for may_lack in (False, True):
        world, proxy = make_world()
        world.servers["db2"].runs = False
        for _ in range(3):
            world.moment("a write")
        world.servers["db1"].alive = False
        file = next(files)
        orders = Orders(participants=("db2", "db3"), patience=0.5, server_ids={"db1": 1}, may_lack=may_lack)
        if may_lack:
            start(world, proxy, file, [], orders)
            assert world.servers["db2"].writable
            assert [r["value"] for r in read(file) if r["kind"] == "keep" and r["name"] == "missing"]
        else:
            with pytest.raises(ProxyRouteError, match="lacks"):
                start(world, proxy, file, [], orders)
            assert not world.servers["db2"].writable
