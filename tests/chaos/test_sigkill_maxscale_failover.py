"""SIGKILL during a failover behind MaxScale, driven and followed, healed by the guard and by heal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.swept import swept
from tests.chaos.test_sigkill_failover import FAILOVER, OPTIONS, acknowledged_by_all, bring_back, sweep
from tests.chaos.world import EACH
from tests.support.load import create_table
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.site import MaxScaleLab

POLICY = {"freeze_budget": "3s", "settle": "10s", "prove": "2s"}


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[MaxScaleLab]:
    more = {"failover": {"profile": "aggressive"}}
    mode = getattr(request, "param", "driving")
    lab = MaxScaleLab.begin(mode, policy=POLICY, semi_sync=True, options=OPTIONS, more=more)
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
def test_killed_when_the_dead_one_is_cleared_and_when_the_new_one_is_set(lab: MaxScaleLab) -> None:
    """The first act at MaxScale takes the dead one's Master bit, the third gives the new one its own."""
    sweep(lab, [("engine/maxscale.state:after:1", "guard"), ("engine/maxscale.state:before:3", "heal")])
    assert_one_master(lab)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_killed_around_every_act_at_maxscale(lab: MaxScaleLab, tmp_path: Path) -> None:
    points = [p for p in points_of(lab, tmp_path / "trace") if p.startswith("engine/maxscale.")]
    swept("failover behind MaxScale", points)
    assert len(points) >= 12, points
    sweep(lab, [(point, ("guard", "heal")[number % 2]) for number, point in enumerate(points)])
    assert_one_master(lab)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("lab", "step"),
    [
        ("following", EACH[0]),
        pytest.param("following", 1, marks=pytest.mark.full),
        pytest.param("driving", 1, marks=pytest.mark.full),
    ],
    indirect=["lab"],
)
def test_killed_at_every_point_of_a_failover(lab: MaxScaleLab, tmp_path: Path, step: int) -> None:
    points = points_of(lab, tmp_path / "trace")
    for decisive in ("journal", "mariadb.stop_receiver", "mariadb.accept_writes", "maxscale.state", "guard.start"):
        assert any(p.startswith(f"engine/{decisive}") for p in points), decisive
    sweep(lab, [(point, ("guard", "heal")[number % 2]) for number, point in enumerate(points[::step])])
    assert_one_master(lab)
