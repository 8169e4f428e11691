"""What the API tells of clusters, servers and proxies: what was seen, and nothing that was not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxyroute.assembly import archive_folder
from proxyroute.inspection import Inspection
from proxyroute.model import Epoch, Observed, Receiver, SemiSync
from proxyroute.preflight import preflight
from proxyroute.web.tokens import Scope
from tests.support.builders import channel, replica, server, silent, view
from tests.support.web import FILE, Web, make_web
from tests.unit.cli.samples import GOING, PLAN
from tests.web.test_metrics import journal


@pytest.fixture
def get(web: Web) -> Any:
    client = web.client(Scope.OPERATE)

    def get(path: str) -> Any:
        answer = client.get(f"/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    return get


def test_a_cluster_that_was_not_looked_at_yet_says_so(web: Web, get: Any) -> None:
    assert [c["cluster"] for c in get("/clusters")] == ["shop", "bank"]
    told = get("/clusters/shop")
    assert (told["primary"], told["seen_at"], told["lag_seconds"]) == (None, None, None)
    assert {s["reason"] for s in told["servers"]} == {"has not been looked at yet"}
    assert {n["level"] for n in get("/clusters/shop/topology")["nodes"]} == {-1}


def test_a_cluster_is_told_with_every_server_and_how_far_it_is(web: Web, get: Any) -> None:
    late = replica(2, channel(lag_seconds=2.5), executed="0-1-90")
    web.see(view(server(1), late, silent(3)))
    assert get("/clusters")[0]["lag_seconds"] == 2.5
    told = get("/clusters/shop")
    assert told["truth"].startswith("shop: db1 takes writes")
    first, second, third = told["servers"]
    assert (first["role"], first["writable"], first["behind"]) == ("primary", True, None)
    assert (second["role"], second["following"], second["behind"], second["lag_seconds"]) == ("replica", True, 10, 2.5)
    assert (second["preferred"], second["channels"][0]["source"]) == (True, "db1")
    assert (third["role"], third["writable"], third["reason"]) == ("silent", None, "connection refused")
    assert get("/clusters/shop/servers/db2") == second


def test_a_replica_that_takes_writes_or_has_a_broken_thread_is_no_follower(web: Web, get: Any) -> None:
    broken = replica(2, channel(applier=False, receiver=Receiver.RUNNING))
    web.see(view(server(1), broken, replica(3, writable=True)))
    _, second, third = get("/clusters/shop/servers")
    assert not second["following"]
    assert (third["role"], third["astray"]) == ("replica", True)


def test_the_topology_names_each_way_of_events_and_of_clients(web: Web, get: Any) -> None:
    seen = view(server(1), replica(2), replica(3, channel(2)))
    web.see(seen, [Observed("edge", True, Epoch(1, 1), "db1", readers=("db2",))])
    told = get("/clusters/shop/topology")
    assert {n["name"]: n["level"] for n in told["nodes"]} == {"db1": 0, "db2": 1, "db3": 2}
    ways = {(e["source"], e["target"], e["kind"]) for e in told["edges"]}
    events = {("db1", "db2", "replication"), ("db2", "db3", "replication")}
    assert ways == events | {("edge", "db1", "writes"), ("edge", "db2", "reads")}


_SYNC = SemiSync(
    available=True, primary_enabled=True, primary_active=True, wait_point="AFTER_SYNC", clients=2, wait_no_replica=True
)


@pytest.mark.parametrize(
    ("sync", "lossless", "why"),
    [
        (SemiSync(), False, "db1 did not wait for acknowledgements"),
        (replace(_SYNC, primary_active=False), False, "given up waiting for acknowledgements"),
        (replace(_SYNC, wait_point="AFTER_COMMIT"), False, "AFTER_COMMIT"),
        (replace(_SYNC, clients=3), False, "1 that is not configured here may have acknowledged"),
        (_SYNC, True, "all that could have it take part"),
    ],
)
def test_which_guarantee_holds_is_told_with_the_reason(
    web: Web, get: Any, sync: SemiSync, lossless: bool, why: str
) -> None:
    off = SemiSync(available=True, replica_enabled=True, replica_active=True)
    web.see(view(server(1, semi_sync=sync), replica(2, semi_sync=off), replica(3, semi_sync=off)))
    told = get("/clusters/shop")["guarantee"]
    assert told["lossless"] is lossless
    assert why in told["lossless_why"]
    assert told["fenced"] is False


def test_what_only_one_server_had_is_told_also_when_one_archive_cannot_be_read(web: Web, get: Any) -> None:
    assert (get("/clusters/shop/aside"), get("/clusters/shop/archives")) == ([], [])
    folder = archive_folder(web.config.clusters["shop"])
    kept = {
        "server": "db1", "executed": "0-1-7", "before": "0-1-5", "missing": "", "cut": "", "told": "2 transactions",
        "rows": {"app.t": {"inserted": 2}}, "transactions": [{"gtid": f"0-1-{n}", "tables": ["app.t"]} for n in (6, 7)],
    }  # fmt: skip
    for name, text in (("db1-20261101T000000-1", json.dumps(kept)), ("db1-torn", "{"), (".making-db1-2", "{}")):
        (folder / name).mkdir(parents=True)
        (folder / name / "summary.json").write_text(text)
    told = {a["name"]: a for a in get("/clusters/shop/archives")}
    assert set(told) == {"db1-20261101T000000-1", "db1-torn"}
    assert told["db1-20261101T000000-1"]["count"] == 2
    assert told["db1-20261101T000000-1"]["rows"] == {"app.t": {"inserted": 2}}
    assert "cannot be read" in told["db1-torn"]["trouble"]
    # a rejoin that was refused, and after which the server still follows nobody
    journal(web, "20261102T000000-abcdef", 1000.0, kind="rejoin", outcome="refused", text="db2 has 2 of its own")
    web.see(view(server(1), replica(2, sources=()), replica(3)))
    (aside,) = get("/clusters/shop/aside")
    assert (aside["server"], aside["told"]) == ("db2", "db2 has 2 of its own")


def test_settings_are_told_with_where_they_come_from_and_no_secret(web: Web, get: Any) -> None:
    lines = web.config.path.read_text().splitlines()
    told = {s["name"]: s for s in get("/clusters/shop/settings")}
    assert len(told) == len(get("/clusters/shop/settings")) > 40
    prefer = told["switchover.prefer"]
    assert (prefer["value"], prefer["origin"]) == (["db2"], "file")
    assert "prefer: [db2]" in lines[prefer["line"] - 1]
    assert (told["switchover.max_lag"]["value"], told["switchover.max_lag"]["origin"]) == (10.0, "default")
    assert told["servers.db3.address"]["origin"] == "file"  # the short form
    assert set(told["account.password"]["value"]) == {"file"}
    assert told["failover.confirm"]["origin"] == "default"
    assert told["lease.type"]["value"] == "local"
    bank = {s["name"]: s for s in get("/clusters/bank/settings")}
    assert (bank["failover.confirm"]["value"], bank["failover.confirm"]["origin"]) == (0.15, "profile")
    assert bank["failover.profile"]["origin"] == "file"
    web_ = {s["name"]: s for s in get("/settings")}
    assert (web_["web.listen"]["value"], web_["web.health"]["origin"]) == ("127.0.0.1:8480", "default")


def test_no_part_of_an_address_that_may_let_one_in_is_told(tmp_path: Path) -> None:
    shop = "    switchover: {{prefer: [db2]}}\n"
    etcd = "{{type: etcd, endpoints: ['https://root:hunter2@10.0.0.9:2379', 'https://[::1]:2379']}}"
    hook = "[{{type: script, run: [/bin/tell, 'to=https://hooks.example/T0/hunter2', 'https://h.example?t=hunter2']}}]"
    web = make_web(tmp_path, file=FILE.replace(shop, f"{shop}    lease: {etcd}\n    notices: {hook}\n"))
    client = web.client(Scope.READ)
    told = {s["name"]: s["value"] for s in client.get("/v1/clusters/shop/settings").json()}
    assert told["lease.endpoints"] == ["https://10.0.0.9/…", "https://[::1]:2379"]
    assert told["notices[0].run"] == ["/bin/tell", "to=https://hooks.example/…", "https://h.example/…"]
    client.post("/login", data={"token": web.token(Scope.READ, "ann")})
    del client.headers["Authorization"]
    page = client.get("/clusters/shop/settings", headers={"Accept": "text/html"}).text
    assert "https://10.0.0.9/…, https://[::1]:2379" in page
    assert "hunter2" not in page


@pytest.mark.parametrize("scope", [Scope.READ, Scope.OPERATE])
def test_what_clients_execute_is_told_to_those_who_operate(
    web: Web, monkeypatch: pytest.MonkeyPatch, scope: Scope
) -> None:
    client = replace(GOING.view.inspections["db1"].transactions[0], age_seconds=90.0)
    idle = replace(client, session=13, statement="")
    seen = replace(GOING.view, inspections={"db1": Inspection("db1", "proxyroute@%", transactions=(client, idle))})
    found = tuple(f for f in preflight(seen, PLAN) if f.code == "transaction.long")
    monkeypatch.setattr(web.hub, "plan_switchover", lambda *_: replace(GOING, view=seen, findings=found))
    told = web.client(scope).get("/v1/clusters/shop/plan/switchover")
    may = scope is Scope.OPERATE
    assert [o["statement"] for o in told.json()["offenders"]] == ([client.statement, ""] if may else [None, None])
    assert (client.statement in told.text) is may
    assert [f["text"].rpartition(", ")[2].partition(":")[0] for f in told.json()["findings"]] == ["3 rows modified"] * 2


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/clusters/nope", "path.cluster"),
        ("/clusters/shop/servers/db9", "path.server"),
        ("/clusters/shop/history/20261101T000000-abcdef", "path.operation"),
        ("/clusters/shop/history/20261101T000000-abcdef/records", "path.operation"),
        ("/operations/20261101T000000-abcdef", "path.operation"),
        ("/clusters/shop/history?limit=0", "query.limit"),
        ("/clusters/nope/settings", "path.cluster"),
        ("/events?cluster=nope", "query.cluster"),
        ("/events?view=true", "query.cluster"),
    ],
)
def test_what_there_is_not_is_said_where_and_what_there_is(web: Web, path: str, where: str) -> None:
    answer = web.client(Scope.ADMIN).get(f"/v1{path}")
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["where"] == where
    assert told["next"]
