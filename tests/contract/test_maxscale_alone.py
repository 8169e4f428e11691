"""The double of a MaxScale stands alone: it was derived from recordings, and reads none of them while it runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.load import ROOT_FOLDER
from tests.support.maxscale.versions import VERSIONS

_NOTED = """
import os, sys

opened = []
looks = ("open", "os.listdir", "os.scandir")
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event in looks else None)
"""
_RUN = """
from tests.support.maxscale.double import Double
from tests.support.maxscale.real import ask
from proxyroute.model import Address

PATHS = "maxscale servers servers/server1 monitors services services/RW sessions maxscale/modules/mariadbmon"
servers = {f"server{n}": Address("127.0.0.1", 21000 + n) for n in (1, 2, 3)}
for monitor in (True, False):
    with Double(servers, version=VERSION, monitor=monitor, look_seconds=0.0).start() as double:
        url = double.login_url
        for path in PATHS.split():
            ask(url, "GET", path)
        ask(url, "PUT", "servers/server3/set?state=drain")
        ask(url, "POST", "servers", {"data": {"id": "more", "type": "servers", "attributes": {"parameters":
            {"address": "127.0.0.1", "port": 9}}}})
        if monitor:
            ask(url, "PUT", "monitors/Mon/stop")
            ask(url, "PUT", "monitors/Mon/start")
            ask(url, "POST", "maxscale/modules/mariadbmon/async-switchover?Mon&server2")
        double.restart()
        ask(url, "GET", "servers")
"""
_TOLD = """
code = (".py", ".pyc", ".so")
print("\\n".join(sorted({p for p in opened if p.startswith(os.getcwd() + "/tests") and not p.endswith(code)
                        and not os.path.isdir(p)})))
"""


def read_by(program: str) -> list[str]:
    """Returns the files below our tests, programs aside, that a Python of its own opens while it runs ``program``."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", _NOTED + program + _TOLD],
        cwd=ROOT_FOLDER, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("version", VERSIONS)
def test_it_reads_no_recording_while_it_runs(version: str) -> None:
    assert read_by(_RUN.replace("VERSION", repr(version))) == []


def test_whoever_reads_one_is_noticed() -> None:
    file = ROOT_FOLDER / "tests" / "recordings" / "maxscale" / "24.02.3.jsonl"
    assert read_by(f"open({str(file)!r}).readline()") == [str(file)]
