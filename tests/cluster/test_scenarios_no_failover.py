"""No failover: nobody can tell that the primary is gone, nobody may take over, or people have ordered a pause."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.death import await_back, no_failover
from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.scene import assert_order, beat, engine
from tests.support.serving import serving
from tests.support.wait import until

FLAVOURS = ("mysql",)
SITE = {
    "n": 3,
    "more": {
        "serve": {"period": "200ms", "proxies_period": "400ms"},
        "failover": {
            "mode": "automatic", "single_engine": True, "policy": "most_advanced", "quiet_period": "0s", "per_day": 100,
        },
    },
    "policy": {"prove": "3s", "settle": "10s"},
}  # fmt: skip


def replicas(site: Lab) -> list[Node]:
    return [node for node in site.cluster if node is not site.cluster.primary]


def obeyed(site: Lab, *words: str) -> None:
    done = site.run(*words)
    assert done.returncode == 0, done.stdout + done.stderr


def stop(site: Lab, node: Node) -> None:
    node.sql("STOP SLAVE")


def aside(site: Lab, node: Node) -> None:
    obeyed(site, "maintenance", node.name, "on", "--why", "new disks")


def started(site: Lab, node: Node) -> None:
    node.sql("START SLAVE")


def not_aside(site: Lab, node: Node) -> None:
    obeyed(site, "maintenance", node.name, "off")


def _readers(site: Lab) -> set[str]:
    with engine(site) as reading:
        (proxy,) = reading.observe()
        return set() if proxy.drift else set(proxy.readers)


@pytest.mark.parametrize(
    ("out", "back", "reason"),
    [(stop, started, "its receiver was stopped by somebody"), (aside, not_aside, "is in maintenance")],
    ids=["stopped", "in maintenance"],
)
def test_with_every_replica_stopped_or_in_maintenance_nobody_takes_over_and_the_reason_is_shown(
    site: Lab, out: object, back: object, reason: str
) -> None:
    assert callable(out)
    assert callable(back)
    old, others = site.cluster.primary, replicas(site)
    for node in others:
        out(site, node)
    beforehand = {f["code"] for f in site.json("status")[1]["blocks_failover"]}
    assert "failover.diagnosis" in beforehand, "told in quiet times already"
    with serving(site) as served:
        served.await_told("state")
        old.kill9()
        assert reason in served.await_told("diagnosis", "DeadPrimaryUnwitnessed", 60)
        refused = no_failover(site)
        assert "failover.diagnosis" in {f["code"] for f in refused.findings}
        assert reason in str(refused.findings)
        assert site.cluster.writable == ()
        assert served.texts("acted") == []
        old.start()  # before the replicas are back: they would bear witness that it is gone
        until(old.is_writable, "serve to open the primary that has come back", 60)
        for node in others:
            back(site, node)
        for node in others:
            until(node.replicates, f"{node.name} to follow", 60)
        until(lambda: _readers(site) == {node.name for node in others}, "the read pool to have both again", 60)
    assert_order(site, old.name)


def test_a_pause_stops_the_failover_until_resume_and_a_server_in_maintenance_does_not_rejoin(site: Lab) -> None:
    old = site.cluster.primary
    with serving(site) as served:
        served.await_told("state")
        obeyed(site, "pause", "--why", "the network is worked at")
        served.await_told("orders", "paused")
        assert "failover.paused" in {f["code"] for f in site.json("status")[1]["blocks_failover"]}
        old.kill9()
        served.await_told("diagnosis", "DeadPrimary", 60)
        value = site.json("plan", "--failover")[1]
        assert "failover.paused" in {f["code"] for f in value["blocks_automatic"]}
        assert value["go"], "a person may"
        served.await_told("state", "no server takes writes")  # told after the moment to act has passed
        assert site.cluster.writable == ()
        assert served.texts("acted") == []
        obeyed(site, "resume")
        served.await_told("acted", "failover", 60)
        obeyed(site, "maintenance", old.name, "on")
        served.await_told("orders", f"{old.name} is in maintenance")
        old.start()
        seen = f"{old.name} is back"
        until(lambda: old.name in [s["name"] for s in site.json("status")[1]["servers"] if "executed" in s], seen, 60)
        beat(site)
        assert not old.replicates()
        assert old.name not in " ".join(served.texts("acted")[1:])
        obeyed(site, "maintenance", old.name, "off")
        served.await_told("acted", f"{old.name} follows", 60)
        await_back(site, old)
    assert_order(site)


def test_what_a_failover_is_told_to_have_cost_is_what_was_seen(site: Lab) -> None:
    old = site.cluster.primary
    with serving(site) as served:
        served.await_told("state")
        old.kill9()
        told = served.await_told("acted", "failover", 60)
        last = site.json("history")[1]["operations"][0]
        assert (last["kind"], last["blackout_from"]) == ("failover", "seen"), told
        assert last["blackout_seconds"] > 1.0, "it was silent for `confirm` before the first step"
        old.start()
        await_back(site, old)
    assert_order(site)


def test_without_a_replica_that_writes_a_binary_log_nobody_takes_over_and_the_reason_is_shown(
    start_lab: Callable[..., Lab],
) -> None:
    rest = {k: v for k, v in SITE.items() if k != "n"}
    with start_lab(2, **rest, node_options={"db2": {"skip_log_bin": None}}) as lab:
        told = {f["code"]: f["text"] for f in lab.json("status")[1]["blocks_failover"]}
        assert "db2 writes no binary log" in told["failover.candidate"]
        with serving(lab) as served:
            served.await_told("state")
            lab.cluster.primary.kill9()
            assert "writes no binary log" in served.await_told("blocked", "", 60)
            assert lab.cluster.writable == ()
            assert "writes no binary log" in str(no_failover(lab).findings)
