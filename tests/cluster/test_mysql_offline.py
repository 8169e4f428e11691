"""``offline_mode`` as an option of the freeze: clients are turned away meanwhile, and let in again whoever dies."""

from __future__ import annotations

import os
import signal

import pymysql
import pytest

from tests.chaos.world import await_closed
from tests.support.engines import GUARD_DIES, stopped_at
from tests.support.lab import Lab
from tests.support.mariadb import APPLICATION
from tests.support.scene import assert_order, books, other, refused, switched

pytestmark = pytest.mark.matrix
FLAVOURS = ("mysql",)
SITE = {"n": 3, "policy": {"offline_mode": True, "freeze_budget": "8s", "lock_pause": "20ms"}}
OFFLINE = 3032


@pytest.fixture(autouse=True)
def everybody_is_let_in(site: Lab) -> None:
    assert not any(node.value("@@global.offline_mode") for node in site.cluster)


def test_there_and_back_under_load_it_is_in_the_plan_and_proven_to_be_over(site: Lab) -> None:
    _, value = site.json("plan")
    acts = [act for step in value["steps"] for act in step["acts"]]
    assert f"{site.cluster.primary.name}: SET GLOBAL offline_mode=ON" in acts
    assert not any("max_connections=1" in act for act in acts)
    with books(site) as kept:
        for _ in range(2):
            value = switched(site)
            told = {e["claim"]: e["verdict"] for e in value["result"]["proof"]["evidence"]}
            assert (value["verdict"], told["lets clients in as before"]) == ("PROVEN", "PROVEN")
            kept.go_on()
    assert kept.verdict.errors_per_session <= 2, kept.verdict  # one for each move
    assert not any(node.value("@@global.offline_mode") for node in site.cluster)
    assert_order(site)


def test_who_comes_to_the_old_primary_meanwhile_is_told_that_it_is_offline(site: Lab) -> None:
    old = site.cluster.primary
    with stopped_at(site, "mariadb.offline_mode:after", ("switchover", "--yes", "--to", other(site))) as engine:
        with pytest.raises(pymysql.err.OperationalError) as told:
            old.connect(APPLICATION).close()
        assert told.value.args[0] == OFFLINE
        os.kill(engine.pid, signal.SIGCONT)
        assert engine.wait(60) == 0
    old.connect(APPLICATION).close()
    assert_order(site)


@pytest.mark.parametrize("healer", ["guard", "heal"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_dies_around_it_clients_are_let_in_again(site: Lab, when: str, healer: str) -> None:
    fault = f"engine/mariadb.offline_mode:{when}"
    with books(site):
        fault = fault if healer == "guard" else f"{fault},{GUARD_DIES}"
        done = site.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": fault})
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
        await_closed(site)
        if healer == "heal":
            assert site.run("heal").returncode in (0, 7)
    assert not any(node.value("@@global.offline_mode") for node in site.cluster)
    assert_order(site)


def test_an_abort_leaves_a_primary_that_was_never_offline(site: Lab) -> None:
    old = site.cluster.primary
    with books(site) as kept:
        done = site.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": "engine/mariadb.block_writes:after"})
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
        await_closed(site)
        assert not old.value("@@global.offline_mode")
        kept.go_on()
    assert_order(site, old.name)


def test_a_candidate_that_is_offline_is_not_taken(site: Lab) -> None:
    node = site.cluster[other(site)]
    node.sql("SET GLOBAL offline_mode=1")
    found = refused(site, "--to", node.name)["candidate.offline"]
    assert (found["subject"], found["forceable"]) == (node.name, True)
    assert "SET GLOBAL offline_mode=OFF" in found["cure"]
    node.sql("SET GLOBAL offline_mode=0")
    assert_order(site)
