"""The units for systemd: understood by it as they are, and hardened by its own judgement."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxyroute.charge import STUCK
from proxyroute.service import END

FOLDER = Path(__file__).parents[2] / "scripts" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
MOST_EXPOSED = 20
"""Tenths of what ``systemd-analyze security`` may find; it calls up to 2.0 OK, an unhardened service has 9.6."""


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed: nobody says whether systemd understands the units")
    return subprocess.run([found, *words], capture_output=True, text=True, timeout=60)


def settings(unit: Path) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return parser["Service"]


def test_there_is_one_for_the_engine_and_one_for_the_agent() -> None:
    assert [unit.name for unit in UNITS] == ["proxyroute-agent.service", "proxyroute.service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_it(unit: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("proxyroute")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/proxyroute/bin/proxyroute", str(program)))
    assert str(program) in copy.read_text()
    done = analyze("verify", "--man=no", str(copy))
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, []), done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_it_hardened(unit: Path) -> None:
    done = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", str(unit))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_it_tells_systemd_how_it_is_and_its_times_fit_the_code(unit: Path) -> None:
    told = settings(unit)
    assert told["Type"] == "notify"
    assert int(told["WatchdogSec"]) >= 30
    assert "LoadCredential" in told
    assert "ProcSubset" not in told, "it hides /proc/sys and /proc/net: no failover could be shown to be lossless"
    if unit.stem == "proxyroute-agent":
        assert "AF_NETLINK" in told["RestrictAddressFamilies"].split()
    if unit.stem == "proxyroute":
        assert told["ExecReload"] == "/bin/kill -HUP $MAINPID"
        assert told["KillMode"] == "process", "a guard must outlive its engine"
        # commands and keepers, the last notices, the web's connections
        assert int(told["TimeoutStopSec"]) >= END + 15 > STUCK
