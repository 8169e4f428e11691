"""For what reasons a flashback is refused that are found in the server's log, or are missing there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from proxyroute import rejoin as rejoining
from proxyroute.archive import save
from proxyroute.binlog import Table
from proxyroute.errors import Refused
from proxyroute.gtid import MariaDBPosition, MySQLPosition, Position
from proxyroute.model import Deadline, Finding, Status
from proxyroute.ports_data import Rebuilder
from proxyroute.rejoin import rejoin
from tests.support.binlogs import UUID, MySQLWriter, Writer
from tests.support.fakeworld import World, make_world
from tests.unit.test_rejoin_still import _rejoin
from tests.unit.test_salvage import Files

ERRANT = "0-1-3,0-3-4"


def position(text: str) -> MariaDBPosition:
    return MariaDBPosition.parse(text)


def whole() -> Writer:
    """A log of db3 with one transaction of its own, the last one."""
    return Writer(server_id=3).state((0, 1, 1)).whole((0, 1, 2), (0, 1, 3), (0, 3, 4))


@dataclass
class Rebuilt(Files):
    """db3: nothing but its log can keep its rows from being undone."""

    def cannot_undo(self, tables: Sequence[Table], deadline: Deadline) -> tuple[str, ...]:
        return ()

    def serves_from(self, position: Position, deadline: Deadline) -> str:
        return ""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(rejoining, "go_on", lambda *_: None)
    found, _ = make_world()
    found.servers["db1"].executed = position("0-1-3")
    found.servers["db3"].executed = position(ERRANT)
    return found


def refused(folder: Path, world: World, log: dict[str, Writer] | None = None) -> list[Finding]:
    """Returns what keeps a flashback of db3 from being begun."""
    rebuilt = Rebuilt(log or {"b.1": whole()}, "db3")
    means, op = _rejoin(folder, world, rebuilt)  # type: ignore[arg-type]
    means = replace(means, rebuild={name: cast("Rebuilder", rebuilt) for name in world.servers})
    try:
        rejoin(means, op, "flashback")
    except Refused as refusal:
        return [f for f in refusal.findings if f.code != "rejoin.errant"]
    finally:
        op.journal.close()
    return []


def test_what_its_log_tells_whole_is_undone(tmp_path: Path, world: World) -> None:
    assert refused(tmp_path, world) == []


@pytest.mark.parametrize(("runs", "cure"), [(True, "START SLAVE SQL_THREAD on db3"), (False, "copy them from")])
def test_relay_logs_that_it_alone_has_are_not_dropped(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch, runs: bool, cure: str
) -> None:
    server = world.servers["db3"]
    server.runs, server.applies = runs, False
    look = server.look

    def more(deadline: Deadline) -> Status:
        status = look(deadline)
        received = status.executed.merge(position("0-1-9"))
        return replace(status, sources=tuple(replace(s, received=received) for s in status.sources))

    monkeypatch.setattr(server, "look", more)
    (found,) = refused(tmp_path, world)
    assert found.code == "rejoin.received"
    assert "has received 0-1-9" in found.text
    assert cure in found.cure


@pytest.mark.parametrize(
    ("executed", "state", "told"),
    [
        ("0-1-3,0-3-4", (), "has replicated 0-1-3 and not logged it"),
        ("0-1-3,0-2-3,0-3-4", ((0, 1, 3),), "has replicated 0-2-3 and not logged it"),
    ],
)
def test_a_log_without_what_it_has_replicated_does_not_tell_where_it_stood(
    tmp_path: Path, world: World, executed: str, state: tuple[tuple[int, int, int], ...], told: str
) -> None:
    world.servers["db1"].executed = position("0-1-3,0-2-3")
    world.servers["db3"].executed = position(executed)
    (found,) = refused(tmp_path, world, {"b.1": Writer(server_id=3).state(*state).whole((0, 3, 4))})
    assert found.code == "rejoin.flashback"
    assert told in found.text


def test_what_it_began_with_before_it_logged_anything_is_behind_what_it_has_logged_since(
    tmp_path: Path, world: World
) -> None:
    """A backup was put back and followed nobody: what it began with stands in no log of its own."""
    world.servers["db1"].executed = position("0-1-3,0-3-4")
    world.servers["db3"].executed = position("0-1-3,0-3-5")
    assert refused(tmp_path, world, {"b.1": Writer(server_id=3).state().whole((0, 3, 4), (0, 3, 5))}) == []


def damaged() -> Writer:
    """The fourth transaction of db1 has an event with a wrong checksum; what comes after it is of db3."""
    log = Writer(server_id=3).state((0, 1, 1)).whole((0, 3, 4), (0, 1, 2), (0, 1, 3), (0, 3, 5))
    at = len(log.data)
    log.whole((0, 3, 6))
    log.data = log.data[:at] + log.data[at:].replace(b"rows", b"rags")
    return log.whole((0, 3, 7))


def test_nothing_is_undone_where_the_log_is_damaged_before_its_end(tmp_path: Path, world: World) -> None:
    after = Writer(server_id=3).state((0, 1, 3), (0, 3, 7)).whole((0, 3, 8))
    world.servers["db3"].executed = position("0-1-3,0-3-8")
    unknown, found = refused(tmp_path, world, {"b.1": damaged(), "b.2": after})
    assert (unknown.code, found.code) == ("rejoin.unknown", "rejoin.flashback")
    assert "0-3-6 has no end: the event at" in unknown.text
    assert "wrong checksum" in found.text


def test_a_file_that_a_crash_has_cut_off_is_whole_when_the_next_one_says_so(tmp_path: Path, world: World) -> None:
    torn = whole().gtid(5, server_id=3).rows()
    assert refused(tmp_path, world, {"b.1": torn, "b.2": Writer(server_id=3).state((0, 1, 3), (0, 3, 4))}) == []


def test_of_a_server_that_is_down_nobody_knows_what_was_behind_the_damage(tmp_path: Path) -> None:
    known, none = position("0-1-3"), position("")
    archive = save(Files({"b.1": damaged()}, "db3"), none, known, tmp_path, Deadline.after(10))
    assert [str(t.gtid) for t in archive.transactions] == ["0-3-4", "0-3-5"]
    assert archive.missing.empty
    assert "0-3-6 has no end" in archive.cut


def test_a_file_of_which_nothing_is_there_hides_nothing_that_the_one_before_it_tells(tmp_path: Path) -> None:
    """MySQL had just begun the second one when it crashed; it is back, and has no more than is in the first."""
    held = MySQLPosition.parse(f"{UUID}:1-3")
    gone = MySQLWriter()
    gone.data = b""
    log = MySQLWriter().previous(("", ((1, 3),)))
    archive = save(Files({"b.1": log, "b.2": gone}, "db3"), held, held, tmp_path, Deadline.after(10))
    assert (archive.cut, archive.missing.empty) == ("", True)
