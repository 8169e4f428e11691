"""More than one engine, one that lost its lease, one whose clock jumps: never two primaries, never a lost write."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest

from tests.chaos.world import await_closed
from tests.support.death import brought_back, failed_over, mourning, remembered
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.scene import assert_order, books, configured, in_its_midst, other, standing, state_in, switched
from tests.support.wait import until

FLAVOURS = ("mysql",)
SITE = {"n": 3, "policy": {"freeze_budget": "8s", "lock_pause": "20ms"}}


def outcomes(site: Lab) -> list[str]:
    return [operation["outcome"] for operation in site.json("history")[1]["operations"]]


def test_killed_after_the_freeze_another_engine_acts_and_the_first_one_comes_back_and_touches_nothing(
    site: Lab, tmp_path: Path
) -> None:
    fault = "engine/mariadb.block_writes:after,guard/guard.take_over:before"
    with books(site):
        done = site.run("switchover", "--yes", "--to", other(site), environment={"PROXYROUTE_FAULT": fault})
        assert done.returncode < 0, done.stdout + done.stderr
        await_closed(site)
        third = other(site, other(site))
        with state_in(site, tmp_path):
            switched(site, "--to", third)
        before, files = standing(site), site.haproxy_config.read_bytes()
        healed = site.run("heal")
        assert healed.returncode == 6, healed.stdout + healed.stderr
        assert "somebody else acted since" in healed.stderr
        assert (standing(site), site.haproxy_config.read_bytes()) == (before, files)
    assert outcomes(site)[0] == "superseded"
    assert_order(site, third)
    assert site.run("heal").stdout == "nothing is open\n"


def test_killed_after_the_freeze_another_engine_fails_over_and_the_first_one_comes_back_and_touches_nothing(
    site: Lab, tmp_path: Path
) -> None:
    """The old primary died with the first engine, which when it is back would open it again, or its own candidate."""
    old, fault = site.cluster.primary, "engine/mariadb.block_writes:after,guard/guard.take_over:before"
    second, third = (node.name for node in site.cluster if node is not old)
    with state_in(site, tmp_path):
        remembered(site)
    with mourning(site) as mourners:
        with configured(site, switchover={"freeze_budget": "20s"}):
            done = site.run("switchover", "--yes", "--to", second, environment={"PROXYROUTE_FAULT": fault})
        assert done.returncode < 0, done.stdout + done.stderr
        # it is still frozen: nobody can have been told of more than this
        until(lambda: len({node.gtid() for node in site.cluster}) == 1, "the replicas to have everything", 10)
        old.kill9()
        await_closed(site)
        with configured(site, failover={"policy": "most_advanced"}), state_in(site, tmp_path):
            failed_over(site, "--to", third, code=7)
        mourners.await_writes()
        before, files = standing(site), site.haproxy_config.read_bytes()
        healed = site.run("heal")
        assert healed.returncode == 6, healed.stdout + healed.stderr
        assert "somebody else acted since" in healed.stderr
        assert (standing(site), site.haproxy_config.read_bytes()) == (before, files)
    assert not mourners.verdict.lost, mourners.verdict
    assert outcomes(site)[0] == "superseded"
    assert_order(site, third)
    assert site.run("heal").stdout == "nothing is open\n"
    brought_back(site, old)
    assert_order(site, third)


@pytest.mark.parametrize("same", [True, False], ids=["to the same server", "to different servers"])
def test_two_engines_started_at_once(site: Lab, same: bool) -> None:
    old, targets = site.cluster.primary, [other(site)] * 2 if same else [other(site), other(site, other(site))]
    before = len(outcomes(site))
    with books(site), contextlib.ExitStack() as both:
        started = [
            both.enter_context(
                subprocess.Popen(
                    site.command("switchover", "--yes", "--to", target),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            for target in targets
        ]
        said = [command.communicate(timeout=60)[0] for command in started]
        codes = sorted(command.returncode for command in started)
    assert codes[0] == 0, said
    assert codes[1] in (0, 3, 6), said
    assert assert_order(site).name in targets
    assert site.cluster.primary is not old
    done = outcomes(site)[: len(outcomes(site)) - before]
    assert set(done) <= {"done", "refused"}
    assert done.count("done") == codes.count(0) - said.count(
        f"{targets[0]} is the primary already; nothing was changed\n"
    )


def test_the_lease_is_lost_between_two_steps_and_everything_is_undone(site: Lab) -> None:
    old = site.cluster.primary.name
    lock = site.folder / "state" / CLUSTER_NAME / "lease.lock"
    with books(site), in_its_midst(site, "--to", other(site), code=4):
        lock.unlink()
        lock.touch(mode=0o600)
    assert outcomes(site)[0] == "aborted"
    assert_order(site, old)


JUMPING = """
import itertools, time
_real, _jumps = time.time, itertools.cycle((0, 86400, -86400, 7200, -3600))
time.time = lambda: _real() + next(_jumps)
"""


def test_the_clock_jumps_by_hours_and_days_all_the_time(site: Lab, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    new = other(site)
    with books(site) as kept:
        done = site.run("switchover", "--yes", "--to", new, environment={"PYTHONPATH": str(tmp_path)})
        assert done.returncode == 0, done.stdout + done.stderr
    assert kept.verdict.refused == 0, kept.verdict
    assert_order(site, new)
    switched(site)
    assert site.json("history")[0] == 0
