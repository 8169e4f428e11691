"""Switchovers as they usually are: named and elected, there and back, asked twice, under load."""

from __future__ import annotations

import pytest

from tests.support.clients import Clients
from tests.support.lab import Lab
from tests.support.mariadb import ENGINE
from tests.support.scene import assert_order, books, configured, engine, other, refused, standing, switched, switching

FLAVOURS = ("mysql", "mariadb-11.8")
SITE = {"n": 3, "policy": {"long_transaction": "300ms", "long_wait": "8s"}}


def test_plain_to_a_named_candidate_under_load_one_primary_the_named_one_nothing_lost(site: Lab) -> None:
    for name in ("db2", "db3"):
        with books(site) as kept:
            value = switched(site, "--to", name)
        assert value["verdict"] == "PROVEN"
        assert (value["result"]["primary"], value["result"]["leftovers"]) == (name, [])
        assert_order(site, name)
        assert kept.verdict.refused == 0, kept.verdict
        assert kept.verdict.errors_per_session <= 1, kept.verdict


def test_to_an_elected_candidate_which_is_the_one_that_the_plan_names(site: Lab) -> None:
    _, plan = site.json("plan")
    switched(site)
    assert_order(site, plan["plan"]["candidate"])


def test_election_follows_the_list_prefer(site: Lab) -> None:
    wanted = [n.name for n in site.cluster if n is not site.cluster.primary][-1]
    with configured(site, switchover={"prefer": [wanted]}):
        switched(site)
    assert_order(site, wanted)


def test_there_and_back_under_write_load_until_everybody_has_been_primary(site: Lab) -> None:
    with books(site) as kept:
        begin = site.cluster.primary.name
        for name in (*(n.name for n in site.cluster if n.name != begin), begin):
            switched(site, "--to", name)
            kept.go_on()
            assert site.cluster.writable == (name,)
    assert_order(site)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_there_and_back_many_times_under_write_load(site: Lab) -> None:
    with books(site, writers=4, rate=50) as kept:
        for _ in range(50):
            switched(site)
            kept.go_on()
    assert_order(site)


def test_asked_for_the_server_that_is_already_primary_it_says_so_and_changes_nothing(site: Lab) -> None:
    name, before = site.cluster.primary.name, standing(site)
    value = switched(site, "--to", name, outcome="unchanged")
    assert value["result"]["text"] == f"{name} is the primary already; nothing was changed"
    assert (standing(site), site.cluster.primary.name) == (before, name)


def test_a_second_request_meanwhile_is_refused_by_name_of_the_first(site: Lab, clients: Clients) -> None:
    site.cluster.primary.make_table("app.t", "id INT PRIMARY KEY")
    writing = clients.idle("BEGIN", "INSERT INTO app.t VALUES (1)")
    old, new = site.cluster.primary.name, other(site)
    with switching(site, "--to", new) as running:
        done = site.run("switchover", "--yes")
        assert done.returncode == 6
        assert f"switchover {running} by" in done.stderr
        assert site.cluster.writable == (old,), "the first one still waits for a writer"
        clients.kill(writing)
    assert_order(site, new)
    assert site.json("history")[1]["operations"][0]["operation"] == running


def test_a_missing_privilege_is_refused_by_name_with_the_account_and_works_after_the_grant(site: Lab) -> None:
    primary = site.cluster.primary
    privilege = primary.replica_privilege
    primary.sql(f"REVOKE {privilege} ON *.* FROM '{ENGINE.user}'@'%'")
    site.cluster.await_synced()
    finding = refused(site)["account.privilege"]
    assert finding["text"] == f"the account {ENGINE.user}@% lacks {privilege}"
    assert finding["cure"] == f"on {primary.name}: GRANT {privilege} ON *.* TO '{ENGINE.user}'@'%';"
    primary.sql(finding["cure"].partition(": ")[2])
    site.cluster.await_synced()
    switched(site)
    assert site.cluster.primary is not primary


def test_a_running_engine_sees_a_grant_without_being_started_anew(site: Lab) -> None:
    primary = site.cluster.primary
    primary.sql(f"REVOKE RELOAD ON *.* FROM '{ENGINE.user}'@'%'")
    site.cluster.await_synced()
    with engine(site) as running:
        assert "account.privilege" in {f.code for f in running.plan(None, force=False).findings}
        primary.sql(f"GRANT RELOAD ON *.* TO '{ENGINE.user}'@'%'")
        site.cluster.await_synced()
        result = running.switchover(None, force=False, kill_long=False, confirm=lambda prospect: True)
        assert result.outcome == "done"
    assert_order(site, result.primary)
