"""The pages by their answers: who is let in, what is shown in which order, and that nothing hostile gets through."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi.testclient import TestClient

from proxyroute.assembly import archive_folder, journal_folder
from proxyroute.config import load
from proxyroute.config_web import WebConfig
from proxyroute.model import Silent, Status
from proxyroute.outcome import Result
from proxyroute.standing import Order, Standing
from proxyroute.web.app import create_app
from proxyroute.web.auth import COOKIE
from proxyroute.web.hub import Hub
from proxyroute.web.pages import PARTS
from proxyroute.web.pages.facts import failover_possible
from proxyroute.web.tokens import Scope, Tokens
from tests.support.builders import silent
from tests.support.wait import until
from tests.web.browser.stage import SECRET, configuration, glance, proxies, three

HTML = {"Accept": "text/html"}
SESSION = f"{COOKIE}_8480"
HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(2)>\"'"


class Site:
    """The application, and a browser without a screen."""

    def __init__(self, folder: Path, *clusters: str, **more: Any) -> None:
        self.config = load(configuration(folder, clusters or ("shop",), **more))
        self.asked: list[Any] = []

        def perform(command: Any, caller: Any, listener: Any) -> tuple[Result, ...]:
            self.asked.append(command)
            return (Result("", command.kind, "done", text="done"),)

        self.hub = Hub(self.config.clusters, folder / "audit.jsonl", perform)
        self.tokens = Tokens(folder / "tokens.json")
        self.app = create_app(self.hub, WebConfig(), self.tokens)
        self.client = TestClient(self.app, base_url="http://127.0.0.1:8480", headers=HTML, follow_redirects=False)

    def show(self, cluster: str, *seen: Any, **more: Any) -> None:
        self.hub.show(glance(self.hub.config(cluster), *seen, **more))

    def log_in(self, scope: Scope = Scope.ADMIN, name: str = "ann") -> str:
        """Logs in; returns what forms have to send."""
        text, _ = self.tokens.create(name, scope)
        assert self.client.post("/login", data={"token": text}).status_code == 303
        return self.csrf

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.client.get("/").text)
        assert found is not None
        return found[1]


@contextmanager
def made(folder: Path, *clusters: str, **more: Any) -> Iterator[Site]:
    site = Site(folder, *clusters, **more)
    yield site
    assert site.hub.close(5.0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made(tmp_path) as site:
        site.show("shop", three(), proxies())
        yield site


def test_who_is_not_logged_in_is_asked_for_a_token_and_comes_to_what_he_wanted(site: Site) -> None:
    answer = site.client.get("/clusters/shop")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fclusters%2Fshop"
    assert 'name="next" value="/clusters/shop"' in site.client.get(answer.headers["location"]).text
    text, _ = site.tokens.create("ann", Scope.READ)
    answer = site.client.post("/login", data={"token": f" {text}\n", "next": "/clusters/shop"})
    assert answer.headers["location"] == "/clusters/shop"
    assert {"httponly", "samesite=strict"} <= set(answer.headers["set-cookie"].lower().split("; "))
    assert "db1 takes writes; 2 replicas, 0 s behind; 2 of 2 proxies agree" in site.client.get("/clusters/shop").text


def test_a_wrong_token_is_told_and_kept_in_the_audit_without_the_token(site: Site) -> None:
    answer = site.client.post("/login", data={"token": "pr_wrong_token"})
    assert answer.status_code == 401
    assert "that is not a valid token" in answer.text
    assert SESSION not in answer.cookies
    (entry,) = site.hub.audit.last()
    assert entry.what == "login.failed"
    assert "pr_wrong_token" not in site.hub.audit._file.read_text()


@pytest.mark.parametrize(
    "away", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_a_login_never_leads_to_another_site(site: Site, away: str) -> None:
    text, _ = site.tokens.create("ann", Scope.READ)
    assert site.client.post("/login", data={"token": text, "next": away}).headers["location"] == "/"


def test_a_form_without_the_sessions_secret_or_from_elsewhere_changes_nothing(site: Site) -> None:
    csrf = site.log_in()
    for fields, headers in (
        ({}, {}),
        ({"csrf": "x"}, {}),
        ({"csrf": csrf}, {"Origin": "https://evil.example"}),
        ({"csrf": csrf}, {"Sec-Fetch-Site": "cross-site"}),
        ({"csrf": csrf}, {"Referer": "https://evil.example/page"}),
    ):
        answer = site.client.post("/logout", data=fields, headers=headers)
        assert answer.status_code == 403
        assert "<h1>This is not allowed</h1>" in answer.text
    assert site.client.get("/").status_code == 200
    assert site.client.post("/logout", data={"csrf": csrf}).headers["location"] == "/login"
    assert site.client.get("/").headers["location"] == "/login"


def test_a_session_ends_with_its_token_and_the_page_says_so(site: Site) -> None:
    csrf = site.log_in()
    site.tokens.revoke("ann")
    assert site.client.get("/clusters/shop").headers["location"] == "/login?next=%2Fclusters%2Fshop"
    answer = site.client.post("/logout", data={"csrf": csrf})
    assert "your session has ended" in site.client.get(answer.headers["location"]).text


def test_what_is_not_there_is_told_in_the_same_look(site: Site) -> None:
    site.log_in()
    for path in ("/clusters/other", "/nothing", "/static/../shell.py", "/static/shell.py"):
        answer = site.client.get(path)
        assert answer.status_code == 404
        assert "<h1>There is nothing here</h1>" in answer.text
        assert 'href="/"' in answer.text
    assert site.client.get("/v1/nothing").headers["content-type"] == "application/problem+json"


def test_an_error_on_the_way_leads_back_to_its_cluster(site: Site) -> None:
    site.log_in()
    for path in ("switchover?to=db9", "operations/nowhere"):
        text = site.client.get(f"/clusters/shop/{path}").text
        assert "<h1>There is nothing here</h1>" in text
        assert 'href="/clusters/shop">To shop</a>' in text
    assert "To other" not in site.client.get("/clusters/other/switchover").text


def test_what_others_say_is_shown_as_text_and_never_becomes_part_of_a_page(site: Site) -> None:
    site.log_in()
    down = replace(silent(1), reason=HOSTILE)
    broken = [replace(s, sources=tuple(replace(c, error=HOSTILE) for c in s.sources)) for s in three()[1:]]
    seen = proxies(drift=(HOSTILE,), detail=HOSTILE, readers=(HOSTILE,), primary=HOSTILE)
    site.show("shop", [down, *broken], seen, astray=HOSTILE)
    for path in ("/", "/clusters/shop"):
        text = site.client.get(path).text
        assert "<script>alert" not in text
        assert "<img" not in text
    assert text.count("&lt;script&gt;alert") >= 5


def test_no_page_has_a_script_or_style_in_it_or_loads_anything_from_elsewhere(site: Site) -> None:
    site.log_in()
    for path in crawled(site):
        answer = site.client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]* src=\"/static/)|<style|\sstyle=|\son[a-z]+=|https?://", answer.text), (
            path
        )


def test_no_secret_is_on_any_page(site: Site) -> None:
    site.log_in()
    token = site.tokens.file.read_text()
    for path in crawled(site):
        text = site.client.get(path).text
        assert SECRET not in text, path
        assert not re.search(r"pr_[0-9a-z]+_[0-9A-Za-z_-]{20}", text), path
        assert not any(hash in text for hash in re.findall(r"[0-9a-f]{64}", token)), path


def test_every_link_leads_somewhere_and_every_form_has_its_secret(site: Site) -> None:
    csrf = site.log_in()
    routes = {r.path for part in PARTS for r in part.router.routes if "POST" in r.methods}  # type: ignore[attr-defined]
    paths = crawled(site)
    assert {"/", "/clusters/shop"} <= paths
    for path in paths:
        answer = site.client.get(path)
        assert answer.status_code == 200, path
        for form in re.findall(r"<form.*?</form>", answer.text, re.S):
            if 'method="post"' in form:
                action = re.search(r'action="([^"]+)"', form)
                assert action is not None
                assert f'name="csrf" value="{csrf}"' in form
                assert any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), action[1]) for route in routes), action[1]


def crawled(site: Site) -> set[str]:
    """Returns the addresses of all pages that can be reached by links."""
    found, waiting = {"/"}, ["/"]
    while waiting:
        path = waiting.pop()
        for href in re.findall(r'<a [^>]*href="([^"#]+)"', site.client.get(path).text):
            target = urljoin(path, href.replace("&amp;", "&"))
            assert not urlsplit(target).netloc, target
            if target not in found:
                found.add(target)
                waiting.append(target)
    return found


# -- what is shown ---------------------------------------------------------------------------------------------


def test_problems_come_first_among_hundreds_of_clusters(tmp_path: Path) -> None:
    names = [f"c{n:03}" for n in range(333)]
    with made(tmp_path, *names) as site:
        site.log_in()
        for name in names:
            site.show(name, three(), proxies())
        site.show("c200", three(), proxies(drift=("the map differs",)))
        site.show("c300", [silent(1), *three()[1:]], proxies())
        text = site.client.get("/").text
        assert re.findall(r'id="part-line-(\w+)"', text)[:3] == ["c300", "c200", "c000"]
        assert "1 problem" in text
        assert "331 of 333 in order" in text


def test_only_what_has_changed_is_made_and_sent_anew(tmp_path: Path) -> None:
    with made(tmp_path, "a", "b") as site:
        for name in ("a", "b"):
            site.show(name, three(), proxies())
        lines = site.app.state.lines
        before = lines.parts(site.hub)
        site.show("b", three(lag=7.0), proxies())
        after = lines.parts(site.hub)
        assert after["line-a"] is before["line-a"]
        assert "7 s behind" in after["line-b"]
        assert {name for name in after if after[name] != before[name]} == {"line-b"}


def test_lossless_is_what_an_election_says_and_not_that_semi_sync_is_on(site: Site) -> None:
    site.log_in()
    assert "Lossless: nothing acknowledged" in site.client.get("/clusters/shop").text
    servers = three()
    third = replace(servers[0].semi_sync, clients=3)  # somebody acknowledges whom nobody here knows
    site.show("shop", [replace(servers[0], semi_sync=third), *servers[1:]], proxies())
    text = site.client.get("/clusters/shop").text
    assert "Not lossless" in text
    assert "may have acknowledged what nobody else has" in text
    assert failover_possible(site.hub.state("shop")) == ("by hand, in spite of doubts", "warn")


def test_a_fence_is_shown_when_there_is_one(tmp_path: Path, site: Site) -> None:
    site.log_in()
    assert "Not fenced" in site.client.get("/clusters/shop").text
    folder = tmp_path / "fenced"
    folder.mkdir()
    with made(folder, scripts={"fence": ["/bin/true"]}) as other:
        other.log_in()
        other.show("shop", three(), proxies())
        assert "Fenced: a program makes sure" in other.client.get("/clusters/shop").text


def test_standing_orders_are_shown_where_they_count_and_can_be_ended(site: Site) -> None:
    site.log_in()
    order = Order("bob", time.time(), "a new disk")
    standing = Standing({"db3": order}, order, {"db2": replace(order, rank="never")})
    site.show("shop", [*three()[:2], silent(3)], proxies(), standing=standing)
    text = site.client.get("/clusters/shop").text
    assert "The daemon does nothing by itself" in text
    assert "in maintenance" in text
    assert "never promoted" in text
    text = site.client.get("/clusters/shop/more").text
    assert "a new disk, bob" in text
    for button in ("End the maintenance of db3", "Let it act again", "db2 as configured"):
        assert button in text


def test_standing_orders_that_cannot_be_read_can_be_dropped(site: Site) -> None:
    csrf = site.log_in(Scope.OPERATE)
    assert "reset-orders" not in site.client.get("/clusters/shop/more").text
    site.show("shop", three(), proxies(), standing=Standing(unreadable="standing.json: is damaged"))
    assert 'href="/clusters/shop/more">Standing orders' in site.client.get("/clusters/shop").text
    text = site.client.get("/clusters/shop/more").text
    assert "standing.json: is damaged" in text
    assert "Drop all orders; the file is kept" in text
    assert site.client.post("/clusters/shop/reset-orders", data={"csrf": csrf, "key": "k"}).status_code == 303
    until(lambda: [c.kind for c in site.asked] == ["reset_orders"], "it to be done")
    site.show("shop", three(), proxies(), standing=Standing(withheld="the cluster manager is in maintenance mode"))
    assert "the cluster manager is in maintenance mode" in site.client.get("/clusters/shop/more").text


def test_settings_are_shown_with_where_they_come_from_and_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("https://hooks.example/services/T0/B0/verysecret")
    hook = [{"type": "webhook", "url": {"file": str(tmp_path / "hook")}}]
    with made(tmp_path, switchover={"max_lag": "3s"}, failover={"profile": "aggressive"}, notices=hook) as site:
        site.log_in(Scope.READ)
        text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", site.client.get("/clusters/shop/settings").text))
        lines = site.config.path.read_text().splitlines()
        at = next(n for n, line in enumerate(lines, 1) if "max_lag" in line)
        assert f"switchover.max_lag 3 line {at}" in text
        assert "switchover.freeze_budget 3 default" in text
        assert "failover.confirm 0.15 profile: aggressive" in text
        assert f"account.password kept in the file {tmp_path}/password line" in text
        assert f"notices[0].url kept in the file {tmp_path}/hook" in text
        assert SECRET not in text
        assert "verysecret" not in text


def rejoined(site: Site, archive: Path) -> str:
    """Puts a rejoin on record that was refused, and has kept what only db3 had in ``archive``; returns its page."""
    operation = "20261128T120000-abcdef"
    records: list[dict[str, Any]] = [
        {"kind": "begin", "operation": operation, "operation_kind": "rejoin", "cluster": "shop", "epoch": "1.1",
         "plan": {"primary": "db1", "candidate": "db3"}},
        {"kind": "keep", "name": "archive", "value": {"path": str(archive), "told": "1 transaction"}},
        {"kind": "end", "outcome": "refused", "text": "db3 has 1 transaction of its own"},
    ]  # fmt: skip
    folder = journal_folder(site.hub.config("shop"))
    folder.mkdir(parents=True)
    lines = [json.dumps({"v": 1, "n": n, "t": 1000.0 + n, **record}) for n, record in enumerate(records, 1)]
    (folder / f"{operation}.jsonl").write_text("\n".join(lines) + "\n")
    archive.mkdir(parents=True)
    transaction = {"gtid": "0-3-17", "time": "2026-11-28 11:59:00", "tables": ["shop.orders"], "statements": [HOSTILE]}
    (archive / "summary.json").write_text(json.dumps({"told": "1 transaction", "transactions": [transaction]}))
    (archive / "decoded.sql").write_text(f"### INSERT INTO shop.orders -- {HOSTILE}")
    return f"/clusters/shop/operations/{operation}"


def test_errant_transactions_are_readable_for_those_who_operate(site: Site) -> None:
    path = rejoined(site, archive_folder(site.hub.config("shop")) / "db3-1")
    site.log_in(Scope.OPERATE)
    text = site.client.get(path).text
    assert "What db3 had and db1 lacks" in text
    assert "0-3-17" in text
    assert "### INSERT INTO shop.orders" in text
    assert "<script>alert" not in text
    site.log_in(Scope.READ, "reader")
    text = site.client.get(path).text
    assert "db3 has 1 transaction of its own" in text
    assert "INSERT INTO" not in text  # rows of the application are not for everybody


def test_no_file_from_elsewhere_is_shown_whatever_a_journal_says(site: Site, tmp_path: Path) -> None:
    path = rejoined(site, tmp_path / "elsewhere" / "db3-1")
    site.log_in()
    answer = site.client.get(path)
    assert answer.status_code == 200
    assert "INSERT INTO" not in answer.text


def test_who_may_only_read_is_offered_nothing_that_acts(site: Site) -> None:
    site.log_in(Scope.READ)
    assert "Switchover…" not in site.client.get("/clusters/shop").text


# -- asking for something --------------------------------------------------------------------------------------


def test_what_is_asked_for_is_the_same_as_on_the_command_line_and_says_who_and_why(site: Site) -> None:
    csrf = site.log_in(Scope.OPERATE)
    asked = [
        ("switchover", {"target": "db2", "primary": "db1", "typed": "db2", "kill_long": "1", "force": "1"},
         {"target": "db2", "primary": "db1", "force": True, "kill_long": True}),
        ("failover", {"target": "db3", "primary": "db1", "typed": "db3", "fenced_by": "Bob at the switch"},
         {"target": "db3", "primary": "db1", "force": False, "fenced_by": "Bob at the switch", "fenced_proxies": []}),
        ("rejoin", {"server": "db3", "method": ""}, {"server": "db3", "method": None}),
        ("rejoin", {"server": "db3", "method": "reseed", "typed": "db3"}, {"server": "db3", "method": "reseed"}),
        ("rejoin", {"server": "db3", "method": "empty", "typed": "db3"}, {"server": "db3", "method": "empty"}),
        ("heal", {}, {"declare_lost": []}),
        ("publish", {}, {}),
        ("acknowledge", {}, {}),
        ("maintenance", {"server": "db3", "on": "1", "for": "1h"}, {"server": "db3", "on": True, "seconds": 3600.0}),
        ("maintenance", {"server": "db3"}, {"server": "db3", "on": False}),
        ("rank", {"server": "db2", "rank": "prefer"}, {"server": "db2", "rank": "prefer"}),
        ("rank", {"server": "db2"}, {"server": "db2", "rank": ""}),
        ("pause", {"on": "1", "for": "8h"}, {"seconds": 8 * 3600.0}),
    ]  # fmt: skip
    for kind, fields, arguments in asked:
        answer = site.client.post(f"/clusters/shop/{kind}", data={**fields, "csrf": csrf, "why": "because"})
        assert answer.status_code == 303, (kind, answer.text)
        operation = answer.headers["location"].rpartition("/")[2]
        until(lambda id=operation: site.hub.ticket(id).over, f"{kind} to end")  # type: ignore[union-attr, misc]
        command = site.asked[-1]
        assert (command.kind, dict(command.arguments), command.why) == (kind, arguments, "because")
        entry = next(e for e in site.hub.audit.last() if e.what == kind)
        assert (entry.who, entry.why, entry.details["arguments"]) == ("ann", "because", arguments)
        assert "Done" in site.client.get(answer.headers["location"]).text


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("switchover", {"target": "db2", "primary": "db1"}),
        ("switchover", {"target": "db2", "primary": "db1", "typed": "db3"}),
        ("switchover", {"target": "db2", "primary": "db1", "typed": "DB2"}),
        ("switchover", {"target": "", "primary": "db1", "typed": ""}),
        ("switchover", {"target": "db2", "typed": "db2"}),
        ("failover", {"target": "db2", "primary": "db1", "typed": ""}),
        ("failover", {"target": "db2", "primary": "", "typed": "db2"}),
        ("rejoin", {"server": "db3", "method": "flashback"}),
        ("rejoin", {"server": "db3", "method": "empty"}),
        ("rejoin", {"server": "db3", "method": "empty", "typed": "db1"}),
        ("rejoin", {"server": "db3", "method": "drop"}),
        ("rejoin", {"server": "", "method": ""}),
        ("maintenance", {"server": "", "on": "1"}),
        ("maintenance", {"server": "db3", "on": "1", "for": "9y"}),
        ("rank", {"server": "db3", "rank": "emperor"}),
    ],
)
def test_nothing_is_asked_for_before_the_right_name_was_typed(site: Site, kind: str, fields: dict[str, str]) -> None:
    csrf = site.log_in()
    answer = site.client.post(f"/clusters/shop/{kind}", data={**fields, "csrf": csrf})
    assert answer.status_code == 422
    assert site.hub.tickets("shop") == ()


def of_flavour(flavour: str) -> list[Status | Silent]:
    """What is seen of a cluster in good order whose servers are of that flavour."""
    return [replace(server, flavour=flavour) if isinstance(server, Status) else server for server in three()]


@pytest.mark.parametrize(
    ("flavour", "offered"),
    [("mariadb", {"", "flashback", "reseed"}), ("mysql", {"", "reseed", "empty"})],
)
def test_a_rejoin_is_offered_by_the_methods_that_the_servers_have(site: Site, flavour: str, offered: set[str]) -> None:
    site.show("shop", of_flavour(flavour), proxies())
    site.log_in(Scope.OPERATE)
    shown = site.client.get("/clusters/shop/rejoin?server=db3").text
    assert set(re.findall(r'name="method" value="(\w*)"', shown)) == offered
    assert 'id="m-follow" name="method" value="" checked' in shown
    assert ("The one method that changes the primary" in shown) == ("empty" in offered)


def test_a_rejoin_that_makes_empty_transactions_asks_for_the_name_again_and_keeps_what_was_chosen(site: Site) -> None:
    site.show("shop", of_flavour("mysql"), proxies())
    csrf = site.log_in(Scope.OPERATE)
    form = {"server": "db3", "method": "empty", "typed": "db2", "csrf": csrf}
    answer = site.client.post("/clusters/shop/rejoin", data=form)
    assert answer.status_code == 422
    assert "to go ahead, type db3; you typed &#39;db2&#39;" in answer.text
    assert 'value="empty" checked' in answer.text


def test_a_form_that_is_sent_twice_asks_once(site: Site) -> None:
    csrf = site.log_in()
    form = {"csrf": csrf, "key": "k1"}
    first, second = (site.client.post("/clusters/shop/heal", data=form).headers["location"] for _ in range(2))
    assert first == second
    assert len(site.hub.tickets("shop")) == 1


def test_only_an_admin_declares_a_server_lost(site: Site) -> None:
    csrf = site.log_in(Scope.OPERATE)
    assert site.client.post("/clusters/shop/heal", data={"csrf": csrf, "lost-db3": "1"}).status_code == 403
    assert site.hub.tickets("shop") == ()


@pytest.mark.parametrize("path", ["switchover", "failover", "rejoin", "heal", "more"])
def test_who_may_only_read_is_not_shown_what_acts_and_cannot_send_it(site: Site, path: str) -> None:
    csrf = site.log_in(Scope.READ)
    assert site.client.get(f"/clusters/shop/{path}").status_code == 403
    if path != "more":
        fields = {"csrf": csrf, "target": "db2", "typed": "db2", "server": "db3"}
        assert site.client.post(f"/clusters/shop/{path}", data=fields).status_code == 403
    assert site.hub.tickets("shop") == ()


@pytest.mark.parametrize("path", ["/", "/login", "/clusters/shop"])
def test_tokens_that_cannot_be_read_are_told_to_who_is_logged_in(site: Site, path: str) -> None:
    site.log_in()
    site.tokens.file.write_text("damaged")
    answer = site.client.get(path)
    assert answer.status_code == 503
    assert "is damaged" in answer.text
    assert "remove it and make new tokens: proxyroute token create" in answer.text
    assert "default-src" in answer.headers["content-security-policy"]


def test_a_session_outlives_the_daemon_and_its_file_lets_nobody_in(tmp_path: Path) -> None:
    with made(tmp_path) as before:
        before.log_in()
        cookie = before.client.cookies[SESSION]
    kept = (tmp_path / "sessions.json").read_text()
    assert cookie not in kept
    with made(tmp_path) as after:
        after.client.cookies.set(SESSION, cookie, domain="127.0.0.1")
        assert after.client.get("/").status_code == 200
        assert after.client.post("/logout", data={"csrf": after.csrf}).status_code == 303
    with made(tmp_path) as later:
        later.client.cookies.set(SESSION, cookie, domain="127.0.0.1")
        assert later.client.get("/").status_code == 303


def test_two_engines_at_two_ports_of_one_host_do_not_log_each_other_out(tmp_path: Path) -> None:
    """As they are reached by ``ssh -L``: a browser has the cookies of a host, whatever the port."""
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    with made(folders[0]) as one, made(folders[1]) as other:
        other.client.base_url = "http://127.0.0.1:8481"
        one.log_in()
        other.client.cookies.jar = one.client.cookies.jar
        csrf = other.log_in()
        assert [site.client.get("/").status_code for site in (one, other)] == [200, 200]
        assert other.client.post("/logout", data={"csrf": csrf}).status_code == 303
        assert [site.client.get("/").status_code for site in (one, other)] == [200, 303]
