"""What an operation left to do, taken up later: only while the roles are those it ended with."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyroute.errors import Aborted, Diverged, StatementError, Superseded, TimedOut
from proxyroute.history import beyond_healing, summarize
from proxyroute.journal import outcome, read
from proxyroute.model import Epoch
from proxyroute.operation import Operation
from tests.support.fakeworld import FakeProxy, World, make_world
from tests.unit.test_interrupted import Claims, _assert_legal, _heal, _start


def _aborted_with_a_leftover(file: Path, claims: Claims, monkeypatch: pytest.MonkeyPatch) -> tuple[World, FakeProxy]:
    """A switchover that was undone, but for the candidate, which could not be made to follow again."""
    world, proxy = make_world()
    candidate = world.servers["db2"]

    def stuck(*_: object, **__: object) -> None:
        raise TimedOut("it does not get there")

    def refused(*_: object, **__: object) -> None:
        raise StatementError("db2", 1201, "not now")

    with monkeypatch.context() as patch:
        patch.setattr(candidate, "wait_for", lambda goal, deadline: None)
        patch.setattr(candidate, "detach", lambda source, deadline: setattr(candidate, "runs", False) or stuck())
        patch.setattr(candidate, "follow", refused)
        with pytest.raises(Aborted, match="but for: follow db2"):
            _start(world, proxy, file, claims)
    assert world.servers["db1"].writable
    assert not candidate.runs
    return world, proxy


def test_the_leftover_of_an_undone_operation_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, claims = tmp_path / "op.jsonl", []  # type: tuple[Path, Claims]
    world, proxy = _aborted_with_a_leftover(file, claims, monkeypatch)
    _heal(world, proxy, file, claims, continuous=False)
    _assert_legal(world, proxy, "healed")
    assert world.servers["db2"].runs


def test_a_leftover_is_left_when_somebody_has_promoted_that_server_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, claims = tmp_path / "op.jsonl", []  # type: tuple[Path, Claims]
    world, proxy = _aborted_with_a_leftover(file, claims, monkeypatch)
    world.servers["db1"].writable = False
    world.servers["db2"].writable, world.servers["db2"].follows = True, None
    with pytest.raises(Superseded, match="nothing was touched"):
        _heal(world, proxy, file, claims, continuous=False)
    assert world.servers["db2"].writable
    assert world.servers["db2"].follows is None
    assert not world.servers["db1"].writable
    assert outcome(read(file)) == "superseded"


@pytest.mark.parametrize("published", [False, True])
def test_a_replica_that_was_away_follows_later_whatever_was_published_since(tmp_path: Path, published: bool) -> None:
    file, claims = tmp_path / "op.jsonl", []  # type: tuple[Path, Claims]
    world, proxy = make_world()
    world.servers["db3"].alive = False
    _start(world, proxy, file, claims)
    assert world.servers["db3"].follows == "db1"
    world.servers["db3"].alive = True
    if published:
        proxy.epoch = Epoch(9, 1)
        claims.append((proxy.epoch, "publish"))
    _heal(world, proxy, file, claims, continuous=False)
    _assert_legal(world, proxy, "healed")
    assert world.servers["db3"].follows == "db2"
    assert outcome(read(file)) == "done"


def test_a_done_operation_opens_nothing_again(tmp_path: Path) -> None:
    """Its leftovers wait, and somebody has closed the primary for a reason."""
    file, claims = tmp_path / "op.jsonl", []  # type: tuple[Path, Claims]
    world, proxy = make_world()
    world.servers["db3"].alive = False
    _start(world, proxy, file, claims)
    world.servers["db3"].alive = True
    world.servers["db2"].writable = False
    with pytest.raises(Superseded):
        _heal(world, proxy, file, claims, continuous=False)
    assert not world.servers["db2"].writable


def test_what_only_a_rejoin_can_help_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``serve`` knows by that which leftover no further try can help."""
    file = tmp_path / "op.jsonl"
    world, proxy = make_world()

    def diverged(*_: object, **__: object) -> None:
        raise Diverged("db3", "has executed 0-3-9, which db2 does not have")

    monkeypatch.setattr(world.servers["db3"], "follow", diverged)
    _start(world, proxy, file, [])
    told = Operation.leftovers_of(read(file))["follow", "db3"]
    assert told.endswith("which db2 does not have; type: proxyroute rejoin db3")
    assert beyond_healing(summarize(read(file))) == {"db3"}
