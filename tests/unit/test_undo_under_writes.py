"""Writes that go on while everything is undone are no sign that somebody has opened another server.

The freeze may fail before anything is frozen: a lock that was asked for and never granted holds nobody back.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyroute.errors import Aborted, TimedOut, Unfinished, Unreachable
from proxyroute.gtid import GTID, MariaDBPosition
from proxyroute.inspection import WriteState
from proxyroute.journal import outcome, read
from proxyroute.model import Deadline
from tests.support.fakeworld import World, make_world
from tests.unit.test_interrupted import _start


def test_a_replica_that_was_read_later_has_more_and_the_old_primary_is_opened(tmp_path: Path) -> None:
    world, proxy = make_world()
    old = world.servers["db1"]
    plain = old.write_state

    def asked_for(*_: object) -> None:
        old.holders.add("engine")

        def write_state(deadline: Deadline, operation: str) -> WriteState:
            state = plain(deadline, operation)
            if old.holders:
                old.write()
                for server in world.servers.values():
                    server.replicate()
            return state

        old.write_state = write_state  # type: ignore[method-assign]
        raise Unreachable(old.name, "the lock was not granted")

    old.block_writes = asked_for  # type: ignore[method-assign]
    with pytest.raises(Aborted, match="db1 takes writes"):
        _start(world, proxy, tmp_path / "1.jsonl", [])
    assert old.writable
    assert not old.holders
    assert (proxy.primary, proxy.held) == ("db1", False)


def _acknowledge(world: World) -> None:
    """db2 has executed what db1 does not count yet: it still waits for another acknowledgement, as MySQL does."""
    last = max(g.sequence for g in world.servers["db1"].executed.entries)
    new = world.servers["db2"]
    new.executed = new.executed.merge(MariaDBPosition((GTID(0, 1, last + 1),)))


@pytest.mark.parametrize("granted", [False, True], ids=["commits-wait", "locked"])
def test_what_the_old_primary_still_waits_with_keeps_nothing_from_being_undone(tmp_path: Path, granted: bool) -> None:
    """Whether the lock was granted is not known here; either way nobody but the old primary was ever open."""
    world, proxy = make_world()
    old = world.servers["db1"]
    plain = old.block_writes

    def too_late(*given: object) -> None:
        if granted:
            plain(*given)  # type: ignore[arg-type]
        old.holders.add("engine")  # by its name: it is given when the session connects
        _acknowledge(world)
        raise TimedOut("no write lock within the budget")

    old.block_writes = too_late  # type: ignore[method-assign]
    with pytest.raises(Aborted, match="everything was undone, db1 takes writes"):
        _start(world, proxy, tmp_path / "1.jsonl", [])
    assert old.writable
    assert not old.holders
    assert (proxy.primary, proxy.held) == ("db1", False)
    assert world.most_open == 1
    assert outcome(read(tmp_path / "1.jsonl")) == "aborted"


def test_but_a_candidate_that_somebody_has_opened_meanwhile_does(tmp_path: Path) -> None:
    world, proxy = make_world()
    old = world.servers["db1"]

    def too_late(*_: object) -> None:
        old.holders.add("engine")
        world.servers["db2"].writable = True
        raise TimedOut("no write lock within the budget")

    old.block_writes = too_late  # type: ignore[method-assign]
    with pytest.raises(Unfinished, match="db2 takes writes"):
        _start(world, proxy, tmp_path / "1.jsonl", [])
    assert old.holders == {"engine"}


def test_and_so_does_a_candidate_that_is_beyond_the_frozen_position(tmp_path: Path) -> None:
    world, proxy = make_world()
    old, new = world.servers["db1"], world.servers["db2"]

    def ahead(*_: object) -> None:
        _acknowledge(world)
        raise TimedOut("db2 does not stop")

    new.detach = ahead  # type: ignore[method-assign]
    with pytest.raises(Unfinished, match="beyond the frozen position"):
        _start(world, proxy, tmp_path / "1.jsonl", [])
    assert old.holders == {"engine"}
