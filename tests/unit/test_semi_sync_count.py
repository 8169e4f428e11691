"""A MySQL primary that waits for several acknowledgements: it begins to wait once so many can come, and not before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxyroute.db.rows import semi_sync
from proxyroute.finish import _waits_in_vain
from proxyroute.model import SemiSync, Status
from tests.support.builders import channel, replica, server, view

ON = SemiSync(available=True, replica_enabled=True)


def acknowledges(number: int) -> Status:
    return replica(number, channel(1), semi_sync=ON)


@pytest.mark.parametrize(
    ("wanted", "replicas", "told"),
    [
        (1, [], "no replica could acknowledge"),
        (1, [2], ""),
        (2, [2], "1 of the 2 replicas that have to could acknowledge"),
        (2, [2, 3], ""),
    ],
)
def test_who_would_acknowledge(wanted: int, replicas: list[int], told: str) -> None:
    new = server(1, semi_sync=replace(ON, wanted=wanted))
    assert _waits_in_vain(view(new, *(acknowledges(n) for n in replicas)), "db1") == told


@pytest.mark.parametrize("names", [("source", "replica"), ("master", "slave")])
def test_the_number_is_read_under_either_naming(names: tuple[str, str]) -> None:
    source, acknowledging = names
    variables = {
        f"rpl_semi_sync_{source}_enabled": "ON",
        f"rpl_semi_sync_{source}_wait_for_{acknowledging}_count": "2",
    }
    assert semi_sync(variables, {}).wanted == 2
    assert semi_sync({"rpl_semi_sync_master_enabled": "ON"}, {}).wanted == 1
