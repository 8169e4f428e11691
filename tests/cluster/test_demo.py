"""The two commands of the first screen, run as a newcomer would run them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import demo
from tests.support.demo_report import Killed
from tests.support.hosts import ProxyHost
from tests.support.lab import Lab, end_all, processes_of
from tests.support.load import ROOT_FOLDER, Load, now
from tests.support.supervisor import Service
from tests.support.wait import until

DEMO = ROOT_FOLDER / "scripts" / "demo"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which no demo that somebody keeps running is in the way."""
    return {**os.environ, "PROXYROUTE_DEMO_STATE": str(tmp_path / "kept" / "state.json")}


@pytest.fixture
def site() -> Iterator[Lab]:
    with Lab.start(3, hosts=2) as started:
        yield started


def folder_in(output: str) -> Path:
    found = re.search(r"^up in .* in (/\S+)$", output, re.MULTILINE)
    assert found, f"the demo does not say where it is:\n{output}"
    return Path(found[1])


def assert_nothing_left(folder: Path) -> None:
    assert processes_of(folder) == []
    assert not folder.exists()


def test_the_demo_moves_the_primary_without_loss_and_leaves_nothing_running(environment: dict[str, str]) -> None:
    done = subprocess.run([DEMO, "--json"], capture_output=True, text=True, env=environment, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["ok"] is True
    assert report["switchover_exit"] == 0
    assert report["old_primary"] == "db1"
    assert report["new_primary"] in ("db2", "db3")
    assert report["acknowledged"] > 2 * demo.STEADY_WRITES
    assert (report["lost"], report["ambiguous"], report["double_primary"]) == (0, 0, 0)
    assert (report["fresh_errors"], report["refused_new"]) == (0, 0)
    assert report["errors_per_session"] <= 1
    assert set(report["sessions"]["servers"]) == {"db1", "db2", "db3"}
    assert {name for name, count in report["sessions"]["servers"].items() if count} == {report["new_primary"]}
    assert "freeze" in done.stdout, "the steps of the switchover are shown"
    agent, haproxy = report["killed"]
    assert (agent["what"], agent["host"], agent["errors"]) == ("agent", "edge1", {})
    assert (haproxy["what"], haproxy["host"]) == ("HAProxy", "edge2")
    assert sum(haproxy["errors"].values()) > 0, "its sessions have ended"
    assert [(h["host"], h["phase"], h["state"], h["route"]) for h in report["hosts"]] == [
        (name, "settle", "done", report["new_primary"]) for name in ("edge1", "edge2")
    ]
    assert report["hosts"][1]["pid"] not in (0, haproxy["pid"]), "the receipt is of the HAProxy that runs now"
    assert_nothing_left(folder_in(done.stdout))


def test_a_demo_that_is_kept_can_be_talked_to_and_is_ended_by_down(environment: dict[str, str]) -> None:
    kept = subprocess.run([DEMO, "--keep"], capture_output=True, text=True, env=environment)
    folder = folder_in(kept.stdout)
    try:
        assert kept.returncode == 0, kept.stdout + kept.stderr
        command = re.search(r"^  (\S*proxyroute --config \S+) status$", kept.stdout, re.MULTILINE)
        assert command, kept.stdout
        status = subprocess.run(
            [*command[1].split(), "status", "--json"], capture_output=True, text=True, env=environment
        )
        assert json.loads(status.stdout)["level"] == "good"
        again = subprocess.run([DEMO, "--keep"], capture_output=True, text=True, env=environment)
        assert again.returncode == 2
        assert "--down" in again.stderr
        down = subprocess.run([DEMO, "--down"], capture_output=True, text=True, env=environment)
        assert down.returncode == 0, down.stdout + down.stderr
        assert_nothing_left(folder)
    finally:
        end_all(folder)
    nothing = subprocess.run([DEMO, "--down"], capture_output=True, text=True, env=environment)
    assert (nothing.returncode, nothing.stdout) == (0, "No demo is left running.\n")


@pytest.mark.parametrize("moment", ["up in", "$ proxyroute"], ids=["while it starts", "during the switchover"])
def test_ctrl_c_takes_everything_down(environment: dict[str, str], moment: str) -> None:
    with subprocess.Popen(
        # whoever runs the tests in the background has SIGINT ignored, and so would the demo have it
        ["env", "--default-signal=INT", DEMO],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        seen = ""
        for line in child.stdout:
            seen += line
            if line.startswith(moment):
                break
        os.killpg(child.pid, signal.SIGINT)  # a terminal tells the whole group
        seen += child.stdout.read()
    assert child.returncode == 130, seen
    assert_nothing_left(folder_in(seen))


def test_the_report_is_not_well_when_the_primary_did_not_move(site: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "run_switchover", lambda lab: 0)
    report = demo.perform(site)
    assert not report.ok
    assert (report.old_primary, report.new_primary) == ("db1", "db1")


def test_the_report_is_not_well_when_a_row_is_lost(site: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    real = demo.run_switchover

    def lossy(lab: Lab) -> int:
        status = real(lab)
        lab.cluster.primary.sql("DELETE FROM app.load_rows WHERE writer=0 AND n=1")
        return status

    monkeypatch.setattr(demo, "run_switchover", lossy)
    report = demo.perform(site)
    assert not report.ok
    assert report.whole.lost == {(0, 1)}


def test_the_report_is_not_well_when_a_session_stays_behind(site: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "proxied", lambda: {"db1": 1, "db2": 7})
    report = demo.perform(site)
    assert report.switchover_exit == 0
    assert not report.ok


def test_the_report_is_not_well_when_a_killed_agent_costs_its_clients_something(
    site: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = demo.kill_agent

    def with_a_session(host: ProxyHost, service: Service, load: Load) -> Killed:
        killed = real(host, service, load)
        host.haproxy.ask(f"shutdown sessions server demo_write_{demo_primary}/{demo_primary}")
        load.await_more()
        return replace(killed, window=(killed.window[0], now()))

    demo_primary = site.cluster.primary.name
    monkeypatch.setattr(demo, "kill_agent", with_a_session)
    report = demo.perform(site)
    assert not report.ok
    assert report.costs[0].errors


@pytest.mark.parametrize("script", ["setup", "demo", "lab", "test", "check", "bench"])
def test_every_script_explains_itself(script: str) -> None:
    done = subprocess.run([ROOT_FOLDER / "scripts" / script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert f"Usage: scripts/{script}" in done.stdout


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match="in vain for the moon"):
        until(lambda: False, "the moon", seconds=0.01)
