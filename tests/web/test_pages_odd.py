"""Pages and health get odd values in every part of an address and in every field: each gets an answer, and no fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from proxyroute.errors import Refused
from tests.web.browser.stage import proxies, three
from tests.web.test_pages import Site, made
from tests.web.test_security import ROUTES

ODD = (
    "", "../..", "%2e%2e%2f", "\x00", "\r\nX-Forged: yes", "🙂" * 40, "{{ 7 * 7 }}", "<script>", "'\"", "-1", "1e999",
    "\u0663", "\u00b2", "NaN", "shop/db1", "db1\n", "\ud7ff\ufffe",
)  # fmt: skip
FIELDS = (
    "to", "force", "target", "typed", "server", "method", "why", "key", "for", "on", "rank", "fenced_by", "next",
    "ended", "lag", "token", "kill_long", "apply_dead_binlog", "lost-db1", "fenced-edge1",
)  # fmt: skip
GOOD = {"cluster": "shop", "server": "db1", "operation": "20261101T000000-abcdef", "question": "health"}
GOOD["name"] = "pages.css"
PAGES = sorted((method, path) for method, path in ROUTES if not path.startswith("/v1/") and path != "/logout")


@pytest.fixture
def logged_in(tmp_path: Path) -> Iterator[tuple[Site, str]]:
    def refused(*_: Any) -> Any:
        raise Refused("no server is asked here; look elsewhere")

    with made(tmp_path) as site:
        site.show("shop", three(), proxies())
        site.hub.plan_switchover = site.hub.plan_failover = refused  # type: ignore[method-assign]
        site.app.state.streams.most = 0  # a stream would not end
        site.app.state.command_rate.take = lambda _: 0.0
        yield site, site.log_in()


@pytest.mark.parametrize(("method", "path"), PAGES)
def test_odd_values_get_an_answer(logged_in: tuple[Site, str], method: str, path: str) -> None:
    site, csrf = logged_in
    parts = re.findall(r"{(\w+)}", path)
    for odd in ODD:
        fields = dict.fromkeys(FIELDS, odd)
        for wrong in (None, *parts):
            here = path.format(**{p: quote(odd, safe="") if p == wrong else GOOD[p] for p in parts})
            more: dict[str, Any] = {"data": {**fields, "csrf": csrf}} if method == "POST" else {"params": fields}
            answer = site.client.request(method, here, **more)  # a fault of ours would be raised here
            assert answer.status_code < 500 or answer.status_code == 503, (here, answer.text)
            assert "x-forged" not in answer.headers
            assert "<script>" not in answer.text
