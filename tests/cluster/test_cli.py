"""The command line on a whole site: real servers, a real HAProxy, the program as operators start it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxyroute.lease.local import LocalLease
from proxyroute.model import Deadline
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.mariadb import LocalCluster

FLAVOURS = ("mysql",)
RECORD = (
    "import os, sys; open(sys.argv[1], 'a').write(' '.join([os.environ['PROXYROUTE_MOMENT'], "
    "os.environ['PROXYROUTE_OLD_PRIMARY'], os.environ['PROXYROUTE_NEW_PRIMARY'], *sys.argv[3:]]) + '\\n'); "
    "sys.exit(int(sys.argv[2]))"
)


@pytest.fixture(scope="module")
def lab(servers: type[LocalCluster]) -> Iterator[Lab]:
    """One site for the tests that leave it in order; which server is the primary changes."""
    with Lab.start(3, provider=servers) as started:
        yield started


def primary(lab: Lab) -> str:
    found: str = lab.json("status")[1]["primary"]
    return found


def other(lab: Lab) -> str:
    return "db2" if primary(lab) != "db2" else "db1"


def state(lab: Lab) -> dict[str, Any]:
    """What a command that touches nothing must leave as it was."""
    servers = {node.name: (node.gtid(), node.is_writable(), node.source_port()) for node in lab.cluster}
    return {"servers": servers, "config": lab.haproxy_config.read_text(), "map": lab.runtime("show map")}


def test_commands_that_read_touch_nothing(lab: Lab) -> None:
    before = state(lab)
    for words in (["status"], ["check"], ["plan"], ["plan", "--to", other(lab)], ["render"], ["grants"], ["history"]):
        done = lab.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout
        assert "\x1b" not in done.stdout
        status, value = lab.json(*words)
        assert status == 0
        assert "error" not in value
    assert state(lab) == before


def test_the_plan_names_the_acts_of_every_step_and_predicts_the_blackout(lab: Lab) -> None:
    _, value = lab.json("plan")
    acts = [act for step in value["steps"] for act in step["acts"]]
    assert f"{primary(lab)}: FLUSH TABLES WITH READ LOCK" in acts
    assert 0 < value["predicted_seconds"] < 3
    assert value["go"]


def test_what_is_rendered_is_what_lies_there_after_publish(lab: Lab) -> None:
    assert lab.run("publish").returncode == 0
    _, rendered = lab.json("render")
    for file, text in rendered["edge1"].items():
        assert Path(file).read_text() == text, file


def test_without_a_terminal_a_switchover_needs_yes(lab: Lab) -> None:
    before = state(lab)
    done = lab.run("switchover")
    assert done.returncode == 3
    assert "proxyroute switchover --yes" in done.stderr
    assert state(lab) == before


def test_a_switchover_as_json_is_proven_recorded_and_shown(lab: Lab) -> None:
    old, new = primary(lab), other(lab)
    status, value = lab.json("switchover", "--to", new, "--yes")
    assert (status, value["verdict"], value["result"]["primary"]) == (0, "PROVEN", new)
    assert primary(lab) == new
    _, history = lab.json("history")
    latest = history["operations"][0]
    assert (latest["primary"], latest["candidate"], latest["outcome"]) == (old, new, "done")
    _, shown = lab.json("show", latest["operation"])
    assert [r["kind"] for r in shown["records"]].count("commit") == 1
    assert lab.run("heal").stdout == "nothing is open\n"
    assert "lab-" not in json.dumps(shown), "no password is in the journal"


def test_a_switchover_to_the_present_primary_changes_nothing(lab: Lab) -> None:
    before = state(lab)
    done = lab.run("switchover", "--yes", "--to", primary(lab))
    assert done.returncode == 0
    assert "is the primary already" in done.stdout
    assert state(lab) == before


def test_an_unknown_server_is_refused_with_the_names_there_are(lab: Lab) -> None:
    done = lab.run("switchover", "--yes", "--to", "db9")
    assert done.returncode == 3
    assert "name one of: db1, db2, db3" in done.stderr


def test_while_another_operation_holds_the_cluster_the_exit_code_is_6(lab: Lab) -> None:
    lease = LocalLease(lab.folder / "state" / CLUSTER_NAME)
    lease.acquire("a test", Deadline.after(5))
    try:
        done = lab.run("switchover", "--yes")
        assert done.returncode == 6
        assert "a test" in done.stderr
    finally:
        lease.release()


def test_on_a_terminal_the_operator_is_asked_and_sees_each_step(lab: Lab) -> None:
    new = other(lab)
    assert "Move the primary of" in on_terminal(lab, "n", "switchover", "--to", new)[1]
    assert primary(lab) != new
    status, text = on_terminal(lab, "y", "switchover", "--to", new)
    assert status == 0, text
    assert re.search(r"freeze +\d+(\.\d)? ms", text)
    assert "\x1b[K" in text, "the line of a running step is replaced"
    assert "PROVEN" in text
    assert primary(lab) == new


def on_terminal(lab: Lab, answer: str, *words: str) -> tuple[int, str]:
    """Runs a command with a terminal of its own and gives ``answer``; returns its status and what it wrote."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            lab.command(*words), stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}
        )
        os.close(theirs)
        text = b""
        answered = False
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            text += part
            if b"[y/N]" in text and not answered:
                os.write(ours, f"{answer}\n".encode())
                answered = True
        return process.wait(60), text.decode()
    finally:
        os.close(ours)


def scripts(folder: Path, down: int, up: int = 0) -> dict[str, Any]:
    file = str(folder / "moments")
    return {
        "scripts": {
            "arguments": "replication-manager",
            "address_down": [sys.executable, "-c", RECORD, file, str(down)],
            "address_up": [sys.executable, "-c", RECORD, file, str(up)],
        }
    }


def test_the_sites_scripts_run_in_their_moments(start_lab: Callable[..., Lab], tmp_path: Path) -> None:
    with start_lab(2, more=scripts(tmp_path, down=0)) as lab:
        assert lab.run("switchover", "--yes", check=True).returncode == 0
        ports = [str(lab.cluster.nodes[name].port) for name in ("db1", "db2")]
    seven = " ".join(["127.0.0.1", "127.0.0.1", *ports, "db1", "db2", "switchover"])
    assert (tmp_path / "moments").read_text().splitlines() == [
        f"address_down db1 db2 {seven}",
        f"address_up db1 db2 {seven}",
    ]


def test_a_failing_script_undoes_the_switchover_and_the_address_comes_back(
    start_lab: Callable[..., Lab], tmp_path: Path
) -> None:
    with start_lab(2, more=scripts(tmp_path, down=3)) as lab:
        done = lab.run("switchover", "--yes")
        assert done.returncode == 4, done.stdout + done.stderr
        assert "everything was undone, db1 takes writes" in done.stderr
        assert "exited with status 3" in done.stderr
        assert primary(lab) == "db1"
        assert lab.json("history")[1]["operations"][0]["outcome"] == "aborted"
    moments = [line.split()[:3] for line in (tmp_path / "moments").read_text().splitlines()]
    assert moments == [["address_down", "db1", "db2"], ["address_up", "db1", "db1"]]
