"""The site's scripts: what they are told, and that their answer counts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from proxyroute.errors import ScriptFailed
from proxyroute.hooks import Scripts
from proxyroute.ports import Hooks

TOLD = {
    "PROXYROUTE_KIND": "switchover",
    "PROXYROUTE_OPERATION": "20261123T031500-4f2a9c",
    "PROXYROUTE_CLUSTER": "shop",
    "PROXYROUTE_OLD_PRIMARY": "db1",
    "PROXYROUTE_OLD_PRIMARY_HOST": "10.0.0.1",
    "PROXYROUTE_OLD_PRIMARY_PORT": "3306",
    "PROXYROUTE_NEW_PRIMARY": "db2",
    "PROXYROUTE_NEW_PRIMARY_HOST": "fd00::2",
    "PROXYROUTE_NEW_PRIMARY_PORT": "3307",
}

REPORT = """
import json, os, sys
with open(sys.argv[1], "w") as file:
    json.dump({"argv": sys.argv[2:], "env": dict(os.environ)}, file)
"""


def reporting(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-c", REPORT, str(folder / "report.json"), *more]


def report(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "report.json").read_text())
    return found


def test_a_script_is_told_the_operation_and_the_moment_by_its_environment(tmp_path: Path) -> None:
    hooks: Hooks = Scripts({"address_down": reporting(tmp_path, "down")}, timeout=20.0)
    hooks.run("address_down", TOLD)
    seen = report(tmp_path)
    env = seen["env"]
    assert isinstance(env, dict)
    ours = {k: v for k, v in env.items() if k.startswith("PROXYROUTE_")}
    assert ours == {**TOLD, "PROXYROUTE_MOMENT": "address_down"}
    assert seen["argv"] == ["down"]


def test_replication_managers_seven_arguments_are_appended_in_its_order(tmp_path: Path) -> None:
    hooks = Scripts({"address_up": reporting(tmp_path)}, timeout=20.0, arguments="replication-manager")
    hooks.run("address_up", TOLD)
    assert report(tmp_path)["argv"] == ["10.0.0.1", "fd00::2", "3306", "3307", "db1", "db2", "switchover"]


def test_our_own_secrets_do_not_reach_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPL_PASSWORD", "s3cret")
    Scripts({"address_up": reporting(tmp_path)}, timeout=20.0).run("address_up", TOLD)
    assert "s3cret" not in (tmp_path / "report.json").read_text()


def test_a_moment_without_a_script_does_nothing() -> None:
    hooks = Scripts({}, timeout=1.0)
    assert hooks.configured("address_up") == ()
    assert hooks.seconds("address_up") == 0.0
    hooks.run("address_up", TOLD)


def test_a_failing_script_is_a_failure_and_says_what_it_said() -> None:
    hooks = Scripts({"address_down": ["/bin/sh", "-c", "echo no such device >&2; exit 3"]}, timeout=20.0)
    with pytest.raises(ScriptFailed, match=r"status 3.*no such device"):
        hooks.run("address_down", TOLD)


def test_a_script_is_ended_at_its_time_out() -> None:
    hooks = Scripts({"address_down": ["/bin/sleep", "600"]}, timeout=0.05)
    with pytest.raises(ScriptFailed, match="did not end in time"):
        hooks.run("address_down", TOLD)


def test_arguments_are_never_read_by_a_shell(tmp_path: Path) -> None:
    Scripts({"address_up": reporting(tmp_path, "$(id); rm -rf x")}, timeout=20.0).run("address_up", TOLD)
    assert report(tmp_path)["argv"] == ["$(id); rm -rf x"]
