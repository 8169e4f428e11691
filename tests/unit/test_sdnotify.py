"""What is told to the service manager, over a real datagram socket."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute.sdnotify import Manager
from tests.support.systemd import Systemd


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@proxyroute-test-{os.getpid()}"
    with Systemd(address) as found:
        yield found


def test_each_state_is_one_datagram(systemd: Systemd) -> None:
    manager = Manager({"NOTIFY_SOCKET": systemd.address})
    manager.ready()
    manager.status("shop: db1 takes writes\nand more")
    manager.status("shop: db1 takes writes and more")
    manager.stopping()
    assert systemd.heard() == ["READY=1", "STATUS=shop: db1 takes writes and more", "STOPPING=1"]
    before = time.monotonic_ns() // 1000
    manager.reloading()
    reloading, clock = systemd.heard()
    assert reloading == "RELOADING=1"
    assert before <= int(clock.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_signs_of_life_come_three_times_in_the_time_of_the_watchdog(systemd: Systemd) -> None:
    manager = Manager({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())})
    manager.alive()
    manager.alive()
    assert systemd.heard() == ["WATCHDOG=1"]
    manager._alive_at -= 10.1
    manager.alive()
    assert systemd.heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize("variables", [{}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}])
def test_without_a_watchdog_of_ours_there_are_no_signs_of_life(systemd: Systemd, variables: dict[str, str]) -> None:
    manager = Manager({"NOTIFY_SOCKET": systemd.address, **variables})
    manager.alive()
    assert (manager.watchdog, systemd.heard()) == (0.0, [])


def test_whoever_we_start_does_not_speak_in_our_name() -> None:
    environment = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Manager(environment)
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "not-a-path", "@nobody-listens"])
def test_no_manager_is_no_trouble(address: str) -> None:
    manager = Manager({"NOTIFY_SOCKET": address})
    manager.ready()
    manager.status("fine")


def test_a_manager_that_does_not_read_is_not_waited_for(systemd: Systemd) -> None:
    manager = Manager({"NOTIFY_SOCKET": systemd.address})
    began = time.monotonic()
    for _ in range(2000):  # more than fit into the socket's queue
        manager.ready()
    assert time.monotonic() - began < 5
    assert 0 < len(systemd.heard()) < 2000
    manager.status("it reads again")
    assert systemd.heard() == ["STATUS=it reads again"]
