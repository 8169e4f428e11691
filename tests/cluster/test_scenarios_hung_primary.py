"""A hung primary wakes up after a failover: what its clients had under way is there, kept, shown, and nobody's loss."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.broken import archive_of, ready, undone
from tests.support.death import LOSSLESS, mourning, waits_for_acknowledgements
from tests.support.lab import Lab
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
QUICK = {"period": "200ms", "proxies_period": "400ms"}
AUTOMATIC = {"mode": "automatic", "single_engine": True, "quiet_period": "0s", "per_day": 100}


@pytest.fixture(params=["semi-sync", "asynchronous"])
def site(request: pytest.FixtureRequest, start_lab: Callable[..., Lab]) -> Iterator[tuple[Lab, bool]]:
    """A site that fails over by itself, and whether its primaries wait for acknowledgements."""
    waits = request.param == "semi-sync"
    failover = {**AUTOMATIC, "policy": "lossless" if waits else "most_advanced"}
    options: dict[str, Any] = {"semi_sync": True, "options": LOSSLESS} if waits else {}
    more = {"serve": QUICK, "failover": failover}
    with start_lab(3, policy={"prove": "3s", "settle": "10s"}, more=more, **options) as lab:
        ready(lab)
        if waits:
            until(lambda: waits_for_acknowledgements(lab.cluster), "somebody to acknowledge")
        yield lab, waits


def test_what_was_under_way_is_kept_and_shown_and_the_server_is_closed_at_once(site: tuple[Lab, bool]) -> None:
    """With semi-sync it waits for acknowledgements that nobody gives any more: nobody else waits for that."""
    lab, waits = site
    old = lab.cluster.primary
    with mourning(lab, writers=6) as mourners, serving(lab) as served:
        mourners.await_writes(20)
        old.sigstop()
        told = served.await_told("acted", "failover", 60)
        mourners.await_writes(20)
        old.sigcont()
        woken = time.monotonic()
        served.await_told("acted", f"{old.name} was closed", 30)
        assert time.monotonic() - woken < 5, "not when the time-out of semi-sync (30 s) has passed"
        assert not old.is_writable()
        assert ("UNKNOWN" in told) is not waits, "the report claims no more than it can"
        blocked = served.await_told("blocked", f"{old.name} does not rejoin by itself", 30)
        summary = json.loads((archive_of(lab) / "summary.json").read_text())
        number = len(summary["transactions"])
        assert f"has {number} transactions from" in blocked, blocked
        assert str(archive_of(lab)) in blocked
        if waits:
            assert number <= 6, "one for each client at most, and none of them was told that it was done"
        (aside,) = lab.json("status")[1]["not_rejoined"]
        assert aside["candidate"] == old.name
        undone(lab, old)
    lost = len(mourners.verdict.lost)
    assert lost == 0 if waits else lost <= number, "acknowledged, and neither there nor kept"
