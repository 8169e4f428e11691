"""Failovers that MaxScale's monitor follows: it is restarted meanwhile, one of two is down, it is given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.test_scenarios_maxscale import MASTER, RUNNING, SLAVE, begin, once, roles
from tests.support.death import brought_back, failed_over, remembered, table_locked
from tests.support.load import create_table
from tests.support.maxscale.answers import Request
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.double import Double
from tests.support.maxscale.site import MaxScaleLab
from tests.support.scene import assert_order, configured
from tests.support.wait import until

__all__ = ["begin"]
ADVANCED = {"failover": {"policy": "most_advanced"}}
POLICY = {"prove": "3s", "settle": "10s"}
SELDOM = {"monitor_interval": "30000ms"}
"""A monitor that sees a death only when it is made to look."""


def masters(site: MaxScaleLab, double: Double | None = None) -> set[str]:
    return {name for name, bits in site.bits(double).items() if MASTER in bits}


def monitored(site: MaxScaleLab) -> list[Any]:
    """Returns of each monitor whether it runs, with what, and whom it takes for the primary."""
    return [(m.name, m.running, dict(m.parameters), m.primary) for m in site.double.machine.monitors.values()]


def told_to_look(request: Request) -> bool:
    return request.method == "PUT" and "state=drain" in request.query


@pytest.mark.parametrize("moment", ["closing", "opening"])
def test_restarted_when_its_monitor_is_made_to_look(begin: Callable[..., MaxScaleLab], moment: str) -> None:
    """Once while nobody takes writes, once when the new primary does: what the monitor remembered is gone."""
    site = begin("following", policy=POLICY, more=ADVANCED, monitor_parameters=SELDOM)
    old, first = site.cluster.primary, site.double.machine
    remembered(site)
    old.kill9()
    once(site.double, lambda request: told_to_look(request) and bool(site.cluster.writable) == (moment == "opening"))
    value = failed_over(site, code=7)
    assert site.double.machine is not first, "it was restarted"
    new = value["plan"]["plan"]["candidate"]
    assert masters(site) == {new}
    assert_order(site, new)
    brought_back(site, old)
    assert site.run("publish").returncode == 0
    assert site.bits() == roles(site, new), "made to look, it sees the one that is back as a replica"


def test_one_of_two_is_down_and_blocks_by_name_until_somebody_says_that_it_is_off(
    begin: Callable[..., MaxScaleLab],
) -> None:
    site = begin("following", number=2, policy=POLICY, more=ADVANCED)
    first, second = site.doubles
    site.write, site.read = second.write, second.read
    old = site.cluster.primary
    remembered(site)
    first.stop()
    old.kill9()
    status, value = site.json("failover", "--yes")
    assert status in (3, 4), value
    assert "mxs1 may still send writes" in str(value)
    assert "--proxy-fenced mxs1" in str(value)
    assert site.cluster.writable == ()
    until(lambda: masters(site, second) == set(), "the other to see that it is dead")
    new = failed_over(site, "--proxy-fenced", "mxs1", code=7)["plan"]["plan"]["candidate"]
    assert masters(site, second) == {new}
    first.restart()
    assert site.run("heal").returncode in (0, 7)
    assert masters(site, first) == {new}
    assert_order(site, new)


@pytest.mark.parametrize("mode", ["driving", "following"])
def test_given_up_before_the_commit_bits_and_monitor_are_as_they_were(
    begin: Callable[..., MaxScaleLab], mode: str
) -> None:
    """Nobody can apply what was received: the failover is given up after MaxScale was told to send writes nowhere."""
    site = begin(mode, policy=POLICY, more=ADVANCED)
    old = site.cluster.primary
    first, second = (node for node in site.cluster if node is not old)
    create_table(old)
    site.cluster.await_synced()
    remembered(site)
    with configured(site, failover={"policy": "most_advanced", "apply": "1s"}):
        with table_locked(first), table_locked(second):
            old.sql("INSERT INTO app.load_rows (writer, n, server) VALUES (1, 1, @@server_id)")
            goal = old.gtid()
            until(lambda: all(n.replication()["Gtid_IO_Pos"] == goal for n in (first, second)), "both to have it")
            old.kill9()
            if mode == "following":
                until(lambda: not site.bits()[old.name] & RUNNING, "the monitor to see that it is dead")
            before = site.bits()
            monitors = monitored(site)
            sent = len(site.double.requests)
            status, value = site.json("failover", "--yes")
        assert status == 4, value
        told = [(m, path) for m, path, _ in site.double.requests[sent:] if m != "GET"]
        assert told, "it had been told"
        until(lambda: site.bits() == before, "the bits to be as they were")
        assert monitored(site) == monitors
        assert site.bits()[first.name] == RUNNING | SLAVE
        assert (MASTER in site.bits()[old.name]) is (mode == "driving"), (
            "undone: driven, the bits go back to the dead one"
        )
    new = failed_over(site, code=7)["plan"]["plan"]["candidate"]
    assert masters(site) == {new}
    assert_order(site, new)
    assert Bit.MASTER not in site.bits()[old.name]
