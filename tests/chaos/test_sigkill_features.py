"""SIGKILL around the acts that only some sites have: events, semi-synchronous replication, scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.swept import swept
from tests.chaos.test_sigkill import SETTINGS, _points, _sweep
from tests.chaos.world import EACH
from tests.support.lab import Lab
from tests.support.load import create_table
from tests.support.mariadb import LocalCluster

FLAVOURS = ("mysql",)
ACTS = ("mariadb.event_scheduler", "mariadb.alter_event", "mariadb.semi_sync", "script.run")


@pytest.fixture(scope="module")
def lab(servers: type[LocalCluster]) -> Iterator[Lab]:
    scripts = {"address_down": ["/bin/true"], "address_up": ["/bin/true"]}
    options = {"event-scheduler": "ON"}
    with Lab.start(
        3,
        policy=SETTINGS,
        more={"scripts": scripts},
        semi_sync=True,
        scheduler=True,
        options=options,
        provider=servers,
    ) as lab:
        create_table(lab.cluster.primary)
        lab.cluster.primary.sql("CREATE EVENT app.tick ON SCHEDULE EVERY 1 HOUR DO SET @ticked=1")
        lab.cluster.await_synced()
        yield lab


@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", EACH)
def test_killed_around_acts_of_events_semi_sync_and_scripts(lab: Lab, tmp_path: Path, step: int) -> None:
    points = [p for p in _points(lab, tmp_path / "trace") if p.removeprefix("engine/").startswith(ACTS)]
    swept("switchover with what some sites have", points)
    _sweep(lab, [(point, ("guard", "heal")[number % 2]) for number, point in enumerate(points[::step])])
    enabled = [
        node.name
        for node in lab.cluster
        if node.sql("SELECT status AS status FROM information_schema.events WHERE event_name='tick'")[0]["status"]
        == "ENABLED"
    ]
    assert enabled == [lab.cluster.primary.name], "the event runs on the primary only"
