"""The command line by the API of a running daemon: the same texts and exit codes as on its host."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as Outcome

from proxyroute.caller import Caller
from proxyroute.checkup import Checkup
from proxyroute.cli import main
from proxyroute.config_web import WebConfig
from proxyroute.contingency import Contingency
from proxyroute.decided import Action, Diagnosis, Plan
from proxyroute.engine import open_engine
from proxyroute.errors import Aborted, Busy, LeaseLost, ProxyRouteError, Refused, Unfinished
from proxyroute.failover import Orders
from proxyroute.journal import Listener
from proxyroute.model import Address, Finding, Severity
from proxyroute.outcome import Evidence, Proof, Result, Verdict
from proxyroute.web.commands import Command
from proxyroute.web.server import served
from proxyroute.web.tokens import Scope
from tests.support.builders import replica, server, view
from tests.support.certificates import make_certificate
from tests.support.process import free_port
from tests.support.wait import until
from tests.support.web import Web, listening, make_web
from tests.unit.cli.samples import GOING, PLAN

PROVEN = Proof((Evidence("db2", "takes writes", Verdict.PROVEN, "it does"),), 0.25)
GAP = Proof((Evidence("edge1", "sends writes to db2", Verdict.UNKNOWN, "it was not asked"),), 0.25)
FINDING = Finding("replica.lag", Severity.ERROR, "db2", "is 9 s behind", "wait", forceable=True)

LIMIT = Finding("failover.mode", Severity.ERROR, "shop", "nobody wants one by itself", "failover.mode: automatic")


class Performer:
    """Ends every command as the test says."""

    def __init__(self) -> None:
        self.asked: list[Command] = []
        self.ends: Callable[[Command, Caller], tuple[Result, ...]] = lambda command, caller: (
            Result(caller.operation, command.kind, "done", "db2", PROVEN, text="done"),
        )

    def __call__(self, command: Command, caller: Caller, listener: Listener) -> tuple[Result, ...]:
        self.asked.append(command)
        return self.ends(command, caller)


class Far:
    """The command line at a daemon."""

    def __init__(self, web: Web, url: str, performer: Performer) -> None:
        self.web, self.url, self.performer = web, url, performer
        self.token = web.token(Scope.OPERATE)

    def run(
        self, *words: str, url: str = "", token: str | None = None, cluster: str = "shop", answer: str | None = None
    ) -> Outcome:
        more = ["--cluster", cluster] if cluster else []
        environment = {"PROXYROUTE_TOKEN": self.token if token is None else token, "PROXYROUTE_CONFIG": "/nowhere"}
        return CliRunner().invoke(main, ["--url", url or self.url, *more, *words], env=environment, input=answer)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    performer = Performer()
    web = make_web(tmp_path, performer)
    with listening(web) as url:
        yield Far(web, url, performer)


def plan_there(far: Far, monkeypatch: pytest.MonkeyPatch, *, go: bool = True, plan: Plan | None = PLAN) -> None:
    """What the daemon would do, and somebody who sits at a terminal here."""
    gone = Diagnosis("DeadPrimary", "db1 is gone", Action.FAILOVER, "db1")
    moves = replace(GOING, plan=plan, go=go, findings=() if go else (FINDING,))
    fails = Contingency(moves.view, gone, None, plan, Orders(), moves.findings, go, "its binary log is saved", (LIMIT,))
    monkeypatch.setattr(far.web.hub, "plan_switchover", lambda *_: moves)
    monkeypatch.setattr(far.web.hub, "plan_failover", lambda *_: fails)
    for kind in ("switchover", "failover"):
        monkeypatch.setattr(f"proxyroute.cli.{kind}.on_terminal", lambda: True)


def test_a_plan_there_is_shown_as_it_is_on_the_host(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_there(far, monkeypatch)
    done = far.run("plan")
    assert (done.exit_code, "GO  shop: db1 → db2" in done.output) == (0, True), done.output
    assert "UPDATE t SET x = 1" in done.output
    done = far.run("plan", token=far.web.token(Scope.READ))
    assert "UPDATE" not in done.output
    assert "(for the scope operate)" in done.output
    done = far.run("plan", "--failover")
    assert done.exit_code == 0, done.output
    for told in ("GO  failover shop: db1 → db2", "DeadPrimary: db1 is gone", "its binary log is saved", LIMIT.text):
        assert told in done.output


MOVES = [("switchover",), ("failover", "--fenced-by", "joe")]


@pytest.mark.parametrize("go", [True, False])
@pytest.mark.parametrize("words", MOVES)
def test_nothing_moves_that_was_not_confirmed_also_where_it_was_expected_to_be_refused(
    far: Far, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], go: bool
) -> None:
    plan_there(far, monkeypatch, go=go)
    done = far.run(*words, answer="n\n")
    assert (done.exit_code, far.performer.asked) == (3, []), done.output
    assert "not confirmed; nothing was touched" in done.output
    assert ("By what was seen it would be refused. All the same: " in done.output) is not go


@pytest.mark.parametrize("go", [True, False])
@pytest.mark.parametrize("words", MOVES)
def test_the_server_that_was_confirmed_is_the_one_that_takes_over(
    far: Far, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], go: bool
) -> None:
    plan_there(far, monkeypatch, go=go)
    done = far.run(*words, answer="y\n")
    assert done.exit_code == 0, done.output
    (command,) = far.performer.asked
    assert (command.arguments["target"], command.arguments["primary"]) == ("db2", "db1")
    assert command.arguments.get("fenced_by", "") == ("joe" if "joe" in words else "")


@pytest.mark.parametrize("words", MOVES)
def test_without_a_plan_there_is_nothing_to_confirm(
    far: Far, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    plan_there(far, monkeypatch, go=False, plan=None)
    done = far.run(*words, answer="y\n")
    assert (done.exit_code, far.performer.asked) == (3, []), done.output
    assert FINDING.text in done.output
    assert f"a {words[0]} is refused, for what is told above" in " ".join(done.output.split())


def test_who_is_not_to_be_asked_gets_what_the_daemon_finds(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_there(far, monkeypatch, go=False)
    assert far.run("failover", "--fenced-by", "joe", "--yes").exit_code == 0
    (command,) = far.performer.asked
    assert command.arguments == {"primary": "db1", "fenced_by": "joe"}


def fail(error: ProxyRouteError) -> Callable[[Command, Caller], tuple[Result, ...]]:
    def end(command: Command, caller: Caller) -> tuple[Result, ...]:
        raise error

    return end


def test_status_is_what_the_daemon_sees(far: Far) -> None:
    far.web.see(view(server(1), replica(2), replica(3)))
    done = far.run("status")
    assert done.exit_code == 0, done.output
    assert "db1 takes writes" in done.output
    assert "as proxyroute serve at" in done.output
    assert json.loads(far.run("--json", "status").output)["primary"] == "db1"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("shop: a switchover is refused; nothing was touched", (FINDING,)), 3),
        (Busy("somebody is at work; wait"), 6),
        (Aborted("everything was undone"), 4),
        (Unfinished("type 'proxyroute heal'"), 5),
        (LeaseLost("somebody else may act now"), LeaseLost.exit_code),
    ],
)
def test_an_error_there_has_the_exit_code_that_it_has_on_the_host(far: Far, error: ProxyRouteError, code: int) -> None:
    far.performer.ends = fail(error)
    done = far.run("heal")
    assert done.exit_code == code, done.output
    assert str(error).partition(";")[0] in done.output or FINDING.text in done.output
    told = json.loads(far.run("--json", "heal").output)["error"]
    assert (told["exit_code"], told["kind"]) == (code, type(error).__name__)
    if code == 3:
        assert told["findings"][0]["code"] == FINDING.code


@pytest.mark.parametrize(("proof", "code", "word"), [(PROVEN, 0, "PROVEN"), (GAP, 7, "UNKNOWN")])
def test_a_result_is_shown_with_its_proof(far: Far, proof: Proof, code: int, word: str) -> None:
    far.performer.ends = lambda command, caller: (Result(caller.operation, "heal", "done", "db2", proof, text="moved"),)
    done = far.run("heal")
    assert done.exit_code == code, done.output
    assert f"{word}  moved; writes stood still for" in done.output
    value = json.loads(far.run("--json", "heal").output)
    assert value["results"][0]["verdict"] == word


def test_a_blackout_that_is_only_bounded_is_told_as_such(far: Far) -> None:
    proof = replace(PROVEN, blackout_seconds=2.0, blackout_from="seen")
    far.performer.ends = lambda command, caller: (Result("x", "failover", "done", "db2", proof, text="moved"),)
    assert "writes stood still for at most 2" in far.run("heal").output


def test_what_was_asked_for_arrives_with_its_arguments(far: Far) -> None:
    for words in (
        ("rejoin", "db3", "--method", "flashback", "--yes"), ("publish",), ("pause", "--why", "work", "--for", "2h"),
        ("resume",), ("maintenance", "db3", "on"), ("maintenance", "db3", "off"), ("never", "db3"),
        ("failover", "--acknowledge"), ("orders", "--reset"), ("verify", "--table", "shop.orders", "--within", "1h"),
    ):  # fmt: skip
        done = far.run(*words)
        assert done.exit_code == 0, (words, done.output)
    told = [(c.kind, dict(c.arguments), c.why) for c in far.performer.asked]
    assert told == [
        ("rejoin", {"server": "db3", "method": "flashback"}, ""), ("publish", {}, ""),
        ("pause", {"seconds": 7200.0}, "work"), ("resume", {}, ""), ("maintenance", {"server": "db3", "on": True}, ""),
        ("maintenance", {"server": "db3", "on": False}, ""), ("rank", {"server": "db3", "rank": "never"}, ""),
        ("acknowledge", {}, ""), ("reset_orders", {}, ""),
        ("verify", {"tables": ["shop.orders"], "seconds": pytest.approx(3600, abs=60)}, ""),
    ]  # fmt: skip


@pytest.mark.parametrize(("errors", "code"), [(1, 3), (0, 0)])
def test_check_is_what_the_daemon_finds(far: Far, monkeypatch: pytest.MonkeyPatch, errors: int, code: int) -> None:
    found = (FINDING,) * errors
    monkeypatch.setattr(far.web.hub, "check", lambda cluster: Checkup(cluster, found, looked=True))
    done = far.run("check")
    assert done.exit_code == code, done.output
    assert f"shop: {'1 error' if errors else 'no errors'}, no warnings" in done.output
    assert ("→ wait" in done.output) is bool(errors)
    told = json.loads(far.run("--json", "check").output)
    assert [f["code"] for f in told["findings"]] == [f.code for f in found]


def test_orders_are_those_that_the_daemon_heeds_with_who_and_why(far: Far) -> None:
    assert "no orders stand" in far.run("orders").output
    orders = open_engine(far.web.config.clusters["shop"], caller=Caller("ann", "new disk")).orders
    orders.rank("db3", "never")
    done = far.run("orders")
    assert done.exit_code == 0, done.output
    assert "db3 never becomes primary: new disk, ann" in done.output
    told = json.loads(far.run("--json", "orders").output)
    assert [(c["by"], c["why"]) for c in told["changes"]] == [("ann", "new disk")]


def test_a_comparison_shows_what_differs(far: Far) -> None:
    proof = Proof((Evidence("db3", "has the data of db1", Verdict.NOT_PROVEN, "1 row"),))
    far.performer.ends = lambda command, caller: (Result("", "verify", "done", "db1", proof, text="they differ"),)
    done = far.run("verify")
    assert done.exit_code == 7, done.output
    assert "has the data of db1" in done.output
    assert "they differ" in done.output


def test_what_goes_on_there_is_called_off(far: Far) -> None:
    began = threading.Event()

    def wait(command: Command, caller: Caller) -> tuple[Result, ...]:
        began.set()
        raise Aborted(f"everything was undone: {until(caller.called_off, 'it to be called off')}")

    assert far.run("call-off").exit_code == 3, "nothing goes on"
    far.performer.ends = wait
    client = far.web.client(headers={"Authorization": f"Bearer {far.token}"})
    client.post("/v1/clusters/shop/operations", json={"kind": "switchover"})
    assert began.wait(10)
    done = far.run("call-off", "--why", "wrong day")
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "switchover aborted: everything was undone: called off by operate from 127.0.0.1: wrong day" in told
    assert CliRunner().invoke(main, ["call-off"]).exit_code == 2


def test_history_is_read_there(far: Far) -> None:
    assert "no operation yet" in far.run("history").output
    assert far.run("show", "2026").exit_code == 3


@pytest.mark.parametrize(
    ("words", "more", "code", "text"),
    [
        (("status",), {"token": ""}, 2, "holds no token; make one"),
        (("status",), {"token": "pr_x_y"}, 2, "no valid token"),
        (("status",), {"cluster": ""}, 2, "has several clusters; add --cluster NAME with one of: shop, bank"),
        (("status",), {"cluster": "shp"}, 2, "has no cluster 'shp'"),
        (("status",), {"url": "http://db.example:8480"}, 2, "in the clear; use https"),
        (("status",), {"url": "https://a:b@db.example"}, 2, "no secret"),
        (("status",), {"url": "engine:8480"}, 2, "is not a URL"),
        (("status",), {"url": "http://127.0.0.1:1"}, 1, "does not answer"),
        (("token", "list"), {}, 2, "not done by the API"),
        (("serve",), {}, 2, "not done by the API"),
        (("maintenance", "db9"), {}, 2, "has no server 'db9'"),
        (("switchover",), {}, 3, "nobody is here to be asked"),
    ],
)
def test_what_cannot_be_asked_is_told_with_what_to_do(
    far: Far, words: tuple[str, ...], more: dict[str, Any], code: int, text: str
) -> None:
    done = far.run(*words, **more)
    assert done.exit_code == code, done.output
    assert text in " ".join(done.output.split())
    assert far.token not in done.output


def test_who_may_only_read_is_told_so(far: Far) -> None:
    done = far.run("heal", token=far.web.token(Scope.READ))
    assert done.exit_code == 2
    assert "this needs operate" in done.output
    assert far.performer.asked == []


def test_a_token_comes_from_a_file_and_a_command_to_type_has_no_secret_in_it(far: Far, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{far.token}\n")
    done = far.run("--token-file", str(file), "switchover", "--to", "db2", token="")
    assert f"--yes --to db2 --cluster shop --url {far.url} --token-file {file}" in done.output
    assert far.run("--token-file", str(file), "history", token="").exit_code == 0


def test_a_certificate_is_verified_by_our_own_authority_or_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, port = make_certificate(tmp_path), free_port()
    web = make_web(tmp_path, Performer())
    settings = WebConfig(Address("127.0.0.1", port), made.cert, made.key)
    with contextlib.ExitStack() as ends:
        ends.enter_context(served(web.app, settings))
        far = Far(web, f"https://127.0.0.1:{port}", Performer())
        done = far.run("history")
        assert done.exit_code == 2, done.output
        assert "cannot be trusted" in done.output
        done = far.run("--ca", str(made.ca), "history")
        assert done.exit_code == 0, done.output
        monkeypatch.setenv("SSL_CERT_FILE", str(made.ca))
        done = far.run("history")
        assert done.exit_code == 0, done.output
