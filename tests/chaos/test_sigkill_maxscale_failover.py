"""SIGKILL during a failover behind MaxScale, driven and followed, healed by the guard and by heal.

The quick suite kills at a fixed few of the moments between MaxScale and the servers; the whole sweep takes each point
once, with the healers in turn, and those at MaxScale with both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.swept import swept
from tests.chaos.test_sigkill_failover import FAILOVER, OPTIONS, acknowledged_by_all, bring_back, sweep
from tests.chaos.world import PARTS, healed_in_turn, part_of
from tests.support.load import create_table
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.site import MaxScaleLab

POLICY = {"freeze_budget": "3s", "settle": "10s", "prove": "2s"}
AT_MAXSCALE = "engine/maxscale."
MOMENTS = {
    "driving": [
        ("engine/maxscale.state:after:1", "guard"),  # the dead one's Master bit is gone, and nobody is open
        ("engine/maxscale.state:before:3", "heal"),  # the new one is open, and writes still go to nobody
    ],
    "following": [
        ("engine/lease.claim:before:1", "heal"),  # the monitor has not been made to look
        ("engine/mariadb.accept_writes:after:1", "guard"),  # the new one is open, and the monitor does not show it
    ],
}


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[MaxScaleLab]:
    more = {"failover": {"profile": "aggressive"}}
    lab = MaxScaleLab.begin(request.param, policy=POLICY, semi_sync=True, options=OPTIONS, more=more)
    try:
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
        yield lab
    finally:
        lab.close()


def assert_one_master(lab: MaxScaleLab) -> None:
    masters = [name for name, bits in lab.bits().items() if Bit.MASTER in bits]
    assert masters == [lab.cluster.primary.name], "no hidden Master is left either"


def points_of(lab: MaxScaleLab, trace: Path) -> list[str]:
    """Returns every point that an undisturbed failover passes; the one that was killed is back afterwards."""
    old = acknowledged_by_all(lab)
    old.kill9()
    assert lab.run(*FAILOVER, environment={"PROXYROUTE_FAULT_TRACE": str(trace)}).returncode in (0, 7)
    bring_back(lab, old)
    return [p for p in trace.read_text().splitlines() if p.startswith("engine/")]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("lab", "mode"), [(mode, mode) for mode in MOMENTS], indirect=["lab"])
def test_killed_in_the_moments_between_maxscale_and_the_servers(lab: MaxScaleLab, mode: str) -> None:
    sweep(lab, MOMENTS[mode])
    assert_one_master(lab)


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("lab", list(MOMENTS), indirect=True)
def test_killed_at_every_point_of_a_failover(lab: MaxScaleLab, tmp_path: Path, part: int) -> None:
    points = points_of(lab, tmp_path / "trace")
    swept("failover behind MaxScale", points)
    for decisive in ("journal", "mariadb.stop_receiver", "mariadb.accept_writes", "maxscale.state", "guard.start"):
        assert any(p.startswith(f"engine/{decisive}") for p in points), decisive
    sweep(lab, healed_in_turn(part_of(points, part), AT_MAXSCALE))
    assert_one_master(lab)
