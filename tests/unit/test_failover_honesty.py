"""What a failover claims: how long writes stood still, and that something keeps clients away from the old primary."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from proxyroute.contingency import Contingency
from proxyroute.decided import Action, Diagnosis
from proxyroute.errors import Aborted, LeaseLost, Refused, ScriptFailed, Unfinished
from proxyroute.failover import _MARGIN, Orders, failover
from proxyroute.failover_limits import unfenced
from proxyroute.history import report_from, summarize
from proxyroute.journal import read
from proxyroute.model import Deadline, Epoch, Receipt, ReceiptState, RouteTable, Severity
from proxyroute.moment import Moment
from proxyroute.operation import Operation
from proxyroute.parts import Parts
from proxyroute.planned import contingency_json
from proxyroute.routes import Routes
from proxyroute.site import Site
from proxyroute.words import stood_still
from tests.support.builders import server, view
from tests.support.fakeworld import FakeLease, FakeProxy, MortalJournal, NoHooks, World
from tests.unit.test_failover_interrupted import ORDERS, PLAN, Blind, dead_world, start


class BrokenFence(NoHooks):
    """There is a fence, and it does not work."""

    def configured(self, moment: str) -> Sequence[str]:
        return ("fence",) if moment == "fence" else ()

    def run(self, moment: str, environment: Mapping[str, str]) -> None:
        if moment == "fence":
            raise ScriptFailed("the power switch does not answer")


def run(world: World, routes: Routes, file: Path, orders: Orders) -> None:
    """Fails over in ``world`` with these proxies and a fence that does not work."""
    lease = FakeLease([])
    epoch = lease.claim(Epoch(1, 0), file.stem)
    op = Operation.create(MortalJournal(world, file), lease, file.stem, "failover", epoch, PLAN)
    try:
        failover(Parts(Site("shop", dict(world.servers)), routes, BrokenFence(), continuous=True), op, orders)
    finally:
        op.journal.close()


def without_proxies(file: Path, orders: Orders) -> list[str]:
    """Fails over where no proxy is; returns who takes writes afterwards."""
    world, _ = dead_world()
    run(world, Routes([]), file, orders)
    return [s.name for s in world.servers.values() if s.writable and s.alive]


def test_a_fence_that_fails_is_none_and_an_automatic_failover_opens_nobody_then(tmp_path: Path) -> None:
    with pytest.raises(Aborted, match=r"nothing keeps clients away from db1.*--fenced-by"):
        without_proxies(tmp_path / "a.jsonl", replace(ORDERS, accept_unfenced=False))
    assert without_proxies(tmp_path / "b.jsonl", ORDERS) == ["db2"], "a person, or a declaration, may"


def lossless(seconds: float = 60.0) -> Orders:
    """Orders after a good sight: in sync for so many seconds from now on, and everybody takes part."""
    now = Moment.now()
    assert now is not None
    return replace(ORDERS, in_sync_until=now.after(seconds))


def claimed(file: Path) -> tuple[list[str], str]:
    """Returns the doubts that were kept before the commit, and what the proof says of a loss."""
    records = read(file)
    (doubts,) = [r["value"] for r in records if r["kind"] == "keep" and r["name"] == "loss"]
    proof = report_from(records)["evidence"]
    (verdict,) = [e["verdict"] for e in proof if e["claim"] == "nothing that it acknowledged is lost"]
    return doubts, verdict


def test_in_sync_and_closed_in_time_nothing_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "closed.jsonl"
    start(*dead_world(), file, [], lossless())
    assert claimed(file) == ([], "PROVEN")


def test_closed_after_the_time_out_of_the_last_sight_something_may_be_lost(tmp_path: Path) -> None:
    file = tmp_path / "late.jsonl"
    start(*dead_world(), file, [], lossless(-5.0))
    (doubt,), verdict = claimed(file)
    found = re.fullmatch(r"db1 was closed ([\d.]+) s after the time until which it is known to have waited.*", doubt)
    assert found, doubt
    assert 5.0 <= float(found[1]) < 60.0
    assert verdict == "UNKNOWN"


@pytest.mark.parametrize("hours", [-24, 24])
@pytest.mark.parametrize(("seconds", "verdict"), [(60.0, "PROVEN"), (-5.0, "UNKNOWN")])
def test_a_clock_that_was_set_since_the_last_sight_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, seconds: float, verdict: str
) -> None:
    orders, real = lossless(seconds), time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
    file = tmp_path / "set.jsonl"
    start(*dead_world(), file, [], orders)
    assert claimed(file)[1] == verdict


@pytest.mark.parametrize("until", [None, Moment("another start", 1e12)], ids=["not kept", "before a start"])
def test_a_sight_whose_age_nobody_knows_proves_nothing(tmp_path: Path, until: Moment | None) -> None:
    file = tmp_path / "unknown.jsonl"
    start(*dead_world(), file, [], replace(lossless(), in_sync_until=until))
    (doubt,), verdict = claimed(file)
    assert doubt.startswith("nobody can tell how long before it was closed db1 was last seen waiting")
    assert verdict == "UNKNOWN"


@pytest.mark.parametrize("fenced_by", ["", "pacemaker"])
def test_with_no_proxy_only_a_fence_proves_that_nothing_is_lost(tmp_path: Path, fenced_by: str) -> None:
    """Without it a primary that is only cut off goes on alone, and acknowledges what nobody else has."""
    file = tmp_path / "open.jsonl"
    without_proxies(file, replace(lossless(), fenced_by=fenced_by))
    doubts, verdict = claimed(file)
    assert verdict == ("PROVEN" if fenced_by else "UNKNOWN")
    assert [d for d in doubts if d.startswith("nothing keeps clients away from db1")] == doubts
    assert len(doubts) == (0 if fenced_by else 1)


ABSENT = "edge1 was declared absent and has not shown that it sends no writes to db1"


@pytest.mark.parametrize("off", [False, True], ids=["nobody knows", "said to be off"])
@pytest.mark.parametrize("others", [0, 1])
def test_a_proxy_that_is_declared_absent_and_silent_is_no_closed_way(tmp_path: Path, others: int, off: bool) -> None:
    """What was declared lets it go on; it does not prove that the proxy sends nobody there."""
    world, first = dead_world()
    absent = Blind(world, primary="db1", epoch=first.epoch)
    more = [FakeProxy(world, "edge2", primary="db1", epoch=first.epoch)] * others
    file = tmp_path / "absent.jsonl"
    orders = replace(lossless(), fenced_proxies=("edge1",) if off else ())
    run(world, Routes([absent, *more], absent=["edge1"]), file, orders)
    doubts, verdict = claimed(file)
    assert verdict == ("PROVEN" if off else "UNKNOWN")
    if off:
        assert doubts == []
    elif others:
        assert doubts == [ABSENT]
    else:
        assert [d[:36] for d in doubts] == ["nothing keeps clients away from db1:"]


def test_the_blackout_is_counted_from_the_last_sight_of_the_old_primary_taking_writes(tmp_path: Path) -> None:
    file = tmp_path / "seen.jsonl"
    now = Moment.now()
    assert now is not None
    start(*dead_world(), file, [], replace(ORDERS, seen_writing=now.after(-30.0)))
    summary = summarize(read(file))
    assert summary.blackout_from == "seen"
    assert summary.blackout_seconds is not None
    assert 30.0 <= summary.blackout_seconds < 60.0
    assert "at most 30" in report_from(read(file))["clients"]


def test_a_clock_that_jumps_between_the_sight_and_the_failover_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, now, wall = tmp_path / "jumped.jsonl", Moment.now(), time.time
    assert now is not None
    for hours in (-5, 5):
        monkeypatch.setattr(time, "time", lambda: wall() + hours * 3600)  # noqa: B023 - called before the next round
        start(*dead_world(), file, [], replace(ORDERS, seen_writing=now.after(-30.0)))
        blackout = summarize(read(file)).blackout_seconds
        assert blackout is not None
        assert 30.0 <= blackout < 60.0
        file.unlink()


def test_a_sight_of_before_this_start_of_the_host_is_none(tmp_path: Path) -> None:
    file = tmp_path / "other.jsonl"
    start(*dead_world(), file, [], replace(ORDERS, seen_writing=Moment("another start", 5.0)))
    assert summarize(read(file)).blackout_from == "begun"


def test_where_nobody_saw_it_alive_it_is_counted_from_the_first_step_and_told_as_the_least(tmp_path: Path) -> None:
    file = tmp_path / "begun.jsonl"
    start(*dead_world(), file, [])
    summary = summarize(read(file))
    assert summary.blackout_from == "begun"
    assert summary.blackout_seconds is not None
    assert summary.blackout_seconds < 30.0
    assert "at least" in report_from(read(file))["clients"]


def test_a_switchover_measures_itself_and_adds_nothing() -> None:
    assert stood_still(0.012, "") == "writes stood still for 12 ms"


def test_where_nothing_is_closed_a_plan_does_not_say_that_nothing_may_be_lost() -> None:
    plain = Contingency(view(server(1)), Diagnosis("DeadPrimary", "", Action.FAILOVER, "db1"), None, None, Orders(), ())
    assert plain.may_be_missing == ()
    alone = replace(plain, findings=(unfenced("shop", Severity.WARNING),))
    (told,) = alone.may_be_missing
    assert "no proxy to close and no fence" in told
    assert list(contingency_json(alone)["may_be_missing"]) == [told]


class Stubborn(FakeProxy):
    """Closes by itself when it hears nothing; it hears, and does not do it."""

    state = ReceiptState.FAILED

    def settle(self, table: RouteTable, deadline: Deadline) -> Receipt:
        return Receipt(self.name, self.state, self.epoch, "its socket does not answer")

    def closes_at(self, table: RouteTable) -> float | None:
        return time.monotonic() - _MARGIN

    def answer(self, table: RouteTable, deadline: Deadline) -> Receipt | None:
        return None


class Silent(Stubborn):
    state = ReceiptState.UNKNOWN


@dataclass
class Late(Silent):
    """Has not answered in time, and is not silent."""

    says: ReceiptState = ReceiptState.UNKNOWN

    def answer(self, table: RouteTable, deadline: Deadline) -> Receipt | None:
        return Receipt(self.name, self.says, self.epoch, "its socket does not answer")


class Untold(Silent):
    """Nobody knows whether it could hear: the folder did not take what was published."""

    def closes_at(self, table: RouteTable) -> float | None:
        return None


def test_the_timer_of_a_proxy_that_answers_does_not_run(tmp_path: Path) -> None:
    world, first = dead_world()
    stubborn = Stubborn(world, primary="db1", epoch=first.epoch)
    with pytest.raises(Aborted, match="edge1 may still send writes to db1: its socket does not answer"):
        run(world, Routes([stubborn]), tmp_path / "failed.jsonl", ORDERS)
    assert [s.name for s in world.servers.values() if s.writable and s.alive] == []
    run(world, Routes([Silent(world, primary="db1", epoch=first.epoch)]), tmp_path / "silent.jsonl", ORDERS)
    assert [s.name for s in world.servers.values() if s.writable and s.alive] == ["db2"]


@pytest.mark.parametrize("says", [ReceiptState.UNKNOWN, ReceiptState.FAILED, None])
def test_a_proxy_that_is_late_or_could_not_be_told_is_not_silent(tmp_path: Path, says: ReceiptState | None) -> None:
    world, first = dead_world()
    known = {"primary": "db1", "epoch": first.epoch}
    proxy = Late(world, says=says, **known) if says is not None else Untold(world, **known)
    with pytest.raises(Aborted, match="edge1 may still send writes to db1: its socket does not answer"):
        run(world, Routes([proxy]), tmp_path / "late.jsonl", ORDERS)
    assert [s.name for s in world.servers.values() if s.writable and s.alive] == []


def test_a_proxy_that_was_late_and_has_closed_holds_nobody_up(tmp_path: Path) -> None:
    world, first = dead_world()
    proxy = Late(world, primary="db1", epoch=first.epoch, says=ReceiptState.DONE)
    run(world, Routes([proxy]), tmp_path / "late.jsonl", ORDERS)
    assert [s.name for s in world.servers.values() if s.writable and s.alive] == ["db2"]


class Scripts(NoHooks):
    """All that a site can have; those that were run."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def configured(self, moment: str) -> Sequence[str]:
        return (moment,)

    def run(self, moment: str, environment: Mapping[str, str]) -> None:
        self.ran.append(moment)


class Deposed(FakeLease):
    """Somebody else has it as soon as ``moment`` has passed in the world."""

    def __init__(self, world: World, moment: str) -> None:
        super().__init__([])
        self._passed, self._moment = world.trace, moment

    def check(self) -> None:
        if not self._moment or self._moment in self._passed:
            raise LeaseLost("another engine has it")

    def lost(self, deadline: Deadline) -> bool:
        return True


@pytest.mark.parametrize(
    ("moment", "ran"),
    [("nothing of the kind", ["fence", "address_up"]), ("", []), ("db2 accept writes: after", ["fence"])],
)
def test_no_script_is_run_for_whom_the_lease_has_left(tmp_path: Path, moment: str, ran: list[str]) -> None:
    """The host that a stale engine would fence, or give the address to, may be the primary of another one by now."""
    world, proxy = dead_world()
    lease, hooks, file = Deposed(world, moment), Scripts(), tmp_path / "op.jsonl"
    op = Operation.create(MortalJournal(world, file), lease, file.stem, "failover", Epoch(1, 1), PLAN)
    try:
        with contextlib.suppress(Refused, Unfinished, LeaseLost):
            failover(Parts(Site("shop", dict(world.servers)), Routes([proxy]), hooks, continuous=True), op, ORDERS)
    finally:
        op.journal.close()
    assert hooks.ran == ran
