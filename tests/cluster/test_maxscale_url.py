"""``PROXYROUTE_MAXSCALE_URL``: what runs on somebody else's MaxScale is tried on a double in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.load import ROOT_FOLDER
from tests.support.maxscale.real import URL_VARIABLE, ask


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a double that runs beside us, and that nobody here can look into."""
    argv = [sys.executable, "-m", "tests.support.maxscale"]
    with subprocess.Popen(argv, cwd=ROOT_FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        try:
            yield running.stdout.readline().strip()
        finally:
            running.stdin.close()
            running.wait(20)


def objects(url: str) -> list[str]:
    return [item["id"] for kind in ("servers", "services", "listeners") for item in ask(url, "GET", kind)["data"]]


def ran(url: str, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT_FOLDER), URL_VARIABLE: url}
    return subprocess.run(argv, cwd=ROOT_FOLDER, env=environment, capture_output=True, text=True, timeout=300)


def test_the_contract_of_every_adapter_runs_there_and_leaves_nothing(url: str) -> None:
    file = "tests/contract/test_every_adapter.py"
    done = ran(url, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "maxscale-real", file)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "skipped" not in done.stdout
    assert " passed" in done.stdout
    assert objects(url) == []


def test_scenarios_with_real_servers_run_there_and_leave_nothing(url: str) -> None:
    file = "tests/cluster/test_scenarios_maxscale_apart.py"
    done = ran(url, sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", "real", file)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "skipped" not in done.stdout
    assert " passed" in done.stdout
    assert objects(url) == []


def test_the_bench_measures_there_and_leaves_nothing(url: str) -> None:
    argv = ("--proxy", "maxscale", "--count", "2", "--writers", "2", "--rate", "20", "--json")
    done = ran(url, "scripts/bench", "switchover", *argv)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "double" not in done.stdout.splitlines()[0], "it is somebody else's, whatever it is"
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (value["double"], value["repeated"]) == (False, None)
    assert (value["lost"], value["unexplained"], value["ambiguous"]) == (0, 0, 0)
    assert value["errors"] == {}
    assert objects(url) == []


def test_where_none_is_named_the_bench_says_that_it_measures_on_the_double() -> None:
    argv = ("--proxy", "maxscale", "--count", "2", "--writers", "2", "--rate", "20", "--json")
    done = ran("", "scripts/bench", "switchover", *argv)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "this is the test double" in done.stdout.splitlines()[0]
    assert "not a MaxScale's" in done.stdout.splitlines()[1]
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert value["double"]
    assert (value["lost"], value["unexplained"], value["ambiguous"], value["errors"]) == (0, 0, 0, {})
