"""On the pages: who has a virtual address, what only one server had, and that what goes on can be called off."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxyroute.assembly import archive_folder
from proxyroute.outcome import Result
from proxyroute.web.shown import _proxy_json
from proxyroute.web.tokens import Scope
from tests.support.wait import until
from tests.web.browser.stage import journals, proxies, three
from tests.web.test_pages import HOSTILE, Site, made, rejoined

VIP, OTHER = "10.0.0.100", "10.0.0.101"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made(tmp_path) as site:
        site.show("shop", three(), proxies())
        yield site


def test_a_virtual_address_is_shown_with_its_host_and_what_is_wrong_with_the_cure(site: Site) -> None:
    site.log_in(Scope.READ)
    assert "Virtual addresses" not in site.client.get("/clusters/shop").text
    one, two = proxies()
    seen = [replace(one, addresses={VIP: True, OTHER: True}), replace(two, addresses={VIP: False, OTHER: True})]
    site.show("shop", three(), seen)
    text = site.client.get("/clusters/shop").text
    assert f"{VIP} is at edge1" in text
    assert f"{OTHER} edge1, edge2 have it at once" in text
    assert "ip addr; systemctl status keepalived" in text
    assert text.index(OTHER) < text.index(f"{VIP} is at"), "what is wrong comes first"
    configured: Any = SimpleNamespace(name="edge1", type="haproxy")
    assert _proxy_json(site.hub.state("shop"), configured, seen[0])["addresses"] == {VIP: True, OTHER: True}
    down = replace(two, reachable=False, addresses={})
    site.show("shop", three(), [replace(one, addresses={VIP: False}), down])
    assert f"{VIP} nobody knows where it is" in site.client.get("/clusters/shop").text


def test_what_only_the_dead_primary_had_is_told_with_its_failover(site: Site) -> None:
    done, _ = journals_with(
        site, {"state": "saved", "told": "2 transactions were saved", "found": 2, "path": "/kept/x"}
    )
    site.log_in(Scope.READ)
    text = site.client.get(f"/clusters/shop/operations/{done}").text
    assert "What only db1 had" in text
    assert "2 transactions were saved" in text
    assert "2 transactions found in its binary log" in text
    assert "applied" not in text.partition("What only db1 had")[2].partition("</section>")[0]
    assert "/clusters/shop/archives" not in text, "for those who operate"


def journals_with(site: Site, salvage: dict[str, Any]) -> tuple[str, str]:
    found = journals(SimpleStage(site.config.state_dir), "shop")  # type: ignore[arg-type]
    file = site.config.state_dir / "shop" / "journal" / f"{found[0]}.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    record = {"v": 1, "n": 999, "t": json.loads(lines[-1])["t"], "kind": "keep", "name": "salvage", "value": salvage}
    file.write_text("".join([*lines[:-1], json.dumps(record) + "\n", lines[-1]]))
    return found


class SimpleStage:
    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir


def test_all_that_was_kept_is_on_one_page_for_those_who_operate(site: Site) -> None:
    site.log_in(Scope.OPERATE)
    page = "/clusters/shop/archives"
    assert "Nothing: every server" in site.client.get(page).text
    folder = archive_folder(site.hub.config("shop"))
    path = rejoined(site, folder / "db3-1")
    whole = {"server": "db3", "executed": "0-3-17", "missing": "0-3-16", "rows": {"shop.orders": {"inserted": 3}}}
    kept = json.loads((folder / "db3-1" / "summary.json").read_text())
    (folder / "db3-1" / "summary.json").write_text(json.dumps(kept | whole))
    (folder / "torn").mkdir()
    (folder / "torn" / "summary.json").write_text("{")
    assert page in site.client.get(path).text
    text = site.client.get(page).text
    for told in ("db3", "0-3-17", "3 inserted", "Not in any file any more: 0-3-16", "torn", "it cannot be read"):
        assert told in text, told
    assert HOSTILE not in text
    site.log_in(Scope.READ, "reader")
    assert site.client.get(page).status_code == 403
    token = site.tokens.create("program", Scope.READ)[0]
    told_api = site.client.get("/v1/clusters/shop/archives", headers={"Authorization": f"Bearer {token}"})
    assert told_api.status_code == 403, "rows of the application are not for everybody"


def test_what_goes_on_has_a_button_that_calls_it_off_and_a_failover_has_none(tmp_path: Path) -> None:
    go = threading.Event()

    def perform(command: Any, caller: Any, listener: Any) -> tuple[Result, ...]:
        until(lambda: caller.called_off() or go.is_set(), "it to end")
        return (Result("", command.kind, "aborted" if caller.called_off() else "done", text=caller.called_off()),)

    with made(tmp_path) as site:
        site.show("shop", three(), proxies())
        site.hub._own_perform = perform
        csrf = site.log_in(Scope.OPERATE)
        asked = site.client.post("/clusters/shop/heal", data={"csrf": csrf, "key": "1"}).headers["location"]
        assert "Call it off" in site.client.get(asked).text
        assert site.client.post(f"{asked}/call-off", data={}).status_code == 403
        answer = site.client.post(f"{asked}/call-off", data={"csrf": csrf})
        assert (answer.status_code, answer.headers["location"]) == (303, asked)
        until(lambda: "Taken back" in site.client.get(asked).text, "the end")
        text = site.client.get(asked).text
        assert "called off by ann from testclient" in text
        assert "Call it off" not in text
        form = {"csrf": csrf, "key": "2", "target": "db2", "typed": "db2", "primary": "db1"}
        asked = site.client.post("/clusters/shop/failover", data=form).headers["location"]
        assert "Call it off" not in site.client.get(asked).text
        assert site.client.post(f"{asked}/call-off", data={"csrf": csrf}).status_code == 409
        go.set()
        until(lambda: "Done" in site.client.get(asked).text, "the end of the failover")
