"""``check`` tells beforehand what would keep ``serve`` from failing over, where it is to do that by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from proxyroute import engine_looks
from proxyroute.engine import Engine
from proxyroute.model import Finding, Severity
from tests.support.builders import replica, server, view

LEASE = Finding("failover.lease", Severity.ERROR, "shop", "the lease is on this host only", "single_engine: true")
OPEN = Finding("operation.open", Severity.ERROR, "shop", "is not finished", "proxyroute heal")


@pytest.mark.parametrize("mode", ["manual", "automatic"])
def test_what_blocks_is_a_warning_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(engine_looks, "host_findings", lambda *_: ())
    monkeypatch.setattr(engine_looks, "salvage_findings", lambda *_: ())
    engine: Any = object.__new__(Engine)
    engine._config = SimpleNamespace(findings=lambda: (), failover=SimpleNamespace(mode=mode), vrrp=None)
    engine._parts = SimpleNamespace(routes=SimpleNamespace(check=lambda _: ()))
    engine.plan = lambda *_, **__: SimpleNamespace(findings=(OPEN,), view=view(server(1), replica(2)))
    engine.observe = lambda: ()
    engine.failover_blocks = lambda *_: (OPEN, LEASE)
    found = [(f.code, f.severity) for f in engine.check()]
    more = [("failover.lease", Severity.WARNING)] if mode == "automatic" else []
    assert found == [("operation.open", Severity.ERROR), *more]
