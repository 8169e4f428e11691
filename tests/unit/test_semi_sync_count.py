"""Semi-synchronous replication of MySQL: how many acknowledge, and under which names each side is read and switched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from proxyroute.db.mysql import MySQL
from proxyroute.db.rows import semi_sync
from proxyroute.db.session import Session
from proxyroute.finish import _waits_in_vain
from proxyroute.model import Deadline, SemiSync, Status
from tests.support.builders import channel, replica, server, view

ON = SemiSync(available=True, replica_enabled=True)


def acknowledges(number: int) -> Status:
    return replica(number, channel(1), semi_sync=ON)


@pytest.mark.parametrize(
    ("wanted", "replicas", "told"),
    [
        (1, [], "no replica could acknowledge"),
        (1, [2], ""),
        (2, [2], "1 of the 2 replicas that have to could acknowledge"),
        (2, [2, 3], ""),
    ],
)
def test_who_would_acknowledge(wanted: int, replicas: list[int], told: str) -> None:
    new = server(1, semi_sync=replace(ON, wanted=wanted))
    assert _waits_in_vain(view(new, *(acknowledges(n) for n in replicas)), "db1") == told


SOURCES = {"": "", "source": "replica", "master": "slave"}
REPLICAS = ("", "replica", "slave")


@pytest.mark.parametrize("acknowledging", REPLICAS)
@pytest.mark.parametrize("source", SOURCES)
def test_each_side_is_read_by_itself_under_either_name(source: str, acknowledging: str) -> None:
    """They are plugins of their own: one server may have only one of them, or the two under names of two ages."""
    theirs = SOURCES[source]
    waits = {
        f"rpl_semi_sync_{source}_enabled": "ON",
        f"rpl_semi_sync_{source}_timeout": "10000",
        f"rpl_semi_sync_{source}_wait_point": "AFTER_SYNC",
        f"rpl_semi_sync_{source}_wait_no_{theirs}": "ON",
        f"rpl_semi_sync_{source}_wait_for_{theirs}_count": "2",
    }
    counts = {"clients": "2", "status": "ON", "wait_sessions": "1", "yes_tx": "7"}
    gives = {f"rpl_semi_sync_{acknowledging}_enabled": "ON"}
    seen = semi_sync(
        {**(waits if source else {}), **(gives if acknowledging else {})},
        {f"rpl_semi_sync_{source}_{name}": value for name, value in counts.items() if source}
        | ({f"rpl_semi_sync_{acknowledging}_status": "ON"} if acknowledging else {}),
    )
    waiting = SemiSync(True, True, True, False, 2, "AFTER_SYNC", 10.0, True, 2, 1, 7)
    there = bool(acknowledging)
    assert seen == replace(
        waiting if source else SemiSync(), replica_enabled=there, replica_active=there, can_acknowledge=there
    )


class Told:
    """A session with a server that has these plugins; keeps what it is told to change."""

    def __init__(self, *plugins: str, **kept: str) -> None:
        """``kept`` is what is persisted, by the name of the side."""
        self.there = {f"rpl_semi_sync_{name}_enabled": kept.get(name) for name in plugins if name}
        self.changes: list[str] = []

    def read(self, sql: str, deadline: Deadline, args: Sequence[Any]) -> list[dict[str, Any]]:
        return [{"name": name, "kept": kept} for name, kept in self.there.items() if name in args[0]]

    def change(self, fault: str, sql: str, deadline: Deadline) -> None:
        self.changes.append(sql)


def switched(session: Told, **sides: bool | None) -> list[str]:
    server = object.__new__(MySQL)
    server._open = lambda deadline: cast(Session, session)  # type: ignore[method-assign]
    server.semi_sync(Deadline.after(1), **sides)
    return session.changes


@pytest.mark.parametrize("acknowledging", REPLICAS)
@pytest.mark.parametrize("source", SOURCES)
def test_each_side_is_switched_by_its_own_name_and_one_that_is_not_there_is_skipped(
    source: str, acknowledging: str
) -> None:
    """As of an old primary that will follow: what it has not is no reason for it to be left where it is."""
    changes = switched(Told(source, acknowledging), primary=False, replica=True)
    wanted = [(source, 0), (acknowledging, 1)]
    assert changes == [f"SET GLOBAL rpl_semi_sync_{name}_enabled={value}" for name, value in wanted if name]


def test_a_primary_that_cannot_wait_for_acknowledgements_is_not_taken_for_one_that_does() -> None:
    """The server itself answers that there is no such variable."""
    assert switched(Told("replica"), primary=True) == ["SET GLOBAL rpl_semi_sync_source_enabled=1"]
    assert switched(Told("master", "slave"), primary=True) == ["SET GLOBAL rpl_semi_sync_master_enabled=1"]


def test_what_is_persisted_against_it_is_forgotten_and_what_agrees_is_not() -> None:
    session = Told("source", "replica", source="OFF", replica="ON")
    assert switched(session, primary=True, replica=True) == [
        "SET GLOBAL rpl_semi_sync_source_enabled=1",
        "RESET PERSIST IF EXISTS rpl_semi_sync_source_enabled",
        "SET GLOBAL rpl_semi_sync_replica_enabled=1",
    ]
