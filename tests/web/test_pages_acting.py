"""The forms of a switchover and a failover: whom they are about, and what stays in them when a name was mistyped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute.contingency import Contingency
from proxyroute.decided import Action, Diagnosis
from proxyroute.failover import Orders
from proxyroute.web.tokens import Scope
from tests.unit.cli.samples import GOING
from tests.web.browser.stage import proxies, three
from tests.web.test_pages import Site, made

GONE = Diagnosis("DeadPrimary", "db1 is gone", Action.FAILOVER, "db1")
FAILS = Contingency(GOING.view, GONE, None, GOING.plan, Orders(), (), go=True, dead_binlog="is saved")
KINDS = ["switchover", "failover"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made(tmp_path) as site:
        site.show("shop", three(), proxies())
        site.hub.plan_switchover = lambda *_: GOING  # type: ignore[method-assign]
        site.hub.plan_failover = lambda *_: FAILS  # type: ignore[method-assign]
        yield site


@pytest.mark.parametrize("kind", KINDS)
def test_a_form_says_which_primary_it_is_about(site: Site, kind: str) -> None:
    site.log_in(Scope.OPERATE)
    text = site.client.get(f"/clusters/shop/{kind}").text
    assert 'name="target" value="db2"' in text
    assert 'name="primary" value="db1"' in text
