"""The command line against an engine that only remembers: what is shown, what is asked, which exit code."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as Outcome

import proxyroute.engine
from proxyroute.cli import main, progress
from proxyroute.cli import switchover as switchover_module
from proxyroute.cli.output import seconds
from proxyroute.cli.progress import Progress
from proxyroute.cli.status import truth
from proxyroute.engine import Summary
from proxyroute.errors import Aborted, Busy, Refused, Unfinished
from proxyroute.gtid import MariaDBPosition
from proxyroute.model import (
    Address,
    Election,
    Epoch,
    Evidence,
    Finding,
    Inspection,
    Observed,
    Plan,
    PlannedStep,
    Proof,
    Ranked,
    Receipt,
    ReceiptState,
    Receiver,
    Result,
    SemiSync,
    Severity,
    Silent,
    Source,
    Status,
    Transaction,
    Verdict,
    View,
)
from proxyroute.prospect import Prospect

OPERATION = "20261123T031500-4f2a9c"
POSITION = MariaDBPosition.parse("0-1-41,0-2-1234567")


def server(number: int, *, of: int | None = None, **changes: Any) -> Status:
    address = Address(f"10.0.0.{number}", 3306)
    source = Source(
        "", Address(f"10.0.0.{of}", 3306), "repl", of, Receiver.RUNNING, True, POSITION, 0.0, heartbeat_seconds=1.0
    )
    status = Status(
        f"db{number}", address, "mariadb", (10, 11, 19), "10.11.19-MariaDB", number, of is None, POSITION,
        sources=(source,) if of else (),
    )  # fmt: skip
    return replace(status, **changes)


def view(*servers: Status | Silent) -> View:
    inspections = {
        "db1": Inspection(
            "db1",
            "proxyroute@%",
            transactions=(
                Transaction(11, "app", "10.9.9.9", 1.2, 3, True, "UPDATE t SET x = 1"),
                Transaction(12, "app", "10.9.9.9", 90.0, 0, False, "SELECT 1"),
            ),
        )
    }
    return View("shop", {s.name: s for s in servers}, inspections, 1.0)


HEALTHY = view(server(1), server(2, of=1), server(3, of=1))
ON_DB1 = Observed("edge1", True, Epoch(3, 1), "db1", ("db2", "db3"), {"db1": 8})
PLAN = Plan("shop", "db1", "db2", ("db3",))
LAGS = Finding("replica.lag", Severity.WARNING, "db3", "is 12 s behind", "wait for it")
DENIED = Finding("account.privileges", Severity.ERROR, "db2", "lacks RELOAD", "GRANT RELOAD ON *.* TO x;", True)
GOING = Prospect(
    HEALTHY,
    PLAN,
    Election("db2", (Ranked("db2", True, ("most up to date",)), Ranked("db3", False, ("lags", "is in never")))),
    (LAGS,),
    (PlannedStep("freeze", "writes wait; budget 3 s", ("db1: FLUSH TABLES WITH READ LOCK",)),),
    0.012,
    "from measured round trips",
    go=True,
)
PROVEN = Proof((Evidence("db2", "takes writes", Verdict.PROVEN, "read_only=0"),), 0.023)
DONE = Result(OPERATION, "switchover", "done", "db2", PROVEN, text="db2 is the primary now")
RECORDS = (
    {"v": 1, "n": 1, "t": 100.0, "kind": "begin", "operation": OPERATION, "operation_kind": "switchover",
     "cluster": "shop", "epoch": "3.1", "plan": {"primary": "db1", "candidate": "db2"}},
    {"v": 1, "n": 2, "t": 100.1, "kind": "step", "name": "freeze"},
    {"v": 1, "n": 3, "t": 100.2, "kind": "stepped", "name": "freeze", "seconds": 0.0123, "detail": "at 0-1-41"},
    {"v": 1, "n": 4, "t": 100.2, "kind": "undo", "verb": "restore_writes", "server": "db1", "arguments": {"a": 1}},
    {"v": 1, "n": 5, "t": 100.3, "kind": "commit", "goal": {"flavour": "mariadb", "text": "0-1-41"}},
    {"v": 1, "n": 6, "t": 100.4, "kind": "leftover", "verb": "follow", "server": "db3", "reason": "no answer"},
    {"v": 1, "n": 7, "t": 100.5, "kind": "proof", "verdict": "PROVEN",
     "evidence": [{"subject": "db2", "claim": "takes writes", "verdict": "PROVEN", "seen": "read_only=0"}]},
    {"v": 1, "n": 8, "t": 100.6, "kind": "end", "outcome": "done", "text": ""},
)  # fmt: skip
HISTORY = (
    Summary(OPERATION, "switchover", "done", 100.0, 0.6, "db1", "db2", 0.023, "PROVEN"),
    Summary("20261123T041500-aaaaaa", "switchover", "open", 200.0, 0.1, "db2", "db1", None, None),
)


class FakeEngine:
    """Answers with what the test has laid down; ``asked`` is what it was told to do."""

    def __init__(self) -> None:
        self.reading: View = HEALTHY
        self.proxies: tuple[Observed, ...] = (ON_DB1,)
        self.prospect: Prospect = GOING
        self.outcome: Result | Exception = DONE
        self.healed: tuple[Result, ...] | Exception = ()
        self.found: tuple[Finding, ...] = ()
        self.receipts: tuple[Receipt, ...] = (Receipt("edge1", ReceiptState.DONE, Epoch(4, 1), "pid 7"),)
        self.past: tuple[Summary, ...] = HISTORY[:1]
        self.asked: list[tuple[Any, ...]] = []
        self.listener: Callable[[dict[str, Any]], None] | None = None
        self.closed = False

    def look(self) -> View:
        self.asked.append(("look",))
        return self.reading

    def observe(self) -> tuple[Observed, ...]:
        return self.proxies

    def check(self) -> tuple[Finding, ...]:
        return self.found

    def plan(self, target: str | None, force: bool) -> Prospect:
        self.asked.append(("plan", target, force))
        return self.prospect

    def switchover(
        self, target: str | None, *, force: bool, kill_long: bool, confirm: Callable[[Prospect], bool]
    ) -> Result:
        if not confirm(self.prospect):
            raise Refused("not confirmed; nothing was touched")
        self.asked.append(("switchover", target, force, kill_long))
        assert self.listener is not None
        for record in RECORDS:
            self.listener(dict(record))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def heal(self, declare_lost: tuple[str, ...]) -> tuple[Result, ...]:
        self.asked.append(("heal", *declare_lost))
        if isinstance(self.healed, Exception):
            raise self.healed
        return self.healed

    def history(self) -> tuple[Summary, ...]:
        return self.past

    def show(self, operation: str) -> tuple[dict[str, Any], ...]:
        self.asked.append(("show", operation))
        return RECORDS

    def publish(self) -> tuple[Receipt, ...]:
        return self.receipts

    def render(self) -> dict[str, dict[str, str]]:
        return {"edge1": {"haproxy.cfg": "global\n  daemon\n"}, "edge2": {"a.map": "x y\n"}}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()

    def open_engine(_: object, listener: Callable[[dict[str, Any]], None] | None = None) -> FakeEngine:
        fake.listener = listener
        return fake

    monkeypatch.setattr(proxyroute.engine, "open_engine", open_engine)
    return fake


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    monkeypatch.setenv("ENGINE_PASSWORD", "x")
    monkeypatch.setenv("REPL_PASSWORD", "x")
    path = tmp_path / "proxyroute.yml"
    path.write_text(
        "version: 1\nclusters:\n  shop:\n    account: {user: u, password: {env: ENGINE_PASSWORD}}\n"
        "    replication: {user: r, password: {env: REPL_PASSWORD}}\n"
        "    servers: {db1: 10.0.0.1:3306, db2: 10.0.0.2:3306, db3: 10.0.0.3:3306}\n"
    )
    monkeypatch.setenv("PROXYROUTE_CONFIG", str(path))

    def invoke(*words: str, tty: bool = False, **options: Any) -> Outcome:
        monkeypatch.setattr(switchover_module, "on_terminal", lambda: tty)
        outcome = CliRunner().invoke(main, list(words), **options)
        assert outcome.exception is None or isinstance(outcome.exception, SystemExit), outcome.exc_info
        return outcome

    return invoke


def lines_fit(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines())


# -- status --


def test_status_says_the_truth_first_and_shows_every_server(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    outcome = run("status")
    assert outcome.exit_code == 0
    first = outcome.output.splitlines()[0]
    assert first == "shop: db1 takes writes, 2 of 2 replicas follow, 1 of 1 proxies send writes there"
    assert "db2     replica  yes        from db1     0 s  off        0-2-1234567" in outcome.output
    assert lines_fit(outcome.output)
    assert "\x1b" not in outcome.output
    assert engine.closed


@pytest.mark.parametrize(
    ("servers", "proxies", "level", "said"),
    [
        ((server(1, writable=False), server(2, of=1)), (), "bad", "no server takes writes"),
        ((Silent("db1", Address("h", 1), "no"), server(2, of=1)), (), "bad", "(db1 cannot be read)"),
        ((server(1), server(2)), (), "bad", "SEVERAL SERVERS TAKE WRITES: db1, db2"),
        ((server(1), server(2, of=1, writable=True)), (), "bad", "db2 takes writes although it is a replica"),
        ((server(1), Silent("db2", Address("h", 1), "no")), (), "warn", "only 0 of 1 replicas follow"),
        ((server(1), server(2, of=9)), (), "warn", "only 0 of 1 replicas follow"),
        ((server(1),), (replace(ON_DB1, primary="db2"),), "bad", "proxy edge1 sends writes to db2"),
        ((server(1),), (replace(ON_DB1, primary=None),), "bad", "proxy edge1 sends writes to nobody"),
        ((server(1),), (replace(ON_DB1, reachable=False),), "warn", "proxy edge1 cannot be read"),
        ((server(1),), (replace(ON_DB1, drift=("a",)),), "warn", "proxy edge1 has drifted"),
        ((server(1),), (replace(ON_DB1, held=True),), "warn", "proxy edge1 holds newcomers"),
        ((server(1), server(2, of=1), server(3, of=2)), (ON_DB1,), "good", "2 of 2 replicas follow"),
    ],
)
def test_the_truth_names_what_is_wrong(
    servers: tuple[Status | Silent, ...], proxies: tuple[Observed, ...], level: str, said: str
) -> None:
    text, found = truth(view(*servers), proxies, ())
    assert said in text
    assert found == level


def test_status_shows_broken_replication_silent_servers_drift_and_open_operations(
    run: Callable[..., Outcome], engine: FakeEngine
) -> None:
    broken = server(2, of=1)
    source = replace(broken.sources[0], receiver=Receiver.CONNECTING, applier=False, error="1062 duplicate key")
    semi = SemiSync(True, True, True, clients=1)
    engine.reading = view(
        server(1, semi_sync=semi), replace(broken, sources=(source,)), Silent("db3", Address("10.0.0.3", 3306), "gone")
    )
    engine.proxies = (replace(ON_DB1, drift=("edge1 lacks server db3",)),)
    engine.past = HISTORY
    text = run("status").output
    for said in (
        "from db1: receiver 0 s",
        "db2: 1062 duplicate key",
        "db3 at 10.0.0.3:3306: gone",
        "1 ack",
        "edge1: edge1 lacks server db3",
        "20261123T041500-aaaaaa switchover db2 → db1: open",
        "proxyroute heal",
    ):
        assert said in " ".join(text.split()), said


def test_what_the_last_operation_left_to_do_is_shown_and_what_earlier_ones_left_is_history(
    run: Callable[..., Outcome], engine: FakeEngine
) -> None:
    left = replace(HISTORY[0], leftovers=("follow db3: no answer",))
    engine.past = (HISTORY[0], left)
    text = run("status").output
    assert "something is left to do, type 'proxyroute heal'" in " ".join(text.split())
    assert "switchover db1 → db2: follow db3: no answer" in " ".join(text.split())
    engine.past = (left, HISTORY[0])
    assert "left to do" not in run("status").output


def test_status_as_json_has_every_reading(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    found = json.loads(run("--json", "status").output)
    assert (found["primary"], found["level"]) == ("db1", "good")
    assert [s["name"] for s in found["servers"]] == ["db1", "db2", "db3"]
    assert found["servers"][1]["executed"] == str(POSITION)
    assert found["servers"][1]["sources"][0]["address"] == "10.0.0.1:3306"
    assert found["proxies"][0]["epoch"] == "3.1"


def test_status_goes_on_watching_until_it_is_interrupted(
    run: Callable[..., Outcome], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> View:
        engine.asked.append(("look",))
        if len(engine.asked) == 3:
            raise KeyboardInterrupt
        return HEALTHY

    monkeypatch.setattr(engine, "look", look)
    outcome = run("status", "--watch", "--interval", "0", "--json")
    assert outcome.exit_code == 0
    assert [json.loads(line)["primary"] for line in outcome.output.splitlines()] == ["db1", "db1"]
    assert engine.closed


# -- plan --


def test_plan_shows_verdict_prediction_ranking_offenders_and_acts(
    run: Callable[..., Outcome], engine: FakeEngine
) -> None:
    outcome = run("plan", "--to", "db2")
    assert outcome.exit_code == 0
    assert engine.asked == [("plan", "db2", False)]
    text = outcome.output
    assert text.splitlines()[0] == "GO  shop: db1 → db2"
    assert "Predicted write blackout: 12 ms (from measured round trips)" in text
    assert "db3: FLUSH" not in text
    assert "       db1: FLUSH TABLES WITH READ LOCK\n" in text
    assert "app@10.9.9.9" in text
    assert "SELECT 1" not in text, "a reader blocks nothing"
    assert "is in never" in text
    assert text.rstrip().endswith("To do it: proxyroute switchover --to db2")
    assert lines_fit(text)


def test_a_no_go_ends_with_3_and_shows_its_reasons_and_cures(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.prospect = replace(GOING, go=False, findings=(DENIED,))
    outcome = run("plan")
    assert outcome.exit_code == 3
    assert outcome.output.startswith("NO-GO  shop: db1 → db2: 1 reason below\n")
    assert "GRANT RELOAD" in outcome.output
    assert "--force goes on" in outcome.output
    assert "To do it" not in outcome.output


def test_nobody_to_take_over_is_a_no_go(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.prospect = Prospect(HEALTHY, None, Election(None, (Ranked("db2", False, ("broken",)),)), ())
    outcome = run("plan")
    assert outcome.exit_code == 3
    assert "nobody can take over" in outcome.output
    assert "broken" in outcome.output


def test_a_plan_to_the_present_primary_says_that_there_is_nothing_to_do(
    run: Callable[..., Outcome], engine: FakeEngine
) -> None:
    engine.prospect = Prospect(HEALTHY, None, None, (), unchanged=True)
    outcome = run("plan", "--to", "db1")
    assert (outcome.exit_code, outcome.output) == (0, "shop: db1 is the primary already; nothing to do\n")


def test_plan_as_json(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    found = json.loads(run("plan", "--json").output)
    assert (found["go"], found["plan"]["candidate"], found["predicted_seconds"]) == (True, "db2", 0.012)
    assert [t["session"] for t in found["offenders"]] == [11]
    assert found["steps"][0]["acts"] == ["db1: FLUSH TABLES WITH READ LOCK"]


# -- switchover --


def test_a_switchover_shows_plan_steps_and_proof(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    outcome = run("switchover", "--to", "db2", "--yes", "--force", "--kill-long")
    assert outcome.exit_code == 0
    assert engine.asked == [("switchover", "db2", True, True)]
    text = outcome.output
    assert text.index("GO  shop: db1 → db2") < text.index("12 ms  at 0-1-41") < text.index("committed:")
    assert "left to do: follow at db3: no answer" in text
    assert "PROVEN  db2 is the primary now; writes stood still for 23 ms" in text
    assert f"proxyroute show {OPERATION}" in text
    assert engine.closed


def test_without_a_terminal_nobody_is_asked_and_the_line_to_type_is_shown(
    run: Callable[..., Outcome], engine: FakeEngine
) -> None:
    outcome = run("--cluster", "shop", "switchover", "--to", "db2", "--kill-long")
    assert outcome.exit_code == 3
    assert "proxyroute switchover --yes --to db2 --kill-long --cluster shop" in outcome.stderr
    assert engine.asked == []


@pytest.mark.parametrize(("answer", "code", "asked"), [("y\n", 0, 1), ("n\n", 3, 0), ("\n", 3, 0)])
def test_on_a_terminal_the_operator_is_asked(
    run: Callable[..., Outcome], engine: FakeEngine, answer: str, code: int, asked: int
) -> None:
    outcome = run("switchover", "--kill-long", tty=True, input=answer)
    assert outcome.exit_code == code
    assert len(engine.asked) == asked
    assert "Move the primary of shop from db1 to db2, ending up to 1 transactions that write? [y/N]" in outcome.output


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (replace(DONE, proof=replace(PROVEN, evidence=())), 7),
        (replace(DONE, proof=None), 7),
        (Result("", "switchover", "unchanged", "db2", text="db2 is the primary already"), 0),
        (Refused("no", (DENIED,)), 3),
        (Aborted("undone"), 4),
        (Unfinished("later"), 5),
        (Busy("held by another"), 6),
    ],
)
def test_the_exit_code_says_how_a_switchover_ended(
    run: Callable[..., Outcome], engine: FakeEngine, ended: Result | Exception, code: int
) -> None:
    engine.outcome = ended
    outcome = run("switchover", "--yes")
    assert outcome.exit_code == code
    if isinstance(ended, Exception):
        assert str(ended) in outcome.stderr
    as_json = run("switchover", "--yes", "--json")
    assert as_json.exit_code == code
    found = json.loads(as_json.stdout)
    assert ("error" in found) == isinstance(ended, Exception)


def test_a_refusal_shows_each_reason_with_its_cure_once(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.outcome = Refused("db2: lacks RELOAD", (DENIED,))
    text = run("switchover", "--yes").stderr
    assert text.splitlines() == [
        "refused, nothing was touched:",
        "  db2: lacks RELOAD",
        "      GRANT RELOAD ON *.* TO x;",
    ]
    found = json.loads(run("switchover", "--yes", "--json").stdout)
    assert (found["error"]["kind"], found["error"]["findings"][0]["code"]) == ("Refused", "account.privileges")


def test_an_interrupted_switchover_ends_with_130(
    run: Callable[..., Outcome], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Result:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "switchover", interrupted)
    assert run("switchover", "--yes").exit_code == 130
    assert engine.closed


def test_a_reader_that_stands_still_never_makes_the_operation_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = threading.Event()
    written: list[str] = []

    class Stuck:
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> None:
            assert reading.wait(60)
            written.append(text)

        def flush(self) -> None: ...

    monkeypatch.setattr(progress.sys, "stdout", Stuck())
    with Progress() as listener:
        for record in RECORDS:
            listener(dict(record))  # returns although nothing can be written
        assert written == []
        reading.set()
    assert any("freeze" in text for text in written)


def test_a_reader_that_is_gone_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(progress.sys, "stdout", Gone())
    with Progress() as listener:
        for record in RECORDS:
            listener(dict(record))


def test_on_a_terminal_a_step_is_shown_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Terminal:
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            written.append(text)

        def flush(self) -> None: ...

    monkeypatch.setattr(progress.sys, "stdout", Terminal())
    with Progress() as listener:
        listener({"kind": "step", "name": "freeze"})
        listener({"kind": "stepped", "name": "freeze", "seconds": 0.1, "detail": "", "error": "no lock"})
    assert written[0] == "  freeze …"
    assert "FAILED: no lock" in "".join(written[1:])


# -- the rest --


def test_heal_tells_what_it_did_and_its_exit_code_is_the_worst(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    assert (run("heal").exit_code, run("heal").output) == (0, "nothing is open\n")
    engine.healed = (Result(OPERATION, "switchover", "aborted", "db1", text="undone"), replace(DONE, proof=None))
    outcome = run("heal", "--declare-lost", "db3", "--declare-lost", "db2")
    assert engine.asked[-1] == ("heal", "db3", "db2")
    assert outcome.exit_code == 7
    assert "undone" in outcome.output
    engine.healed = Unfinished("db1 does not answer")
    outcome = run("heal", "--json")
    assert outcome.exit_code == 5
    assert json.loads(outcome.stdout)["error"]["text"] == "db1 does not answer"


def test_history_lists_the_latest_first(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.past = HISTORY
    lines = run("history").output.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["20261123T041500-aaaaaa", OPERATION]
    assert " open" in lines[1]
    assert lines[2].endswith("done, PROVEN")
    assert lines_fit("\n".join(lines))
    assert len(json.loads(run("history", "--limit", "1", "--json").output)["operations"]) == 1
    engine.past = ()
    assert run("history").output == "no operation yet\n"


def test_show_tells_every_record(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    text = run("show", OPERATION).output
    assert engine.asked == [("show", OPERATION)]
    for said in ("switchover of shop, db1 → db2, epoch 3.1", "freeze: 12 ms at 0-1-41", "nothing is taken back"):
        assert said in " ".join(text.split())
    assert 'verb=restore_writes, server=db1, arguments={"a": 1}' in " ".join(text.split())
    assert lines_fit(text)
    assert json.loads(run("show", OPERATION, "--json").output)["records"] == list(RECORDS)


def test_check_groups_findings_and_ends_with_3_for_an_error(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    engine.found = (LAGS, DENIED)
    outcome = run("check")
    assert outcome.exit_code == 3
    text = outcome.output
    assert text.startswith("shop: 1 error, 1 warning\n")
    assert text.index("Errors") < text.index("lacks RELOAD") < text.index("Warnings") < text.index("is 12 s behind")
    assert "→ wait for it" in text
    engine.found = (LAGS,)
    assert run("check").exit_code == 0
    found = json.loads(run("check", "--json").output)
    assert (found["errors"], found["warnings"], found["findings"][0]["subject"]) == (0, 1, "db3")


def test_check_tells_a_missing_secret_with_its_cure(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPL_PASSWORD")
    outcome = run("check")
    assert outcome.exit_code == 3
    text = " ".join(outcome.output.split())
    assert "the environment variable REPL_PASSWORD is not set" in text
    assert "read -rs REPL_PASSWORD" in text
    assert "Servers and proxies were not looked at" in text


def test_render_prints_what_would_be_written(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    assert run("render", "--proxy", "edge1").output == "# ---- edge1: haproxy.cfg\nglobal\n  daemon\n"
    assert json.loads(run("render", "--json").output)["edge2"] == {"a.map": "x y\n"}
    outcome = run("render", "--proxy", "edgy1")
    assert outcome.exit_code == 2
    assert "did you mean edge1?" in outcome.stderr


@pytest.mark.parametrize(
    ("state", "code"), [(ReceiptState.DONE, 0), (ReceiptState.FAILED, 1), (ReceiptState.UNKNOWN, 7)]
)
def test_publish_ends_as_the_worst_receipt_says(
    run: Callable[..., Outcome], engine: FakeEngine, state: ReceiptState, code: int
) -> None:
    engine.receipts = (*engine.receipts, Receipt("edge2", state, Epoch(4, 1), "said so"))
    outcome = run("publish")
    assert outcome.exit_code == code
    assert "said so" in outcome.output
    assert json.loads(run("publish", "--json").output)["receipts"][1]["state"] == state


def test_a_wrong_configuration_ends_with_2_and_every_mistake(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wrong.yml"
    path.write_text("version: 1\nclusters: {shop: {servres: 1}}\n")
    outcome = run("status", "--config", str(path))
    assert outcome.exit_code == 2
    assert f"{path}:2: clusters.shop.servres: is not known here; did you mean servers?" in outcome.stderr
    problems = json.loads(run("status", "--config", str(path), "--json").stdout)["error"]["problems"]
    assert {"line": 2, "field": "clusters.shop.servers"}.items() <= next(
        p for p in problems if p["field"].endswith("servers")
    ).items()


def test_an_unknown_cluster_is_an_error_with_the_names_there_are(run: Callable[..., Outcome]) -> None:
    outcome = run("--cluster", "shup", "status")
    assert outcome.exit_code == 2
    assert "did you mean shop?" in outcome.stderr


def test_help_documents_the_exit_codes_in_80_columns(run: Callable[..., Outcome]) -> None:
    for words in ([], ["switchover"], ["heal"], ["check"], ["publish"], ["init"]):
        text = run(*words, "--help").output
        assert "Exit codes" in text
        assert lines_fit(text)


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (0.0, "0.0 ms"), (0.0004, "0.4 ms"), (0.012, "12 ms"), (0.9999, "1.0 s"), (125.0, "2 min 5 s")],
)
def test_durations_are_said_as_people_say_them(value: float | None, said: str) -> None:
    assert seconds(value) == said
