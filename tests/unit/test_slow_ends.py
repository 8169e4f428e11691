"""What takes long after the commit, or while it is undone, costs nobody else anything, and no engine its life."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxyroute.errors import TimedOut
from proxyroute.guard import _close_what_is_in_doubt
from proxyroute.journal import read
from proxyroute.model import Deadline
from proxyroute.operation import Operation
from proxyroute.undoing import _Budgets
from tests.support.fakeworld import FakeProxy, MortalJournal, World, make_world
from tests.unit import test_interrupted
from tests.unit.test_interrupted import POLICY, _parts, _start


def steps(file: Path) -> list[str]:
    return [str(r["name"]) for r in read(file) if r["kind"] == "step"]


def test_sessions_that_take_back_what_they_wrote_for_long_keep_no_old_primary_from_following(tmp_path: Path) -> None:
    """They are killed and can write no more; only their end takes as long as they have been writing."""
    world, proxy = make_world()
    old = world.servers["db1"]

    def kill_clients(deadline: Deadline) -> int:
        raise TimedOut("out of time while waiting for 1 killed session on db1 to be gone")

    old.kill_clients = kill_clients  # type: ignore[method-assign]
    _start(world, proxy, tmp_path / "1.jsonl", [])
    assert (old.writable, old.follows, old.holders) == (False, "db2", set())
    (closed,) = [r for r in read(tmp_path / "1.jsonl") if r["kind"] == "stepped" and r["name"] == "close old primary"]
    assert "1 killed session on db1 to be gone" in closed["detail"]


@pytest.mark.parametrize("count", [2, 3])
def test_where_commits_wait_for_replicas_these_are_repointed_before_a_script_may_try_a_write(
    count: int, tmp_path: Path
) -> None:
    world, proxy = make_world(count)
    world.servers["db1"].semi_primary = True
    for name in list(world.servers)[1:]:
        world.servers[name].semi_replica = True
    _start(world, proxy, tmp_path / "1.jsonl", [])
    told = [
        s for s in steps(tmp_path / "1.jsonl") if s in ("close old primary", "address up", "first writes", "repoint")
    ]
    if count == 2:
        assert told == ["close old primary", "repoint", "address up"]
    else:  # one has been attached before, and acknowledges
        assert told == ["close old primary", "address up", "first writes", "repoint"]


def _opened(world: World, proxy: FakeProxy, file: Path) -> Operation:
    """Returns an operation that has told its candidate to open, and no more."""
    made: list[Operation] = []

    def begun(parts: Any, op: Operation) -> None:
        made.append(op)
        op.opening()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(test_interrupted, "switchover", begun)
        _start(world, proxy, file, [])
    return made[0]


@pytest.mark.parametrize("turned", [False, True])
def test_a_guard_at_its_end_closes_the_old_primary_unless_it_was_turned_back_to(turned: bool, tmp_path: Path) -> None:
    world, proxy = make_world()
    file = tmp_path / "1.jsonl"
    _opened(world, proxy, file)
    if turned:
        journal = MortalJournal(world, file)
        journal.write("turned", epoch="1.5", reason="db2 did not open")
        journal.close()
    _close_what_is_in_doubt(_parts(world, proxy), file)
    assert world.servers["db1"].writable is turned


def test_what_others_take_is_not_taken_from_the_time_of_a_server() -> None:
    budgets = _Budgets(10.0)
    budgets.use("db1", 1.0)
    budgets.use("", 10.0)
    assert 8.5 < budgets.of("db1").left <= 9.0
    assert budgets.of("").left == 0.0
    assert 9.5 < budgets.of("db2").left <= 10.0


def test_the_guard_waits_for_a_drain_and_for_every_step_at_the_end(tmp_path: Path) -> None:
    """Else it ends an engine that is well, with all that its process does besides."""
    world, proxy = make_world()
    heard: list[tuple[str, float]] = []

    class Guard:
        def begin(self) -> None: ...

        def start(self, deadline: Deadline) -> None: ...

        def expect(self, seconds: float) -> None:
            heard.append((steps(file)[-1] if steps(file) else "", seconds))

        def dismiss(self) -> None: ...

    file = tmp_path / "1.jsonl"
    plain = _parts
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(test_interrupted, "_parts", lambda *a, **k: replace(plain(*a, **k), guard=Guard()))
        _start(world, proxy, file, [], policy=replace(POLICY, drain=0.01, settle=0.5, prove=0.1))
    last: dict[str, float] = {}
    for name, seconds in heard:
        last[name] = seconds
    assert last["hold"] > 0.01 + POLICY.freeze_budget, "the drain and the freeze"
    assert max(seconds for name, seconds in heard if name == "route") > 10.0 + 6 * 0.5, "closing, and what comes then"


def test_an_attached_replica_waits_until_the_candidate_has_what_it_has(tmp_path: Path) -> None:
    world, proxy = make_world()
    old, new, attached = (world.servers[name] for name in ("db1", "db2", "db3"))
    old.semi_primary = new.semi_replica = attached.semi_replica = True
    plain, asked = attached.stop_receiver, new.wait_for
    log: list[str] = []

    def stop_receiver(source: Any, deadline: Deadline) -> None:
        plain(source, deadline)
        if not log:
            attached.executed = attached.executed.merge(old.executed)
            new.executed = new.executed.minus(new.executed)  # it lags behind
        log.append("stopped")

    def wait_for(goal: Any, deadline: Deadline) -> None:
        log.append("awaited")
        new.executed = new.executed.merge(goal)
        asked(goal, deadline)

    attached.stop_receiver, new.wait_for = stop_receiver, wait_for  # type: ignore[method-assign]
    _start(world, proxy, tmp_path / "1.jsonl", [])
    assert log[log.index("stopped") + 1] == "awaited"
    assert (attached.follows, new.writable) == ("db2", True)
