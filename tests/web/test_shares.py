"""What there is little of is shared out: nobody takes it all, by mistake or on purpose, from those who must act."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from proxyroute.errors import Refused
from proxyroute.web import sessions as sessions_module
from proxyroute.web.auth import Principal
from proxyroute.web.limits import Rate
from proxyroute.web.problems import Problem
from proxyroute.web.tokens import Scope
from proxyroute.web.turns import AT_ONCE, turn
from tests.web.browser.stage import proxies, three
from tests.web.test_pages import SESSION, Site, made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made(tmp_path) as site:
        site.show("shop", three(), proxies())
        yield site


def who(name: str, scope: Scope) -> Principal:
    return Principal(name, scope, "127.0.0.1", "token")


def test_who_only_reads_takes_no_turn_for_a_plan_from_who_acts(site: Site) -> None:
    """In an incident, by a dashboard that asks for plans again and again."""
    with ExitStack() as taken:
        for name in ("eve", "eve", "dan"):
            taken.enter_context(turn(who(name, Scope.READ)))
        for name in ("eve", "fay"):
            with pytest.raises(Problem) as caught, turn(who(name, Scope.READ)):
                pass
            assert caught.value.status == 429
        with turn(who("ann", Scope.OPERATE)):
            pass
    with turn(who("ann", Scope.OPERATE)), turn(who("ann", Scope.OPERATE)):
        with pytest.raises(Problem, match="2 plans are being made for ann already"), turn(who("ann", Scope.OPERATE)):
            pass
        with turn(who("bob", Scope.OPERATE)):
            pass


@pytest.mark.parametrize("kind", ["switchover", "failover"])
def test_only_so_many_plans_are_made_at_a_time_for_whoever_asks(site: Site, kind: str) -> None:
    site.log_in()
    made: list[str] = []

    def refused(*_: Any) -> Any:
        made.append(kind)
        raise Refused("no server is asked here; look elsewhere")

    setattr(site.hub, f"plan_{kind}", refused)
    with ExitStack() as taken:
        for number in range(AT_ONCE):
            taken.enter_context(turn(who(f"operator{number}", Scope.OPERATE)))
        for path in (f"/clusters/shop/{kind}", f"/v1/clusters/shop/plan/{kind}"):
            answer = site.client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert made == []
    assert site.client.get(f"/clusters/shop/{kind}").status_code == 409
    assert made == [kind]


def test_logins_with_one_token_end_no_session_of_another(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.log_in()
    ann = site.client.cookies[SESSION]
    monkeypatch.setattr(site.app.state.auth, "_logins", Rate(10, 10, clock=lambda: 0.0))
    eve, _ = site.tokens.create("eve", Scope.READ)
    sessions: list[str] = []
    for _ in range(10):
        assert site.client.post("/login", data={"token": eve}).status_code == 303
        sessions.append(site.client.cookies[SESSION])
    size = site.hub.audit._file.stat().st_size
    answer = site.client.post("/login", data={"token": eve})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "6")
    assert "too many logins with the token of eve" in answer.text
    assert site.hub.audit._file.stat().st_size == size
    monkeypatch.setattr(site.app.state.auth, "_logins", Rate(100, 1))
    monkeypatch.setattr(sessions_module, "_MOST", 30)
    for _ in range(30):
        assert site.client.post("/login", data={"token": eve}).status_code == 303

    def may(cookie: str) -> bool:
        site.client.cookies.clear()
        return site.client.get("/", headers={"Cookie": f"{SESSION}={cookie}"}).status_code == 200

    last = site.client.cookies[SESSION]
    assert (may(ann), may(last), may(sessions[-1])) == (True, True, False)
