"""What a rejoin makes of an error before anything was changed: a refusal is for a person, a silence is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxyroute.decided import Plan
from proxyroute.errors import LeaseLost, ProxyRouteError, Refused, StatementError, TimedOut, Unreachable
from proxyroute.history import Ledger, fenced
from proxyroute.journal import Journal
from proxyroute.model import NO_EPOCH
from proxyroute.operation import Operation
from proxyroute.rejoin import rejoin
from proxyroute.site import Site
from tests.support.fakeworld import FakeLease, make_world


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unreachable("db3", "cannot connect"), "superseded"),
        (TimedOut("out of time while waiting for db3"), "superseded"),
        (LeaseLost("the lease is lost"), "superseded"),
        (StatementError("db3", 1227, "access denied"), "refused"),
    ],
)
def test_one_that_falls_silent_is_asked_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ProxyRouteError, outcome: str
) -> None:
    world, _ = make_world()
    server = world.servers["db3"]

    def fail(*_: object) -> Any:
        raise error

    monkeypatch.setattr(server, "look", fail)
    means: Any = SimpleNamespace(parts=SimpleNamespace(site=Site("shop", dict(world.servers))))
    plan = Plan("shop", "db1", "db3", ())
    op = Operation.create(Journal(tmp_path / "r1.jsonl"), FakeLease([]), "r1", "rejoin", NO_EPOCH, plan)
    with pytest.raises(Refused, match="db3 was left as it is"):
        rejoin(means, op, None)
    assert op.outcome == outcome
    barred = [s.candidate for s in fenced(Ledger(tmp_path).summaries())]
    assert barred == (["db3"] if outcome == "refused" else [])
