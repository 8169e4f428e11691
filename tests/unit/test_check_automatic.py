"""``check`` tells beforehand what would keep ``serve`` from failing over, where it is to do that by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from proxyroute import engine_looks, moment
from proxyroute.engine import Engine
from proxyroute.model import Finding, Severity
from tests.support.builders import replica, server, view

LEASE = Finding("failover.lease", Severity.ERROR, "shop", "the lease is on this host only", "single_engine: true")
OPEN = Finding("operation.open", Severity.ERROR, "shop", "is not finished", "proxyroute heal")


def checked(monkeypatch: pytest.MonkeyPatch, mode: str) -> list[tuple[str, Severity]]:
    monkeypatch.setattr(engine_looks, "host_findings", lambda *_: ())
    monkeypatch.setattr(engine_looks, "salvage_findings", lambda *_: ())
    engine: Any = object.__new__(Engine)
    engine._config = SimpleNamespace(name="shop", findings=lambda: (), failover=SimpleNamespace(mode=mode), vrrp=None)
    engine._parts = SimpleNamespace(routes=SimpleNamespace(check=lambda _: ()))
    engine.plan = lambda *_, **__: SimpleNamespace(findings=(OPEN,), view=view(server(1), replica(2)))
    engine.observe = lambda: ()
    engine.failover_blocks = lambda *_: (OPEN, LEASE)
    return [(f.code, f.severity) for f in engine.check()]


@pytest.mark.parametrize("mode", ["manual", "automatic"])
def test_what_blocks_is_a_warning_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    more = [("failover.lease", Severity.WARNING)] if mode == "automatic" else []
    assert checked(monkeypatch, mode) == [("operation.open", Severity.ERROR), *more]


def test_a_host_whose_start_has_no_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a unit with ProcSubset=pid: nothing can be shown to be lossless there."""
    monkeypatch.setattr(moment, "_this_boot", lambda: "")
    found = checked(monkeypatch, "manual")
    assert found == [("operation.open", Severity.ERROR), ("failover.no_start", Severity.WARNING)]
