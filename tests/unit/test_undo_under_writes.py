"""Writes that go on while everything is undone are no sign that somebody has opened another server.

The freeze may fail before anything is frozen: a lock that was asked for and never granted holds nobody back.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyroute.errors import Aborted, Unreachable
from proxyroute.inspection import WriteState
from proxyroute.model import Deadline
from tests.support.fakeworld import make_world
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
