"""What a failover counts of what is left, at each step by the same rules as the election that promised it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxyroute.errors import Aborted, Superseded, TimedOut, Unfinished
from proxyroute.failover import Orders
from proxyroute.gtid import Containment
from proxyroute.history import report_from
from proxyroute.journal import outcome, read
from proxyroute.model import Deadline, Peer, Status
from proxyroute.moment import Moment
from proxyroute.operation import Operation, resume
from proxyroute.recovery import recover
from tests.support.builders import position
from tests.support.fakeworld import FakeLease, FakeProxy, FakeServer, MortalJournal, World
from tests.unit.test_failover_honesty import claimed, lossless
from tests.unit.test_failover_interrupted import dead_world, has, parts, start

ACKNOWLEDGED = ("db2", "db3")


def orders(world: World, **more: object) -> Orders:
    """Orders under ``lossless`` after a good sight of everybody."""
    reference = world.servers["db1"].executed
    sight = {"reference": reference, "acknowledgers": ACKNOWLEDGED, "seen_writing": Moment.now()}
    return replace(lossless(), **sight, **more)  # type: ignore[arg-type]


def kept(file: Path, name: str) -> object:
    return [r["value"] for r in read(file) if r["kind"] == "keep" and r["name"] == name][-1]


def test_an_errant_transaction_of_a_sibling_is_no_part_of_what_the_new_primary_must_have(tmp_path: Path) -> None:
    """The election left it out and said GO: so does the failover, and what it is committed with."""
    world, proxy = dead_world()
    sibling, file = world.servers["db3"], tmp_path / "errant.jsonl"
    sibling.executed = sibling.executed.merge(position("0-3-107"))
    start(world, proxy, file, [], orders(world))
    assert [s.name for s in world.servers.values() if s.writable and s.alive] == ["db2"]
    assert outcome(read(file)) == "done"
    assert claimed(file) == ([], "PROVEN")
    assert not has(world.servers["db2"].executed, (0, 3, 107))
    assert ("follow", "db3") in Operation.leftovers_of(read(file)), "it has what nobody else has: a person decides"


def test_a_candidate_that_was_seeded_has_by_the_order_what_came_before(tmp_path: Path) -> None:
    world, proxy = dead_world()
    file = tmp_path / "seeded.jsonl"
    for name in ("db1", "db3"):
        server = world.servers[name]
        server.executed = server.executed.merge(position("0-9-1"))
    world.servers["db1"].write()  # beyond it by the order
    for name in ("db2", "db3"):
        server = world.servers[name]
        server.executed = server.executed.merge(world.servers["db1"].executed.by(1))
    assert world.servers["db2"].executed.contains(position("0-9-1")) is Containment.UNKNOWN
    start(world, proxy, file, [], orders(world))
    assert world.servers["db2"].writable
    assert (kept(file, "reached"), claimed(file)) == ("yes", ([], "PROVEN"))


def test_a_history_that_the_primary_did_not_have_is_still_no_failover(tmp_path: Path) -> None:
    world, proxy = dead_world()
    reference = world.servers["db1"].executed
    world.servers["db3"].executed = world.servers["db3"].executed.merge(position("0-9-1"))
    with pytest.raises(Aborted, match="db2 lacks 0-9-1"):
        start(world, proxy, tmp_path / "other.jsonl", [], replace(orders(world), reference=reference))
    assert not world.servers["db2"].writable


@pytest.mark.parametrize("channel", [{"delay_seconds": 3600}, {"applier": False}], ids=["delayed", "stopped"])
def test_who_gives_more_is_not_waited_for_where_nothing_is_applied(tmp_path: Path, channel: dict[str, Any]) -> None:
    """It gives what it has executed; what lies in its relay logs comes too late, or never."""
    world, proxy = dead_world()
    new, ahead = world.servers["db2"], world.servers["db3"]
    new.executed = position("0-1-1")
    more = ahead.executed.merge(position("0-1-999"))
    plain = ahead.look

    def look(deadline: Deadline) -> Status:
        status = plain(deadline)
        return replace(status, sources=tuple(replace(s, received=more, **channel) for s in status.sources))

    ahead.look = look  # type: ignore[method-assign]
    had = ahead.executed
    start(world, proxy, tmp_path / "f.jsonl", [], orders(world, fetch_from="db3", may_lack=True))
    assert new.writable
    assert new.executed.contains(had) is Containment.YES, "what it had executed was fetched"
    assert kept(tmp_path / "f.jsonl", "missing") == "0-1-999"


def claimed_last(file: Path) -> tuple[list[str], str]:
    """Returns the doubts that were kept last, and what the proof says of a loss."""
    proof = report_from(read(file))["evidence"]
    (verdict,) = [e["verdict"] for e in proof if e["claim"] == "nothing that it acknowledged is lost"]
    return list(kept(file, "loss")), verdict  # type: ignore[call-overload]


# -- Silent, or not to be stopped --


class Sibling(FakeServer):
    """Falls silent, or gets more from a primary that wakes up, when its receiver is told to stop; ``turn`` does it."""

    turn: Callable[[FakeServer], None]
    stubborn: int = 0
    """How often its receiver is told in vain."""

    def stop_receiver(self, source: Peer, deadline: Deadline) -> None:
        self.turn(self)
        if self.stubborn:
            self.stubborn -= 1
            raise TimedOut(f"{self.name} did not stop in time")
        super().stop_receiver(source, deadline)


def sibling_world(turn: Callable[[FakeServer], None], stubborn: int = 0) -> tuple[World, FakeProxy]:
    """A world whose primary is dead and whose db3 is such a one."""
    world, proxy = dead_world()
    plain = world.servers["db3"]
    changed = Sibling(world, plain.name, plain.server_id, plain.address, executed=plain.executed, follows="db1")
    changed.turn, changed.stubborn = turn, stubborn
    world.servers["db3"] = changed
    return world, proxy


def dies(server: FakeServer) -> None:
    server.alive = False


def test_an_acknowledger_that_falls_silent_after_the_election_is_no_lossless_failover(tmp_path: Path) -> None:
    world, proxy = sibling_world(dies)
    file = tmp_path / "silent.jsonl"
    with pytest.raises(Aborted, match=r"db3 may have acknowledged what nobody else has.*bring db1 back, or db3 if"):
        start(world, proxy, file, [], orders(world))
    assert not world.servers["db2"].writable


def restarts(server: FakeServer) -> None:
    server.uptime = 0.0


def test_an_acknowledger_that_starts_anew_after_the_election_is_no_lossless_failover(tmp_path: Path) -> None:
    """What lay in its relay logs is gone, and is counted nowhere any more."""
    world, proxy = sibling_world(restarts)
    with pytest.raises(Aborted, match=r"db3 has started anew since db1 was last seen taking writes.*bring db1 back"):
        start(world, proxy, tmp_path / "anew.jsonl", [], orders(world))
    assert not world.servers["db2"].writable
    world, proxy = sibling_world(restarts)
    file = tmp_path / "forced.jsonl"
    start(world, proxy, file, [], orders(world, may_lack=True))
    doubts, verdict = claimed_last(file)
    assert doubts[0].startswith("db3 has started anew")
    assert verdict == "UNKNOWN"


def test_where_it_may_be_lost_it_is_told(tmp_path: Path) -> None:
    world, proxy = sibling_world(dies)
    file = tmp_path / "forced.jsonl"
    start(world, proxy, file, [], orders(world, may_lack=True))
    assert world.servers["db2"].writable
    doubts, verdict = claimed_last(file)
    assert doubts[0] == "db3 may have acknowledged what nobody else has, and has fallen silent"
    assert verdict == "UNKNOWN"


def test_one_that_acknowledged_nothing_may_fall_silent(tmp_path: Path) -> None:
    world, proxy = sibling_world(dies)
    file = tmp_path / "bystander.jsonl"
    start(world, proxy, file, [], replace(orders(world), acknowledgers=("db2",)))
    assert world.servers["db2"].writable
    assert claimed(file) == ([], "PROVEN")


# -- A primary that wakes up, and a sibling that cannot be stopped --


def nothing(server: FakeServer) -> None: ...


class Candidate(FakeServer):
    """Something happens when it has been detached: after the comparison, before the commit."""

    then: Callable[[], None]

    def detach(self, source: Peer, deadline: Deadline) -> None:
        super().detach(source, deadline)
        self.then()


def then(world: World, what: Callable[[], None]) -> None:
    plain = world.servers["db2"]
    changed = Candidate(world, plain.name, plain.server_id, plain.address, executed=plain.executed, follows="db1")
    changed.then = what
    world.servers["db2"] = changed


def wakes(world: World) -> None:
    """The old primary was only hung: it takes writes, and whoever still follows it gets them."""
    world.servers["db1"].alive = True
    world.live()


def returns_with_its_own(world: World) -> None:
    sibling = world.servers["db3"]
    sibling.alive = True
    sibling.executed = sibling.executed.merge(position("0-3-999"))


def healed(world: World, proxy: FakeProxy, file: Path, lost: tuple[str, ...] = ()) -> None:
    op = resume(file, FakeLease([]), "test", open_journal=lambda f, _: MortalJournal(world, f))
    assert op is not None
    try:
        recover(parts(world, proxy, file.parent, continuous=False), op, lost)
    finally:
        op.journal.close()


def test_what_a_primary_that_wakes_up_still_gives_to_a_sibling_keeps_nobody_from_opening(tmp_path: Path) -> None:
    """Nobody can stop it, so nobody can wait for it: it is told, and the sibling is left for a rejoin."""
    world, proxy = sibling_world(nothing, stubborn=9)
    then(world, lambda: wakes(world))
    file = tmp_path / "fed.jsonl"
    start(world, proxy, file, [], replace(orders(world), acknowledgers=("db2",)))
    taking = [s.name for s in world.servers.values() if s.writable]
    assert (taking, world.most_open, outcome(read(file))) == (["db2"], 1, "done")
    (doubt,), verdict = claimed_last(file)
    assert doubt.startswith("db3 has received 0-1-"), doubt
    assert "from db1 since, and may have acknowledged it" in doubt
    assert verdict == "UNKNOWN"


def test_what_it_got_before_the_comparison_is_missed(tmp_path: Path) -> None:
    stops: list[int] = []

    def wakes_at_the_second(server: FakeServer) -> None:
        stops.append(1)
        if len(stops) == 2:
            wakes(server.world)
            server.world.servers["db1"].alive = False

    world, proxy = sibling_world(wakes_at_the_second, stubborn=1)
    with pytest.raises(Aborted, match=r"db2 lacks 0-1-\d+, which another server has received"):
        start(world, proxy, tmp_path / "more.jsonl", [], orders(world))
    assert len(stops) == 2
    assert not world.servers["db2"].writable


def test_an_acknowledger_that_cannot_be_stopped_is_no_lossless_failover_unless_the_primary_is_fenced(
    tmp_path: Path,
) -> None:
    for name, more in {"alone": {}, "forced": {"may_lack": True}, "fenced": {"fenced_by": "pacemaker"}}.items():
        world, proxy = sibling_world(nothing, stubborn=9)
        file = tmp_path / f"{name}.jsonl"
        if name == "alone":
            with pytest.raises(Aborted, match=r"db3 goes on receiving.*stop db3, or fence db1"):
                start(world, proxy, file, [], orders(world))
            assert not world.servers["db2"].writable
            continue
        start(world, proxy, file, [], orders(world, **more))
        assert world.servers["db2"].writable
        doubts, verdict = claimed_last(file)
        assert (len(doubts), verdict) == ((0, "PROVEN") if name == "fenced" else (1, "UNKNOWN"))


def test_one_that_answers_and_has_something_of_its_own_can_be_declared_lost(tmp_path: Path) -> None:
    world, proxy = sibling_world(dies, stubborn=9)
    then(world, lambda: returns_with_its_own(world))
    file = tmp_path / "lost.jsonl"
    with pytest.raises(Unfinished, match="--declare-lost db3"):
        start(world, proxy, file, [], replace(orders(world), acknowledgers=("db2",)))
    with pytest.raises(Unfinished, match=r"db3 has executed .* beyond the frozen position"):
        healed(world, proxy, file)
    assert not [s for s in world.servers.values() if s.writable and s.alive]
    healed(world, proxy, file, ("db3",))
    assert [s.name for s in world.servers.values() if s.writable and s.alive] == ["db2"]
    assert outcome(read(file)) == "done"


def test_one_that_takes_writes_cannot_be_declared_lost(tmp_path: Path) -> None:
    world, proxy = sibling_world(dies, stubborn=9)
    then(world, lambda: returns_with_its_own(world))
    file = tmp_path / "open.jsonl"
    with pytest.raises(Unfinished):
        start(world, proxy, file, [], replace(orders(world), acknowledgers=("db2",)))
    world.servers["db3"].writable = True
    with pytest.raises(Superseded, match="db3 takes writes"):
        healed(world, proxy, file, ("db3",))
    assert [s.name for s in world.servers.values() if s.writable and s.alive] == ["db3"]


def test_a_primary_that_is_back_is_not_closed_when_the_new_one_may_not_be_opened(tmp_path: Path) -> None:
    """It was closed first: then nobody took writes, and nobody could be made to."""
    world, proxy = sibling_world(dies, stubborn=9)

    def both_are_back() -> None:
        returns_with_its_own(world)
        world.servers["db1"].alive = True

    then(world, both_are_back)
    with pytest.raises(Aborted, match="beyond the frozen position"):
        start(world, proxy, tmp_path / "back.jsonl", [], replace(orders(world), acknowledgers=("db2",)))
    taking = [s.name for s in world.servers.values() if s.writable]
    assert (taking, world.most_open, proxy.primary) == (["db1"], 1, "db1")
