"""Each primary is killed in turn, under load, and ``serve`` does the rest by itself; it is killed in the midst as well.

With semi-synchronous replication nothing acknowledged is lost, and the report says so. Without, whatever is lost is in
the archive that the rejoin has made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from proxyroute import journal
from tests.chaos.world import assert_legal, limits_of
from tests.support.broken import archived_rows, ready
from tests.support.death import await_back, nothing_of_its_own
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.load import Load, create_table, create_values, read_rows, wrong_values
from tests.support.mariadb import Node
from tests.support.scene import await_settled
from tests.support.serving import Serving, serving
from tests.support.verdict import judge
from tests.support.wait import until

FLAVOURS = ("mysql",)
POLICY = {"freeze_budget": "3s", "settle": "20s", "prove": "10s"}
AUTOMATIC = {"mode": "automatic", "single_engine": True, "quiet_period": "0s", "per_day": 1000}
SERVE = {"period": "200ms", "proxies_period": "400ms"}
ACKNOWLEDGED = {
    "init-rpl-role": "SLAVE",
    "rpl-semi-sync-master-wait-point": "AFTER_SYNC",
    "rpl-semi-sync-master-wait-no-slave": "ON",
}


def started(start: Callable[..., Lab], policy: str, **options: Any) -> Lab:
    more = {"failover": {**AUTOMATIC, "policy": policy}, "serve": SERVE}
    lab = start(3, policy=POLICY, more=more, **options)
    try:
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
    except BaseException:
        lab.close()
        raise
    return lab


@pytest.fixture
def lossless(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    with started(start_lab, "lossless", semi_sync=True, options=ACKNOWLEDGED) as lab:
        yield lab


@pytest.fixture
def asynchronous(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    with started(start_lab, "most_advanced") as lab:
        ready(lab)
        yield lab


def known(lab: Lab) -> Mapping[str, Any]:
    """What ``serve`` remembers of the cluster in order."""
    file = lab.folder / "state" / CLUSTER_NAME / "known.json"
    found: Mapping[str, Any] = json.loads(file.read_text())["known"] if file.exists() else {}
    return found


def await_known(lab: Lab, *, acknowledged: bool) -> Node:
    """Returns the primary once ``serve`` has seen it with both replicas, which acknowledge its writes or do not."""
    primary = lab.cluster.primary

    def seen() -> bool:
        found = known(lab)
        sync = found.get("semi_sync")
        ready = not acknowledged or (sync and sync["active"] and len(sync["acknowledgers"]) == sync["clients"] == 2)
        return bool(found.get("primary") == primary.name and len(found["replicas"]) == 2 and ready)

    until(seen, f"serve to know {primary.name} and both replicas", 60)
    return primary


def failovers(lab: Lab) -> list[list[journal.Record]]:
    """The journals of all failovers, oldest first."""
    files = journal.journals(lab.folder / "state" / CLUSTER_NAME / "journal")
    found = [journal.read(file) for file in files]
    return [records for records in found if records and records[0]["operation_kind"] == "failover"]


def await_moved(lab: Lab, old: Node) -> Node:
    """Returns the new primary once the failover from ``old`` is over."""

    def moved() -> bool:
        done = [r for r in failovers(lab) if journal.outcome(r) == "done"]
        return bool(done) and done[-1][0]["plan"]["primary"] == old.name and len(lab.cluster.writable) == 1

    until(moved, f"the failover from {old.name} to be done", 60)
    assert lab.cluster.primary is not old
    return lab.cluster.primary


def await_rejoined(lab: Lab, old: Node, new: Node) -> None:
    await_back(lab, old)
    assert old.source_port() == new.port
    assert not old.is_writable()


# -- nothing acknowledged is lost --------------------------------------------------------------------------------


def kill_each_in_turn(lab: Lab, rounds: int) -> set[str]:
    """Kills so many primaries; returns the names of the servers that were one.

    Beside clients that insert there are some that update a value, and read it back before and after that.

    Whoever has not been the primary for the longest time is preferred; but a replica that received more goes first.
    """
    limits, been, turns = limits_of(lab), set(), [node.name for node in lab.cluster]
    create_values(lab.cluster.primary)
    with serving(lab) as served:
        with (
            Load.start(lab.write, writers=4, rate=25, mode="pooled") as pooled,
            Load.start(lab.write, writers=2, rate=10, mode="fresh", first=100) as fresh,
            Load.start(lab.write, writers=3, rate=15, mode="values", first=200) as checking,
        ):
            for number in range(rounds):
                old = await_known(lab, acknowledged=True)
                been.add(old.name)
                turns.remove(old.name)
                turns.append(old.name)
                lab.run("prefer", turns[0], "on", check=True)
                pooled.await_more(20 + number)
                with nothing_of_its_own(lab.cluster):
                    old.kill9()
                new = await_moved(lab, old)
                assert_lossless(failovers(lab)[-1])
                pooled.await_more(20)
                fresh.await_more(5)
                checking.await_more(10)
                old.start()
                await_rejoined(lab, old, new)
            await_known(lab, acknowledged=True)
            checked = checking.stop()
            records = pooled.stop() + fresh.stop() + checked
        # serve tells a proxy again once it was seen wrong twice: who reads changes when the last one is back
        until(lambda: not any(p["drift"] for p in lab.json("status")[1]["proxies"]), "the routes to be right", 30)
        assert len(failovers(lab)) == rounds, "one failover for each death"
        assert sum("follows" in text for text in served.texts("acted")) == rounds, "and one rejoin"
        assert served.texts("trouble") == []
    lab.cluster.await_synced()
    verdict = judge(records, read_rows(lab.cluster), lab.cluster.primary.name)
    assert not verdict.lost, verdict
    assert not verdict.diverged, verdict
    assert not verdict.unexplained, verdict
    assert not checked.misread, checked.misread
    for node in lab.cluster:
        assert not wrong_values(checked, node), f"{node.name}: {wrong_values(checked, node)}"
    assert_legal(lab, limits)
    return been


def assert_lossless(records: list[journal.Record]) -> None:
    """The report claims that nothing is lost, and proves all that it claims."""
    (proof,) = [r for r in records if r["kind"] == "proof"]
    claims = {e["claim"]: e for e in proof["evidence"]}
    assert claims["nothing that it acknowledged is lost"]["verdict"] == "PROVEN", claims
    assert proof["verdict"] == "PROVEN", [e for e in proof["evidence"] if e["verdict"] != "PROVEN"]


@pytest.mark.timeout(300)
def test_primaries_are_killed_in_turn_and_nothing_acknowledged_is_lost(lossless: Lab) -> None:
    assert len(kill_each_in_turn(lossless, 3)) > 1


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_twenty_primaries_are_killed_in_turn_and_nothing_acknowledged_is_lost(lossless: Lab) -> None:
    assert kill_each_in_turn(lossless, 20) == {node.name for node in lossless.cluster}


# -- what is lost is kept ----------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.timeout(900)
def test_without_acknowledgements_every_lost_row_is_in_the_archive(asynchronous: Lab) -> None:
    """The receivers are held back for the last writes, so that there is something to lose every time."""
    lab = asynchronous
    with serving(lab) as served, Load.start(lab.write, writers=4, rate=25, mode="pooled") as load:
        for _ in range(5):
            old = await_known(lab, acknowledged=False)
            replicas = [node for node in lab.cluster if node is not old]
            load.await_more(20)
            for node in replicas:
                node.sql("STOP SLAVE IO_THREAD")
            load.await_more(20)
            old.kill9()
            for node in replicas:
                node.sql("START SLAVE IO_THREAD")
            new = await_moved(lab, old)
            (proof,) = [r for r in failovers(lab)[-1] if r["kind"] == "proof"]
            assert proof["verdict"] == "UNKNOWN", "nobody can promise anything here"
            assert await_level(served, failovers(lab)[-1][0]["operation"]) == "warn"
            load.await_more(20)
            old.start()
            await_shown(lab, old)
            assert not old.is_writable()
            assert not old.replicates()
            undo(lab, old)
            await_rejoined(lab, old, new)
        records = load.stop()
    lab.cluster.await_synced()
    verdict = judge(records, read_rows(lab.cluster), lab.cluster.primary.name)
    assert len(verdict.lost) >= 5 * 20, verdict
    assert verdict.lost <= archived_rows(lab), f"neither there nor kept: {sorted(verdict.lost - archived_rows(lab))}"
    assert not verdict.diverged, verdict
    assert not verdict.unexplained, verdict


def await_level(served: Serving, operation: str) -> str:
    """Returns how serious ``serve`` took the end of an operation, once it has told of it."""

    def level() -> str:
        return next((n["level"] for n in served.told if n["kind"] == "acted" and operation in n["text"]), "")

    return until(level, f"serve to tell of {operation}")


def await_shown(lab: Lab, old: Node) -> None:
    """Returns when ``status`` names ``old`` among those that could not rejoin."""

    def shown() -> bool:
        return old.name in [aside["candidate"] for aside in lab.json("status")[1]["not_rejoined"]]

    until(shown, f"status to say that {old.name} has something of its own", 60, 0.2)


GIVEN_UP = {"mariadb": "flashback", "mysql": "reseed"}


def undo(lab: Lab, old: Node) -> None:
    """A person lets it go; serve may be at work at that moment."""
    method = GIVEN_UP[lab.cluster.flavour]

    def undone() -> bool:
        done = lab.run("rejoin", old.name, "--method", method, "--yes")
        assert done.returncode in (0, 6), done.stdout + done.stderr
        return done.returncode == 0

    until(undone, f"{old.name} to rejoin by {method}", 60, 0.2)


# -- serve is killed as well -------------------------------------------------------------------------------------

MOMENTS = (
    "guard.start:after",
    "mariadb.stop_receiver:before",
    "mariadb.stop_replica:after",
    "journal:12",
    "mariadb.accept_writes:before",
    "mariadb.accept_writes:after",
    "mariadb.change_source:before",
)


def await_end(served: Serving, moment: str) -> None:
    until(lambda: not served.daemon.running, f"serve to die at {moment}", 60)


def kill_serve(lab: Lab, faults: Sequence[tuple[str, bool]]) -> None:
    """Kills ``serve`` at each moment, and its guard unless that is to heal; the next one brings all to its end."""
    limits = limits_of(lab)
    with Load.start(lab.write, writers=4, rate=25) as load:
        for moment, guarded in faults:
            die = f"serve/{moment}" if guarded else f"serve/{moment},guard/guard.take_over:before"
            first = Serving(lab, environment={"PROXYROUTE_FAULT": die})
            try:
                old = await_known(lab, acknowledged=True)
                load.await_more(10)
                with nothing_of_its_own(lab.cluster):
                    old.kill9()
                await_end(first, moment)
            except BaseException as error:
                first.daemon.kill()
                raise AssertionError(f"{moment}: {error}\n{first.log.read_text()}") from error
            with serving(lab) as second:
                try:
                    until(lambda: len(lab.cluster.writable) == 1, "a primary", 60)
                    new = lab.cluster.primary
                    assert new is not old
                    load.await_more(10, 60)
                    old.start()
                    await_rejoined(lab, old, new)
                    await_known(lab, acknowledged=True)
                    assert second.texts("trouble") == []
                    await_settled(lab)
                except AssertionError as error:
                    raise AssertionError(f"{moment}: {error}\n{second.log.read_text()}") from error
            assert_legal(lab, limits)
        records = load.stop()
    lab.cluster.await_synced()
    verdict = judge(records, read_rows(lab.cluster), lab.cluster.primary.name)
    assert not verdict.lost, verdict
    assert not verdict.diverged, verdict
    assert not verdict.unexplained, verdict


@pytest.mark.timeout(300)
def test_serve_is_killed_in_the_midst_and_started_again(lossless: Lab) -> None:
    """Whether its guard is at work meanwhile or nobody, by a second failover if need be."""
    kill_serve(lossless, [(moment, number % 2 == 0) for number, moment in enumerate(MOMENTS[::2])])


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("guarded", [True, False], ids=["guard", "nobody"])
def test_serve_is_killed_at_every_moment_and_started_again(lossless: Lab, guarded: bool) -> None:
    kill_serve(lossless, [(moment, guarded) for moment in MOMENTS])
