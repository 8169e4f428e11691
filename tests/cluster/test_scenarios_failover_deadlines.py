"""No failover hangs: whoever falls silent in the midst of it, it ends in time, and names what it has waited for."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.death import await_back, brought_back, count, failed_over, remembered
from tests.support.engines import stopped_at
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.load import create_table
from tests.support.mariadb import Node
from tests.support.scene import configured
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
SITE = {
    "n": 3,
    "more": {"failover": {"policy": "most_advanced", "fetch": "2s"}},
    "policy": {"prove": "2s", "settle": "4s", "undo": "2s"},
}


@dataclass(frozen=True)
class Death:
    """The primary is dead; ``candidate`` takes over, and ``sibling`` is the other replica."""

    old: Node
    candidate: Node
    sibling: Node


@pytest.fixture
def death(site: Lab) -> Iterator[Death]:
    """A primary of which something is known dies; afterwards everybody is there and the failover can be done."""
    old = site.cluster.primary
    candidate, sibling = (node for node in site.cluster if node is not old)
    create_table(old)
    site.cluster.await_synced()
    remembered(site)
    old.kill9()
    until(lambda: all(n.replication()["Last_IO_Errno"] for n in (candidate, sibling)), "both to have lost it")
    yield Death(old, candidate, sibling)
    if site.cluster.writable:
        healed = site.run("heal")
        assert healed.returncode in (0, 7), healed.stdout + healed.stderr
    else:
        failed_over(site, code=7)  # what was not finished does not stand in its own way
    brought_back(site, old)
    assert site.run("heal").returncode in (0, 7)


def hung_at(site: Lab, node: Node, point: str, *words: str) -> tuple[int, str, float]:
    """Runs a failover in which ``node`` hangs from ``point`` on; returns how it ended, what it said, and the seconds.

    Afterwards the server goes on.
    """
    with stopped_at(site, point, ("failover", "--yes", *words)) as engine:
        node.sigstop()
        try:
            begun = time.monotonic()
            os.kill(engine.pid, signal.SIGCONT)
            said, _ = engine.communicate(timeout=100)
            took = time.monotonic() - begun
        finally:
            node.sigcont()
    print(f"{point} with {node.name} hung: {engine.returncode} after {took:.1f} s: {said}")
    return engine.returncode, said, took


def told_of(site: Lab, node: Node) -> bool:
    """Whether the record of the latest operation says that ``node`` was waited for in vain."""
    operation = site.json("history")[1]["operations"][-1]["operation"]
    return node.name in site.run("show", operation).stdout


# -- before anything is opened ------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_sibling_that_hangs_when_receivers_are_stopped_holds_nobody_up(site: Lab, death: Death) -> None:
    code, said, took = hung_at(
        site, death.sibling, "mariadb.stop_receiver:before", "--to", death.candidate.name, "--force"
    )
    assert code == 7, said
    assert took < 40, said
    assert death.sibling.name in said
    assert site.cluster.primary is death.candidate


@pytest.mark.full
@pytest.mark.parametrize(
    "point",
    ["mariadb.stop_receiver:before", "mariadb.stop_replica:before"],
    ids=["stop receivers", "detach"],
)
def test_a_candidate_that_hangs_before_the_commit_ends_it_and_is_named(site: Lab, death: Death, point: str) -> None:
    code, said, took = hung_at(site, death.candidate, point, "--to", death.candidate.name)
    assert code in (4, 5), said
    assert took < 40, said
    assert death.candidate.name in said
    assert site.cluster.writable == ()


def test_who_is_to_give_what_only_he_has_hangs_and_the_fetch_ends_in_time(site: Lab, death: Death) -> None:
    """He may not be promoted, and has more than the candidate: without it nothing is opened unasked."""
    brought_up(site, death)
    with configured(site, switchover={"never": [death.sibling.name]}):
        code, said, took = hung_at(site, death.sibling, "mariadb.change_source:before")
        assert code in (4, 5), said
        assert took < 40, said
        assert death.sibling.name in said
        assert site.cluster.writable == ()
        healed = site.run("heal")
        assert healed.returncode == 0, "the dead one is not waited for: " + healed.stdout + healed.stderr
        assert death.candidate.source() == death.old.address
        failed_over(site, code=7)
    assert count(death.candidate) == count(death.sibling) == 5


def brought_up(site: Lab, death: Death) -> None:
    """The primary lives once more, and dies again when only the sibling has received its last rows."""
    death.old.start()
    death.old.sql("SET GLOBAL read_only=0")
    until(lambda: death.candidate.replicates() and death.sibling.replicates(), "both to follow")
    remembered(site)
    death.candidate.sql("STOP SLAVE IO_THREAD")
    for n in range(5):
        death.old.sql("INSERT INTO app.load_rows VALUES (%s, 1, 1)", (n,))
    until(lambda: count(death.sibling) == 5, "one replica to have the rows")
    death.old.kill9()
    death.candidate.sql("START SLAVE IO_THREAD")
    until(lambda: death.candidate.replication()["Last_IO_Errno"], "the candidate to have lost it too")


# -- once it is decided -------------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_candidate_that_hangs_when_it_is_to_be_opened_leaves_it_unfinished_and_is_named(
    site: Lab, death: Death
) -> None:
    code, said, took = hung_at(site, death.candidate, "mariadb.accept_writes:before", "--to", death.candidate.name)
    assert code in (4, 5), said
    assert took < 40, took
    assert death.candidate.name in said


@pytest.mark.full
def test_a_sibling_that_hangs_when_it_is_to_follow_is_left_to_do(site: Lab, death: Death) -> None:
    code, said, took = hung_at(site, death.sibling, "mariadb.change_source:before", "--to", death.candidate.name)
    assert code == 7, said
    assert took < 40, took
    assert death.sibling.name in said
    assert site.cluster.primary is death.candidate
    assert told_of(site, death.sibling)


# -- serve tries again by itself ----------------------------------------------------------------------------------


def known(site: Lab) -> dict[str, Any]:
    """What serve remembers of the cluster in order."""
    file = site.folder / "state" / CLUSTER_NAME / "known.json"
    found: dict[str, Any] = json.loads(file.read_text())["known"]
    return found


AUTOMATIC = {"mode": "automatic", "single_engine": True, "quiet_period": "0s", "per_day": 100}
SERVE = {"period": "200ms", "proxies_period": "400ms"}


@pytest.mark.full
@pytest.mark.parametrize(
    ("point", "fetching"), [("mariadb.stop_receiver:before", False), ("mariadb.change_source:before", True)]
)
def test_serve_takes_up_what_it_could_not_undo_and_fails_over_once_whoever_hung_is_back(
    site: Lab, point: str, fetching: bool
) -> None:
    old = site.cluster.primary
    candidate, sibling = (node for node in site.cluster if node is not old)
    hung = sibling if fetching else candidate
    create_table(old)
    site.cluster.await_synced()
    stops = {"PROXYROUTE_FAULT": f"serve/{point}:1@STOP"}
    with (
        configured(site, failover=AUTOMATIC, serve=SERVE, switchover={"never": [sibling.name]}),
        serving(site, environment=stops) as served,
    ):
        served.await_told("state", "2 of 2 replicas follow")
        until(lambda: len(known(site)["replicas"]) == 2, "serve to know both replicas")
        if fetching:
            candidate.sql("STOP SLAVE IO_THREAD")
            old.sql("INSERT INTO app.load_rows VALUES (1, 1, 1)")
            until(lambda: count(sibling) == 1, "one replica to have the row")
        old.kill9()
        if fetching:
            candidate.sql("START SLAVE IO_THREAD")
        until(lambda: served.daemon.stopped, "serve to come there", 60)
        hung.sigstop()
        served.daemon.go_on()
        served.await_told("blocked", hung.name, 60)
        hung.sigcont()
        served.await_told("acted", "failover", 90)
        assert site.cluster.primary is candidate
        assert count(candidate) == int(fetching)
        old.start()
        await_back(site, old)
    assert site.run("failover", "--acknowledge").returncode == 0
