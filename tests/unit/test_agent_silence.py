"""When an agent that hears nothing closes writes: the engine opens another server by its own clock, a little later."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest

from proxyroute import failover
from proxyroute.errors import AdapterError, ShareError, TimedOut
from proxyroute.haproxy.release import Phase
from proxyroute.haproxy.share import Share
from proxyroute.haproxy.worker import Worker
from proxyroute.model import Deadline, Epoch, Receipt, ReceiptState, RouteTable
from tests.unit.test_agent_fence import Host, Memoryless, config, publish
from tests.unit.test_release import KEY

T = TypeVar("T")

LATE = 0.5
"""Seconds: the longest pause between two looks, and the last short look."""


@dataclass
class Clock:
    """Time that passes when something takes time, and not before."""

    now: float = 1000.0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "clock_gettime", lambda _: self.now)


@dataclass
class SlowDisk:
    """A shared disk that is slow from ``slow`` on, hangs from ``gone`` on, and shows what was so when it was asked."""

    clock: Clock
    takes: float
    slow: float = float("inf")
    gone: float = float("inf")
    heard: float = 0.0
    """When the last access that succeeded has begun."""

    def call(self, _: Worker, access: Callable[[], T], deadline: Deadline) -> T:
        left = deadline.require("the disk")
        began = self.clock.now
        takes = float("inf") if began >= self.gone else self.takes if began >= self.slow else 0.0
        self.clock.now += min(takes, left)
        if takes > left:
            raise TimedOut("the disk hangs")
        self.heard = began
        return access()


@dataclass
class Timed(Memoryless):
    """A HAProxy that remembers when it was shut, and may take its time."""

    clock: Clock = field(default_factory=Clock)
    takes: float = 0.0
    shuts: list[float] = field(default_factory=list)
    dead: bool = False
    deaf: bool = False
    share: Share | None = None
    said: list[str] = field(default_factory=list)
    """Which announcements the folder showed as read while they were followed."""

    def settle(self, table: RouteTable, deadline: Deadline) -> Receipt:
        if self.share is not None:
            self.said.append(self.share.answer("edge1").heard)
        self.clock.now += min(self.takes, deadline.left)
        if self.deaf:
            return Receipt("edge1", ReceiptState.FAILED, table.epoch, "takes no commands")
        return super().apply(table, deadline)

    def shut(self, epoch: Epoch, _: Deadline) -> None:
        self.shuts.append(self.clock.now)
        if self.dead:
            raise AdapterError("edge1", "does not run")


def host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, timeout: float = 2.0, silence: float = 10.0
) -> tuple[Host, SlowDisk, Timed]:
    """Returns an agent that follows a route since just now, its disk and its HAProxy."""
    clock = Clock()
    disk, haproxy = SlowDisk(clock, 0.95 * timeout), Timed(clock=clock)
    made = replace(config(tmp_path), disk_timeout=timeout, on_silence="close_writes", silence=silence)
    share = Share(made.folder, "shop", KEY)
    share.make_folders()
    publish(share, (1, 1), "db1", Phase.SETTLE, 1, 1)
    clock.install(monkeypatch)
    monkeypatch.setattr(Worker, "call", lambda *a: disk.call(*a))
    agent = Host(made, haproxy)
    agent.step()
    return agent, disk, haproxy


def until_shut(agent: Host, disk: SlowDisk, haproxy: Timed) -> float:
    """Lets the agent go on until it closes writes; returns when."""
    while not haproxy.shuts:
        agent.step()
        disk.clock.now += agent.pause
    agent.close()
    return haproxy.shuts[0]


@pytest.mark.parametrize(("timeout", "silence"), [(0.2, 0.6), (2, 2), (2, 10), (3, 10), (5, 10), (7, 10), (10, 10)])
def test_writes_are_closed_in_time_however_slowly_the_folder_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout: float, silence: float
) -> None:
    """The silence counts from when the last look began: what it has shown may be as old as that."""
    for number in range(0, 30, 2):
        (tmp_path / f"{number}").mkdir()
        agent, disk, haproxy = host(tmp_path / f"{number}", monkeypatch, timeout=timeout, silence=silence)
        disk.slow, published = disk.clock.now + 0.07 * number, disk.clock.now + 2.0
        disk.gone = published  # a route that is closed then is never seen
        closed = until_shut(agent, disk, haproxy)
        assert closed <= disk.heard + silence + LATE
        assert closed <= published + silence + failover._MARGIN


def test_what_haproxy_takes_long_for_does_not_keep_the_agent_from_looking_at_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, disk, haproxy = host(tmp_path, monkeypatch)
    haproxy.takes, disk.gone = 25.0, disk.clock.now + 0.001
    publish(Share(tmp_path / "shared", "shop", KEY), (1, 2), "db2", Phase.SETTLE, 2, 2)
    assert until_shut(agent, disk, haproxy) <= disk.heard + 10.0 + LATE


def test_a_folder_that_comes_back_slowly_is_heard_after_the_writes_were_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, disk, haproxy = host(tmp_path, monkeypatch)
    haproxy.dead, disk.gone = True, disk.clock.now
    for _ in range(60):
        agent.step()
        disk.clock.now += agent.pause
    assert len(haproxy.shuts) > 1, "tried again as long as it has not worked"
    haproxy.dead, disk.gone, disk.slow = False, float("inf"), 0.0
    for _ in range(3):
        agent.step()
        disk.clock.now += agent.pause
    assert disk.heard >= disk.clock.now - 10.0
    agent.close()


def test_the_folder_shows_that_a_route_was_read_before_it_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes to follow it: a failover must not take the host for a silent one."""
    agent, _, haproxy = host(tmp_path, monkeypatch)
    haproxy.share = Share(tmp_path / "shared", "shop", KEY)
    publish(haproxy.share, (1, 2), None, Phase.SETTLE, 2, 2)
    agent.step()
    agent.close()
    assert haproxy.said == ["id2"]
    answer = haproxy.share.answer("edge1")
    assert (answer.answers, answer.heard) == ("id2", ""), "once it has answered that says all"


@pytest.mark.parametrize("deaf", [True, False], ids=["and not follow", "and follows"])
def test_a_host_that_cannot_say_what_it_read_and_not_follow_counts_as_one_that_hears_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    """For the engine, which sees neither, it is silent."""

    def full(*_: object) -> None:
        raise ShareError("No space left on device")

    agent, disk, haproxy = host(tmp_path, monkeypatch)
    monkeypatch.setattr(Share, "acknowledge", full)
    haproxy.deaf, published = deaf, disk.clock.now
    publish(Share(tmp_path / "shared", "shop", KEY), (1, 2), None, Phase.SETTLE, 2, 2)
    for _ in range(100):
        agent.step()
        disk.clock.now += max(agent.pause, 0.25)
    agent.close()
    assert (haproxy.shuts != []) == deaf
    assert all(closed <= published + 10.0 + LATE for closed in haproxy.shuts[:1])


def test_without_a_wish_to_close_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, disk, haproxy = host(tmp_path, monkeypatch, silence=10.0)
    agent.close()
    clock = disk.clock
    keeps = Host(replace(config(tmp_path), on_silence="keep"), haproxy)
    disk.gone = clock.now
    for _ in range(30):
        keeps.step()
        clock.now += keeps.pause
    keeps.close()
    assert haproxy.shuts == []
