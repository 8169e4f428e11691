"""Asking for something over HTTP: accepted at once, done once, and told how it ended, whatever happens in between."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from proxyroute.assembly import journal_folder
from proxyroute.caller import Caller
from proxyroute.errors import Refused
from proxyroute.journal import Listener
from proxyroute.model import Finding, Severity
from proxyroute.outcome import Result
from proxyroute.standing import Order, Standing
from proxyroute.web.commands import KINDS, Command
from proxyroute.web.tokens import Scope
from tests.support.builders import replica, server, view
from tests.support.wait import until
from tests.support.web import Web, make_web

ASK = "/v1/clusters/shop/operations"
MOVE = {"kind": "switchover", "target": "db2", "reason": "kernel update"}


def ended(client: Any, id: str) -> dict[str, Any]:
    def over() -> Any:
        told = client.get(f"/v1/operations/{id}").json()
        return told if told["over"] else None

    found: dict[str, Any] = until(over, f"{id} to end")
    return found


def test_a_request_is_accepted_then_polled_then_its_result_is_there(web: Web) -> None:
    client = web.client(Scope.OPERATE)
    answer = client.post(ASK, json=MOVE)
    assert answer.status_code == 202
    asked = answer.json()
    assert answer.headers["location"] == f"/v1/operations/{asked['id']}"
    assert (asked["kind"], asked["by"], asked["reason"]) == ("switchover", "operate", "kernel update")
    assert asked["arguments"] == {"target": "db2"}
    told = ended(client, asked["id"])
    assert (told["state"], told["results"][0]["outcome"]) == ("done", "done")
    assert [o["id"] for o in client.get("/v1/operations").json()] == [asked["id"]]


def test_a_second_request_meanwhile_is_refused_by_the_name_of_the_first_and_is_in_the_audit(tmp_path: Path) -> None:
    go = threading.Event()

    def perform(command: Command, caller: Caller, listener: Listener) -> tuple[Result, ...]:
        if command.kind != "acknowledge":
            assert go.wait(10)
        return (Result(caller.operation, command.kind, "done"),)

    web = make_web(tmp_path, perform)
    client = web.client(Scope.OPERATE)
    first = client.post(ASK, json=MOVE).json()["id"]
    second = client.post(ASK, json={"kind": "heal"})
    assert second.status_code == 409
    assert first in second.json()["detail"]
    assert f"/v1/operations/{first}" in second.json()["next"]
    assert client.post("/v1/clusters/bank/operations", json={"kind": "heal"}).status_code == 202
    quick = client.post(ASK, json={"kind": "acknowledge"}).json()["id"]
    assert ended(client, quick)["state"] == "done"  # touches no server, and need not wait
    go.set()
    assert ended(client, first)["state"] == "done"
    until(lambda: any(e.what == "switchover.ended" for e in web.hub.audit.last()), "its end to be on record")
    assert [e.what for e in web.hub.audit.last(cluster="shop")][::-1] == [
        "switchover", "heal.refused", "acknowledge", "acknowledge.ended", "switchover.ended",
    ]  # fmt: skip


def test_the_same_key_does_nothing_twice_also_after_a_restart(tmp_path: Path) -> None:
    done: list[str] = []

    def perform(command: Command, caller: Caller, listener: Listener) -> tuple[Result, ...]:
        done.append(caller.operation)
        return (Result(caller.operation, command.kind, "done", text="db2 is the primary now"),)

    web = make_web(tmp_path, perform)
    client, key = web.client(Scope.OPERATE), {"Idempotency-Key": "order-66"}
    first = client.post(ASK, json=MOVE, headers=key)
    ended(client, first.json()["id"])
    again = client.post(ASK, json=MOVE, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    until(lambda: any(e.what == "switchover.ended" for e in web.hub.audit.last()), "its end to be on record")

    later = make_web(tmp_path, perform)
    later.tokens.revoke("operate")
    client = later.client(Scope.OPERATE)
    after = client.post(ASK, json=MOVE, headers=key)
    assert after.headers["idempotent-replayed"] == "true"
    told = after.json()
    assert (told["id"], told["state"], told["text"]) == (first.json()["id"], "done", "db2 is the primary now")
    assert told["arguments"] == {"target": "db2"}
    other = client.post(ASK, json={**MOVE, "target": "db3"}, headers=key)
    assert (other.status_code, other.json()["where"]) == (422, "header.Idempotency-Key")
    assert done == [first.json()["id"]]


def test_a_cluster_that_was_taken_out_of_the_configuration_and_comes_back_remembers_what_was_asked_for(
    tmp_path: Path,
) -> None:
    go = threading.Event()

    def perform(command: Command, caller: Caller, listener: Listener) -> tuple[Result, ...]:
        assert go.wait(10)
        return (Result(caller.operation, command.kind, "done"),)

    web = make_web(tmp_path, perform)
    client, key = web.client(Scope.OPERATE), {"Idempotency-Key": "k"}
    asked = client.post(ASK, json=MOVE, headers=key).json()
    web.hub.configure({"bank": web.config.clusters["bank"]})
    assert client.post(ASK, json=MOVE, headers=key).status_code == 404
    web.hub.configure(web.config.clusters)
    assert client.post(ASK, json=MOVE, headers=key).json()["id"] == asked["id"]
    other = client.post(ASK, json={"kind": "heal"})
    assert (other.status_code, asked["id"] in other.json()["detail"]) == (409, True), "it is at that one still"
    go.set()
    assert ended(client, asked["id"])["state"] == "done"
    assert client.post(ASK, json={"kind": "heal"}).status_code == 202
    web.hub.configure({"bank": web.config.clusters["bank"]})
    web.hub.refuse_commands()
    web.hub.configure(web.config.clusters)
    assert client.post(ASK, json={"kind": "heal"}).status_code == 409, "it ends"


def test_what_the_daemon_was_at_when_it_was_killed_is_not_done_again(tmp_path: Path) -> None:
    """The audit has its beginning and not its end: as after SIGKILL."""
    never = threading.Event()

    def perform(command: Command, caller: Caller, listener: Listener) -> tuple[Result, ...]:
        never.wait(30)
        return ()

    key = {"Idempotency-Key": "k"}
    web = make_web(tmp_path, perform)
    asked = web.client(Scope.OPERATE).post(ASK, json=MOVE, headers=key).json()
    later = make_web(tmp_path, perform)
    later.tokens.revoke("operate")
    client = later.client(Scope.OPERATE)
    told = client.post(ASK, json=MOVE, headers=key).json()
    assert (told["id"], told["state"], told["over"]) == (asked["id"], "interrupted", True)
    begin = {
        "v": 1, "n": 1, "t": 1.0, "kind": "begin", "operation": asked["id"], "operation_kind": "switchover",
        "cluster": "shop", "epoch": "1.1", "plan": {"primary": "db1", "candidate": "db2"}, "config": {"secret": "x"},
    }  # fmt: skip
    end = {"v": 1, "n": 2, "t": 2.0, "kind": "end", "outcome": "aborted", "text": "everything was undone"}
    folder = journal_folder(later.config.clusters["shop"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{asked['id']}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (begin, end)))
    told = client.get(f"/v1/operations/{asked['id']}").json()
    assert (told["state"], told["text"]) == ("aborted", "everything was undone")
    assert (told["exit_code"], told["results"]) == (4, []), "as the command line would have ended"
    records = client.get(f"/v1/operations/{asked['id']}/records").json()
    assert [r["kind"] for r in records["records"]] == ["begin", "end"]
    assert "config" not in records["records"][0]
    never.set()


def test_how_a_command_was_refused_is_told_with_its_findings(tmp_path: Path) -> None:
    def perform(command: Command, caller: Caller, listener: Listener) -> tuple[Result, ...]:
        found = Finding("replica.lag", Severity.ERROR, "db2", "is 90 s behind", "wait")
        raise Refused("shop: a switchover is refused; nothing was touched", (found,))

    web = make_web(tmp_path, perform)
    client = web.client(Scope.OPERATE)
    told = ended(client, client.post(ASK, json=MOVE).json()["id"])
    assert (told["state"], told["findings"][0]["code"]) == ("refused", "replica.lag")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body"),
        ({"kind": "dance"}, "body"),
        ({"kind": "switchover", "target": "db9"}, "body.target"),
        ({"kind": "switchover", "primary": "db9"}, "body.primary"),
        ({"kind": "switchover", "traget": "db2"}, "body.switchover.traget"),
        ({"kind": "switchover", "force": "perhaps"}, "body.switchover.force"),
        ({"kind": "rejoin"}, "body.rejoin.server"),
        ({"kind": "rejoin", "server": "db9"}, "body.server"),
        ({"kind": "failover", "fenced_proxies": ["edge"]}, "body.fenced_proxies"),
        ({"kind": "heal", "declare_lost": ["db9"]}, "body.declare_lost"),
    ],
)
def test_a_bad_request_says_which_field_is_wrong_and_changes_nothing(web: Web, body: Any, where: str) -> None:
    answer = web.client(Scope.ADMIN).post(ASK, json=body)
    assert answer.status_code == 422
    assert answer.json()["where"] == where
    assert web.hub.tickets("shop") == ()
    assert web.hub.audit.last() == ()


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ({"kind": "maintenance", "server": "db2"}, {"server": "db2", "on": True}),
        ({"kind": "maintenance", "server": "db2", "on": False}, {"server": "db2", "on": False}),
        ({"kind": "pause", "seconds": 60}, {"seconds": 60.0}),
        ({"kind": "resume"}, {}),
        ({"kind": "rank", "server": "db2", "rank": "prefer"}, {"server": "db2", "rank": "prefer"}),
        ({"kind": "rank", "server": "db2"}, {"server": "db2"}),
        ({"kind": "failover", "fenced_by": "ipmi"}, {"fenced_by": "ipmi"}),
        ({"kind": "failover", "primary": "db1"}, {"primary": "db1"}),
        ({"kind": "rejoin", "server": "db1", "method": "reseed"}, {"server": "db1", "method": "reseed"}),
    ],
)
def test_each_kind_reaches_whoever_does_it_with_its_arguments(
    web: Web, body: dict[str, Any], arguments: dict[str, Any]
) -> None:
    answer = web.client(Scope.OPERATE).post(ASK, json=body)
    assert answer.status_code == 202
    assert answer.json()["arguments"] == arguments
    (ticket,) = web.hub.tickets("shop")
    assert (ticket.command.kind, dict(ticket.command.arguments)) == (body["kind"], arguments)


def test_there_is_a_shape_and_an_example_for_every_kind(web: Web) -> None:
    told = web.client(Scope.READ).get("/v1/openapi.json").json()
    asked = told["paths"]["/v1/clusters/{cluster}/operations"]["post"]["requestBody"]["content"]["application/json"]
    assert set(asked["schema"]["discriminator"]["mapping"]) == set(KINDS)
    assert set(asked["examples"]) == set(KINDS)


def test_standing_orders_are_told(web: Web) -> None:
    orders = Standing({"db3": Order("ann", 1.0, "new disk")}, Order("bob", 2.0), {"db2": Order("c", 3.0, rank="never")})
    web.see(view(server(1), replica(2), replica(3)), standing=orders)
    told = web.client(Scope.READ).get("/v1/clusters/shop").json()
    assert told["paused"]["by"] == "bob"
    first, second, third = told["servers"]
    assert (third["maintenance"]["why"], first["maintenance"]) == ("new disk", None)
    assert (second["never"], second["preferred"]) == (True, False)
    assert len(told["orders"]) == 3


def test_declaring_a_server_lost_needs_more_than_an_operation(web: Web) -> None:
    body = {"kind": "heal", "declare_lost": ["db1"]}
    assert web.client(Scope.OPERATE).post(ASK, json=body).status_code == 403
    assert web.client(Scope.ADMIN).post(ASK, json=body).status_code == 202


def test_commands_are_limited_for_each_who_asks(web: Web) -> None:
    client = web.client(Scope.OPERATE)
    answers = [client.post("/v1/clusters/shop/operations", json={"kind": "acknowledge"}) for _ in range(31)]
    assert {a.status_code for a in answers[:30]} == {202}
    assert answers[30].status_code == 429
    assert int(answers[30].headers["retry-after"]) >= 1


def test_what_goes_on_is_called_off_and_what_is_committed_or_over_or_a_failover_is_not(tmp_path: Path) -> None:
    said: list[str] = []
    commit, go = threading.Event(), threading.Event()

    def perform(command: Command, caller: Caller, listener: Listener) -> tuple[Result, ...]:
        if commit.is_set():
            listener({"n": 1, "t": 1.0, "kind": "commit"})
        until(lambda: caller.called_off() or go.is_set(), "somebody to end it")
        if why := caller.called_off():
            said.append(why)
            raise Refused(why)
        return (Result(caller.operation, command.kind, "done"),)

    web = make_web(tmp_path, perform)
    client, reader = web.client(Scope.OPERATE), web.client(Scope.READ)
    first = client.post(ASK, json=MOVE).json()["id"]
    assert reader.post(f"/v1/operations/{first}/call-off").status_code == 403
    answer = client.post(f"/v1/operations/{first}/call-off", params={"reason": "wrong day"})
    assert (answer.status_code, answer.json()["called_off"]) == (
        202,
        "called off by operate from testclient: wrong day",
    )
    assert ended(client, first)["state"] == "refused"
    assert said == ["called off by operate from testclient: wrong day"]
    told = [(e.what, e.why) for e in web.hub.audit.last(cluster="shop")]
    assert ("switchover.call_off", "wrong day") in told
    again = client.post(f"/v1/operations/{first}/call-off")
    assert (again.status_code, "is over" in again.json()["detail"]) == (409, True)
    assert client.post("/v1/operations/20990101T000000-abcdef/call-off").status_code == 404
    commit.set()
    second = client.post(ASK, json=MOVE).json()["id"]
    until(lambda: web.hub.ticket(second).committed, "the commit")  # type: ignore[union-attr]
    late = client.post(f"/v1/operations/{second}/call-off")
    assert (late.status_code, "is committed" in late.json()["detail"]) == (409, True)
    go.set()
    assert ended(client, second)["state"] == "done"
    go.clear()
    gone = client.post(ASK, json={"kind": "failover"}).json()["id"]
    assert client.post(f"/v1/operations/{gone}/call-off").status_code == 409
    go.set()
    ended(client, gone)
    called_off = [e.operation for e in web.hub.audit.last() if e.what.endswith(".call_off")]
    assert called_off == [first], "what was refused stands there as if it had been done"
