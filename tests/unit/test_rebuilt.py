"""A server whose data are being replaced or undone is left alone by everybody else until that is over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxyroute import keeper, rejoin_proof, rejoining
from proxyroute.db import host_owner, mariadb_copy
from proxyroute.deadline import giving_way
from proxyroute.decided import Plan
from proxyroute.election import elect
from proxyroute.engine import Engine
from proxyroute.errors import GaveWay
from proxyroute.failover import failover
from proxyroute.failover_election import elect_failover
from proxyroute.gtid import MariaDBPosition
from proxyroute.history import Ledger, rebuilt, summarize
from proxyroute.journal import Journal, outcome, read
from proxyroute.model import NO_EPOCH, Deadline, Endpoint
from proxyroute.operation import Operation
from proxyroute.outcome import Verdict
from proxyroute.policy import FailoverPolicy, Policy
from proxyroute.recovery import recover
from proxyroute.routing import route
from proxyroute.sight import Sightings
from proxyroute.site import Site
from proxyroute.standing import Order, Standing
from proxyroute.switchover import switchover
from tests.support.builders import address, replica, server, silent, view
from tests.support.fakeworld import FakeLease, FakeProxy, MortalJournal, World, make_world
from tests.unit import test_failover_interrupted as failing
from tests.unit.test_interrupted import POLICY, Claims, _assert_legal, _parts

ENDPOINTS = tuple(Endpoint(f"db{n}", address(n)) for n in (1, 2, 3))


def _rejoin(folder: Path, server_name: str = "db3", method: str = "reseed", *, way: str = "dump") -> Operation:
    """Returns a committed rejoin that is open: its data are not there yet."""
    op = Operation.create(
        Journal(folder / "r1.jsonl"), FakeLease([]), "r1", "rejoin", NO_EPOCH, Plan("shop", "db1", server_name, ())
    )
    op.keep("reseed", {"source": "db1", "way": way})
    op.keep("method", method, wait=True)
    op.commit(MariaDBPosition())
    return op


@pytest.mark.parametrize(("method", "found"), [("reseed", ("db3",)), ("flashback", ("db3",)), ("follow", ())])
def test_it_counts_from_the_commit_of_its_rejoin_until_the_end(
    tmp_path: Path, method: str, found: tuple[str, ...]
) -> None:
    ledger = Ledger(tmp_path)
    assert rebuilt(ledger.summaries()) == ()
    op = _rejoin(tmp_path, method=method)
    assert rebuilt(ledger.summaries()) == found
    op.end("done", "db3 follows db1")
    assert rebuilt(ledger.summaries()) == ()


def test_it_is_not_elected_and_gets_no_reads_and_says_why() -> None:
    policy = Standing(maintenance={"db9": Order("x", 0.0)}).policy(Policy(prefer=("db2",)), ("db2", "db9"))
    assert policy.aside == ("db9", "db2")
    seen = view(server(1), replica(2), replica(3))
    election = elect(seen, "db1", policy)
    assert election.winner == "db3"
    (told,) = next(r for r in election.ranking if r.name == "db2").reasons
    assert told.startswith("is being rebuilt")
    assert [r.name for r in route(seen, "db1", policy, NO_EPOCH, ENDPOINTS).readers] == ["db3"]


def test_a_failover_neither_fetches_from_it_nor_misses_what_it_has() -> None:
    ahead = replace(replica(2), executed=replica(2).executed.parse("0-9-9000"))
    sightings = Sightings.of(view(silent(1), ahead, replica(3)), 10.0)
    policy = Standing().policy(Policy(), ("db2",))
    found = elect_failover(sightings, "db1", policy, FailoverPolicy(policy="most_advanced"), None)
    assert found.winner == "db3"
    assert found.fetch_from is None
    assert not [f for f in found.findings if f.subject == "db2"]


def _world(file: Path, busy: list[str]) -> tuple[World, FakeProxy, Claims]:
    """A switchover from db1 to db2 while db3 is being rebuilt: it has a channel, which stands still."""
    world, proxy = make_world()
    claims: Claims = []
    world.servers["db3"].runs = world.servers["db3"].applies = False
    lease = FakeLease(claims, world)
    plan = Plan("shop", "db1", "db2", ("db3",), policy=Standing().policy(POLICY, busy))
    op = Operation.create(MortalJournal(world, file), lease, "op", "switchover", lease.claim(proxy.epoch, "op"), plan)
    try:
        switchover(replace(_parts(world, proxy), rebuilt=lambda: busy), op)
    finally:
        op.journal.close()
    return world, proxy, claims


def test_a_switchover_does_not_start_it_and_it_follows_once_it_is_whole(tmp_path: Path) -> None:
    file, busy = tmp_path / "op.jsonl", ["db3"]
    world, proxy, claims = _world(file, busy)
    assert outcome(read(file)) == "done"
    assert not [told for told in world.trace if told.startswith(("db3 stop", "db3 change", "db3 start"))]
    assert (world.servers["db3"].follows, world.servers["db3"].runs) == ("db1", False)
    assert Operation.leftovers_of(read(file)) == {("follow", "db3"): "it is being rebuilt"}
    for whole in (False, True):
        if whole:
            busy.clear()
        op = rejoining.resume(file, FakeLease(claims), "test", open_journal=lambda f, _: MortalJournal(world, f))
        assert op is not None
        recover(replace(_parts(world, proxy, continuous=False), rebuilt=lambda: busy), op)
        op.journal.close()
        assert world.servers["db3"].runs is whole
    _assert_legal(world, proxy, "it is whole")


def test_heal_takes_up_what_was_left_at_it_once_more_after_its_rejoin(tmp_path: Path) -> None:
    file = tmp_path / "a1.jsonl"
    op = Operation.create(
        Journal(file), FakeLease([]), "a1", "switchover", NO_EPOCH, Plan("shop", "db1", "db2", ("db3",))
    )
    op.commit(MariaDBPosition())
    op.leftover("follow", "db3", "it is being rebuilt")
    op.end("done")
    engine: Any = object.__new__(Engine)
    engine._ledger = Ledger(tmp_path)
    assert engine._to_heal() == ([], [file])
    _rejoin(tmp_path)
    assert engine._to_heal() == ([], [file, tmp_path / "r1.jsonl", file])


def test_with_the_lease_held_data_are_not_compared_and_the_proof_says_so() -> None:
    world, _ = make_world()
    compared: list[str] = []

    def compare(*_: object) -> Any:
        compared.append("")
        return SimpleNamespace(verdict=Verdict.PROVEN)

    parts = SimpleNamespace(site=Site("shop", dict(world.servers)))
    means: Any = SimpleNamespace(parts=parts, compare=compare)
    lease = SimpleNamespace(distributed=False, release=lambda: None)
    kept = {"method": "reseed", "reseed": {"way": "copy"}}.get
    op: Any = SimpleNamespace(kept=kept, lease=lease, plan=SimpleNamespace(policy=Policy()))
    proof = rejoin_proof.prove(means, op, "db3", "db1", keep_lease=True)
    assert not compared
    assert proof.verdict is Verdict.UNKNOWN
    assert proof.evidence[-1].seen == "not compared: proxyroute verify --server db3"
    assert rejoin_proof.prove(means, op, "db3", "db1", keep_lease=False).verdict is Verdict.PROVEN
    assert compared


def test_what_its_source_has_not_counted_yet_is_looked_at_again() -> None:
    """On MySQL a commit counts once it is acknowledged, which whoever acknowledges it has executed by then."""
    world, _ = make_world()
    top, follower = world.servers["db1"], world.servers["db3"]
    counted = iter([top.position(Deadline.after(1))])
    top.write()
    follower.replicate()
    plain = top.position
    top.position = lambda deadline: next(counted, None) or plain(deadline)  # type: ignore[method-assign]
    means: Any = SimpleNamespace(parts=SimpleNamespace(site=Site("shop", dict(world.servers))))
    op: Any = SimpleNamespace(kept={"method": "follow"}.get, plan=SimpleNamespace(policy=Policy()))
    proof = rejoin_proof.prove(means, op, "db3", "db1", keep_lease=False)
    assert proof.verdict is Verdict.PROVEN, proof
    assert next(counted, None) is None


@pytest.mark.parametrize(
    ("way", "loaded", "swapped", "maintenance", "healed"),
    [
        ("copy", True, False, False, 1),
        ("copy", False, False, False, 0),
        ("copy", True, True, False, 0),
        ("dump", True, False, False, 0),
        ("copy", True, False, True, 0),
    ],
)
def test_one_that_we_may_have_stopped_ourselves_is_taken_up_although_it_is_silent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    loaded: bool,
    swapped: bool,
    maintenance: bool,
    healed: int,
) -> None:
    op = _rejoin(tmp_path, way=way)
    if loaded:
        op.keep("loaded", {"position": [], "state": []})
    if swapped:
        op.keep("old_data", "")
    summary = summarize(read(tmp_path / "r1.jsonl"))
    assert summary.stopped is (way == "copy" and loaded and not swapped)
    done: list[str] = []
    engine: Any = SimpleNamespace(history=lambda: [summary], heal=lambda **_: done.append("") or ())
    orders = Standing(maintenance={"db3": Order("x", 0.0)} if maintenance else {})
    sentry: Any = SimpleNamespace(standing=orders)
    served = keeper.Keeper(SimpleNamespace(name="shop"), engine, sentry, lambda _: None)  # type: ignore[arg-type]
    monkeypatch.setattr(served, "_urgent", lambda: "")
    served._take_up_leftovers(view(server(1), replica(2), silent(3)))
    assert len(done) == healed


def test_a_swap_that_has_begun_ends_whatever_is_urgent_and_is_not_begun_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    ran: list[str] = []

    def stream(program: str, sink: object, deadline: Deadline) -> None:
        said.append("db1 is gone")
        deadline.require(program)
        ran.append(program)

    def begun(host: object, text: str, *words: str) -> str:
        return " ".join(words)

    def script(host: object, text: str, *words: str, deadline: Deadline) -> str:
        return begun(host, text, *words)

    monkeypatch.setattr(mariadb_copy, "stream", stream)
    monkeypatch.setattr(host_owner, "stream", stream)
    host: Any = SimpleNamespace(stop=("stop",), start=("start",))
    owner: Any = SimpleNamespace(script=script, begun=begun)
    with giving_way(lambda: "".join(said)):
        old = mariadb_copy.swap(host, "/data", owner, "r1", Deadline.after(60.0))
    assert ran == ["/data stop", f"/data {old}", "/data start"]
    with pytest.raises(GaveWay), giving_way(lambda: "".join(said)):
        mariadb_copy.swap(host, "/data", owner, "r1", Deadline.after(60.0))
    assert len(ran) == 3


def test_an_undone_failover_starts_no_receiver_that_somebody_had_stopped(tmp_path: Path) -> None:
    for stopped in (True, False):
        file = tmp_path / f"{stopped}.jsonl"
        claims: Claims = []
        world, proxy = failing.dead_world()
        world.servers["db3"].runs = not stopped
        lease = FakeLease(claims)
        epoch = lease.claim(proxy.epoch, file.stem)
        op = Operation.create(MortalJournal(world, file), lease, file.stem, "failover", epoch, failing.PLAN)
        failover(failing.parts(world, proxy, tmp_path), op, failing.ORDERS)
        op.journal.close()
        again = [r["server"] for r in read(file) if r["kind"] == "undo" and r["verb"] == "start_receiver"]
        assert again == (["db2"] if stopped else ["db2", "db3"])


def test_what_could_not_be_undone_at_a_server_in_maintenance_stays_to_do(tmp_path: Path) -> None:
    from tests.unit.test_leftovers import _aborted_with_a_leftover

    file, claims = tmp_path / "op.jsonl", []  # type: tuple[Path, Claims]
    with pytest.MonkeyPatch.context() as patch:
        world, proxy = _aborted_with_a_leftover(file, claims, patch)
    for aside, runs in ((("db2",), False), ((), True)):
        op = rejoining.resume(file, FakeLease(claims), "test", open_journal=lambda f, _: MortalJournal(world, f))
        assert op is not None
        recover(replace(_parts(world, proxy, continuous=False), aside=lambda names=aside: names), op)  # type: ignore[misc]
        op.journal.close()
        assert world.servers["db2"].runs is runs
        assert bool(Operation.leftovers_of(read(file))) is not runs


def test_heal_leaves_the_open_rejoin_of_a_server_in_maintenance(tmp_path: Path) -> None:
    _rejoin(tmp_path).journal.close()
    parts: Any = SimpleNamespace(aside=lambda: ("db3",))
    before = read(tmp_path / "r1.jsonl")
    nobody: Any = None  # whatever else it would need is not asked
    assert rejoining.heal_rejoin(nobody, parts, nobody, tmp_path / "r1.jsonl", by="test") is None
    assert read(tmp_path / "r1.jsonl") == before
