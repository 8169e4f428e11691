"""What ``proxyroute serve`` brings back by itself, and what it leaves alone."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

import pytest

from proxyroute.config import load
from proxyroute.keeper import Keeper
from proxyroute.sentry import Sentry
from proxyroute.sight import Sighting
from tests.support.lab import Lab
from tests.support.scene import assert_order, beat, books, configured, engine, other, served_by, standing, switched
from tests.support.serving import Serving, serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
QUICK = {"period": "200ms", "proxies_period": "400ms"}
SITE = {"n": 3, "more": {"serve": QUICK}, "policy": {"freeze_budget": "3s", "settle": "10s", "prove": "2s"}}


def proxy(site: Lab) -> dict[str, object]:
    (found,) = site.json("status")[1]["proxies"]
    value: dict[str, object] = found
    return value


def map_of(site: Lab) -> str:
    return str(site.haproxy_config.with_suffix(".route.map"))


# -- Routes ---------------------------------------------------------------------------------------------------


def test_a_route_set_by_hand_is_told_and_brought_back(site: Lab) -> None:
    primary, wrong = site.cluster.primary.name, other(site)
    with serving(site) as served:
        site.runtime(f"set map {map_of(site)} route {wrong}/1.1")
        told = served.await_told("corrected")
        assert f"writes should go to {primary}, loaded is {wrong}/1.1" in told
        until(lambda: served_by(site, site.write) == primary, "the route to come back")
        assert_order(site, primary)
        assert len(served.texts("corrected")) == 1, "once is enough"


def test_a_route_of_a_higher_epoch_set_by_hand_is_brought_back_under_one_above(site: Lab) -> None:
    primary, wrong = site.cluster.primary.name, other(site)
    with serving(site) as served:
        site.runtime(f"set map {map_of(site)} route {wrong}/7000.1")
        served.await_told("corrected")
        until(lambda: beat(site) == primary, "the route to come back")
    assert int(str(proxy(site)["epoch"]).partition(".")[0]) > 7000
    assert_order(site, primary)


def test_a_configuration_edited_by_hand_is_told_and_brought_back(site: Lab) -> None:
    text = site.haproxy_config.read_text()
    with serving(site) as served:
        site.haproxy_config.write_text(text + "\n# by hand\n")
        assert "haproxy.cfg differs from what is rendered" in served.await_told("corrected")
        until(lambda: site.haproxy_config.read_text() == text, "the file to be as it was")
    assert_order(site)


def test_a_haproxy_that_was_down_and_came_up_with_an_old_route_is_brought_back(site: Lab) -> None:
    new = other(site)
    old_map = site.haproxy_config.with_suffix(".route.map").read_text()
    switched(site, "--to", new)
    with serving(site) as served:
        site.haproxy.kill9()
        served.await_told("state", "proxy edge1 cannot be read")
        site.haproxy_config.with_suffix(".route.map").write_text(old_map)
        site.haproxy.start(site.haproxy_config)
        served.await_told("corrected")
        until(lambda: beat(site) == new, "the new route")
    assert_order(site, new)


def test_with_assert_routes_off_a_drift_is_told_and_left(site: Lab) -> None:
    wrong = other(site)
    with configured(site, serve={"assert_routes": False}), serving(site) as served:
        site.runtime(f"set map {map_of(site)} route {wrong}/1.1")
        served.await_told("state", f"proxy edge1 sends writes to {wrong}")
        until(lambda: len(served.texts("state")) >= 2, "more readings")
        assert served.texts("corrected") == []
        assert served_by(site, site.write) == wrong
    assert site.run("publish").returncode == 0


def test_a_replica_that_stops_applying_gets_no_reads_until_it_goes_on(site: Lab) -> None:
    replica = site.cluster[other(site)]
    with serving(site) as served:
        replica.sql("STOP SLAVE SQL_THREAD")
        served.await_told("corrected", "reads should go to")
        until(lambda: replica.name not in str(proxy(site)["readers"]), "the replica to leave the read pool")
        replica.sql("START SLAVE SQL_THREAD")
        until(lambda: replica.name in str(proxy(site)["readers"]), "the replica to be back in the read pool")
    assert_order(site)


# -- Somebody else is at work ---------------------------------------------------------------------------------


def test_a_switchover_beside_it_is_not_disturbed(site: Lab) -> None:
    with serving(site) as served, books(site):
        for _ in range(3):
            switched(site)
            assert_order(site)
        served.await_told("state", f"{site.cluster.primary.name} takes writes, 2 of 2 replicas follow")
        assert served.texts("trouble") == []
        assert served.texts("corrected") == []


def test_what_was_seen_in_the_midst_of_a_switchover_that_is_over_makes_nobody_rejoin(site: Lab) -> None:
    """The old primary is closed and told only a moment later whom to follow: a look from between the two is stale."""
    old, config = site.cluster.primary.name, load(site.config).cluster(None)
    switched(site)
    told: list[str] = []
    with engine(site) as live, Sentry(config) as eyes:
        until(
            lambda: eyes.sightings().complete and eyes.diagnose(eyes.sightings()).name == "NoProblem", "all to be seen"
        )
        eyes.remember(seen := eyes.sightings())
        between = replace(seen.view.servers[old], sources=())
        stale = seen.add(Sighting(time.monotonic(), time.monotonic(), between))
        before = live.history()
        kept = Keeper(config, live, eyes, lambda notice: told.append(notice.text))
        kept._rejoin_who_returned(stale)
        assert kept._rejoined_at.keys() == {old}, "it was looked at again"
        assert live.history() == before
    assert told == []
    assert_order(site)


def test_a_primary_that_somebody_else_made_is_left_alone_and_said_and_publish_adopts_it(site: Lab) -> None:
    old, new = site.cluster.primary, site.cluster[other(site)]
    assert site.run("publish").returncode == 0
    with serving(site) as served:
        old.sql("SET GLOBAL read_only=1")
        until(lambda: new.gtid() == old.gtid(), "the replica to have everything")
        for statement in ("STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only=0"):
            new.sql(statement)
        told = served.await_told("refused", "routes are left as they are")
        assert f"{new.name} takes writes, and {old.name} was the primary" in told
        assert "proxyroute publish" in told
        assert proxy(site)["primary"] == old.name
        status = site.json("status")[1]
        assert status["intended"] is None
        assert "proxyroute publish" in site.run("status").stdout
        assert site.run("publish").returncode == 0
        until(lambda: site.json("status")[1]["intended"] == new.name, "the new primary to be known")
    for node in site.cluster:
        if node is not new:
            node.follow(new)
    until(lambda: all(n.replicates() for n in site.cluster if n is not new), "everybody to follow")
    assert site.run("publish").returncode == 0
    assert_order(site, new.name)


# -- What a crash has left ------------------------------------------------------------------------------------

DEAD = {"PROXYROUTE_FAULT": "engine/mariadb.accept_writes:after,guard/guard.take_over:before"}


def test_what_engine_and_guard_have_left_is_healed_while_it_runs(site: Lab) -> None:
    with books(site), serving(site) as served:
        killed = site.run("switchover", "--yes", environment=DEAD)
        assert killed.returncode == -signal.SIGKILL
        assert "is the primary now" in served.await_told("healed")
        until(lambda: not site.json("status")[1]["open_operations"], "nothing to be open")
    assert_order(site)


def test_what_was_open_is_healed_at_its_start(site: Lab) -> None:
    with books(site):
        killed = site.run("switchover", "--yes", environment=DEAD)
        assert killed.returncode == -signal.SIGKILL
        with serving(site) as served:
            served.await_told("healed")
            assert served.told[0]["kind"] == "serving"
            kinds = [notice["kind"] for notice in served.told]
            assert kinds.index("healed") < kinds.index("state"), "first of all it heals"
    assert_order(site)


def test_one_that_died_before_it_touched_anything_is_closed_and_serve_goes_on(site: Lab) -> None:
    """Its guard was not there yet: nobody else would ever close it, and serve waits for whoever is at work."""
    with serving(site) as served:
        killed = site.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": "engine/journal:1"})
        assert killed.returncode == -signal.SIGKILL
        assert "its process died before anything was touched" in served.await_told("healed")
        until(lambda: site.json("history")[1]["operations"][0]["outcome"] == "refused", "it to be closed")
    assert_order(site)


def test_a_replica_that_was_away_follows_the_new_primary_when_it_returns(site: Lab) -> None:
    new = other(site)
    away = site.cluster[other(site, new)]
    away.kill9()
    with serving(site) as served:
        switched(site, "--to", new, code=7)
        away.start()
        served.await_told("healed", "is the primary now")
        until(lambda: away.replicates() and away.source_port() == site.cluster[new].port, "it to follow the new one")
        until(lambda: not site.json("status")[1]["open_operations"], "nothing to be left")
    assert_order(site, new)


def test_serve_that_is_killed_while_it_heals_is_healed_by_the_next(site: Lab) -> None:
    killed = site.run("switchover", "--yes", environment=DEAD)
    assert killed.returncode == -signal.SIGKILL
    first = Serving(site, environment={"PROXYROUTE_FAULT": "heal/haproxy.runtime:before"})
    until(lambda: not first.daemon.running, "serve to die while it heals")
    with serving(site) as served:
        served.await_told("healed")
    assert_order(site)


# -- Its own life ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_and_changes_nothing_by_that(site: Lab, number: signal.Signals) -> None:
    before = standing(site)
    with serving(site) as served:
        assert site.json("status")[1]["served_by"] == served.daemon.pid
        served.daemon.send(number)
        assert served.daemon.wait() == 0
        assert [told["kind"] for told in served.told if told["kind"] != "record"][-1] == "ended"
    assert standing(site) == before
    assert site.json("status")[1]["served_by"] is None


def test_a_second_one_with_the_same_state_is_refused_and_the_first_goes_on(site: Lab) -> None:
    with serving(site) as served:
        done = site.run("serve")
        assert done.returncode == 2
        assert f"is served already by process {served.daemon.pid}" in done.stderr
        assert served.daemon.running


def test_a_dead_server_and_no_primary_are_told_and_nothing_is_done(site: Lab) -> None:
    primary = site.cluster.primary
    route = proxy(site)["primary"]
    with serving(site) as served:
        primary.kill9()
        served.await_told("state", "no server takes writes")
        assert proxy(site)["primary"] == route
        primary.start()
        primary.sql("SET GLOBAL read_only=0")
        until(lambda: "2 of 2 replicas follow" in served.texts("state")[-1], "the state to be good again")
    assert_order(site, primary.name)
