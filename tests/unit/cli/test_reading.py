"""Commands that only read: what is shown, and which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result as Outcome

from proxyroute.cli.output import Output
from proxyroute.decided import Election, Ranked
from proxyroute.errors import Refused
from proxyroute.history import Summary
from proxyroute.model import (
    Address,
    Epoch,
    Finding,
    Holding,
    Observed,
    Receipt,
    ReceiptState,
    Receiver,
    SemiSync,
    Severity,
    Silent,
    Status,
    View,
)
from proxyroute.prospect import Prospect
from proxyroute.truth import truth
from proxyroute.words import seconds
from tests.unit.cli.samples import (
    DENIED,
    GOING,
    HEALTHY,
    HISTORY,
    LAGS,
    ON_DB1,
    OPERATION,
    POSITION,
    RECORDS,
    FakeEngine,
    lines_fit,
    server,
    view,
)


def test_status_says_the_truth_first_and_shows_every_server(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    outcome = run("status")
    assert outcome.exit_code == 0
    first = outcome.output.splitlines()[0]
    assert first == "shop: db1 takes writes, 2 of 2 replicas follow, 1 of 1 proxies send writes there"
    assert "db2     replica  yes        from db1     0 s  off        0-2-1234567" in outcome.output
    assert lines_fit(outcome.output)
    assert "\x1b" not in outcome.output
    assert engine.closed


def test_status_shows_who_has_a_virtual_address_and_what_is_wrong(
    run: Callable[..., Outcome], engine: FakeEngine
) -> None:
    def shown(one: bool, two: bool) -> str:
        hosts = {"edge1": one, "edge2": two}
        engine.proxies = tuple(
            replace(ON_DB1, proxy=name, addresses={"10.0.0.100": has}) for name, has in hosts.items()
        )
        return run("status").output

    assert "10.0.0.100 is at edge1\n" in shown(True, False)
    twice = shown(True, True)
    assert "10.0.0.100 is at edge1, edge2" in twice
    assert "(vip.twice)" in twice
    assert "10.0.0.100 is at none of them" in shown(False, False)
    told = json.loads(run("status", "--json").output)
    assert told["addresses"] == {"10.0.0.100": []}
    assert [finding["code"] for finding in told["address_findings"]] == ["vip.nobody"]


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


@pytest.mark.parametrize(
    ("servers", "line"),
    [
        ((Silent("db1", Address("h", 1), "no"), server(2, of=1), server(3, of=1)),
         "shop: no server takes writes (db1 cannot be read)"),
        ((server(1, writable=False), server(2, of=1)), "shop: no server takes writes"),
        ((Silent("db1", Address("h", 1), "no"), Silent("db2", Address("h", 2), "no")),
         "shop: no server answers, so nobody can tell whether one takes writes"),
        ((server(1), server(2), server(3, of=1)), "shop: SEVERAL SERVERS TAKE WRITES: db1, db2"),
    ],
)  # fmt: skip
def test_without_a_primary_no_replica_is_counted_for_there_is_nobody_to_follow(
    servers: tuple[Status | Silent, ...], line: str
) -> None:
    assert truth(view(*servers), (), ()) == (line, "bad")


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


def test_where_nobody_takes_writes_status_says_what_to_type(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    told = "who could take writes, and what is against it: proxyroute plan --failover"
    assert told not in run("status").output
    engine.reading = view(Silent("db1", Address("h", 1), "no"), server(2, of=1))
    assert told in run("status").output


def test_status_tells_what_would_block_a_failover_with_its_cure_and_is_quiet_otherwise(
    run: Callable[..., Outcome], engine: FakeEngine
) -> None:
    assert "block" not in run("status").output
    text = "db1 did not wait for acknowledgements: what it wrote last may have reached nobody"
    cure = "policy: most_advanced, or --force"
    engine.blocks = (Finding("failover.asynchronous", Severity.ERROR, "db1", text, cure),)
    outcome = run("status")
    said = " ".join(outcome.output.split())
    assert f"Would block a failover now db1: {text} (failover.asynchronous) → {cure}" in said
    assert lines_fit(outcome.output)
    (found,) = json.loads(run("--json", "status").output)["blocks_failover"]
    assert (found["code"], found["cure"]) == ("failover.asynchronous", cure)


@pytest.mark.parametrize(
    ("fencing", "by", "said"),
    [
        ("fenced", "pacemaker", "db3 is fenced by pacemaker"),
        ("routed away", "", "db3 is not fenced, but no proxy leads to it"),
        ("none", "", "nothing keeps clients away from db3"),
    ],
)
def test_status_says_what_keeps_the_old_primary_of_a_failover_away(
    run: Callable[..., Outcome], engine: FakeEngine, fencing: str, by: str, said: str
) -> None:
    last = Summary("20261125T031100-3ea749", "failover", "done", 100.0, 0.6, "db3", "db1", 0.2, "UNKNOWN")
    engine.past = (replace(last, fencing=fencing, fenced_by=by),)
    engine.reading = view(server(1), server(2, of=1), Silent("db3", Address("10.0.0.3", 3306), "gone"))
    outcome = run("status")
    assert said in " ".join(outcome.output.split())
    assert lines_fit(outcome.output)
    assert json.loads(run("--json", "status").output)["last_failover"]["fencing"] == fencing
    engine.reading = view(server(1), server(2, of=1), server(3, of=1))
    back = " ".join(run("status").output.split())
    assert f"db3 follows again (was {fencing})" in back


def test_status_as_json_has_every_reading(run: Callable[..., Outcome], engine: FakeEngine) -> None:
    found = json.loads(run("--json", "status").output)
    assert (found["primary"], found["level"]) == ("db1", "good")
    assert [s["name"] for s in found["servers"]] == ["db1", "db2", "db3"]
    assert found["servers"][1]["executed"] == str(POSITION)
    assert found["servers"][1]["sources"][0]["address"] == "10.0.0.1:3306"
    assert found["proxies"][0]["epoch"] == "3.1"
    assert found["lease"]["kind"] == "local"


@pytest.mark.parametrize(
    ("holding", "told"),
    [
        (Holding("etcd"), "lease (etcd): free"),
        (
            Holding("etcd", "a:7", "switchover op", 8.0),
            "lease (etcd): held by a:7 for switchover op, 8 s left unless it is renewed",
        ),
        (Holding("etcd", trouble="no answer"), "lease (etcd): nobody knows who holds it: no answer"),
        (Holding("local", "a:7", "heal"), "lease (local): held by a:7 for heal"),
    ],
)
def test_status_tells_who_has_the_lease(
    run: Callable[..., Outcome], engine: FakeEngine, holding: Holding, told: str
) -> None:
    engine.holding = holding
    assert told in run("status").output


def test_status_goes_on_watching_until_it_is_interrupted(
    run: Callable[..., Outcome], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> View:
        engine.asked.append(("look",))
        if len(engine.asked) == 3:
            raise KeyboardInterrupt
        return HEALTHY

    monkeypatch.setattr(engine, "look", look)
    outcome = run("status", "--watch", "--interval", "0.1", "--json")
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


def test_what_others_have_said_does_not_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out, hostile = Output(as_json=False), "UPDATE t \x1b[2J\x1b]0;owned\x07 SET x = '\u202e' \r\x9b1A"
    out.line(hostile)
    out.table(["Statement"], [[hostile]])
    out.error(Refused(f"somebody said {hostile}"))
    told = "".join(capsys.readouterr())
    assert told.count("\\x1b[2J") == 3
    assert not set(told) & set("\x1b\x07\r\x9b\u202e")
