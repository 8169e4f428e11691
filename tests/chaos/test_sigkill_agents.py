"""SIGKILL in a switchover that goes through agents: of the engine around what it publishes, of an agent at each act."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.swept import swept
from tests.chaos.test_sigkill import SETTINGS, _points, _sweep
from tests.chaos.world import assert_legal, await_closed, limits_of
from tests.contract.test_agents_sigkill import MOMENTS
from tests.support.lab import Lab
from tests.support.load import create_table
from tests.support.mariadb import LocalCluster
from tests.support.scene import books
from tests.support.wait import until

FLAVOURS = ("mysql",)
FULL = ("mysql",)


@pytest.fixture(scope="module")
def lab(servers: type[LocalCluster]) -> Iterator[Lab]:
    with Lab.start(3, hosts=2, policy=SETTINGS, provider=servers) as lab:
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
        yield lab


def published(lab: Lab, trace: Path) -> list[str]:
    """Returns every moment around what the engine puts into the shared folder in a switchover."""
    points = [p for p in _points(lab, trace) if p.startswith("engine/share.")]
    swept("switchover with agents", points)
    return points


@pytest.mark.timeout(600)
def test_the_engine_is_killed_before_or_after_everything_it_publishes(lab: Lab, tmp_path: Path) -> None:
    points = published(lab, tmp_path / "trace")
    _sweep(lab, [(point, ("guard", "heal")[number % 2]) for number, point in enumerate(points[::6])])


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_the_engine_is_killed_before_and_after_everything_it_publishes(lab: Lab, tmp_path: Path) -> None:
    points = published(lab, tmp_path / "trace")
    _sweep(lab, [(point, ("heal", "guard")[number % 2]) for number, point in enumerate(points)])


SOME = ("agent.remember:after", "haproxy.runtime:before", "share.receipt:before")
"""One of each kind: what it keeps, what it changes, what it answers."""


@pytest.mark.whatever_servers("it compares two lists")
def test_every_act_of_an_agent_is_one_at_which_it_is_killed() -> None:
    swept("an agent", [f"agent/{moment}" for moment in MOMENTS])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "moment", [*SOME, *(pytest.param(m, marks=pytest.mark.full) for m in MOMENTS if m not in SOME)]
)
def test_an_agent_is_killed_at_each_of_its_acts_and_started_again(lab: Lab, moment: str) -> None:
    """Whatever becomes of the switchover, it ends in order, and what it says of its end is true."""
    limits, host, before = limits_of(lab), lab.hosts[1], lab.cluster.primary.name
    with books(lab, address=host.write):
        host.kill_agent()
        host.start_agent(PROXYROUTE_FAULT=f"agent/{moment}")
        killed = host.agent
        assert killed is not None
        with subprocess.Popen(lab.command("switchover", "--yes"), stdout=subprocess.DEVNULL) as command:
            until(lambda: not killed.running, f"the agent to die at {moment}", 60)
            host.start_agent()  # as a service manager does it
            status = command.wait(120)
        await_closed(lab)
        assert status in (0, 3, 4, 7), "there is nothing for heal to decide"
        moved = lab.cluster.primary.name != before
        assert moved is (status in (0, 7))
        if status == 7:
            assert lab.run("heal").returncode in (0, 7)
        until(lambda: lab.json("status")[1]["level"] == "good", "everything to be in order")
        assert_legal(lab, limits)
