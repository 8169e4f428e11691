"""The API of ``proxyroute serve`` on real servers: a request is followed to its proof; mistakes change nothing."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.support.lab import Lab
from tests.support.process import free_port
from tests.support.scene import assert_order, books, connect, other, standing
from tests.support.serving import Serving, serving
from tests.support.wait import until
from tests.support.web import secret_of

FLAVOURS = ("mysql",)
SITE = {"n": 3, "policy": {"freeze_budget": "3s", "settle": "10s", "prove": "2s", "long_transaction": "100ms",
                           "long_wait": "30s"}}  # fmt: skip
"""A long transaction makes a switchover wait before it touches anything, for as long as a test wants."""


class Api:
    """Asks the daemon of a site over HTTP."""

    def __init__(self, site: Lab) -> None:
        self.site = site
        self.url = f"http://127.0.0.1:{free_port()}"
        values = yaml.safe_load(site.config.read_text())
        site.config.write_text(yaml.safe_dump(values | {"web": {"listen": self.url.partition("//")[2]}}))
        (self.cluster,) = values["clusters"]
        self.tokens = {scope: self._token(scope) for scope in ("read", "operate", "admin")}
        self.operations = f"/v1/clusters/{self.cluster}/operations"

    def _token(self, scope: str) -> str:
        done = self.site.run("token", "create", scope, "--scope", scope)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ask(self, method: str, path: str, scope: str = "operate", **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.tokens[scope]}"} if scope else {}
        return requests.request(
            method, self.url + path, headers={**headers, **more.pop("headers", {})}, timeout=30, **more
        )  # fmt: skip

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path, "admin")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ended(self, id: str) -> dict[str, Any]:
        def over() -> Any:
            told = self.get(f"/v1/operations/{id}")
            return told if told["over"] else None

        found: dict[str, Any] = until(over, f"{id} to end", 60)
        return found

    def plan(self, target: str = "") -> Any:
        return self.get(f"/v1/clusters/{self.cluster}/plan/switchover{f'?to={target}' if target else ''}")

    def truth(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/v1/clusters/{self.cluster}")
        return found

    def health(self, server: str, question: str) -> int:
        return requests.get(f"{self.url}/health/{self.cluster}/{server}/{question}", timeout=10).status_code

    def await_primary(self, server: str) -> None:
        until(lambda: self.truth()["primary"] == server and self.truth()["level"] == "good", f"{server} to be told", 30)


@pytest.fixture
def api(site: Lab) -> Iterator[Api]:
    before = site.config.read_text()
    (site.folder / "state").mkdir(exist_ok=True)
    made = Api(site)
    try:
        yield made
    finally:
        for scope in made.tokens:
            site.run("token", "revoke", scope)
        site.config.write_text(before)


@contextlib.contextmanager
def long_transaction(site: Lab) -> Iterator[None]:
    """Somebody writes on the primary, and takes his time."""
    with contextlib.closing(connect(site.cluster.primary.address)) as session, session.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS app.slow (id INT PRIMARY KEY)")
        cursor.execute("BEGIN")
        cursor.execute("REPLACE INTO app.slow VALUES (1)")
        yield
        cursor.execute("ROLLBACK")


def test_a_request_is_accepted_and_proven_and_a_second_meanwhile_is_refused_by_name(site: Lab, api: Api) -> None:
    old, new = site.cluster.primary.name, other(site)
    with serving(site) as served, books(site):
        api.await_primary(old)
        assert (api.health(old, "primary"), api.health(new, "replica?lag=5s")) == (200, 200)
        assert api.ask("GET", "/metrics", "read").ok  # what ends from now on is an increase
        plan = api.plan(new)
        assert plan["plan"]["candidate"] == new
        assert plan["steps"]
        with Listener(api) as heard:
            with long_transaction(site):
                # InnoDB shows its transactions anew only when nobody has asked for the last 0.1 s
                until(lambda: "transaction.long" in {f["code"] for f in api.plan()["findings"]}, "it", pause=0.3)
                answer = api.ask(
                    "POST", api.operations, json={"kind": "switchover", "target": new, "reason": "why not"}
                )
                assert answer.status_code == 202, answer.text
                first = answer.json()["id"]
                path = answer.headers["Location"]
                until(lambda: api.get(path)["step"] == "long transactions", "it to wait for the transaction")
                second = api.ask("POST", api.operations, json={"kind": "heal"})
                assert second.status_code == 409
                assert first in second.json()["detail"]
                typed = site.json("switchover", "--yes", "--to", new)
                assert typed[0] == 6, "the command line is refused as well"
            told = api.ended(first)
        assert (told["state"], told["results"][0]["verdict"]) == ("done", "PROVEN"), told
        assert told["results"][0]["primary"] == new
        api.await_primary(new)
        assert (api.health(old, "primary"), api.health(new, "primary")) == (503, 200)
        records = api.get(f"{path}/records")
        assert records["over"]
        assert [r["n"] for r in records["records"]] == list(range(1, records["last"] + 1))
        assert api.get(f"{path}/records?after={records['last']}")["records"] == []
        (past,) = [p for p in api.get(f"/v1/clusters/{api.cluster}/history") if p["operation"] == first]
        report = api.get(f"/v1/clusters/{api.cluster}/history/{first}")
        assert (past["outcome"], report["by"], report["reason"]) == ("done", "operate from 127.0.0.1", "why not")
        assert {r["agrees"] for r in api.get(f"/v1/clusters/{api.cluster}/receipts")} == {True}
        metrics = api.ask("GET", "/metrics", "read").text
        assert f'proxyroute_primary{{cluster="{api.cluster}",server="{new}"}} 1.0' in metrics
        assert f'proxyroute_operations_total{{cluster="{api.cluster}",kind="switchover",result="done"}} 1.0' in metrics
        assert {"command", "record", "cluster"} <= heard.types
        assert heard.states == ["waiting", "running", "done"]
        assert _asked(api)[:3] == [
            ("switchover.ended", "operate"),
            ("heal.refused", "operate"),
            ("switchover", "operate"),
        ]
        steps = {n["record"] for n in served.told if n["kind"] == "record" and n["operation"] == first}
        assert {"begin", "stepped", "commit", "proof", "end"} <= steps
        assert_no_secret(site, api, served)


def assert_no_secret(site: Lab, api: Api, served: Serving) -> None:
    """Nothing that could open a door is in an answer, a log, a file that others may read, or an argument."""
    secrets = [secret_of(token) for token in api.tokens.values()]
    secrets += [file.read_text().strip() for file in site.folder.rglob("*.password")]
    assert len(secrets) > len(api.tokens)
    paths = ("", "/servers", "/topology", "/proxies", "/receipts", "/history", "/plan/switchover")
    said = [api.ask("GET", f"/v1/clusters/{api.cluster}{path}", "admin").text for path in paths]
    said += [api.ask("GET", path, "admin").text for path in ("/v1/operations", "/v1/audit", "/metrics")]
    said += [served.log.read_text()]
    said += [file.read_text(errors="replace") for file in (site.folder / "state").rglob("*.json*")]
    said += [Path(f"/proc/{served.daemon.pid}/cmdline").read_text()]
    for secret in secrets:
        assert not [text for text in said if secret in text]


class Listener:
    """Hears the events of the daemon, in a thread."""

    def __init__(self, api: Api) -> None:
        headers = {"Authorization": f"Bearer {api.tokens['read']}"}
        self._answer = requests.get(f"{api.url}/v1/events", headers=headers, stream=True, timeout=60)
        self.types: set[str] = set()
        self.states: list[str] = []
        self._ready = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        kind = ""
        for line in self._answer.iter_lines(chunk_size=1, decode_unicode=True):
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
                self.types.add(kind)
            if name == "data":
                self._ready.set()
                data = json.loads(value)
                if kind == "command" and data["state"] not in self.states:
                    self.states.append(data["state"])
                if kind == "command" and data["over"]:
                    self._over.set()
            if self._over.is_set() and "cluster" in self.types:
                return

    def __enter__(self) -> Listener:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._over.wait(20)
        self._thread.join(20)
        self._answer.close()


def test_one_that_waits_is_called_off_and_nothing_was_touched(site: Lab, api: Api) -> None:
    before = standing(site)
    with serving(site), books(site):
        api.await_primary(site.cluster.primary.name)
        with long_transaction(site):
            until(lambda: "transaction.long" in {f["code"] for f in api.plan()["findings"]}, "it", pause=0.3)
            asked = api.ask("POST", api.operations, json={"kind": "switchover", "target": other(site)}).json()["id"]
            until(lambda: api.get(f"/v1/operations/{asked}")["step"] == "long transactions", "it to wait")
            typed = site.run("call-off", "--url", api.url, environment={"PROXYROUTE_TOKEN": api.tokens["operate"]})
            assert typed.returncode == 0, typed.stderr
        told = api.ended(asked)
        assert (told["state"], "called off by operate" in told["text"]) == ("refused", True), told
    assert standing(site) == before
    assert_order(site)


def test_mistakes_get_a_clear_error_and_change_nothing(site: Lab, api: Api) -> None:
    body = {"kind": "switchover", "target": other(site)}
    before = standing(site)
    with serving(site):
        api.await_primary(site.cluster.primary.name)
        known = api.get("/v1/operations"), _asked(api)
        tried: list[tuple[int, dict[str, Any]]] = []

        def ask(status: int, scope: str = "operate", path: str = api.operations, **more: Any) -> dict[str, Any]:
            answer = api.ask("POST", path, scope, **more)
            assert answer.status_code == status, answer.text
            assert answer.headers["Content-Type"] == "application/problem+json"
            told: dict[str, Any] = answer.json()
            tried.append((status, told))
            return told

        unknown = ask(422, json=body | {"target": "db9"})
        assert (unknown["where"], unknown["next"]) == ("body.target", f"name one of: {', '.join(sorted(_names(site)))}")
        assert ask(422, json={"kind": "switchover", "to": "db2"})["where"] == "body.switchover.to"
        ask(422, data="{", headers={"Content-Type": "application/json"})
        assert "proxyroute token create" in ask(401, "", json=body)["next"]
        ask(401, "", json=body, headers={"Authorization": "Bearer pr_12345678_nonsense"})
        assert "--scope operate" in ask(403, "read", json=body)["next"]
        assert ask(404, path="/v1/clusters/nope/operations", json=body)["where"] == "path.cluster"
        form = ask(422, data=body, headers={"Origin": "https://evil.example"})  # a form is no JSON
        assert form["detail"]
        ask(401, "", data=body, headers={"Origin": "https://evil.example", "Cookie": "proxyroute_session=x"})
        assert len(tried) == 9
        assert (api.get("/v1/operations"), _asked(api)) == known
    assert standing(site) == before
    assert_order(site)


def _asked(api: Api) -> list[tuple[str, str]]:
    """Returns what was asked for, and by whom, as the audit has it, the latest first."""
    return [(e["what"], e["who"]) for e in api.get("/v1/audit") if e["cluster"]]


def _names(site: Lab) -> list[str]:
    return [node.name for node in site.cluster]


def test_the_same_key_counts_after_the_daemon_was_killed(site: Lab, api: Api) -> None:
    new = other(site)
    body, key = {"kind": "switchover", "target": new}, {"Idempotency-Key": "move-once"}
    served = Serving(site)
    try:
        served.await_told("state")
        first = api.ask("POST", api.operations, json=body, headers=key).json()["id"]
        assert api.ended(first)["state"] == "done"
    finally:
        served.daemon.kill()
    with serving(site):
        api.await_primary(new)
        again = api.ask("POST", api.operations, json=body, headers=key)
        assert (again.status_code, again.json()["id"], again.json()["state"]) == (202, first, "done")
        assert again.headers["Idempotent-Replayed"] == "true"
        other_body = api.ask("POST", api.operations, json={"kind": "heal"}, headers=key)
        assert other_body.status_code == 422
        moves = [p for p in api.get(f"/v1/clusters/{api.cluster}/history") if p["candidate"] == new]
        assert [p["operation"] for p in moves][:1] == [first]
        assert api.get(f"/v1/operations/{first}")["text"]
    assert_order(site, new)
