"""Who is let in, by a token or by a session of a page; what is asked for stands in the audit before it is done."""

from __future__ import annotations

import errno
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.testclient import TestClient

from proxyroute.assembly import journal_folder
from proxyroute.caller import Caller
from proxyroute.config import load
from proxyroute.config_web import WebConfig
from proxyroute.errors import Refused
from proxyroute.glance import Glance
from proxyroute.journal import Listener
from proxyroute.keeper import Keeper
from proxyroute.model import View
from proxyroute.notify_message import Notice
from proxyroute.outcome import Result
from proxyroute.web import hub as hub_module
from proxyroute.web.app import create_app
from proxyroute.web.audit import Actor
from proxyroute.web.auth import Auth, Principal, require
from proxyroute.web.commands import Command, Desk, KeyReused, Ticket
from proxyroute.web.hub import Hub
from proxyroute.web.ring import Ring
from proxyroute.web.state import aged, state_of
from proxyroute.web.tokens import Scope, Tokens
from tests.support.builders import replica, server, view
from tests.support.wait import until
from tests.support.web import make_web, secret_of

_FILE = """
version: 1
state_dir: state
web: {}
clusters:
  shop:
    account: {user: a, password: {env: A}}
    replication: {user: r, password: {env: R}}
    servers: {db1: "127.0.0.1:1", db2: "127.0.0.1:2"}
"""


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    (tmp_path / "proxyroute.yml").write_text(_FILE)
    config = load(tmp_path / "proxyroute.yml")
    assert config.web is not None
    return Hub(config.clusters, tmp_path / "audit.jsonl", lambda *_: (Result("", "heal", "done"),))


@pytest.fixture
def app(hub: Hub, tmp_path: Path) -> FastAPI:
    return create_app(hub, WebConfig(hosts=("testserver",)), Tokens(tmp_path / "tokens.json"))


def test_nobody_is_let_in_without_a_token_and_a_revoked_one_is_none(app: FastAPI) -> None:
    client, tokens = TestClient(app), app.state.auth.tokens
    assert client.get("/v1/clusters").status_code == 401
    text, _ = tokens.create("ann", Scope.READ)
    assert secret_of(text) not in tokens.file.read_text()
    bearer = {"Authorization": f"Bearer {text}"}
    assert [c["cluster"] for c in client.get("/v1/clusters", headers=bearer).json()] == ["shop"]
    assert client.get("/v1/clusters", headers={"Authorization": f"Bearer {text}x"}).status_code == 401
    tokens.revoke("ann")
    answer = client.get("/v1/clusters", headers=bearer)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "proxyroute token create" in answer.json()["next"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_a_token_that_root_makes_locks_out_nobody(tmp_path: Path) -> None:
    """The daemon is another user's, and reads and changes the file later."""
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 4711, 4712)
    tokens = Tokens(folder / "tokens.json")
    tokens.create("ann", Scope.READ)
    owners = {f.name: (f.stat().st_uid, f.stat().st_gid) for f in folder.iterdir()}
    assert owners == {"tokens.json": (4711, 4712), "tokens.lock": (4711, 4712)}
    os.chown(tokens.file, 4713, 4712)
    tokens.create("bob", Scope.READ)
    assert tokens.file.stat().st_uid == 4713, "whose it was"


def test_a_session_changes_something_only_with_its_csrf_token_and_from_our_own_pages(app: FastAPI) -> None:
    @app.post("/enter")
    def login(request: Request, response: Response, token: str) -> str:
        auth: Auth = request.app.state.auth
        return auth.login(request, response, token).csrf

    @app.post("/act")
    def act(principal: Annotated[Principal, Depends(require(Scope.OPERATE))]) -> str:
        return principal.name

    reader, _ = app.state.auth.tokens.create("reader", Scope.READ)
    operator, _ = app.state.auth.tokens.create("operator", Scope.OPERATE)
    client = TestClient(app)
    assert client.post("/enter", params={"token": "pr_0_0"}).status_code == 401
    answer = client.post("/enter", params={"token": operator})
    csrf = answer.json()
    assert {"httponly", "samesite=strict"} <= set(answer.headers["set-cookie"].lower().split("; "))
    assert client.post("/act").status_code == 403
    assert client.post("/act", headers={"X-CSRF-Token": "x"}).status_code == 403
    assert client.post("/act", headers={"X-CSRF-Token": csrf, "Origin": "https://evil.example"}).status_code == 403
    assert client.post("/act", headers={"X-CSRF-Token": csrf, "Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/act", headers={"X-CSRF-Token": csrf, "Origin": "http://testserver"}).json() == "operator"
    assert client.post("/act", data={"csrf": csrf}).json() == "operator"
    assert client.post("/act", headers={"Authorization": f"Bearer {reader}"}).status_code == 403
    app.state.auth.tokens.revoke("operator")
    assert client.post("/act", headers={"X-CSRF-Token": csrf}).status_code == 401


def test_a_second_command_is_refused_by_the_name_of_the_first_and_the_same_key_asks_once(hub: Hub) -> None:
    go, running, most = threading.Event(), [0], [0]

    def perform(command: Command, caller: Caller, listener: Listener) -> tuple[Result, ...]:
        running[0] += 1
        most[0] = max(most[0], running[0])
        assert go.wait(10)
        running[0] -= 1
        if command.why == "no":
            raise Refused("no; ask for something else")
        return (Result(caller.operation, command.kind, "done", text="done"),)

    told: list[Ticket] = []
    desk = Desk(perform, lambda ticket, record: told.append(ticket))
    actor = Actor("ann", "127.0.0.1")
    first = desk.ask(Command("heal", "shop", actor, key="k"))
    assert desk.ask(Command("heal", "shop", actor, key="k")).id == first.id
    with pytest.raises(KeyReused, match="another command"):
        desk.ask(Command("publish", "shop", actor, key="k"))
    with pytest.raises(Refused, match=f"heal {first.id}, asked for by ann from 127.0.0.1, is under way"):
        desk.ask(Command("heal", "shop", actor, "no"))
    go.set()
    until(lambda: all(t.over for t in desk.tickets()), "the first to end")
    second = desk.ask(Command("heal", "shop", actor, "no"))
    until(lambda: all(t.over for t in desk.tickets()), "the second to end")
    assert [t.state for t in desk.tickets()] == ["done", "refused"]
    assert most == [1]
    assert {t.id for t in told} == {first.id, second.id}
    assert desk.close(1.0)
    with pytest.raises(Refused, match="is ending"):
        desk.ask(Command("heal", "shop", actor))


def test_what_is_asked_for_is_in_the_audit_with_who_and_why(hub: Hub) -> None:
    ticket = hub.ask(Command("heal", "shop", Actor("ann", "10.0.0.9"), "tidy up"))
    until(lambda: (found := hub.ticket(ticket.id)) is not None and found.over, "the command to end")
    until(lambda: len(hub.audit.last()) == 2, "its end to be in the audit")
    end, entry = hub.audit.last()
    assert (end.what, end.operation, end.details["state"]) == ("heal.ended", ticket.id, "done")
    assert entry.operation == ticket.id
    assert (entry.who, entry.address, entry.what, entry.cluster, entry.why) == (
        "ann", "10.0.0.9", "heal", "shop", "tidy up",
    )  # fmt: skip
    with pytest.raises(Refused, match="no cluster"):
        hub.ask(Command("heal", "other", Actor("ann", "10.0.0.9")))


def test_whoever_shows_something_does_not_wait_for_a_slow_disk(hub: Hub) -> None:
    start = hub.events.last_id
    with hub._ledgers:  # somebody reads the journals, and their disk does not answer
        hub.show(Glance("shop", 0.0, View("shop", {})))
        assert hub.version("shop") == 1
        assert hub.events.after(start) == ([], True)
    until(lambda: [e for e in hub.events.after(start)[0] if e.type == "cluster"], "what was seen to be told")
    assert hub.close(1.0)


def test_a_state_that_was_made_while_something_newer_was_seen_is_not_kept(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever watches makes it in a thread of his own, and what he read first may be the older."""
    older, newer = (Glance("shop", at, View("shop", {})) for at in (1.0, 2.0))
    hub.show(older)
    until(lambda: hub._clusters["shop"].state, "the first to be made")
    hub._clusters["shop"].state = None
    real = hub_module.state_of

    def slowly(config: Any, seen: Any, history: Any) -> Any:
        if seen is older:
            hub.show(newer)
        return real(config, seen, history)

    monkeypatch.setattr(hub_module, "state_of", slowly)
    assert hub.state("shop").glance is older
    assert hub.state("shop").glance is newer
    assert hub.close(1.0)


def test_threads_that_make_a_state_at_the_same_time_have_the_same_one(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.show(Glance("shop", time.time(), View("shop", {})))
    until(lambda: hub._clusters["shop"].state, "it to be made")
    hub._clusters["shop"].state = None
    both = threading.Barrier(2)
    real = hub_module.state_of

    def together(*of: Any) -> Any:
        made = real(*of)
        both.wait(10.0)
        return made

    monkeypatch.setattr(hub_module, "state_of", together)
    found: list[Any] = []
    other = threading.Thread(target=lambda: found.append(hub.state("shop")))
    other.start()
    found.append(hub.state("shop"))
    other.join(10.0)
    assert found[0] is found[1]
    assert hub.close(1.0)


def test_what_was_not_looked_at_for_long_is_shown_as_old_and_told_although_nobody_shows_anything(
    tmp_path: Path,
) -> None:
    web = make_web(tmp_path)
    good = view(server(1), replica(2), replica(3))
    web.see(good)
    hub = web.hub
    until(lambda: hub._clusters["shop"].told, "it to be told")
    start, version = hub.events.last_id, hub.version("shop")
    kept = hub._clusters["shop"]
    assert kept.glance is not None
    kept.glance = replace(kept.glance, at=time.time() - 3600)  # an hour later
    kept.state = None
    until(lambda: hub.events.after(start)[0], "its age to be told")
    (event,) = hub.events.after(start)[0]
    assert (event.cluster, event.data["level"]) == ("shop", "warn")
    assert hub.version("shop") > version, "who looks on is sent it"
    client = web.client(Scope.READ, {"Accept": "text/html"})
    told = client.get("/v1/clusters/shop").json()
    assert told["level"] == "warn"
    assert told["truth"] == "shop: db1 takes writes, 2 of 2 replicas follow; not looked at for 1 hour"
    overview, page = client.get("/").text, client.get("/clusters/shop").text
    assert "; not looked at for 1 hour; failover possible" in overview
    assert "0 of 2 in order" in overview
    assert "What is shown is old: not looked at for 1 hour" in page
    assert "Nothing blocks it" not in page
    web.see(good)
    assert client.get("/v1/clusters/shop").json()["level"] == "good"


@pytest.mark.parametrize(("age", "told"), [(4.9, ""), (5.0, ""), (6.2, "5 s"), (59.0, "55 s"), (125.0, "2 minutes")])
def test_a_look_that_is_a_little_late_alarms_nobody_and_an_age_changes_seldom(hub: Hub, age: float, told: str) -> None:
    config = hub.config("shop")
    seen = Glance("shop", 1000.0, View("shop", {}))
    state = aged(state_of(config, seen, ()), 1000.0 + age)
    assert state.old == (f"not looked at for {told}" if told else "")
    assert state.level == "bad", "an age makes nothing better"


def test_a_cluster_whose_records_cannot_be_read_is_shown_with_that_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = make_web(tmp_path)
    web.see(view(server(1), replica(2), replica(3)))
    web.see(replace(view(server(1), replica(2)), cluster="bank"))
    folder = journal_folder(web.config.cluster("shop"))
    folder.mkdir(parents=True)
    (folder / "20261101T000000-abcdef.jsonl").write_text("{}\n")
    real = Path.stat

    def broken(file: Path, **more: Any) -> Any:
        if file.parent == folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, **more)

    client = web.client(Scope.READ)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", broken)
        told = {c["cluster"]: c for c in client.get("/v1/clusters").json()}
        page = client.get("/", headers={"Accept": "text/html"}).text
        history = client.get("/v1/clusters/shop/history")
    assert told["bank"]["level"] == "good"
    assert told["shop"]["level"] == "bad"
    assert told["shop"]["truth"].startswith("shop: db1 takes writes, 2 of 2 replicas follow; what is on record cannot")
    assert told["shop"]["blocks_switchover"] == ["journal.damaged"]
    assert "Input/output error" in page
    assert (history.status_code, "Input/output error" in history.text) == (503, True)
    assert client.get("/v1/clusters").json()[0]["level"] == "good", "once it can be read again"


def test_one_cluster_that_cannot_be_told_does_not_end_what_is_told_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = make_web(tmp_path)
    state = web.hub.state

    def broken(name: str) -> Any:
        return {}["gone"] if name == "shop" else state(name)

    monkeypatch.setattr(web.hub, "state", broken)
    start = web.hub.events.last_id
    web.see(view(server(1), replica(2), replica(3)))
    web.see(replace(view(server(1), replica(2)), cluster="bank"))
    until(lambda: [e for e in web.hub.events.after(start)[0] if e.cluster == "bank"], "the other to be told")


def test_a_fault_in_what_is_only_looked_at_keeps_nobody_from_acting() -> None:
    told: list[Notice] = []

    def broken(glance: Glance) -> None:
        raise AssertionError("never reached: what there is to see cannot be read either")

    nothing: Any = SimpleNamespace(name="shop", complete=True, view=View("shop", {}))
    Keeper(nothing, nothing, nothing, told.append, show=broken)._show(nothing, None)
    assert [notice.kind for notice in told] == ["trouble"]


def test_who_was_cut_off_from_the_events_goes_on_or_is_told_that_some_are_gone() -> None:
    ring = Ring(kept=3)
    start = ring.last_id
    events = [ring.publish("notice", "shop", {"n": n}) for n in range(3)]
    assert ring.after(start) == (events, True)
    assert ring.after(events[1].id) == (events[2:], True)
    events.append(ring.publish("notice", "shop", {"n": 3}))
    assert ring.after(start) == (events[1:], False)
    assert ring.after(events[0].id) == (events[1:], True)
    assert ring.after("other-1")[1] is False
