"""Who lost the lease can change nothing: its marked sessions are ended, and no new one is permitted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxyroute.errors import LeaseLost, LostReply, Unreachable
from proxyroute.model import Deadline
from proxyroute.policy import Policy
from proxyroute.ports import Server
from tests.support.drivers import server_of
from tests.support.mariadb import LocalCluster

FLAVOURS = ("mysql",)
BOUNDS = {"mariadb": 0, "mysql": 1}
"""Sessions that end an attempt at the lock in time, where the server does not do so itself."""


class Permit:
    """What the lease says; ``asked`` counts how often."""

    def __init__(self) -> None:
        self.ours = True
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        if not self.ours:
            raise LeaseLost("the lease is lost")


def soon() -> Deadline:
    return Deadline.after(5.0)


@pytest.fixture
def permits() -> tuple[Permit, Permit]:
    return Permit(), Permit()


@pytest.fixture
def two(cluster: LocalCluster, permits: tuple[Permit, Permit]) -> Iterator[tuple[Server, Server]]:
    first, second = (server_of(cluster["db1"], permit) for permit in permits)
    yield first, second
    first.close()
    second.close()
    cluster["db1"].sql("SET GLOBAL read_only=0, max_connections=151")


def test_a_connection_asks_once_before_its_first_change_and_never_to_read(
    two: tuple[Server, Server], permits: tuple[Permit, Permit]
) -> None:
    first, permit = two[0], permits[0]
    first.look(soon())
    first.position(soon())
    assert permit.asked == 0
    first.refuse_writes(soon())
    first.accept_writes(soon())
    assert permit.asked == 1


def test_the_next_holder_ends_who_may_act_and_leaves_alone_who_only_reads(
    two: tuple[Server, Server], permits: tuple[Permit, Permit], cluster: LocalCluster, flavour: str
) -> None:
    first, second = two
    reader = server_of(cluster["db1"], Permit())
    reader.look(soon())
    first.connect(soon(), "op")
    first.block_writes("op", soon(), Policy())
    permits[0].ours = False  # it does not know yet
    assert second.end_others(soon()) == 3 + BOUNDS[flavour], "its control, its lock and its switch"
    cluster["db1"].make_table("app.free", "id INT"), "the lock is gone with its session"
    with pytest.raises((LostReply, Unreachable)):
        first.refuse_writes(soon())
    assert first.look(soon()).writable, "reading goes on, by a new connection"
    with pytest.raises(LeaseLost):
        first.refuse_writes(soon())
    with pytest.raises(LeaseLost):
        first.connect(soon(), "op")
    reader.look(soon())
    assert second.end_others(soon()) == 0
    second.refuse_writes(soon())
    assert not cluster["db1"].is_writable()
    reader.close()


def test_what_is_armed_is_not_ended_with_the_other_sessions(
    two: tuple[Server, Server], cluster: LocalCluster, flavour: str
) -> None:
    """It closes the old primary whoever dies; only an operation that knows its name takes it back."""
    first, second = two
    first.connect(soon(), "op")
    first.block_writes("op", soon(), Policy())
    first.arm("op", 30.0, soon())
    assert second.end_others(soon()) == 2 + BOUNDS[flavour]
    assert second.write_state(soon(), "op").holders == {"armed"}
    second.unblock_writes("op", soon())
    assert second.write_state(soon(), "op").holders == set()
    assert cluster["db1"].is_writable()


def test_without_a_distributed_lease_nothing_is_marked(cluster: LocalCluster, two: tuple[Server, Server]) -> None:
    local = server_of(cluster["db1"], None)
    local.connect(soon(), "op")
    assert two[1].end_others(soon()) == 0
    local.close()
