"""SIGKILL in a switchover behind a MaxScale, driven and followed, under write load; healed by the guard and by heal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.swept import swept
from tests.chaos.test_sigkill import SETTINGS, _points, _sweep
from tests.support.load import create_table
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.site import MaxScaleLab


@pytest.fixture(params=["driving", "following"])
def lab(request: pytest.FixtureRequest) -> Iterator[MaxScaleLab]:
    lab = MaxScaleLab.begin(request.param, policy=SETTINGS)
    try:
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
        yield lab
    finally:
        lab.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.full)])
def test_killed_around_every_act_at_maxscale(lab: MaxScaleLab, tmp_path: Path, step: int) -> None:
    points = [p for p in _points(lab, tmp_path / "trace") if p.startswith("engine/maxscale.")]
    swept("switchover behind MaxScale", points)
    _sweep(lab, [(point, ("guard", "heal")[number % 2]) for number, point in enumerate(points[::step])])
    assert_one_master_and_one_epoch(lab)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_killed_at_every_point_of_a_switchover(lab: MaxScaleLab, tmp_path: Path) -> None:
    points = _points(lab, tmp_path / "trace")
    for decisive in ("journal", "mariadb.accept_writes:before", "maxscale.state:before", "guard.start"):
        assert any(p.startswith(f"engine/{decisive}") for p in points), decisive
    _sweep(lab, [(point, ("guard", "heal")[number % 2]) for number, point in enumerate(points)])
    assert_one_master_and_one_epoch(lab)


def assert_one_master_and_one_epoch(lab: MaxScaleLab) -> None:
    primary = lab.cluster.primary.name
    masters = [name for name, bits in lab.bits().items() if Bit.MASTER in bits]
    assert masters == [primary], "no hidden Master is left either"
    markers = [name for name in lab.double.machine.servers if name.startswith("proxyroute-")]
    assert len(markers) == 1, markers
