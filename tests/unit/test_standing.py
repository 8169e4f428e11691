"""Standing orders: kept, ended by time or by people, heeded by every decider, and safe when they cannot be read."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxyroute import keeper
from proxyroute.caller import Caller
from proxyroute.decided import Action, Diagnosis
from proxyroute.election import elect
from proxyroute.errors import Busy, JournalError, Refused
from proxyroute.model import NO_EPOCH, Endpoint, Severity, View
from proxyroute.orders import Orders
from proxyroute.parts import Parts
from proxyroute.policy import Policy
from proxyroute.preflight import survey
from proxyroute.routing import bereaved, route
from proxyroute.standing import Book, Order, Standing
from proxyroute.truth import truth
from tests.support.builders import address, channel, replica, server, silent, view

NAMES = ("db1", "db2", "db3")
ENDPOINTS = tuple(Endpoint(n, address(int(n[2:]))) for n in NAMES)


@pytest.fixture
def seen() -> View:
    return view(server(1), replica(2), replica(3))


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "shop" / "standing.json")


@pytest.fixture
def orders(book: Book, seen: View) -> Orders:
    return Orders("shop", NAMES, book, Caller("anna", "cabling"), lambda: seen)


def test_nothing_stands_where_nothing_was_ordered(book: Book) -> None:
    assert book.read() == Standing()
    assert book.read().policy(Policy(prefer=("db2",))) == Policy(prefer=("db2",))
    assert not book.read().idle
    assert not book.read().findings("shop")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_an_order_that_root_gives_can_be_read_and_ended_by_serve(book: Book, orders: Orders) -> None:
    folder = book._file.parent
    folder.mkdir()
    os.chown(folder, 4711, 4712)
    orders.pause()
    assert {f.stat().st_uid for f in folder.iterdir()} == {4711}


def test_an_order_is_kept_with_who_and_why_until_it_is_ended(book: Book, orders: Orders) -> None:
    assert orders.maintenance("db3", True, "new disk") == "db3 is in maintenance"
    assert orders.pause() == "serve looks on, and does nothing by itself"
    standing = book.read()
    assert (standing.maintenance["db3"].by, standing.maintenance["db3"].why) == ("anna", "new disk")
    assert standing.paused is not None
    assert standing.paused.why == "cabling", "the reason of the whole command, if the order has none of its own"
    assert [(f.code, f.severity, f.cure) for f in standing.findings("shop")] == [
        ("failover.paused", Severity.ERROR, "proxyroute resume")
    ]
    orders.maintenance("db3", False)
    orders.resume("all is well")
    assert book.read() == Standing()
    assert [(c["by"], c["what"]) for c in book.changes()] == [
        ("anna", "db3 is in maintenance"),
        ("anna", "serve looks on, and does nothing by itself"),
        ("anna", "db3 is not in maintenance"),
        ("anna", "serve acts by itself again"),
    ]
    assert book.changes()[-1]["why"] == "all is well"


def test_an_order_for_a_time_ends_by_itself(book: Book, orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    orders.maintenance("db3", True, seconds=60)
    orders.pause(seconds=3600)
    assert set(book.read().maintenance) == {"db3"}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert not book.read().maintenance
    assert book.read().paused is not None
    orders.rank("db2", "prefer")
    kept = json.loads(next(Path(book._file.parent).glob("standing.json")).read_text())
    assert not kept["orders"]["maintenance"], "what has ended is dropped when something is written"


def test_ranks_come_before_the_configuration_and_go_back_to_it(book: Book, orders: Orders) -> None:
    configured = Policy(prefer=("db2",), never=("db3",))
    orders.rank("db3", "prefer")
    assert book.read().policy(configured).prefer == ("db3", "db2")
    assert book.read().policy(configured).never == ()
    orders.rank("db2", "never")
    assert book.read().policy(configured).prefer == ("db3",)
    assert book.read().policy(configured).never == ("db2",)
    orders.rank("db3", "neither")
    orders.rank("db2", "")
    assert book.read().policy(configured) == replace(configured, never=())
    orders.rank("db3", "")
    assert book.read().policy(configured) == configured


def test_whoever_cannot_be_is_refused_and_nothing_is_kept(book: Book, orders: Orders) -> None:
    with pytest.raises(Refused, match="db1 is the primary; move that first: proxyroute switchover"):
        orders.maintenance("db1", True)
    with pytest.raises(Refused, match="no server 'db9'; name one of: db1, db2, db3"):
        orders.maintenance("db9", True)
    with pytest.raises(Refused, match="is none of"):
        orders.rank("db2", "maybe")
    assert book.read() == Standing()


@pytest.mark.parametrize(
    "content",
    [
        "", "{", '{"format": 9}', '{"format": 1}', '{"format":1,"orders":{"ranks":3}}',
        '{"format":1,"changes":[],"orders":{"paused":{"":{"by":"x","at":"now"}}}}',
    ],
)  # fmt: skip
def test_orders_that_cannot_be_read_let_nothing_happen_by_itself(book: Book, orders: Orders, content: str) -> None:
    orders.pause()
    book._file.write_text(content)
    standing = book.read()
    assert standing.idle.startswith("the standing orders cannot be read")
    (told,) = standing.findings("shop")
    assert (told.code, told.cure) == ("failover.orders", "proxyroute orders --reset")
    assert told.forceable, "a person may pass over it"
    with pytest.raises(JournalError):
        orders.pause()
    assert book._file.read_text() == content, "nobody writes over what he cannot read"
    kept = orders.reset()
    assert kept is not None
    assert kept.read_text() == content
    assert book.read() == Standing()


def _order(file: Path, number: int) -> None:
    Orders("shop", [f"db{number}"], Book(file), Caller("x"), lambda: view(server(99))).rank(f"db{number}", "never")


def test_two_that_order_at_once_lose_nothing(book: Book) -> None:
    several = [multiprocessing.Process(target=_order, args=(book._file, n)) for n in range(1, 9)]
    for process in several:
        process.start()
    for process in several:
        process.join(20)
        assert process.exitcode == 0
    assert set(book.read().ranks) == {f"db{n}" for n in range(1, 9)}


def test_a_server_in_maintenance_is_not_elected_not_read_from_and_not_missed(seen: View, orders: Orders) -> None:
    orders.maintenance("db2", True)
    standing = orders._book.read()
    policy = standing.policy(Policy(prefer=("db2",)))
    election = elect(seen, "db1", policy)
    assert election.winner == "db3"
    assert next(r for r in election.ranking if r.name == "db2").reasons == ("is in maintenance",)
    assert [r.name for r in route(seen, "db1", policy, NO_EPOCH, ENDPOINTS).readers] == ["db3"]
    assert [r.name for r in bereaved(seen, "db1", None, policy, NO_EPOCH, ENDPOINTS).readers] == ["db3"]
    gone = view(server(1), silent(2), replica(3))
    assert truth(gone, (), (), standing) == (
        "shop: db1 takes writes, 1 of 1 replicas follow, db2 in maintenance", "good",
    )  # fmt: skip
    assert truth(gone, (), ())[1] == "warn"


def test_a_server_in_maintenance_may_be_as_it_is(seen: View) -> None:
    stopped = view(server(1), replica(2), replica(3, channel(applier=False)))
    assert "replica.applier" in {f.code for f in survey(stopped, Policy())}
    told = survey(stopped, Policy(aside=("db3",)))
    assert {f.code: f.severity for f in told if f.subject == "db3"} == {"replica.aside": Severity.INFO}
    writing = view(server(1), replica(2), replica(3, writable=True))
    assert "replica.writable" in {f.code for f in survey(writing, Policy(aside=("db3",)))}, "that concerns everybody"


def test_a_file_that_was_replaced_under_the_reader_is_opened_again(
    book: Book, orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders.maintenance("db3", True)
    really, times = Path.read_text, []

    def stale_once(file: Path, *words: str, **named: str) -> str:
        times.append(file)
        if len(times) == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        return really(file, *words, **named)

    monkeypatch.setattr(Path, "read_text", stale_once)
    assert set(book.read().maintenance) == {"db3"}


@pytest.mark.parametrize(("now", "counts"), [(("db2",), ("db2",)), ((), ()), (None, ("db3",))])
def test_an_operation_heeds_the_orders_of_now_and_of_its_plan_when_nobody_can_tell(
    now: tuple[str, ...] | None, counts: tuple[str, ...]
) -> None:
    parts = Parts(Any, Any, Any, aside=lambda: now)  # type: ignore[arg-type]
    op: Any = SimpleNamespace(plan=SimpleNamespace(policy=Policy(aside=("db3",), never=("db4",))))
    assert parts.set_aside(op) == frozenset(counts)
    assert parts.policy(op) == Policy(aside=counts, never=("db4",))


class _Engine:
    """Has an open operation or a leftover; healing it does not help."""

    def __init__(self) -> None:
        self.open = False
        self.healed = 0

    def busy(self) -> bool:
        return self.open

    def heal(self, **_: object) -> tuple[()]:
        self.healed += 1
        return ()

    def history(self) -> list[object]:
        return []


def test_what_can_wait_and_fails_does_not_make_wait_what_moves_the_primary(
    monkeypatch: pytest.MonkeyPatch, seen: View
) -> None:
    left = SimpleNamespace(
        left_at=frozenset({"db1"}), leftovers=("follow db1: it does not answer",), outcome="done", candidate="db2"
    )
    monkeypatch.setattr(keeper, "waiting_for_heal", lambda _: [left])
    engine: Any = _Engine()
    sentry: Any = SimpleNamespace(standing=Standing())
    served = keeper.Keeper(SimpleNamespace(name="shop"), engine, sentry, lambda _: None)  # type: ignore[arg-type]
    monkeypatch.setattr(served, "_urgent", lambda: "")
    for _ in range(3):
        served._take_up_leftovers(seen)
    assert engine.healed == 1, "it waits before it tries again"
    engine.open = True
    served._heal_what_is_open()
    assert engine.healed == 2, "this does not"
    sentry.standing = Standing(maintenance={"db1": Order("x", 0.0)})
    served._chores.reset()
    served._take_up_leftovers(seen)
    assert engine.healed == 2, "a server in maintenance is nothing to be taken up"


def test_what_was_refused_is_tried_anew_when_a_server_is_back_or_an_order_was_given(seen: View) -> None:
    sentry: Any = SimpleNamespace(standing=Standing())
    served = keeper.Keeper(SimpleNamespace(name="shop"), _Engine(), sentry, lambda _: None)  # type: ignore[arg-type]
    served._try_anew(view(server(1), silent(2), replica(3)))
    served._act.failed()
    served._try_anew(view(server(1), silent(2), replica(3)))
    assert not served._act.due, "nothing is new"
    served._try_anew(seen)
    assert served._act.due, "db2 is back"
    served._act.failed()
    sentry.standing = Standing(maintenance={"db2": Order("x", 0.0)})
    served._tell_orders()
    assert served._act.due


def test_while_a_cluster_manager_is_in_maintenance_nothing_is_done_by_itself_and_that_is_told() -> None:
    told: list[str] = []
    engine: Any = SimpleNamespace(close_strays=lambda names: "closed")
    sentry: Any = SimpleNamespace(standing=Standing(withheld="the cluster manager is in maintenance mode"))
    config: Any = SimpleNamespace(name="shop", failover=SimpleNamespace(mode="automatic"))
    served = keeper.Keeper(config, engine, sentry, lambda notice: told.append(notice.text))
    served._tell_orders()
    stray = Diagnosis("StrayWritable", "", Action.CLOSE, "db1", ("db2",))
    assert not served._acted(stray)
    assert sentry.standing.idle == "the cluster manager is in maintenance mode"
    assert [f.code for f in sentry.standing.findings("shop")] == ["failover.withheld"]
    sentry.standing = Standing()
    served._tell_orders()
    assert told == ["the cluster manager is in maintenance mode", "no more: the cluster manager is in maintenance mode"]


def test_whoever_is_in_the_way_for_long_is_named_and_what_was_before_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, told = [1000.0], []
    monkeypatch.setattr(keeper.time, "monotonic", lambda: now[0])
    engine: Any = SimpleNamespace(close_strays=_busy)
    sentry: Any = SimpleNamespace(standing=Standing())
    config: Any = SimpleNamespace(name="shop", failover=SimpleNamespace(mode="automatic"))
    served = keeper.Keeper(config, engine, sentry, lambda notice: told.append(notice.text))
    stray = Diagnosis("StrayWritable", "", Action.CLOSE, "db1", ("db2",))
    for seconds in (0, 9, 2, 5, 6):
        now[0] += seconds
        served._acted(stray)
    assert told == [f"cannot act for {n} s: engine2 is at work" for n in (11, 22)]
    served._acted(Diagnosis("NoProblem", "", Action.NONE, "db1"))
    now[0] += 3600
    served._acted(stray)
    assert len(told) == 2, "it has only begun"


def _busy(_: object) -> str:
    raise Busy("engine2 is at work")
