"""The primary behind MaxScale dies: its bits are cleared before another server opens, driven and followed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.test_scenarios_maxscale import MASTER, RUNNING, SLAVE, begin, once, roles
from tests.support.death import LOSSLESS, brought_back, failed_over, remembered, waits_for_acknowledgements
from tests.support.maxscale.answers import Request
from tests.support.maxscale.double import Double
from tests.support.maxscale.site import MaxScaleLab
from tests.support.scene import assert_order
from tests.support.serving import serving
from tests.support.wait import until

__all__ = ["begin"]
ADVANCED = {"failover": {"policy": "most_advanced"}}
QUICK = {"period": "200ms", "proxies_period": "400ms"}
AUTOMATIC = {"mode": "automatic", "single_engine": True, "quiet_period": "0s", "per_day": 100, "policy": "lossless"}
POLICY = {"prove": "3s", "settle": "10s"}


@contextlib.contextmanager
def witnessed(site: MaxScaleLab, double: Double) -> Iterator[list[tuple[str, tuple[str, ...]]]]:
    """Yields the changes of Master bits at ``double``, each with the servers that took writes in that moment."""
    seen: list[tuple[str, tuple[str, ...]]] = []

    def look(request: Request) -> float:
        if request.method == "PUT" and "state=master" in request.query:
            *_, server, verb = request.path.split("/")
            seen.append((f"{verb} {server}", site.cluster.writable))
        return 0.0

    double.interfere = look
    yield seen
    double.interfere = lambda request: 0.0


# -- By hand --------------------------------------------------------------------------------------------------


def test_driven_the_dead_one_is_cleared_before_another_opens_though_maxscale_restarts_meanwhile(
    begin: Callable[..., MaxScaleLab],
) -> None:
    site = begin("driving", policy=POLICY, more=ADVANCED)
    old = site.cluster.primary
    remembered(site)
    old.kill9()
    with witnessed(site, site.double) as seen:
        new = failed_over(site, code=7)["plan"]["plan"]["candidate"]
    assert seen[0] == (f"clear mx-{old.name}", ()), "closed, while nobody took writes"
    assert [what for what, _ in seen].index(f"set mx-{new}") > 0
    assert all(new in writable for what, writable in seen if what == f"set mx-{new}"), "opened before it is routed to"
    assert MASTER not in site.bits()[old.name]
    assert_order(site, new)
    brought_back(site, old)
    assert site.run("publish").returncode == 0
    assert site.bits() == roles(site, new)

    second = site.cluster.primary  # once more, and MaxScale loses every state when it is told of the new one
    remembered(site)
    second.kill9()
    once(site.double, lambda request: request.path.endswith("/set") and "state=master" in request.query)
    third = failed_over(site, code=7)["plan"]["plan"]["candidate"]
    assert {name for name, bits in site.bits().items() if MASTER in bits} == {third}
    assert_order(site, third)


def test_followed_the_monitor_shows_nobody_before_another_opens(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin("following", policy=POLICY, more=ADVANCED)
    old = site.cluster.primary
    remembered(site)
    old.kill9()
    shown: list[tuple[bool, tuple[str, ...]]] = []

    def look(request: Request) -> float:
        if request.method == "PUT" and "state=drain" in request.query:
            shown.append((MASTER in site.bits()[old.name], site.cluster.writable))
        return 0.0

    site.double.interfere = look
    value = failed_over(site, code=7)
    new = value["plan"]["plan"]["candidate"]
    site.double.interfere = lambda request: 0.0
    assert value["result"]["leftovers"] == []
    assert shown, "the monitor was made to look"
    assert not any(still and writable for still, writable in shown), "nobody was open while the dead one was a Master"
    assert site.bits()[new] & (RUNNING | MASTER) == RUNNING | MASTER
    assert not site.bits()[old.name] & RUNNING
    assert_order(site, new)
    brought_back(site, old)
    until(lambda: site.bits() == roles(site, new), "the monitor to see it as a replica")


def test_one_of_two_is_down_and_blocks_by_name_until_somebody_says_that_it_is_off(
    begin: Callable[..., MaxScaleLab],
) -> None:
    site = begin("driving", number=2, policy=POLICY, more=ADVANCED)
    first, second = site.doubles
    site.write, site.read = second.write, second.read
    old, before = site.cluster.primary, site.bits(second)
    remembered(site)
    first.stop()
    old.kill9()
    status, value = site.json("failover", "--yes")
    assert status in (3, 4), value
    assert "mxs1 may still send writes" in str(value)
    assert "--proxy-fenced mxs1" in str(value)
    assert (site.cluster.writable, site.bits(second)) == ((), before), "nobody opened, and the bits are as they were"
    new = failed_over(site, "--proxy-fenced", "mxs1", code=7)["plan"]["plan"]["candidate"]
    assert {name for name, bits in site.bits(second).items() if MASTER in bits} == {new}
    first.start(route=True)  # it is back, and has kept or lost whatever it had
    assert site.run("heal").returncode in (0, 7)
    assert {name for name, bits in site.bits(first).items() if MASTER in bits} == {new}
    assert_order(site, new)


# -- By serve -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["driving", "following"])
def test_serve_fails_over_and_the_dead_one_comes_back_as_a_replica(
    begin: Callable[..., MaxScaleLab], mode: str
) -> None:
    site = begin(mode, policy=POLICY, more={"serve": QUICK, "failover": AUTOMATIC}, semi_sync=True, options=LOSSLESS)
    old = site.cluster.primary
    until(lambda: waits_for_acknowledgements(site.cluster), "somebody to acknowledge")
    with witnessed(site, site.double) as seen, serving(site) as served:
        old.kill9()
        assert "PROVEN" in served.await_told("acted", "failover", 60)
        new = site.cluster.primary
        if mode == "driving":
            assert seen[0] == (f"clear mx-{old.name}", ())
        assert not site.bits()[old.name] & MASTER
        old.start()
        until(lambda: site.bits() == roles(site, new.name), "it to get reads again", 60)
        assert old.replicates()
    assert_order(site, new.name)


def test_serve_does_not_fail_over_past_a_maxscale_that_does_not_answer(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin(
        "driving", number=2, policy=POLICY, more={"serve": QUICK, "failover": AUTOMATIC}, semi_sync=True,
        options=LOSSLESS,
    )  # fmt: skip
    first, second = site.doubles
    site.write, site.read = second.write, second.read
    old = site.cluster.primary
    until(lambda: waits_for_acknowledgements(site.cluster), "somebody to acknowledge")
    first.stop()
    with serving(site) as served:
        old.kill9()
        assert "mxs1 may still send writes" in served.await_told("blocked", "mxs1", 60)
        assert site.cluster.writable == ()
    site.change_proxy(absent=True)  # declared: it is off, and nobody waits for it
    with serving(site) as served:
        served.await_told("acted", "failover", 60)
        new = site.cluster.primary.name
        assert site.bits(second)[new] & (MASTER | SLAVE) == MASTER
        site.change_proxy(absent=False)
        first.start(route=True)
    assert site.run("publish").returncode == 0
    assert_order(site, new)
