"""Roles that somebody has written into a server by SET PERSIST: found beforehand, and forgotten when it is closed."""

from __future__ import annotations

import pytest

from tests.support.death import brought_back, failed_over, remembered
from tests.support.lab import Lab
from tests.support.scene import assert_order, books, other, switched
from tests.support.wait import until

pytestmark = pytest.mark.matrix
FLAVOURS = ("mysql",)
SITE = {"n": 3, "more": {"failover": {"policy": "most_advanced"}}, "policy": {"prove": "2s", "settle": "10s"}}
OPEN = ("read_only", "super_read_only")
KEPT = f"SELECT VARIABLE_NAME AS name FROM performance_schema.persisted_variables WHERE VARIABLE_NAME IN {OPEN}"


def test_an_old_primary_that_would_open_itself_is_told_of_and_stays_closed_after_a_restart(site: Lab) -> None:
    old = site.cluster.primary
    for name in OPEN:
        old.sql(f"SET PERSIST {name}=OFF")
    (found,) = (f for f in site.json("plan")[1]["findings"] if f["code"] == "server.persisted")
    assert (found["subject"], found["severity"]) == (old.name, "warning")
    assert "RESET PERSIST read_only; RESET PERSIST super_read_only;" in found["cure"]
    with books(site):
        switched(site)
    assert old.sql(KEPT) == []
    assert "server.persisted" not in {f["code"] for f in site.json("plan")[1]["findings"]}
    old.restart()
    assert not old.is_writable()
    until(old.replicates, f"{old.name} to follow again")
    assert_order(site)


def test_a_new_primary_that_would_turn_everybody_away_after_a_restart_is_told_of(site: Lab) -> None:
    new = site.cluster[other(site)]
    new.sql("SET PERSIST_ONLY offline_mode=ON")
    with books(site):
        switched(site, "--to", new.name)
    (found,) = (f for f in site.json("plan")[1]["findings"] if f["code"] == "server.persisted")
    assert (found["subject"], found["severity"]) == (new.name, "warning")
    assert "turns clients and replicas away" in found["text"]
    assert found["cure"] == f"on {new.name}: RESET PERSIST offline_mode;"
    new.sql("RESET PERSIST offline_mode")
    assert "server.persisted" not in {f["code"] for f in site.json("plan")[1]["findings"]}
    assert_order(site)


def test_a_primary_that_comes_back_open_because_of_it_is_closed_for_good_by_its_rejoin(site: Lab) -> None:
    old, new = site.cluster.primary, other(site)
    old.sql("SET PERSIST read_only=OFF")
    old.sql("SET PERSIST super_read_only=OFF")
    remembered(site)
    old.kill9()
    failed_over(site, "--to", new, code=7)
    old.start()
    assert old.is_writable(), "what was persisted counts more than my.cnf"
    brought_back(site, old)
    assert old.sql(KEPT) == []
    assert not old.is_writable()
    assert_order(site, new)
