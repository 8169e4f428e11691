"""What a server executes after it was archived: read while nobody can write there, right before its history goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from proxyroute.binlog import HALF_BUILT
from proxyroute.decided import Plan
from proxyroute.errors import NoRoom, Unfinished
from proxyroute.gtid import GTID, MariaDBPosition, Position
from proxyroute.journal import Journal, read
from proxyroute.model import Deadline, Epoch
from proxyroute.operation import Operation
from proxyroute.policy import Policy
from proxyroute.ports_data import Rebuilder
from proxyroute.rejoin_data import flashback, keep_more
from proxyroute.rejoin_look import Means
from tests.support.fakesalvage import FakeRemains
from tests.support.fakeworld import FakeLease, FakeServer, World, make_world
from tests.unit.test_interrupted import _parts

AT = MariaDBPosition((GTID(0, 1, 3),))


@dataclass
class Rebuilt(FakeRemains):
    """db3, which is rebuilt: somebody writes there at the last moment in which that can be done."""

    writes: int = 0
    begun: list[str] = field(default_factory=list)

    def begin_history(
        self,
        position: Position,
        state: Position,
        deadline: Deadline,
        channel: Mapping[str, Any] | None = None,
        *,
        still: Callable[[], None] = lambda: None,
    ) -> None:
        for _ in range(self.writes):
            _write(self.server)
        still()
        self.begun.append(str(position))


def _write(server: FakeServer) -> None:
    """Past read_only, with a number of its own."""
    last = max((g.sequence for g in server.executed.by(server.server_id).entries), default=0)
    server.executed = server.executed.merge(MariaDBPosition((GTID(0, server.server_id, last + 1),)))


def _rejoin(folder: Path, world: World, rebuilt: Rebuilt) -> tuple[Means, Operation]:
    proxy = make_world()[1]
    means = Means(
        _parts(world, proxy),
        {"db3": cast("Rebuilder", rebuilt)},
        folder / "archive",
        lambda *_: pytest.fail("nothing is compared here"),
        FakeLease([]),
        lambda: None,
    )
    plan = Plan("shop", "db1", "db3", (), policy=Policy())
    op = Operation.create(Journal(folder / "op.jsonl"), FakeLease([]), "op", "rejoin", Epoch(1, 1), plan)
    return means, op


@pytest.fixture
def world() -> World:
    found, _ = make_world()
    found.servers["db3"].follows = None
    for _ in range(2):
        _write(found.servers["db3"])
    return found


@pytest.mark.parametrize("writes", [0, 1])
def test_a_flashback_erases_nothing_that_came_between_its_last_look_and_the_end_of_its_history(
    tmp_path: Path, world: World, writes: int
) -> None:
    rebuilt = Rebuilt(world, world.servers["db3"], writes)
    means, op = _rejoin(tmp_path, world, rebuilt)
    op.keep("archived", world.servers["db3"].executed.to_json())
    op.keep("flashback", {"state": world.servers["db1"].executed.to_json()})
    op.keep("undone", True)
    if writes:
        with pytest.raises(Unfinished, match="has executed 0-3-3 since its transactions were archived"):
            flashback(means, op, "db3", "db1", keep_lease=True)
        assert rebuilt.begun == []
        assert not op.kept("begun")
    else:
        flashback(means, op, "db3", "db1", keep_lease=True)
        assert len(rebuilt.begun) == 1
    op.journal.close()


def test_what_a_reseed_would_take_away_unseen_is_archived_first(tmp_path: Path, world: World) -> None:
    target = world.servers["db3"]
    rebuilt = Rebuilt(world, target)
    means, op = _rejoin(tmp_path, world, rebuilt)
    op.keep("archived", target.executed.to_json())
    keep_more(means, op, "db3", "db1", AT)
    assert not (tmp_path / "archive").exists(), "nothing has happened since"
    _write(target)
    target.executed = target.executed.merge(MariaDBPosition((GTID(HALF_BUILT, 3, 1),)))  # it is half built
    keep_more(means, op, "db3", "db1", AT)
    (folder,) = (tmp_path / "archive").glob("db3-*")
    told = " ".join(r["text"] for r in read(tmp_path / "op.jsonl") if r["kind"] == "note")
    assert "db3 has executed 0-3-3 since its transactions were archived: 1 transaction" in told
    assert str(folder) in told
    keep_more(means, op, "db3", "db1", AT)
    assert len(list((tmp_path / "archive").iterdir())) == 1, "once is enough"
    op.journal.close()


def test_it_stays_as_it_is_where_that_cannot_be_kept(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuilt = Rebuilt(world, world.servers["db3"])
    means, op = _rejoin(tmp_path, world, rebuilt)
    op.keep("archived", world.servers["db3"].executed.to_json())
    _write(world.servers["db3"])
    monkeypatch.setattr("proxyroute.room.free", lambda _: 0)
    with pytest.raises(NoRoom):
        keep_more(means, op, "db3", "db1", AT)
    op.journal.close()
