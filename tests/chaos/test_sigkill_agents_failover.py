"""SIGKILL in a failover that goes through agents: of the engine around what it publishes, of an agent at each act."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.swept import swept
from tests.chaos.test_sigkill_failover import FAILOVER, OPTIONS, acknowledged_by_all, bring_back, points_of, sweep
from tests.chaos.world import assert_legal, await_closed, limits_of
from tests.contract.test_agents_sigkill import MOMENTS
from tests.support.lab import Lab
from tests.support.load import Load, create_table, read_rows
from tests.support.mariadb import LocalCluster
from tests.support.verdict import judge
from tests.support.wait import until

FLAVOURS = ("mysql",)
FULL = ("mysql",)

POLICY = {"freeze_budget": "3s", "settle": "10s", "prove": "2s"}


@pytest.fixture(scope="module")
def lab(servers: type[LocalCluster]) -> Iterator[Lab]:
    more = {"failover": {"profile": "aggressive"}}
    site = {"hosts": 2, "policy": POLICY, "semi_sync": True, "options": OPTIONS, "more": more, "provider": servers}
    with Lab.start(3, **site) as lab:
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
        yield lab


def published(lab: Lab, trace: Path) -> list[str]:
    """Returns every moment around what the engine puts into the shared folder in a failover."""
    points = [p for p in points_of(lab, trace) if p.startswith("engine/share.")]
    swept("failover with agents", points)
    return points


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", ["guard", "heal"])
def test_the_engine_is_killed_before_and_after_everything_it_publishes(lab: Lab, tmp_path: Path, first: str) -> None:
    healers = ("guard", "heal") if first == "guard" else ("heal", "guard")
    points = published(lab, tmp_path / "trace")
    sweep(lab, [(point, healers[number % 2]) for number, point in enumerate(points)])


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_agent_is_killed_at_each_of_its_acts_and_started_again(lab: Lab, moment: str) -> None:
    """Its host may send writes to the dead one until it has said otherwise: the failover waits for it, or is undone."""
    limits, host = limits_of(lab), lab.hosts[1]
    create_table(lab.cluster.primary)
    old = acknowledged_by_all(lab)
    with Load.start(host.write, writers=2, rate=25) as load:
        load.await_more(5)
        host.kill_agent()
        host.start_agent(PROXYROUTE_FAULT=f"agent/{moment}")
        killed = host.agent
        assert killed is not None
        old.kill9()
        with subprocess.Popen(lab.command(*FAILOVER), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as command:
            until(lambda: not killed.running, f"the agent to die at {moment}", 60)
            host.start_agent()  # as a service manager does it
            said, _ = command.communicate(timeout=120)
        await_closed(lab)
        assert command.returncode in (0, 4, 7), said
        assert bool(lab.cluster.writable) is (command.returncode != 4), said
        if command.returncode == 4:
            again = lab.run(*FAILOVER)
            assert again.returncode in (0, 7), again.stdout + again.stderr
        if lab.run("heal").returncode == 7:
            until(lambda: lab.run("heal").returncode == 0, "nothing to be left", 60, 0.5)
        bring_back(lab, old)
        load.await_more(5, 40)
        records = load.stop()
    until(lambda: not any(p["drift"] for p in lab.json("status")[1]["proxies"]), "the routes to be right", 30, 0.2)
    assert_legal(lab, limits)
    lab.cluster.await_synced()
    verdict = judge(records, read_rows(lab.cluster), lab.cluster.primary.name)
    assert not verdict.lost, verdict
    assert not verdict.diverged, verdict
    assert not verdict.unexplained, verdict
