"""HAProxy restarted, reloaded, killed, edited by hand: before a switchover, in its midst, and after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
import yaml

from tests.support.disk import Disk
from tests.support.lab import Lab
from tests.support.scene import (
    assert_order,
    beat,
    books,
    configured,
    connect,
    in_its_midst,
    other,
    refused,
    served_by,
    standing,
    switched,
)
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")
SITE = {"n": 3, "policy": {"freeze_budget": "8s", "lock_pause": "20ms", "lock_attempt": "100ms", "prove": "1s"}}


def proxy_of(site: Lab) -> dict[str, object]:
    (proxy,) = site.json("status")[1]["proxies"]
    found: dict[str, object] = proxy
    return found


def proxies_of(site: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(site.config.read_text())["clusters"]["demo"]["proxies"]
    return found


def start_again(site: Lab) -> None:
    site.haproxy.start(site.haproxy_config)


# -- Before ---------------------------------------------------------------------------------------------------


def test_haproxy_restarted_before_a_switchover(site: Lab) -> None:
    site.haproxy.stop()
    start_again(site)
    with books(site):
        switched(site)
    assert_order(site)


def test_haproxy_killed_before_a_switchover_is_refused_and_nothing_is_touched(site: Lab) -> None:
    old = site.cluster.primary.name
    site.haproxy.kill9()
    status, value = site.json("switchover", "--yes")
    assert status == 3, value
    assert value["error"]["findings"][0]["subject"] == "edge1"
    assert site.cluster.writable == (old,)
    start_again(site)
    assert_order(site, old)


def test_a_restart_after_the_switchover_keeps_the_new_route(site: Lab) -> None:
    new = other(site)
    switched(site, "--to", new)
    site.haproxy.kill9()
    start_again(site)
    assert_order(site, new)


def test_sessions_that_an_old_worker_keeps_are_ended_and_no_old_worker_is_left(site: Lab) -> None:
    with contextlib.closing(connect(site.write)) as session, session.cursor() as cursor:
        cursor.execute("SELECT 1")
        site.haproxy.ask_master("reload")
        until(lambda: old_workers(site) == 1, "a worker that is kept by its session")
        with books(site):
            switched(site)
        until(lambda: old_workers(site) == 0, "the old worker to end")
        with pytest.raises(pymysql.err.Error):
            cursor.execute("SELECT 1")
    assert_order(site)


def old_workers(site: Lab) -> int | None:
    """Returns how many replaced workers the master has; None while it does not answer, for it starts itself anew."""
    with contextlib.suppress(OSError):
        told = site.haproxy.ask_master("show proc")
        if "# workers" in told:
            return told.partition("# old workers")[2].partition("# programs")[0].count(" worker ")
    return None


# -- In its midst ---------------------------------------------------------------------------------------------


def test_haproxy_killed_in_mid_switchover_starts_with_the_new_route(site: Lab) -> None:
    new = other(site)
    with in_its_midst(site, "--to", new, code=7):
        site.haproxy.kill9()
    assert site.cluster.writable == (new,)
    assert "edge1" in site.run("status").stdout
    start_again(site)
    assert beat(site) == new, "its files say where to go"
    assert site.run("heal").returncode == 0
    assert_order(site, new)


def test_haproxy_restarted_in_mid_switchover(site: Lab) -> None:
    new = other(site)
    with books(site, doubt=True), in_its_midst(site, "--to", new):
        site.haproxy.kill9()
        start_again(site)
    assert_order(site, new)


def test_haproxy_reloaded_in_mid_switchover(site: Lab) -> None:
    new = other(site)
    with books(site), in_its_midst(site, "--to", new):
        site.haproxy.ask_master("reload")
        until(lambda: site.runtime("show info"), "the new worker to answer")
    until(lambda: old_workers(site) == 0, "the old worker to end")
    assert_order(site, new)


def test_haproxy_told_to_go_elsewhere_in_mid_switchover(site: Lab) -> None:
    """Somebody types a route at the runtime socket while the switchover waits; an older epoch does not win."""
    new = other(site)
    third = other(site, new)
    file = site.haproxy_config.with_suffix(".route.map")
    with books(site), in_its_midst(site, "--to", new):
        site.runtime(f"set map {file} route {third}/1.1")
    assert_order(site, new)


# -- By hand --------------------------------------------------------------------------------------------------


def test_a_configuration_edited_by_hand_is_shown_as_drift_and_taken_back(site: Lab) -> None:
    text = site.haproxy_config.read_text()
    site.haproxy_config.write_text(text.replace("maxconn", "maxconn 7 # was", 1) + "\n# by hand\n")
    assert "haproxy.cfg" in str(proxy_of(site)["drift"])
    assert "drifted" in site.run("status").stdout
    switched(site)
    assert "by hand" not in site.haproxy_config.read_text()
    assert_order(site)


def test_a_configuration_broken_by_hand_does_not_stop_the_switchover(site: Lab) -> None:
    site.haproxy_config.write_text(site.haproxy_config.read_text()[:200] + "\nthis is no configuration\n")
    assert proxy_of(site)["drift"]
    with books(site):
        switched(site)
    assert_order(site)


def test_a_route_set_by_hand_is_shown_and_published_away(site: Lab) -> None:
    primary, wrong = site.cluster.primary.name, other(site)
    file = site.haproxy_config.with_suffix(".route.map")
    site.runtime(f"set map {file} route {wrong}/1.1")
    status = site.json("status")[1]
    assert status["level"] == "bad"
    assert f"proxy edge1 sends writes to {wrong}" in status["truth"]
    assert served_by(site, site.write) == wrong
    assert site.run("publish").returncode == 0
    assert_order(site, primary)


def test_a_torn_map_file_is_shown_and_published_away(site: Lab) -> None:
    file = site.haproxy_config.with_suffix(".route.map")
    file.write_text(file.read_text()[:9])
    assert file.name in str(proxy_of(site)["drift"])
    switched(site)
    site.haproxy.stop()
    start_again(site)
    assert_order(site)


# -- Reads, and proxies that are away -------------------------------------------------------------------------


def test_no_replica_left_reads_go_to_the_primary(site: Lab) -> None:
    primary = site.cluster.primary
    away = [node for node in site.cluster if node is not primary]
    assert served_by(site, site.read) != primary.name
    for node in away:
        node.kill9()

    def read() -> str | None:
        with contextlib.suppress(Exception):
            return served_by(site, site.read)
        return None

    until(lambda: read() == primary.name, "reads to go to the primary")
    for node in away:
        node.start()
    until(lambda: read() not in (None, primary.name), "reads to go to a replica again")
    until(lambda: all(node.replicates() for node in away), "everybody to follow")


@pytest.mark.parametrize("absent", [True, False])
def test_two_proxies_one_unreachable_which_is_declared_and_shown(site: Lab, absent: bool) -> None:
    gone = {"type": "hook", "name": "far", "set": ["false"], "read": ["false"], "absent": absent}
    before, new = standing(site), other(site)
    with configured(site, proxies=[*proxies_of(site), gone]):
        seen = {p["proxy"]: p["reachable"] for p in site.json("status")[1]["proxies"]}
        assert seen == {"edge1": True, "far": False}
        if absent:
            switched(site, "--to", new)
            assert site.cluster.writable == (new,)
        else:
            assert {f["subject"] for f in refused(site, "--to", new).findings} == {"far"}
            assert standing(site) == before


# -- Its disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(site: Lab, tmp_path: Path, small_disk: Disk) -> Iterator[Disk]:
    """HAProxy's files are on a small disk for the time of the test."""
    before, file = site.haproxy_config, tmp_path / "haproxy.cfg"
    with configured(site, proxies=[{**proxies_of(site)[0], "config_file": str(file)}]):
        move_to(site, file)
        yield small_disk
    move_to(site, before)


def move_to(site: Lab, config: Path) -> None:
    site.haproxy.stop()
    site.haproxy_config = config
    for file, text in site.json("render")[1]["edge1"].items():
        Path(file).write_text(text)
    start_again(site)
    site.run("publish", check=True)


def test_the_proxys_disk_is_full_a_switchover_is_refused(site: Lab, disk: Disk) -> None:
    old = site.cluster.primary.name
    disk.fill()
    with books(site):
        assert "edge1" in {f["subject"] for f in refused(site).findings}
    disk.free()
    assert_order(site, old)


def test_the_proxys_disk_fills_up_in_the_midst_the_route_moves_and_what_is_left_is_told(site: Lab, disk: Disk) -> None:
    new = other(site)
    with books(site), in_its_midst(site, "--to", new, code=7):
        disk.fill()
    assert beat(site) == new
    assert "No space left" in site.run("history").stdout + str(site.json("history"))
    disk.free()
    assert site.run("heal").returncode == 0
    assert_order(site, new)
