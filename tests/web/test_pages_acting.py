"""The forms of a switchover and a failover: whom they are about, and what stays in them when a name was mistyped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

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
FILLED = {
    "switchover": {"kill_long": "1"},
    "failover": {"fenced_by": "ann, at the plug", "fenced-edge2": "1", "apply_dead_binlog": "1"},
}


def filled(text: str) -> dict[str, str]:
    """What a form would send that is shown so, but for what it has hidden."""
    inputs = [i for i in re.findall(r"<input [^>]*>", text) if 'type="hidden"' not in i]
    found = {}
    for tag in inputs:
        name, value = re.search(r' name="([^"]*)"', tag), re.search(r' value="([^"]*)"', tag)
        if name and value and value[1] and ("checkbox" not in tag or " checked" in tag):
            found[name[1]] = value[1]
    return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    edges: list[dict[str, Any]] = [{"type": "hook", "name": f"edge{n}", "set": ["/bin/true"]} for n in (1, 2)]
    hosts = {f"db{n}": {"address": f"127.0.0.{n}:1", "host": {"shell": ["/bin/true"]}} for n in (1, 2, 3)}
    with made(tmp_path, proxies=edges, servers=hosts) as site:
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_mistyped_name_drops_nothing_that_was_filled_in(site: Site, kind: str) -> None:
    form = {
        "csrf": site.log_in(Scope.OPERATE), "key": "k1", "target": "db2", "primary": "db1", "typed": "db",
        "why": "fire", **FILLED[kind],
    }  # fmt: skip
    answer = site.client.post(f"/clusters/shop/{kind}", data=form)
    assert answer.status_code == 422
    assert filled(answer.text) == {"why": "fire", **FILLED[kind]}
    assert 'name="key" value="k1"' in answer.text
    assert filled(site.client.get(f"/clusters/shop/{kind}").text) == {}


def test_what_was_said_of_a_fence_is_not_kept_for_another_primary(site: Site) -> None:
    site.hub.plan_failover = lambda *_: replace(FAILS, plan=replace(GOING.plan, primary="db3"))  # type: ignore[method-assign, type-var]
    form = {
        "csrf": site.log_in(Scope.OPERATE), "target": "db2", "primary": "db1", "typed": "db", **FILLED["failover"],
    }  # fmt: skip
    answer = site.client.post("/clusters/shop/failover", data=form)
    assert answer.status_code == 422
    assert filled(answer.text) == {}


def test_a_rejoin_with_a_mistyped_name_keeps_its_reason(site: Site) -> None:
    form = {"csrf": site.log_in(), "key": "k1", "server": "db3", "method": "reseed", "typed": "db", "why": "new disk"}
    answer = site.client.post("/clusters/shop/rejoin", data=form)
    assert filled(answer.text)["why"] == "new disk"
    assert 'name="key" value="k1"' in answer.text
