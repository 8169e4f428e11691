"""The pages in a real browser, with clusters that are whatever a test makes up: seen live, by keyboard, on a phone, in
both themes, cut off and without scripts."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from proxyroute.assembly import archive_folder
from proxyroute.caller import Caller
from proxyroute.contingency import Contingency
from proxyroute.decided import Action, Diagnosis, FailoverElection, Plan, Ranked
from proxyroute.failover import Orders
from proxyroute.journal import Listener
from proxyroute.model import Address, Finding, Severity, Silent, Status
from proxyroute.outcome import Result
from proxyroute.web.commands import Command
from proxyroute.web.tokens import Scope
from tests.support.builders import channel, replica, server, silent
from tests.unit.cli import samples
from tests.web.browser.look import Tab
from tests.web.browser.stage import Stage, journals, proxies, staged, three, token

PHONE, SMALLEST, DESK = {"width": 390, "height": 844}, {"width": 320, "height": 640}, {"width": 1280, "height": 900}
KEPT = "PROXYROUTE_SCREENSHOTS"
"""A folder in which the pictures of all pages are kept; by default they go with the test's own folder."""


def in_order(stage: Stage) -> None:
    for name in ("shop", "bank"):
        stage.show(name, three(), proxies())


# -- coming in -------------------------------------------------------------------------------------------------


def test_one_logs_in_with_a_token_and_a_wrong_one_is_told(stage: Stage, tab: Tab) -> None:
    in_order(stage)
    page = tab.page
    page.goto(f"{stage.url}/clusters/shop")
    page.get_by_label("Token").fill("pr_0_nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("that is not a valid token")
    page.get_by_label("Token").fill(token(stage))
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{stage.url}/clusters/shop")
    expect(page.get_by_role("heading", level=1)).to_have_text("shop")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{stage.url}/login")
    page.goto(f"{stage.url}/clusters/shop")
    expect(page.get_by_label("Token")).to_be_visible()


@pytest.fixture
def elsewhere() -> Iterator[Callable[[str], str]]:
    """Another site's page on this host, with a form that sends itself."""
    held: dict[str, str] = {}

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(held["page"].encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def made(page: str) -> str:
        held["page"] = page
        return f"http://127.0.0.1:{server.server_port}/"

    yield made
    server.shutdown()
    server.server_close()


def test_another_sites_form_changes_nothing(stage: Stage, tab: Tab, elsewhere: Callable[[str], str]) -> None:
    in_order(stage)
    tab.log_in(stage.url, token(stage))
    form = f'<form method="post" action="{stage.url}/clusters/shop/heal"></form>'
    tab.page.goto(elsewhere(f"{form}<script>document.forms[0].submit()</script>"))
    tab.page.wait_for_url(f"{stage.url}/clusters/shop/heal")
    expect(tab.page.get_by_role("heading", level=1)).to_have_text("This is not allowed")
    assert stage.hub.tickets("shop") == ()
    tab.page.goto(stage.url)
    expect(tab.part("line-shop")).to_be_visible()  # and the session goes on


# -- what changes is seen --------------------------------------------------------------------------------------


def test_lag_is_seen_as_it_appears_and_goes_without_loading_the_page_again(stage: Stage, tab: Tab) -> None:
    in_order(stage)
    tab.log_in(stage.url, token(stage), "/clusters/shop")
    tab.live()
    tab.measured("window.mine = document.querySelector('#part-servers table')")
    stage.show("shop", three(lag=7.0, behind=12), proxies())
    row = tab.page.locator("#part-servers tr", has_text="db2")
    expect(row).to_contain_text("7 s")
    expect(row).to_contain_text("12")
    expect(tab.page.locator("svg.graph.wide")).to_contain_text("lag 7 s · 12 transactions behind")
    stage.show("shop", three(), proxies())
    expect(row).to_contain_text("0 s")
    assert tab.measured("window.mine === document.querySelector('#part-servers table')"), "the table was made anew"


def test_a_problem_moves_its_cluster_to_the_top(stage: Stage, tab: Tab) -> None:
    in_order(stage)
    tab.log_in(stage.url, token(stage))
    tab.live()
    first = tab.page.locator("#part-lines > li").first
    expect(first).to_contain_text("bank")
    stage.show("shop", [silent(1), *three()[1:]], proxies())
    expect(first).to_contain_text("shop")
    expect(first).to_contain_text("no server takes writes")
    expect(tab.part("summary")).to_contain_text("1 problem")
    stage.show("shop", three(), proxies())
    expect(first).to_contain_text("bank")


def test_an_operation_that_goes_on_is_watched_and_what_is_opened_or_focused_stays_so(stage: Stage, tab: Tab) -> None:
    in_order(stage)
    done, cut = journals(stage, "shop")
    tab.log_in(stage.url, token(stage), f"/clusters/shop/operations/{cut}")
    tab.live()
    steps = tab.page.locator(".bar-row")
    expect(steps.last).to_contain_text("detach")
    tab.page.get_by_text("Its journal").click()
    expect(tab.page.locator("table.journal tbody tr")).to_have_count(32)
    link = tab.page.get_by_role("link", name="Heal…")
    link.focus()
    folder = stage.state_dir / "shop" / "journal"
    rest = (folder / f"{done}.jsonl").read_text().splitlines(keepends=True)[32:]
    with (folder / f"{cut}.jsonl").open("a") as file:
        file.writelines(rest[:10])
    expect(steps.last).to_contain_text("route")
    expect(tab.page.get_by_text("committed: from here on nothing is taken back")).to_be_visible()
    expect(tab.page.locator("table.journal tbody tr")).to_have_count(42)  # it is open still
    expect(link).to_be_focused()
    with (folder / f"{cut}.jsonl").open("a") as file:
        file.writelines(rest[10:])
    expect(tab.page.get_by_text("writes stood still for 19 ms").first).to_be_visible()


def test_a_page_that_was_cut_off_goes_on_by_itself_when_the_daemon_is_back(tmp_path: Path, tab: Tab) -> None:
    tab.may_be_cut_off = True
    with staged(tmp_path) as before:
        before.show("shop", three(), proxies())
        tab.log_in(before.url, token(before), "/clusters/shop")
        tab.live()
    expect(tab.page.locator("#live")).to_have_text("connecting again…")
    with staged(tmp_path, port=before.port) as after:
        after.show("shop", three(lag=9.0), proxies())
        tab.live()
        expect(tab.part("truth")).to_contain_text("9 s behind")


def test_a_page_whose_token_is_revoked_leads_to_the_login(stage: Stage, tab: Tab) -> None:
    in_order(stage)
    tab.log_in(stage.url, token(stage), "/clusters/shop")
    tab.live()
    stage.tokens.revoke("ann")
    stage.show("shop", three(lag=1.0), proxies())
    tab.page.wait_for_url(f"{stage.url}/login?next=%2Fclusters%2Fshop")


# -- asking for something --------------------------------------------------------------------------------------


def slow(go: threading.Event) -> Callable[[Command, Caller, Listener], tuple[Result, ...]]:
    """Does a command by playing a recorded switchover, the second half once ``go`` is set."""

    def perform(command: Command, caller: Caller, listener: Listener) -> tuple[Result, ...]:
        assert go.wait(60)
        return (replace(samples.DONE, operation=""),)

    return perform


def planned(stage: Stage) -> None:
    """Lets the plan of a switchover be one that can go ahead."""
    stage.hub.plan_switchover = lambda *_: samples.GOING  # type: ignore[method-assign]
    missing = ("db1 has executed 0-1-3, which nobody who answers has received",)
    lost = Finding("failover.lost", Severity.ERROR, "db1", missing[0], "--force does without them", True)
    ranked = (Ranked("db2", True, ("nobody received more",)), Ranked("db3", False, ("follows db2",)))
    gone = Diagnosis("DeadPrimary", "db1 did not answer for 3 s", Action.FAILOVER, "db1")
    stage.hub.plan_failover = lambda *_: Contingency(  # type: ignore[method-assign]
        samples.HEALTHY, gone, FailoverElection("db2", None, ranked, missing=missing),
        Plan("shop", "db1", "db2", ("db3",)), Orders(may_be_missing=missing), (lost,),
    )  # fmt: skip


def test_a_switchover_is_planned_confirmed_by_its_targets_name_and_watched_by_keyboard_alone(
    tmp_path: Path, tab: Tab
) -> None:
    go = threading.Event()
    with staged(tmp_path, perform=slow(go)) as stage:
        stage.show("shop", three(), proxies())
        planned(stage)
        page, keys = tab.page, tab.page.keyboard
        page.goto(stage.url)
        keys.type(token(stage))
        keys.press("Enter")
        page.wait_for_url(f"{stage.url}/")

        def tab_to(name: str) -> None:
            for _ in range(60):
                keys.press("Tab")
                told = tab.measured(
                    "[document.activeElement.innerText || document.activeElement.labels?.[0]?.innerText || '',"
                    " getComputedStyle(document.activeElement).outlineStyle]"
                )
                assert told[1] != "none", f"nothing shows that {told[0]!r} has the focus"
                if name in told[0]:
                    return
            raise AssertionError(f"{name!r} is not reached by Tab")

        tab_to("Skip to the content")
        keys.press("Enter")
        tab_to("shop")
        keys.press("Enter")
        page.wait_for_url(f"{stage.url}/clusters/shop")
        tab_to("Switchover…")
        keys.press("Enter")
        page.wait_for_url(f"{stage.url}/clusters/shop/switchover")
        expect(page.get_by_text("Writes would stand still for about 12 ms")).to_be_visible()
        expect(page.get_by_text("db1: FLUSH TABLES WITH READ LOCK")).to_be_visible()
        tab_to("Why")
        keys.type("maintenance of db1")
        tab_to("To go ahead, type")
        keys.type("db3")
        keys.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("type db2; you typed 'db3'")
        assert stage.hub.tickets("shop") == ()
        expect(page.get_by_label("To go ahead, type")).to_be_focused()
        keys.type("db2")
        keys.press("Enter")
        page.wait_for_url(f"{stage.url}/clusters/shop/operations/*")
        expect(page.get_by_role("status").last).to_contain_text("Going on")
        go.set()
        expect(page.get_by_role("status").last).to_contain_text("Done")
        (ticket,) = stage.hub.tickets("shop")
        assert (ticket.command.kind, ticket.command.arguments["target"]) == ("switchover", "db2")
        assert ticket.command.actor.name == "ann"


def test_all_of_it_works_without_scripts(tmp_path: Path, chromium: Browser) -> None:
    go = threading.Event()
    go.set()
    with staged(tmp_path, perform=slow(go)) as stage:
        stage.show("shop", three(), proxies())
        planned(stage)
        context = chromium.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(f"{stage.url}/clusters/shop")
        page.get_by_label("Token").fill(token(stage))
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("link", name="Switchover…").click()
        page.get_by_label("To go ahead, type").fill("db2")
        page.get_by_role("button", name="Move the primary to db2").click()
        page.wait_for_url(f"{stage.url}/clusters/shop/operations/*")
        assert len(stage.hub.tickets("shop")) == 1
        context.close()


# -- how it looks ----------------------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Stage]:
    """A stage on which there is something to see everywhere: problems, plans, operations, an unfinished one."""
    with staged(tmp_path, "shop", "bank", "a-cluster-with-quite-a-long-name") as stage:
        now = time.time()
        for n in range(150):
            stage.show(
                "shop", three(1000 + 40 * n + n * n % 900, lag=n % 40 / 10, behind=3), proxies(), at=now - 300 + 2 * n
            )
        stage.show("bank", [silent(1), *three()[1:]], proxies(drift=("the map in memory differs from the file",)))
        planned(stage)
        journals(stage, "shop")
        yield stage


LONG = "a-server-in-the-second-computing-centre-with-a-name-of-sixty"
assert len(LONG) == 60


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Stage]:
    """Thirteen servers with names as long as they may be, most in trouble, and whatever else takes much room."""
    names = [f"{LONG[:-2]}{n:02}" for n in range(1, 14)]
    servers = {called: f"127.0.0.{n}:1" for n, called in enumerate(names, 1)}
    name = f"cluster-{LONG}"[:60]
    with staged(tmp_path, name, servers=servers) as stage:
        at = "0-1-12345678901,1-2-98765432109,17-4000000000-123456789"
        seen: list[Status | Silent] = [replace(server(1, at), name=names[0])]
        for n, called in enumerate(names[1:], 2):
            below = channel(received=at, lag_seconds=float(n * 1000), error=f"Error 1032 on table {LONG}.t" * (n % 3))
            seen.append(replace(replica(n, below, executed=at), name=called))
        seen[3] = Silent(names[3], Address("127.0.0.4", 1), f"connection refused by {LONG}: " * 3)
        vips = {"10.0.0.100": True, "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff": False}
        edges = [replace(o, proxy=f"proxy{n}-{LONG}"[:60], addresses=vips) for n, o in enumerate(proxies(names[0]))]
        stage.show(name, seen, [replace(o, drift=(f"the map differs: {LONG}",)) for o in edges])
        planned(stage)
        done, _ = journals(stage, name)
        file = stage.state_dir / name / "journal" / f"{done}.jsonl"
        told = f"the binary log of {LONG} could not be read: {LONG}"
        salvage = {"state": "unread", "told": told, "found": 3, "applied": 0, "path": f"/var/lib/proxyroute/{LONG}"}
        record = {"v": 1, "n": 999, "t": time.time(), "kind": "keep", "name": "salvage", "value": salvage}
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join([*lines[:-1], json.dumps(record) + "\n", lines[-1]]))
        archive = archive_folder(stage.hub.config(name))
        (archive / "one").mkdir(parents=True)
        (archive / "two").mkdir()
        one = {"gtid": at, "time": "2026-11-28 10:00:00", "tables": [f"{LONG}.t"], "statements": [f"UPDATE {LONG}.t"]}
        kept = {"server": names[0], "told": f"1 transaction of {LONG}", "executed": at, "missing": at}
        kept |= {"rows": {f"{LONG}.t": {"inserted": 1, "updated": 20000}}, "transactions": [one]}
        (archive / "one" / "summary.json").write_text(json.dumps(kept))
        (archive / "two" / "summary.json").write_text("{")
        yield stage


@pytest.mark.full
@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE), ("light", SMALLEST)])
def test_long_names_and_many_servers_leave_every_page_whole(
    crowded: Stage, chromium: Browser, tmp_path: Path, scheme: Any, size: Any
) -> None:
    _look_at_every_page(crowded, chromium, tmp_path, scheme, size, "crowded-")


def looks(stage: Stage, context: BrowserContext) -> Iterator[tuple[str, Tab]]:
    """Yields every page there is, with a name for its picture."""
    tab = Tab(context.new_page())
    tab.page.goto(stage.url)
    yield "login", tab
    tab.log_in(stage.url, token(stage, name=f"ann{time.time_ns()}"))
    for path in tab.walk(stage.url):
        yield path.strip("/").replace("/", "-").replace("?", "-") or "clusters", tab
    tab.page.goto(f"{stage.url}/clusters/nowhere")
    yield "nothing", tab
    assert tab.complaints == []


@pytest.mark.parametrize(
    ("scheme", "size"),
    [
        ("light", DESK),
        pytest.param("dark", DESK, marks=pytest.mark.full),
        pytest.param("light", PHONE, marks=pytest.mark.full),
        ("dark", PHONE),
        pytest.param("light", SMALLEST, marks=pytest.mark.full),
    ],
    ids=["light", "dark", "light-phone", "dark-phone", "smallest"],
)
def test_every_page_is_legible_named_and_whole(
    full: Stage, chromium: Browser, tmp_path: Path, scheme: Any, size: Any
) -> None:
    _look_at_every_page(full, chromium, tmp_path, scheme, size)


def _look_at_every_page(
    stage: Stage, chromium: Browser, tmp_path: Path, scheme: Any, size: Any, called: str = ""
) -> None:
    folder = Path(os.environ.get(KEPT) or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    context = chromium.new_context(color_scheme=scheme, viewport=size)
    seen = 0
    for name, tab in looks(stage, context):
        for details in tab.page.locator("details").all():
            details.evaluate("d => d.open = true")
        tab.page.screenshot(path=folder / f"{called}{name}-{scheme}-{size['width']}.png", full_page=True)
        texts, pale = tab.measure("pale")
        assert texts > 3
        assert pale == [], f"{name}: too little contrast"
        assert tab.measure("unnamed") == [], name
        assert tab.measured("document.documentElement.scrollWidth") <= size["width"], f"{name} scrolls sideways"
        assert tab.measure("cut") == [], f"{name}: cut off"
        seen += 1
    assert seen > 15
    context.close()


def test_the_switch_of_the_theme_wins_over_the_system_and_lasts(stage: Stage, chromium: Browser) -> None:
    in_order(stage)
    context = chromium.new_context(color_scheme="light")
    tab = Tab(context.new_page())
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    tab.log_in(stage.url, token(stage))
    light = tab.measured(ground)
    button = tab.page.get_by_role("button", name="Theme")
    button.click()
    expect(button).to_have_text("Theme: light")
    button.click()
    expect(button).to_have_text("Theme: dark")
    assert tab.measured(ground) != light
    tab.page.reload()
    assert tab.measured(ground) != light
    button.click()
    assert tab.measured(ground) == light
    assert tab.complaints == []
    context.close()


def test_who_may_only_read_sees_everything_and_can_ask_for_nothing(stage: Stage, tab: Tab) -> None:
    in_order(stage)
    journals(stage, "shop")
    tab.log_in(stage.url, token(stage, Scope.READ))
    paths = list(tab.walk(stage.url))
    assert any("/operations/" in path for path in paths)
    assert not any(path.endswith(("/switchover", "/failover", "/heal", "/more", "/audit")) for path in paths)
    tab.page.goto(f"{stage.url}/clusters/shop/switchover")
    expect(tab.page.get_by_role("heading", level=1)).to_have_text("This is not allowed")


def test_the_recorded_journal_is_one() -> None:
    file = Path(__file__).parent / "switchover.jsonl"
    assert json.loads(file.read_text().splitlines()[0])["kind"] == "begin"
