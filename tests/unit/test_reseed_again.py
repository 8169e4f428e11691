"""A reseed that is taken up again: another way when one has failed, and the event scheduler as it was at first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxyroute.decided import Plan
from proxyroute.errors import LostReply, PutOff, ServerError, StatementError
from proxyroute.journal import Journal
from proxyroute.model import NO_EPOCH, Deadline
from proxyroute.operation import Operation
from proxyroute.rejoin_data import _another_way, _remembering_failure
from proxyroute.rejoin_dump import let_events, stop_events
from proxyroute.site import Site
from tests.support.fakeworld import FakeLease, make_world

CLONE = {"source": "db1", "way": "clone"}


@pytest.fixture
def op(tmp_path: Path) -> Operation:
    plan = Plan("shop", "db1", "db3", ())
    return Operation.create(Journal(tmp_path / "r1.jsonl"), FakeLease([]), "r1", "rejoin", NO_EPOCH, plan)


def noted(op: Operation) -> list[str]:
    return [record["text"] for record in op.journal.records if record["kind"] == "note"]


@pytest.mark.parametrize(
    ("no_dump", "way", "told"),
    [
        ((), "dump", "the clone of db3 has failed: db3: error 3868: no; a dump is loaded instead"),
        (
            ("app.t is MyISAM",),
            "clone",
            "the clone of db3 has failed: db3: error 3868: no; it is tried again: no dump: ",
        ),
    ],
)
def test_after_a_clone_that_has_failed_a_dump_is_loaded_where_there_can_be_one(
    op: Operation, no_dump: tuple[str, ...], way: str, told: str
) -> None:
    with pytest.raises(StatementError), _remembering_failure(op, "clone"):
        raise StatementError("db3", 3868, "no")
    server = SimpleNamespace(physical="clone", cannot_dump=lambda *_: no_dump, cannot_load=lambda *_: ())
    site = Site("shop", dict(make_world()[0].servers))
    means: Any = SimpleNamespace(parts=SimpleNamespace(site=site), rebuild={"db1": server, "db3": server})
    assert _another_way(means, op, "db3", CLONE, op.kept("failed"))["way"] == way
    assert op.kept("reseed", CLONE)["way"] == way
    (note,) = noted(op)
    assert note.startswith(told)


def test_a_connection_that_broke_off_says_nothing_of_a_clone(op: Operation) -> None:
    with pytest.raises(ServerError), _remembering_failure(op, "clone"):
        raise LostReply("db3", "no answer")
    assert op.kept("failed") is None


def test_what_may_be_over_soon_is_tried_again_before_a_dump_is_loaded(op: Operation) -> None:
    for kept in (None, None, "db3: error 3634: busy"):
        with pytest.raises(PutOff), _remembering_failure(op, "clone"):
            raise PutOff("db3", 3634, "busy")
        assert op.kept("failed") == kept


@pytest.mark.parametrize("before", ["ON", "OFF", "DISABLED"])
def test_whoever_goes_on_leaves_the_scheduler_as_it_was_at_first(op: Operation, before: str) -> None:
    server: Any = SimpleNamespace(now=before)
    server.write_settings = lambda _: {"event_scheduler": server.now}
    server.stop_events = lambda _: setattr(server, "now", "OFF" if server.now == "ON" else server.now)
    server.start_events = lambda _: setattr(server, "now", "ON")
    for _ in range(2):
        stop_events(server, op, Deadline.after(1))
        assert server.now != "ON"
    let_events(server, op, Deadline.after(1))
    assert server.now == before
