"""Two MaxScales are told side by side: neither waits for the other's answer."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.cluster.test_scenarios_maxscale import MODES, begin, roles
from tests.support.death import failed_over, remembered
from tests.support.maxscale.answers import Request
from tests.support.maxscale.site import MaxScaleLab
from tests.support.scene import assert_order, other, switched

__all__ = ["begin"]
LONG = 5.0
"""Seconds, far less than the engine waits for an answer, and far more than it takes to ask."""


class Meeting:
    """Holds the first telling that comes to each MaxScale until the other has got its own; ``met`` once both had."""

    def __init__(self, site: MaxScaleLab, when: Callable[[], bool] = lambda: True) -> None:
        self._both = threading.Barrier(len(site.doubles))
        self._when = when
        self.met = False
        self.alone = 0
        for double in site.doubles:
            double.interfere = self._at(threading.Event())

    def _at(self, seen: threading.Event) -> Callable[[Request], float]:
        def interfere(request: Request) -> float:
            if request.method == "PUT" and "state=" in request.query and not seen.is_set() and self._when():
                seen.set()
                try:
                    self._both.wait(LONG)
                    self.met = True
                except threading.BrokenBarrierError:
                    self.alone += 1
            return 0.0

        return interfere


@pytest.mark.parametrize("mode", MODES)
def test_of_a_switchover(begin: Callable[..., MaxScaleLab], mode: str) -> None:
    site = begin(mode, number=2, policy={"freeze_budget": "15s"})
    new = other(site)
    meeting = Meeting(site)
    switched(site, "--to", new)
    assert (meeting.met, meeting.alone) == (True, 0), "one was told only when the other had answered"
    for double in site.doubles:
        assert site.bits(double) == roles(site, new)
    assert_order(site, new)


@pytest.mark.parametrize("moment", ["closing", "opening"])
@pytest.mark.parametrize("mode", MODES)
def test_of_a_failover(begin: Callable[..., MaxScaleLab], mode: str, moment: str) -> None:
    seldom = {"monitor_interval": "30000ms"}  # it sees the death only when it is made to look
    more = {"failover": {"policy": "most_advanced"}}
    site = begin(mode, number=2, policy={"settle": "10s"}, more=more, monitor_parameters=seldom)
    remembered(site)
    site.cluster.primary.kill9()
    meeting = Meeting(site, lambda: bool(site.cluster.writable) == (moment == "opening"))
    new = failed_over(site, code=7)["plan"]["plan"]["candidate"]
    assert (meeting.met, meeting.alone) == (True, 0), "one was told only when the other had answered"
    assert_order(site, new)
