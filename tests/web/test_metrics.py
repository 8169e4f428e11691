"""What Prometheus reads: it says what is so, keeps to conventions, and is what dashboard and alerts ask for."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from proxyroute.assembly import journal_folder
from proxyroute.config_web import WebConfig
from proxyroute.decided import Action, Diagnosis
from proxyroute.diagnosis import TABLE
from proxyroute.errors import JournalError
from proxyroute.model import Epoch, Finding, Observed, SemiSync, Severity
from proxyroute.sight import Sightings
from proxyroute.web.measures import GAUGES
from proxyroute.web.tokens import Scope
from tests.support.builders import channel, replica, server, silent, view
from tests.support.web import Web, make_web

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = json.loads((DOCS / "monitoring" / "grafana-dashboard.json").read_text())
ALERTS = yaml.safe_load((DOCS / "monitoring" / "alerts.yml").read_text())
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def journal(web: Web, operation: str, ended: float, *, kind: str = "switchover", **end: Any) -> None:
    """Puts an operation on record that has ended at the Unix time ``ended``."""
    plan = {"primary": "db1", "candidate": "db2"}
    records = [
        {"kind": "begin", "operation": operation, "operation_kind": kind, "cluster": "shop", "epoch": "1.1",
         "plan": plan, "t": ended - 2},
        {"kind": "stepped", "name": "freeze", "seconds": 0.03, "t": ended - 1},
        {"kind": "note", "text": "writes flow", "blackout_seconds": 0.04, "t": ended - 1},
        {"kind": "proof", "verdict": "PROVEN", "evidence": [], "t": ended},
        {"kind": "end", "outcome": "done", "text": "", "t": ended, **end},
    ]  # fmt: skip
    folder = journal_folder(web.config.clusters["shop"])
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"v": 1, "n": n, **record}) for n, record in enumerate(records, start=1)]
    (folder / f"{operation}.jsonl").write_text("\n".join(lines) + "\n")


def everything(web: Web) -> None:
    """Shows a state in which there is something to be told of everything."""
    sync = SemiSync(True, True, True, clients=1, wait_point="AFTER_SYNC", wait_no_replica=True)
    second = replica(2, channel(lag_seconds=2.5), executed="0-1-90", semi_sync=SemiSync(True, replica_enabled=True))
    seen = view(server(1, semi_sync=sync), second, silent(3))
    proxies = [Observed("edge", True, Epoch(3, 2), "db2", sessions={"db1": 4}), Observed("gone", False)]
    known = Diagnosis("DeadReplica", "db3 is gone", Action.NONE, "db1")
    block = Finding("failover.proxy", Severity.ERROR, "gone", "cannot be told", "bring it back")
    web.see(seen, proxies, known, live=lambda: Sightings.of(seen, time.monotonic() - 3), blocks=(block,))
    journal(web, "20991101T000000-abcdef", time.time() + 5)


def read(web: Web) -> tuple[dict[str, Any], Samples]:
    answer = web.client(headers={"Authorization": f"Bearer {web.tokens.create(str(time.time()), Scope.READ)[0]}"}).get(
        "/metrics"
    )
    assert answer.status_code == 200
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    samples = {(s.name, frozenset(s.labels.items())): s.value for f in families.values() for s in f.samples}
    return families, samples


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset({"cluster": "shop", **labels}.items())))


def test_they_say_what_is_so(web: Web) -> None:
    everything(web)
    _, told = read(web)
    assert value(told, "proxyroute_primary", server="db1") == 1
    assert value(told, "proxyroute_primary", server="db2") == 0
    assert [value(told, "proxyroute_up", server=s) for s in ("db1", "db2", "db3")] == [1, 1, 0]
    assert value(told, "proxyroute_replication_lag_seconds", server="db2") == 2.5
    assert value(told, "proxyroute_replication_lag_seconds", server="db3") is None  # unknown is not 0
    assert value(told, "proxyroute_replication_behind_transactions", server="db2") == 10
    assert value(told, "proxyroute_replication_running", server="db1") is None
    assert 2.9 < (value(told, "proxyroute_probe_age_seconds", server="db1") or 0) < 60
    assert value(told, "proxyroute_semi_sync_active", server="db1") == 1
    assert value(told, "proxyroute_lossless") == 1  # the one that acknowledges answers
    assert value(told, "proxyroute_fenced") == 0
    assert value(told, "proxyroute_level", level="bad") == 1  # a proxy sends writes elsewhere
    assert value(told, "proxyroute_level", level="good") == 0
    assert value(told, "proxyroute_diagnosis", diagnosis="DeadReplica") == 1
    assert value(told, "proxyroute_diagnosis", diagnosis="NoProblem") == 0
    assert value(told, "proxyroute_failover_blocked", reason="failover.proxy") == 1
    assert value(told, "proxyroute_proxy_epoch", proxy="edge") == 3_000_002
    assert value(told, "proxyroute_proxy_epoch", proxy="gone") is None
    assert [value(told, "proxyroute_proxy_up", proxy=p) for p in ("edge", "gone")] == [1, 0]
    assert (value(told, "proxyroute_proxy_drift", proxy="edge") or 0) >= 1
    assert value(told, "proxyroute_proxy_sessions", proxy="edge", server="db1") == 4
    assert value(told, "proxyroute_primaries") == 1


def test_what_was_the_matter_is_0_later(web: Web) -> None:
    everything(web)
    read(web)
    sync = SemiSync(True, True, True, wait_point="AFTER_SYNC", clients=2, wait_no_replica=True)
    ack = SemiSync(available=True, replica_enabled=True, replica_active=True)
    seen = view(server(1, semi_sync=sync), replica(2, semi_sync=ack), replica(3, semi_sync=ack))
    web.see(seen, diagnosis=Diagnosis("NoProblem", "", Action.NONE, "db1"))
    _, told = read(web)
    assert value(told, "proxyroute_lossless") == 1
    assert value(told, "proxyroute_diagnosis", diagnosis="DeadReplica") == 0
    assert value(told, "proxyroute_diagnosis", diagnosis="NoProblem") == 1


def test_an_operation_is_counted_once_and_one_of_former_days_never(web: Web) -> None:
    journal(web, "20251101T000000-abcdef", time.time() - 86400)
    for _ in range(2):
        _, told = read(web)
        assert value(told, "proxyroute_operations_total", kind="switchover", result="done") == 0
    journal(web, "20991101T000000-abcdef", time.time() + 5)
    for _ in range(2):
        _, told = read(web)
        assert value(told, "proxyroute_operations_total", kind="switchover", result="done") == 1
    assert value(told, "proxyroute_blackout_seconds_bucket", kind="switchover", le="0.025") == 0
    assert value(told, "proxyroute_blackout_seconds_bucket", kind="switchover", le="0.05") == 1
    assert value(told, "proxyroute_operation_duration_seconds_sum", kind="switchover", phase="freeze") == 0.03
    assert value(told, "proxyroute_operation_duration_seconds_sum", kind="switchover", phase="total") == 2.0
    assert value(told, "proxyroute_proofs_total", kind="switchover", verdict="PROVEN") == 1


def test_the_first_failover_of_a_daemon_is_an_increase(web: Web) -> None:
    """Also one that was over before anybody asked: what is 1 from its birth on has not increased, and alarms nobody."""
    ended = {"kind": "failover", "outcome": "done"}
    journal(web, "20991101T000000-abcdef", time.time() + 5, **ended)
    alerts = [
        ("proxyroute_operations_total", {"kind": "failover", "result": "done"}),
        ("proxyroute_proofs_total", {"kind": "failover", "verdict": "PROVEN"}),
    ]
    for wanted in (0, 1, 1):
        _, told = read(web)
        assert [value(told, name, **labels) for name, labels in alerts] == [wanted, wanted]
    assert value(told, "proxyroute_proofs_total", kind="failover", verdict="NOT PROVEN") == 0


def test_an_old_look_is_no_good_level_and_servers_are_as_they_are_looked_at_now(web: Web) -> None:
    """Whoever keeps the cluster shows nothing while it moves the primary, or is stuck; others look all the time."""
    good = view(server(1), replica(2), replica(3))
    web.see(good, at=time.time() - 3600)
    _, told = read(web)
    assert [value(told, "proxyroute_level", level=level) for level in ("good", "warn", "bad")] == [0, 1, 0]
    for name in ("proxyroute_up", "proxyroute_primary", "proxyroute_server_writable"):
        assert value(told, name, server="db1") is None, name
    assert value(told, "proxyroute_primaries") is None
    assert value(told, "proxyroute_maintenance", server="db1") == 0
    gone = view(silent(1), replica(2), replica(3))
    web.see(good, at=time.time() - 3600, live=lambda: Sightings.of(gone, time.monotonic()))
    _, told = read(web)
    assert [value(told, "proxyroute_up", server=s) for s in ("db1", "db2", "db3")] == [0, 1, 1]
    assert value(told, "proxyroute_primaries") == 0


def test_a_cluster_whose_records_cannot_be_read_hides_no_other_and_no_alert_of_it_ends(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.see(view(replica(1), replica(2), replica(3)))
    state = web.hub.state

    def broken(name: str) -> Any:
        if name == "shop":
            raise JournalError("the disk is gone; bring it back")
        return state(name)

    monkeypatch.setattr(web.hub, "state", broken)
    _, told = read(web)
    assert {dict(labels).get("cluster") for (name, labels) in told if name == "proxyroute_level"} == {"shop", "bank"}
    assert value(told, "proxyroute_level", level="bad") == 1
    assert value(told, "proxyroute_primaries") == 0
    assert value(told, "proxyroute_operations_unfinished") is None  # nobody knows


def test_who_may_read_them_is_declared(tmp_path: Path) -> None:
    assert make_web(tmp_path).client().get("/metrics").status_code == 401
    opened = make_web(tmp_path, settings=WebConfig(metrics="open"))
    answer = opened.client().get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.status_code == 200
    assert answer.text.endswith("# EOF\n")


def test_names_keep_to_the_conventions(web: Web) -> None:
    everything(web)
    families, _ = read(web)
    for name, family in families.items():
        assert re.fullmatch(r"(proxyroute|process)_[a-z][a-z0-9_]*", name), name
        assert family.documentation, name
        assert not re.search(r"_(ms|milliseconds|minutes|percent|kb|mb)(_|$)", name), name
        if family.type == "counter":
            assert all(s.name.endswith(("_total", "_created")) for s in family.samples), name
        else:
            assert not name.endswith("_total"), name
        for sample in family.samples:
            assert all(re.fullmatch(r"[a-z_]+", label) for label in sample.labels), name


def exported(web: Web) -> dict[str, set[str]]:
    """Returns the names of all samples that there can be, with their labels."""
    everything(web)
    read(web)
    _, samples = read(web)
    found: dict[str, set[str]] = {}
    for name, labels in samples:
        found.setdefault(name, set()).update(label for label, _ in labels)
    assert set(GAUGES) <= set(found) | {"proxyroute_switchover_blocked"}, "the state shown does not show everything"
    return found | {name: set(labels) for name, (_, labels) in GAUGES.items()}


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    notes = [note["expr"] for note in DASHBOARD["annotations"]["list"]]
    variables = [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if isinstance(v["query"], dict)]
    return [*panels, *notes, *variables, *(rule["expr"] for group in ALERTS["groups"] for rule in group["rules"])]


def test_dashboard_and_alert_rules_ask_for_what_there_is(web: Web) -> None:
    there = exported(web)
    asked = expressions()
    assert len(asked) > 30
    for text in asked:
        for name, matchers in re.findall(r"\b((?:proxyroute|process)_[a-z_]+)(?:\{([^}]*)\})?", text):
            assert name in there, f"{name} in {text}"
            labels = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", matchers))
            assert labels <= there[name], f"{labels} of {name} in {text}"
    named = {d for text in asked for d in re.findall(r'diagnosis!?[=~]+"([^"]+)"', text) for d in d.split("|")}
    assert named <= {row.name for row in TABLE}


def test_every_alert_says_what_is_the_matter_and_what_to_do() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
        assert "increase" in rule["expr"] or "for" in rule, rule["alert"]


def test_panels_of_the_dashboard_do_not_overlap_and_have_a_place() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


def test_the_guide_names_every_metric(web: Web) -> None:
    guide = (DOCS / "guide" / "monitoring.md").read_text()
    documented = set(re.findall(r"^\| `(proxyroute_\w+)`", guide, re.MULTILINE))
    families = read(web)[0]
    counters = {f.name + "_total" for f in families.values() if f.type == "counter" and f.name.startswith("proxyroute")}
    others = {f.name for f in families.values() if f.type == "histogram" and f.name.startswith("proxyroute")}
    assert documented == set(GAUGES) | counters | others | {"proxyroute_build_info"}
