"""The site's scripts get the time that ``scripts.timeout`` gives them, at every moment, and the guard waits for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute import hooks as room
from proxyroute.errors import Aborted, Unreachable
from proxyroute.hooks import Scripts
from proxyroute.model import Deadline
from tests.support.fakeworld import make_world
from tests.unit import test_failover_interrupted as failovers
from tests.unit import test_interrupted as switchovers

TIMEOUT = 100.0
"""Seconds; more than any step of an operation has."""
TAKES = 0.2


class Site:
    """Scripts at every moment, which take ``TAKES`` seconds, and a guard that ends nobody."""

    def __init__(self) -> None:
        self.until = float("inf")
        self.given: dict[str, float] = {}
        """What each script was given, in seconds,"""
        self.awaited: dict[str, float] = {}
        """and for how long the guard would have waited for it."""

    def run(self, argv: Sequence[str], environment: Mapping[str, str], deadline: Deadline) -> None:
        moment = environment["PROXYROUTE_MOMENT"]
        self.given[moment], self.awaited[moment] = deadline.left, self.until - time.monotonic()
        time.sleep(TAKES)

    def begin(self) -> None: ...

    def start(self, deadline: Deadline) -> None: ...

    def expect(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds

    def dismiss(self) -> None: ...

    def assert_waited(self, *moments: str) -> None:
        assert list(self.given) == list(moments)
        assert min(self.given.values()) > TIMEOUT - 5.0, self.given
        assert all(self.awaited[m] > self.given[m] for m in moments), self.awaited


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site()
    monkeypatch.setattr(room, "run_argv", site.run)
    scripts = Scripts({m: ["/bin/true"] for m in ("address_down", "address_up", "fence")}, TIMEOUT)
    switching, failing = switchovers._parts, failovers.parts
    monkeypatch.setattr(switchovers, "_parts", lambda *a, **k: replace(switching(*a, **k), guard=site, hooks=scripts))
    monkeypatch.setattr(failovers, "parts", lambda *a, **k: replace(failing(*a, **k), guard=site, hooks=scripts))
    return site


def test_a_fence_is_given_what_the_fence_device_may_take(site: Site, tmp_path: Path) -> None:
    failovers.start(*failovers.dead_world(), tmp_path / "op.jsonl", [])
    site.assert_waited("fence", "address_up")


def test_an_address_is_given_as_long_to_go_down_and_to_come_up(site: Site, tmp_path: Path) -> None:
    switchovers._start(*make_world(), tmp_path / "op.jsonl", [])
    site.assert_waited("address_down", "address_up")


def test_an_address_that_comes_back_takes_none_of_the_time_in_which_its_server_is_undone(
    site: Site, tmp_path: Path
) -> None:
    world, proxy = make_world()
    old, left = world.servers["db1"], list[float]()
    old.scheduler = True

    def fail(*_: object, **__: object) -> None:
        raise Unreachable("db2", "is not to be had")

    def start_events(deadline: Deadline) -> None:
        left.append(deadline.left)
        old.scheduler = True

    world.servers["db2"].detach = fail  # type: ignore[method-assign]
    old.start_events = start_events  # type: ignore[method-assign]
    undo = 0.5 + TAKES
    with pytest.raises(Aborted):
        switchovers._start(world, proxy, tmp_path / "op.jsonl", [], replace(switchovers.POLICY, undo=undo))
    site.assert_waited("address_down", "address_up")
    assert left[0] > undo - TAKES
