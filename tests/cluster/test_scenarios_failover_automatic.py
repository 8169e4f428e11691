"""``proxyroute serve`` with ``failover.mode: automatic``: it acts by itself, within limits, and says why when not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxyroute.journal import Record, journals, read
from tests.support.accounts import REPLICATION
from tests.support.broken import REBUILD, ready, undone
from tests.support.death import (
    ENDS,
    LOSSLESS,
    await_back,
    brought_back,
    comes_back,
    count,
    failed_over,
    gone_for_good,
    mourning,
    remembered,
    seen_in_sync,
    semi_sync,
    table_locked,
    waits_for_acknowledgements,
)
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.load import create_table
from tests.support.mariadb import APPLICATION, Node
from tests.support.scene import assert_order, await_settled, beat, configured, served_by
from tests.support.serving import Serving, serving
from tests.support.wait import until

QUICK = {"period": "200ms", "proxies_period": "400ms"}
AUTOMATIC = {"mode": "automatic", "single_engine": True, "quiet_period": "0s", "per_day": 100}
FLAVOURS = ("mysql",)
SITE: dict[str, Any] = {
    "n": 3,
    "semi_sync": True,
    "options": LOSSLESS,
    "more": {"serve": QUICK, "failover": AUTOMATIC},
    "policy": {"prove": "3s", "settle": "10s"},
}


@pytest.fixture
def acknowledged(site: Lab, renewed: Callable[[], Lab]) -> Lab:
    """The primary waits for acknowledgements, whoever it has become; no failover counts for the limits.

    There is what it takes to build a server anew, for a test may end with one that has to be.
    """
    try:
        until(lambda: waits_for_acknowledgements(site.cluster), "somebody to acknowledge")
    except AssertionError:
        site = renewed()
        until(lambda: waits_for_acknowledgements(site.cluster), "somebody to acknowledge")
    if REBUILD.user not in site.config.read_text():
        ready(site)
    assert site.run("failover", "--acknowledge").returncode == 0
    return site


# -- Nothing acknowledged is lost ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ENDS)
def test_in_sync_nothing_acknowledged_is_lost(acknowledged: Lab, end: str) -> None:
    site, old = acknowledged, acknowledged.cluster.primary
    with configured(site, failover={"policy": "lossless"}), mourning(site) as mourners, serving(site) as served:
        seen_in_sync(site)
        ENDS[end](old)
        told = served.await_told("acted", "failover", 60)
        assert "PROVEN" in told, told
        mourners.await_writes()
        gone_for_good(old)
        kept = comes_back(site, served, old)
        assert kept or served.await_told("acted", f"{old.name} follows", 60)
        assert served.texts("blocked") == kept
        await_settled(site)
    assert not mourners.verdict.lost, mourners.verdict
    assert_order(site)
    assert waits_for_acknowledgements(site.cluster), "the roles of semi-synchronous replication have moved"


@pytest.mark.parametrize("n", [2, pytest.param(5, marks=pytest.mark.full)])
def test_with_one_replica_and_with_four(n: int, start_lab: Callable[..., Lab]) -> None:
    with start_lab(n, **{k: v for k, v in SITE.items() if k != "n"}) as lab:
        ready(lab)
        with configured(lab, failover={"policy": "lossless"}), mourning(lab) as mourners, serving(lab) as served:
            old = lab.cluster.primary
            seen_in_sync(lab)
            old.kill9()
            assert "PROVEN" in served.await_told("acted", "failover", 60)
            comes_back(lab, served, old)
            until(lambda: waits_for_acknowledgements(lab.cluster), "somebody to acknowledge again", 60)
            await_settled(lab)
        assert not mourners.verdict.lost, mourners.verdict
        assert_order(lab)


def test_degraded_is_refused_under_lossless_and_done_and_told_otherwise(acknowledged: Lab) -> None:
    site, old = acknowledged, acknowledged.cluster.primary
    replicas = [node for node in site.cluster if node is not old]
    old.sql("SET GLOBAL rpl_semi_sync_master_timeout=100")
    for node in replicas:
        node.sql("STOP SLAVE IO_THREAD")
        node.sql("SET GLOBAL rpl_semi_sync_slave_enabled=0")
        node.sql("START SLAVE IO_THREAD")
    create_table(old)
    until(lambda: semi_sync(old)["master_status"] == "OFF", "the primary to give up waiting")
    site.cluster.await_synced()
    with configured(site, failover={"policy": "lossless"}), serving(site) as served:
        served.await_told("diagnosis", "SemiSyncDegraded")
        old.kill9()
        blocked = served.await_told("blocked", "", 60)
        assert "had given up waiting for acknowledgements" in blocked
        assert "policy: most_advanced, or --force" in blocked, "with its cure"
        assert served.texts("acted") == []
    with configured(site, failover={"policy": "most_advanced"}), serving(site) as served:
        told = served.await_told("acted", "failover", 60)
        assert "UNKNOWN" in told, "nobody can tell that nothing is lost"
        assert "no replica could acknowledge" in told, "nor does every commit wait for somebody who is not there"
        new = site.cluster.primary
        for node in replicas:
            node.sql("SET GLOBAL rpl_semi_sync_slave_enabled=1")
            if node is not new:
                node.sql("STOP SLAVE IO_THREAD")
                node.sql("START SLAVE IO_THREAD")
        until(lambda: waits_for_acknowledgements(site.cluster), "serve to take up what was left to do", 60)
        old.start()
        await_back(site, old)
        await_settled(site)
    assert_order(site)


# -- It lives, or comes back --------------------------------------------------------------------------------------


def test_the_old_primary_comes_back_writable_and_is_closed_and_no_proxied_client_reaches_it(acknowledged: Lab) -> None:
    site, old = acknowledged, acknowledged.cluster.primary
    create_table(old)
    with configured(site, failover={"policy": "lossless"}), serving(site) as served:
        old.kill9()
        served.await_told("acted", "failover", 60)
        new = site.cluster.primary
        old.set_options({"read_only": 0})
        old.start()
        session = old.connect(APPLICATION)
        try:
            assert served_by(site, site.write) == beat(site) == new.name, "proxied clients never reach it"
            told = served.await_told("acted", f"{old.name} was closed", 30)
            assert f"{new.name} is the primary" in told
            assert not old.is_writable()
            alive = "SELECT 1 FROM information_schema.PROCESSLIST WHERE ID=%s"
            assert not old.sql(alive, (session.thread_id(),)), "its clients are cut"
        finally:
            session.close()
        await_back(site, old)
    old.set_options({"read_only": 1})
    assert_order(site, new.name)


@pytest.mark.parametrize("dead", [0, 1])
def test_a_primary_that_restarts_read_only_and_has_everything_is_opened_again(acknowledged: Lab, dead: int) -> None:
    """While a replica is away it may go on receiving from the primary, until somebody says that it is of no matter."""
    site, old = acknowledged, acknowledged.cluster.primary
    create_table(old)
    site.cluster.await_synced()
    away = [node for node in site.cluster if node is not old][:dead]
    with serving(site) as served:
        served.await_told("state", "2 of 2 replicas follow")
        for node in away:
            node.kill9()
            served.await_told("diagnosis", f"{node.name} does not answer", 30)
        # who starts in longer than a death takes to be certain is replaced, and rightly so
        served.daemon.stop()
        old.kill9()
        old.start()
        served.daemon.go_on()
        for node in away:
            blocked = served.await_told("blocked", f"{node.name} does not answer", 60)
            assert f"proxyroute maintenance {node.name} on" in blocked
            assert site.cluster.writable == ()
            assert site.run("maintenance", node.name, "on").returncode == 0
        served.await_told("acted", f"{old.name} takes writes again", 60)
        assert site.cluster.primary is old
        assert not any("failover" in text for text in served.texts("acted"))
        for node in away:
            node.start()
            assert site.run("maintenance", node.name, "off").returncode == 0
        until(lambda: all(n.replicates() for n in site.cluster if n is not old), "the replicas to follow again")
        until(lambda: waits_for_acknowledgements(site.cluster), "the primary to wait for acknowledgements as before")
        await_settled(site)
    assert_order(site, old.name)


def test_a_primary_that_restarts_without_what_a_replica_has_received_is_replaced(acknowledged: Lab) -> None:
    site, old = acknowledged, acknowledged.cluster.primary
    create_table(old)
    site.cluster.await_synced()
    behind = old.folder / "behind"
    old.stop()
    _copy(old, behind)
    old.start()
    old.sql("SET GLOBAL rpl_semi_sync_master_enabled=1")
    old.sql("SET GLOBAL read_only=0")
    until(lambda: waits_for_acknowledgements(site.cluster), "somebody to acknowledge", 60)
    with configured(site, failover={"policy": "most_advanced"}), serving(site) as served:
        old.sql("INSERT INTO app.load_rows VALUES (1, 1, 1)")
        site.cluster.await_synced()
        old.kill9()
        _put_back(old, behind)  # as a disk that has lied about what it has written
        old.start()
        served.await_told("acted", "failover", 60)
        if not old.fetches_its_own:  # it would follow with both threads running, and never have that row again
            blocked = served.await_told("blocked", f"{old.name} does not rejoin by itself", 60)
            assert f"has lost {old.own_gtids}" in blocked
            undone(site, old)
        await_back(site, old)
    new = assert_order(site)
    assert new is not old
    assert count(old) == count(new) == 1


def _copy(node: Node, folder: Path) -> None:
    shutil.copytree(node.folder / "data", folder)


def _put_back(node: Node, folder: Path) -> None:
    shutil.rmtree(node.folder / "data")
    folder.rename(node.folder / "data")


def test_one_that_was_undone_does_not_count_and_is_tried_again(acknowledged: Lab) -> None:
    """With the limits as they are by default: what was given up in time must not leave the site without a primary."""
    site, old = acknowledged, acknowledged.cluster.primary
    first, second = (node for node in site.cluster if node is not old)
    create_table(old)
    site.cluster.await_synced()
    limits = {"quiet_period": "10m", "per_day": 1, "policy": "lossless", "apply": "1s"}
    with configured(site, failover=limits), serving(site) as served:
        with table_locked(first), table_locked(second):
            old.sql(f"INSERT INTO app.load_rows VALUES {', '.join(f'({n}, 1, 1)' for n in range(20))}")
            goal = old.gtid()
            until(lambda: all(n.replication()["Gtid_IO_Pos"] == goal for n in (first, second)), "all to be received")
            old.kill9()
            assert goal in served.await_told("blocked", "no server takes writes", 60), "it says for what it has waited"
        assert "PROVEN" in served.await_told("acted", "failover", 60)
        assert count(first) == count(second) == 20
        old.start()
        await_back(site, old)
    assert [s["outcome"] for s in site.json("history")[1]["operations"] if s["kind"] == "failover"][:2] == [
        "done",
        "aborted",
    ]
    assert_order(site)


def test_only_the_appliers_are_stopped_nothing_is_done(acknowledged: Lab) -> None:
    site, old = acknowledged, acknowledged.cluster.primary
    replicas = [node for node in site.cluster if node is not old]
    with serving(site) as served:
        for node in replicas:
            node.sql("STOP SLAVE SQL_THREAD")
        served.await_told("diagnosis", "AllAppliersStopped")
        beat(site)
        for node in replicas:
            node.sql("START SLAVE SQL_THREAD")
        served.await_told("diagnosis", "NoProblem")
        assert served.texts("acted") == served.texts("blocked") == []
    assert_order(site, old.name)


# -- Limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "code_text"),
    [
        ({"quiet_period": "1h"}, "the last automatic failover"),
        ({"per_day": 1}, "1 automatic failovers within 24 hours, 1 are allowed"),
    ],
    ids=["quiet period", "per day"],
)
def test_not_again_before_somebody_has_looked(acknowledged: Lab, limit: dict[str, object], code_text: str) -> None:
    site, old = acknowledged, acknowledged.cluster.primary
    with configured(site, failover={"policy": "lossless", **limit}), serving(site) as served:
        old.kill9()
        served.await_told("acted", "failover", 60)
        old.start()
        await_back(site, old)
        until(lambda: waits_for_acknowledgements(site.cluster), "somebody to acknowledge")
        second = site.cluster.primary
        # what counts at its death is what it was last seen to be like
        served.await_told("state", f"{second.name} takes writes, 2 of 2 replicas follow", 60)
        second.kill9()
        blocked = served.await_told("blocked", code_text, 60)
        assert "proxyroute failover --acknowledge" in blocked
        assert site.cluster.writable == ()
        assert site.run("failover", "--acknowledge").returncode == 0
        until(lambda: site.cluster.writable, "the second failover", 60)
        second.start()
        await_back(site, second)
    assert_order(site)


@pytest.mark.parametrize(
    ("change", "text"),
    [({"single_engine": False}, "failover.single_engine: true"), ({"mode": "manual"}, "")],
    ids=["no declaration", "manual"],
)
def test_without_leave_it_tells_and_a_person_decides(acknowledged: Lab, change: dict[str, object], text: str) -> None:
    site, old = acknowledged, acknowledged.cluster.primary
    with configured(site, failover={"policy": "lossless", **change}), serving(site) as served:
        old.kill9()
        served.await_told("diagnosis", "DeadPrimary", 60)
        if text:
            assert text in served.await_told("blocked", "", 60)
        assert site.cluster.writable == ()
        assert failed_over(site)["verdict"] == "PROVEN"
        served.await_told("state", "takes writes", 60)
        old.start()
        await_back(site, old)
    assert_order(site)


# -- While something else goes on ---------------------------------------------------------------------------------


def test_a_rejoin_that_waits_gives_way_to_the_end_of_serve_and_to_a_failover_and_is_taken_up_below_the_new_primary(
    acknowledged: Lab,
) -> None:
    """Its own wait is for a source that lets nobody in, and lasts a minute: what ends it is what its record says."""
    site, old = acknowledged, acknowledged.cluster.primary
    with configured(site, failover={"policy": "most_advanced"}):
        with serving(site) as served:
            old.kill9()
            served.await_told("acted", "failover", 60)
            second = site.cluster.primary
            second.sql(f"ALTER USER {REPLICATION.user!r}@'%' ACCOUNT LOCK")
            old.start()
            until(lambda: waiting(site, old), f"the rejoin of {old.name} to wait", 30)
        assert "serve is to stop" in cut_short(site, old)[-1]
        with serving(site) as served:
            until(lambda: waiting(site, old), f"the rejoin of {old.name} to be taken up", 30)
            second.kill9()
            served.await_told("acted", "failover", 60)
            assert f"{second.name}: " in cut_short(site, old)[-1], "it was the silence of the primary that ended it"
            third = site.cluster.primary
            third.sql(f"ALTER USER {REPLICATION.user!r}@'%' ACCOUNT UNLOCK")
            assert f"{old.name} follows {third.name}" in served.await_told("healed", f"{old.name} follows", 60)
            second.start()
            await_back(site, second)
    assert_order(site, third.name)


def waiting(site: Lab, server: Node) -> bool:
    """Whether a rejoin of ``server`` is at the step in which it waits for its channel."""
    records = rejoin_records(site, server)
    begun = bool(records) and records[-1]["kind"] == "step" and records[-1]["name"] == "follow"
    return begun and server.replication().get("Slave_IO_Running") == "Connecting"


def cut_short(site: Lab, server: Node) -> list[str]:
    """Returns how the last rejoin of ``server`` came out of its waits, each time."""
    return [str(r["error"]) for r in rejoin_records(site, server) if r["kind"] == "stepped" and "error" in r]


def rejoin_records(site: Lab, server: Node) -> list[Record]:
    found = [read(file) for file in journals(site.folder / "state" / CLUSTER_NAME / "journal")]
    ours = [r for r in found if r and r[0]["operation_kind"] == "rejoin" and r[0]["plan"]["candidate"] == server.name]
    return ours[-1] if ours else []


# -- The engine moves ---------------------------------------------------------------------------------------------


def test_an_engine_that_starts_after_the_death_knows_the_topology_and_acts(acknowledged: Lab) -> None:
    site, old = acknowledged, acknowledged.cluster.primary
    remembered(site)
    old.kill9()
    with configured(site, failover={"policy": "most_advanced"}), serving(site) as served:
        served.await_told("acted", "failover", 60)
    assert_order(site)
    brought_back(site, old)


def test_an_engine_on_another_host_that_never_saw_it_alive_acts_by_what_the_replicas_follow(acknowledged: Lab) -> None:
    site, old = acknowledged, acknowledged.cluster.primary
    for file in (site.folder / "state").rglob("known.json"):
        file.unlink()
    old.kill9()
    with configured(site, failover={"policy": "most_advanced"}), serving(site) as served:
        told = served.await_told("diagnosis", "DeadPrimary", 60)
        assert f"{old.name} is the primary because" in told
        assert "UNKNOWN" in served.await_told("acted", "failover", 60)
        until(lambda: waits_for_acknowledgements(site.cluster), "the new primary to wait as the old one did")
    assert_order(site)
    brought_back(site, old)


# -- Again and again ----------------------------------------------------------------------------------------------


@pytest.mark.full
def test_each_primary_is_killed_in_turn_until_all_have_been_one(acknowledged: Lab) -> None:
    site, seen, first = acknowledged, set(), acknowledged.cluster.primary
    # whoever is the primary now comes last: the other two would take turns for ever if they came first
    turns = [*(node.name for node in site.cluster if node is not first), first.name]
    with (
        configured(site, failover={"policy": "lossless"}, switchover={"prefer": turns}),
        mourning(site) as mourners,
        serving(site) as served,
    ):
        for number in range(1, 7):
            until(lambda: waits_for_acknowledgements(site.cluster), "somebody to acknowledge", 60)
            old = site.cluster.primary
            seen.add(old.name)
            mourners.await_writes(40)
            old.kill9()
            until(partial(failovers, served, number), "the failover", 60)
            comes_back(site, served, old)
    assert seen == set(site.cluster.nodes)
    assert not mourners.verdict.lost, mourners.verdict
    assert_order(site)


def failovers(served: Serving, number: int) -> bool:
    return len([text for text in served.texts("acted") if "failover" in text]) == number
