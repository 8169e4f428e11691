"""Commands that change something: what is asked, what is shown, which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result as Outcome

from proxyroute.errors import Aborted, Busy, Refused, Unfinished
from proxyroute.model import Deadline
from proxyroute.notify import Notifier
from proxyroute.outcome import Result
from tests.unit.cli.samples import (
    DENIED,
    DONE,
    OPERATION,
    PROVEN,
    FakeEngine,
)


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
        (replace(DONE, leftovers=("address_up db2: exited with status 3",)), 7),
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


def test_ctrl_c_while_a_notice_is_waited_for_changes_nothing_about_the_end(
    run: Callable[..., Outcome], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "proxyroute.yml"
    text = file.read_text().replace("version: 1\n", "version: 1\nstate_dir: state\n")
    file.write_text(text + "    notices: [{type: script, run: [sleep, 5]}]\n")
    closed = Notifier.close
    waits: list[float] = []

    def close(notifier: Notifier, deadline: Deadline) -> None:
        waits.append(deadline.left)
        if len(waits) == 1:
            raise KeyboardInterrupt
        closed(notifier, deadline)

    monkeypatch.setattr(Notifier, "close", close)
    outcome = run("switchover", "--yes")
    assert outcome.exit_code == 0
    assert "PROVEN  db2 is the primary now" in outcome.stdout
    assert waits[1:] == [0.0]
    assert "notice not sent: notices[0] script: no" in outcome.stderr
