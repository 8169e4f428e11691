"""Chores give way: what can be taken up later ends as soon as something more urgent has come up."""

from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from proxyroute.argv import run
from proxyroute.deadline import Deadline, give_way, giving_way
from proxyroute.engine import Engine
from proxyroute.errors import GaveWay, ScriptFailed, TimedOut
from proxyroute.journal import outcome, read
from proxyroute.operation import Operation, each
from tests.support.fakeworld import FakeServer, make_world
from tests.unit.test_interrupted import Claims, _assert_legal, _heal, _start

_LONG = 3600.0


def test_every_deadline_of_a_chore_ends_when_something_is_urgent_and_no_other_does() -> None:
    said: list[str] = []
    before = Deadline.after(_LONG)
    with giving_way(lambda: "".join(said)):
        made = Deadline.after(_LONG)
        shorter, firm = made.within(60.0), Deadline.firm(_LONG)
        assert not made.passed
        assert made.slice < 1.0 < firm.slice
        said.append("db1 is gone")
        assert made.passed
        assert shorter.passed
        assert not firm.passed
        assert not before.passed
        with pytest.raises(GaveWay, match="db1 is gone; no longer waited for db2"):
            made.require("db2")
    assert not Deadline.after(_LONG).passed, "only what is made in the chore"


def test_a_deadline_of_a_chore_reaches_another_process_which_cannot_ask() -> None:
    lock = threading.Lock()  # what asks holds on to things that stay in their process
    with giving_way(lambda: "db1 is gone" if lock.locked() else ""):
        there = pickle.loads(pickle.dumps(Deadline.after(_LONG)))
    assert not there.gives_way
    assert there.left > 1.0


def test_one_that_the_clock_has_ended_is_not_said_to_have_given_way() -> None:
    with giving_way(lambda: ""), pytest.raises(TimedOut) as caught:
        Deadline.after(0.0).require("db2")
    assert not isinstance(caught.value, GaveWay)


def test_an_error_after_the_call_is_taken_as_giving_way() -> None:
    said: list[str] = []

    def chore() -> None:
        with giving_way(lambda: "".join(said)):
            said.append("stop")
            raise ScriptFailed("no server takes writes")

    with pytest.raises(GaveWay, match="stop: no server takes writes"):
        chore()
    give_way()  # no chore, nothing to give way to


def test_threads_of_each_and_programs_and_whoever_waits_for_them_give_way() -> None:
    said, began = threading.Event(), threading.Event()

    def stuck(server: FakeServer) -> None:
        """The deadline is made in the thread."""
        deadline = Deadline.after(_LONG)
        began.set()
        while not deadline.passed:
            time.sleep(0.01)
        deadline.require(server.name)

    def hangs(server: FakeServer) -> None:
        """As file I/O on a dead disk: it knows no deadline."""
        never.wait()

    def call(server: FakeServer) -> None:
        (stuck if server.name == "db1" else hangs)(server)

    never = threading.Event()
    world, _ = make_world(2)
    threading.Thread(target=lambda: (began.wait(), said.set()), daemon=True).start()
    try:
        with giving_way(lambda: "urgent" if said.is_set() else ""):
            outcomes = each(world.servers.values(), call, Deadline.after(_LONG))
            assert isinstance(outcomes["db2"].error, TimedOut)
            with pytest.raises(ScriptFailed, match="no time was left"):
                run(["sleep", "3600"], {}, Deadline.after(_LONG))
    finally:
        never.set()


def test_a_program_that_runs_is_ended() -> None:
    asked = iter(["", "", ""])
    with pytest.raises(GaveWay, match="did not end in time and was killed"), giving_way(lambda: next(asked, "urgent")):
        run(["sleep", "3600"], {}, Deadline.after(_LONG))


def test_leftovers_stay_left_over_and_are_taken_up_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "op.jsonl"
    claims: Claims = []
    world, proxy = make_world()
    away, said = world.servers["db3"], threading.Event()
    away.alive = False
    _start(world, proxy, file, claims)
    away.alive = True

    def stuck(*_: object, **__: object) -> None:
        deadline = Deadline.after(_LONG)
        said.set()
        while not deadline.passed:
            time.sleep(0.01)
        deadline.require("db3 to follow")

    with monkeypatch.context() as patch:
        patch.setattr(away, "follow", stuck)
        with pytest.raises(GaveWay), giving_way(lambda: "db2 is silent" if said.is_set() else ""):
            _heal(world, proxy, file, claims, continuous=False)
    assert outcome(read(file)) == "done"
    assert "db2 is silent" in Operation.leftovers_of(read(file))["follow", "db3"]
    _heal(world, proxy, file, claims, continuous=False)
    _assert_legal(world, proxy, "taken up")
    assert not Operation.leftovers_of(read(file))


def test_what_is_not_committed_is_healed_whatever_is_urgent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An open move is no chore; leftovers and rejoins are, and wait."""
    engine, healed = object.__new__(Engine), []  # type: tuple[Engine, list[tuple[str, bool]]]

    def heal_one(file: Path, lost: object, claim: float = 0.0) -> None:
        healed.append((file.name, Deadline.after(_LONG).gives_way))

    for name, stand_in in {
        "_config": SimpleNamespace(lease=SimpleNamespace(time=1.0)),
        "_lease": SimpleNamespace(distributed=False),
        "_take_lease": lambda *_: None,
        "_give_lease_back": lambda: None,
        "_to_heal": lambda: ([Path("open")], [Path("left over"), Path("rejoin")]),
        "_heal_one": heal_one,
        "_parts": SimpleNamespace(site=SimpleNamespace(names=())),
    }.items():
        monkeypatch.setattr(engine, name, stand_in, raising=False)
    engine.heal(urgent=lambda: "db1 is silent")
    assert healed == [("open", False)]
    healed.clear()
    engine.heal(urgent=lambda: "")
    assert healed == [("open", False), ("left over", True), ("rejoin", True)]
    healed.clear()
    engine.heal()
    assert [gives for _, gives in healed] == [False, False, False], "a person waits for the end"
