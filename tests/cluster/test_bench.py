"""The benches of ``scripts/bench``, run for a moment: what they print, and that they end. No figure is judged here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxyroute.haproxy.share import KEPT_RELEASES
from tests.support.bench import BARS
from tests.support.load import ROOT_FOLDER

FLAVOURS = ("mysql",)
FIGURES = {"min", "median", "p95", "max"}


def bench(*arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Runs scripts/bench to its end; returns exit status, all it has printed, and the object in its last line."""
    argv = [ROOT_FOLDER / "scripts" / "bench", *arguments, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, done.stdout, result


@pytest.mark.parametrize("transport", [pytest.param("haproxy", marks=pytest.mark.full), "agents"])
def test_a_switchover_has_the_same_figures_and_bars_on_every_flavour(flavour: str, transport: str) -> None:
    words = ("--count", "2", "--writers", "2", "--rate", "20", "--transport", transport)
    status, said, result = bench("switchover", *words, f"--flavour={flavour}")
    assert result["transport"] == transport
    assert set(result) >= {"ratio_median", "above_floor_median_ms", *BARS}
    assert set(result["blackout_ms"]) == set(result["floor_ms"]) == FIGURES
    held = result["bars_held"]
    told = said.partition("Bars, the same on every flavour\n")[2].splitlines()
    assert set(held) == {"above_floor_median_ms", "above_floor_p95_ms", *BARS}
    for line, is_held in zip(told, held.values(), strict=False):
        assert line.endswith(f"at most: {'held' if is_held else 'NOT HELD'}")
    assert status == (0 if all(held.values()) else 1)
    # how long it took is no test's business: others run beside it
    assert all(is_held for name, is_held in held.items() if name in BARS), said


@pytest.mark.whatever_servers("no database server runs")
def test_the_one_of_the_agent_measures_both_ways_on_a_folder_and_leaves_nothing_there(tmp_path: Path) -> None:
    words = ("--folder", str(tmp_path), "--count", "25", "--rounds", "2", "--idle", "0.5")
    status, said, result = bench("agent", *words)
    assert status == 0, said
    assert "looks again" in result["ways"]["polling"]["watch"]
    for way in result["ways"].values():
        assert set(way["applied_ms"]) == set(way["unprepared_ms"]) == FIGURES
        assert way["idle_cpu_percent"] >= 0
    assert result["in_a_row"]["releases_kept"] <= KEPT_RELEASES + 1
    assert list(tmp_path.iterdir()) == []
