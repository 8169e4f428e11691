"""SIGKILL in a switchover behind a MaxScale, driven and followed, under write load; healed by the guard and by heal.

The quick suite kills at a fixed few of the moments between MaxScale and the servers; the whole sweep takes each point
once, with the healers in turn, and those at MaxScale with both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.swept import swept
from tests.chaos.test_sigkill import SETTINGS, _points, _sweep
from tests.chaos.world import PARTS, healed_in_turn, part_of
from tests.support.load import create_table
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.site import MaxScaleLab

AT_MAXSCALE = "engine/maxscale."
MOMENTS = {
    "driving": [
        ("engine/maxscale.state:after:1", "guard"),  # the new one is a Master as well, the old one still is
        ("engine/maxscale.state:before:3", "heal"),  # who reads has not been settled
        ("engine/maxscale.object:after:1", "guard"),  # two epochs are kept
    ],
    "following": [
        ("engine/maxscale.state:before:1", "heal"),  # it is open, and the monitor has not been made to look
        ("engine/maxscale.object:before:1", "guard"),  # the monitor shows it, and the epoch is the old one
    ],
}


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[MaxScaleLab]:
    lab = MaxScaleLab.begin(request.param, policy=SETTINGS)
    try:
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
        yield lab
    finally:
        lab.close()


def assert_one_master_and_one_epoch(lab: MaxScaleLab) -> None:
    primary = lab.cluster.primary.name
    masters = [name for name, bits in lab.bits().items() if Bit.MASTER in bits]
    assert masters == [primary], "no hidden Master is left either"
    markers = [name for name in lab.double.machine.servers if name.startswith("proxyroute-")]
    assert len(markers) == 1, markers


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("lab", "mode"), [(mode, mode) for mode in MOMENTS], indirect=["lab"])
def test_killed_in_the_moments_between_maxscale_and_the_servers(lab: MaxScaleLab, mode: str) -> None:
    _sweep(lab, MOMENTS[mode])
    assert_one_master_and_one_epoch(lab)


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("lab", list(MOMENTS), indirect=True)
def test_killed_at_every_point_of_a_switchover(lab: MaxScaleLab, tmp_path: Path, part: int) -> None:
    points = _points(lab, tmp_path / "trace")
    swept("switchover behind MaxScale", points)
    for decisive in (
        "journal",
        "guard.start",
        "mariadb.accept_writes:before",
        "maxscale.state:after",
        "maxscale.object:before",
    ):
        assert any(p.startswith(f"engine/{decisive}") for p in points), decisive
    _sweep(lab, healed_in_turn(part_of(points, part), AT_MAXSCALE))
    assert_one_master_and_one_epoch(lab)
