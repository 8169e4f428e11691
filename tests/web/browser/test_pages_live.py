"""The pages of a daemon that keeps real servers, in a real browser: what happens is seen, and what is asked is done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml
from playwright.sync_api import expect

from tests.support.death import LOSSLESS, waits_for_acknowledgements
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.load import create_table
from tests.support.process import free_port
from tests.support.serving import Serving, serving
from tests.support.wait import until
from tests.web.browser.look import Tab

PATH = f"/clusters/{CLUSTER_NAME}"
PATIENCE = 60_000
"""Milliseconds for what servers do."""


@dataclass
class Kept:
    """A site, and where the pages of its daemon are."""

    lab: Lab
    url: str
    token: str


@pytest.fixture
def site() -> Iterator[Kept]:
    """Three servers, semi-synchronous, and two proxy hosts."""
    port = free_port()
    more = {"serve": {"period": "200ms", "proxies_period": "400ms"}}
    with Lab.start(3, hosts=2, semi_sync=True, options=LOSSLESS, more=more) as lab:
        values = yaml.safe_load(lab.config.read_text())
        lab.config.write_text(yaml.safe_dump(values | {"web": {"listen": f"127.0.0.1:{port}"}}))
        token = lab.run("token", "create", "ann", "--scope", "operate", check=True).stdout.split()[0]
        create_table(lab.cluster.primary)
        until(lambda: waits_for_acknowledgements(lab.cluster), "somebody to acknowledge")
        yield Kept(lab, f"http://127.0.0.1:{port}", token)


@pytest.fixture
def kept(site: Kept) -> Iterator[Kept]:
    """The site with its daemon."""
    with serving(site.lab):
        yield site


def test_lag_is_watched_and_a_switchover_asked_for_watched_and_proven(kept: Kept, tab: Tab) -> None:
    page, lab = tab.page, kept.lab
    tab.log_in(kept.url, kept.token, PATH)
    tab.live()
    truth, servers = tab.part("truth"), tab.part("servers")
    expect(truth).to_contain_text("db1 takes writes; 2 replicas, 0 s behind; 2 of 2 proxies agree", timeout=PATIENCE)
    expect(tab.part("possible")).to_contain_text("Nothing blocks it")
    expect(tab.part("possible")).to_contain_text("Lossless")
    row = servers.locator("tr", has=page.get_by_role("rowheader", name="db3"))
    lab.cluster["db3"].sql("STOP SLAVE SQL_THREAD")
    expect(row).to_contain_text("applier stopped", timeout=PATIENCE)
    expect(tab.part("possible")).to_contain_text("Blocked")
    lab.cluster["db3"].sql("START SLAVE SQL_THREAD")
    expect(row).to_contain_text("applier running", timeout=PATIENCE)
    expect(tab.part("possible")).to_contain_text("Nothing blocks it", timeout=PATIENCE)

    page.get_by_role("link", name="Switchover…").click()
    page.get_by_role("link", name="Plan for db3").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("db1 → db3")
    expect(page.get_by_label("What freeze does")).to_contain_text("db1: FLUSH TABLES WITH READ LOCK")
    page.get_by_label("Why").fill("a new kernel on db1")
    page.get_by_label("To go ahead, type").fill("db3")
    page.get_by_role("button", name="Move the primary to db3").click()
    page.wait_for_url(f"{kept.url}{PATH}/operations/*")
    expect(page.get_by_role("status").last).to_contain_text("Done", timeout=PATIENCE)
    expect(page.get_by_text("PROVEN db3 is the primary now; writes stood still for")).to_be_visible()
    assert page.locator(".bar-row.step").count() > 15
    page.get_by_role("link", name=f"To {CLUSTER_NAME}").click()
    expect(truth).to_contain_text("db3 takes writes; 2 replicas", timeout=PATIENCE)
    expect(page.locator("svg.graph.wide")).to_contain_text("db3")

    _, told = lab.json("history")
    (operation,) = told["operations"]
    assert (operation["primary"], operation["candidate"], operation["verdict"]) == ("db1", "db3", "PROVEN")
    _, shown = lab.json("show", operation["operation"])
    assert (shown["records"][0]["by"], shown["records"][0]["reason"]) == ("ann from 127.0.0.1", "a new kernel on db1")


def test_the_death_of_a_primary_is_watched_and_it_is_replaced_by_a_failover(kept: Kept, tab: Tab) -> None:
    page = tab.page
    tab.log_in(kept.url, kept.token, PATH)
    tab.live()
    truth = tab.part("truth")
    expect(truth).to_contain_text("db1 takes writes; 2 replicas", timeout=PATIENCE)
    expect(truth).to_contain_text("failover possible: yes, by hand")
    kept.lab.cluster["db1"].kill9()
    expect(truth).to_contain_text("no server takes writes", timeout=PATIENCE)
    expect(truth).to_contain_text("DeadPrimary", timeout=PATIENCE)
    expect(page.locator("svg.graph.wide")).to_contain_text("does not answer")
    page.get_by_role("link", name="Failover…").click()
    expect(page.get_by_text("It can go ahead")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("nothing that was acknowledged", exact=True)).to_be_visible()
    winner = page.get_by_role("heading", level=1).inner_text().rpartition(" ")[2]
    page.get_by_label("To go ahead, type").fill(winner)
    page.get_by_role("button", name=f"Put {winner} in the place of db1").click()
    page.wait_for_url(f"{kept.url}{PATH}/operations/*")
    expect(page.get_by_role("status").last).to_contain_text("Done", timeout=PATIENCE)
    expect(page.get_by_text(f"{winner} is the primary now").first).to_be_visible()
    page.get_by_role("link", name=f"To {CLUSTER_NAME}").click()
    expect(truth).to_contain_text(f"{winner} takes writes", timeout=PATIENCE)
    expect(tab.part("possible")).to_contain_text("db1 is not fenced, but no proxy leads to it", timeout=PATIENCE)


def test_whoever_watches_goes_on_watching_when_the_daemon_is_started_anew(site: Kept, tab: Tab) -> None:
    tab.may_be_cut_off = True
    before = Serving(site.lab)
    before.await_told("state")
    tab.log_in(site.url, site.token, PATH)
    tab.live()
    before.daemon.send(signal.SIGKILL)
    before.daemon.wait()
    expect(tab.page.locator("#live")).to_have_attribute("data-state", "off", timeout=PATIENCE)
    site.lab.cluster["db3"].sql("STOP SLAVE SQL_THREAD")
    with serving(site.lab):
        tab.live()
        expect(tab.part("servers")).to_contain_text("applier stopped", timeout=PATIENCE)
