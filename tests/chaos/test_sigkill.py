"""SIGKILL at every journal record and around every act, under write load: the cluster is never left in the middle."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.swept import swept
from tests.chaos.world import EACH, assert_legal, await_closed, limits_of
from tests.conftest import provider_of
from tests.support.lab import Lab
from tests.support.load import Load, create_table, read_rows
from tests.support.scene import connect
from tests.support.verdict import judge

FLAVOURS = ("mysql", "mariadb-11.8")
GUARD_DIES = "guard/guard.take_over:before"
MISSED = "the engine never came there"
SETTINGS = {"freeze_budget": "3s", "settle": "20s"}


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, flavour: str) -> Iterator[Lab]:
    with Lab.start(3, policy=SETTINGS, provider=provider_of(flavour, request.config)) as lab:
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
        yield lab


def _points(lab: Lab, trace: Path) -> list[str]:
    """Returns every point an undisturbed switchover passes, each with its number."""
    with contextlib.closing(connect(lab.write)):  # somebody whose session has to be ended
        lab.run("switchover", "--yes", check=True, environment={"PROXYROUTE_FAULT_TRACE": str(trace)})
    return [line for line in trace.read_text().splitlines() if line.startswith("engine/")]


def _die_at(lab: Lab, fault: str, healer: str) -> str:
    """Kills the engine at ``fault`` and lets ``healer`` heal; returns what is wrong afterwards, or nothing.

    How often some acts happen depends on the moment (what a poll sees), so a late one may not come again: then the
    switchover ends undisturbed.
    """
    wanted = fault if healer == "guard" else f"{fault},{GUARD_DIES}"
    done = lab.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": wanted})
    if done.returncode == 0 and not fault.endswith(":1"):
        return MISSED
    if done.returncode != -signal.SIGKILL:
        return (
            f"the engine did not die there but ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}"
        )
    await_closed(lab)
    if healer == "heal":
        healed = lab.run("heal")
        if healed.returncode not in (0, 7):
            return f"heal ended with {healed.returncode}: {healed.stdout[-500:]}{healed.stderr[-500:]}"
    return ""


def _sweep(lab: Lab, faults: list[tuple[str, str]]) -> None:
    create_table(lab.cluster.primary)  # rows of an earlier sweep on this site would refuse the writers' numbers
    lab.cluster.await_synced()
    limits = limits_of(lab)
    wrong: list[str] = []
    missed: list[str] = []
    with (
        Load.start(lab.write, writers=2, rate=25, mode="pooled") as pooled,
        Load.start(lab.write, writers=2, rate=25, mode="fresh", first=100) as fresh,
    ):
        for fault, healer in faults:
            trouble = _die_at(lab, fault, healer)
            try:
                assert_legal(lab, limits)
                pooled.await_more(5)
                fresh.await_more(5)
            except Exception as error:  # noqa: BLE001 - collected, so that one run shows every point that is wrong
                trouble = f"{trouble.replace(MISSED, '')} {error}"
            if trouble == MISSED:
                missed.append(fault)
            elif trouble:
                wrong.append(f"{fault}, healed by {healer}: {trouble}")
                lab.run("heal")
        records = pooled.stop() + fresh.stop()
    lab.cluster.await_synced()
    verdict = judge(records, read_rows(lab.cluster), lab.cluster.primary.name)
    assert not wrong, "\n".join(wrong)
    assert len(set(missed)) <= 1 + len(faults) // 20, f"never reached: {missed}"
    assert not verdict.lost, verdict
    assert not verdict.unexplained, verdict
    assert not verdict.diverged, verdict


@pytest.mark.timeout(900)
@pytest.mark.parametrize("step", EACH)
def test_killed_around_acts_and_after_records(lab: Lab, tmp_path: Path, step: int) -> None:
    points = _points(lab, tmp_path / "trace")
    swept("switchover", points)
    assert any(p.startswith("engine/journal") for p in points)
    _sweep(lab, [(point, ("guard", "heal")[number % 2]) for number, point in enumerate(points[::step])])


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_killed_everywhere_and_healed_the_other_way(lab: Lab, tmp_path: Path) -> None:
    points = _points(lab, tmp_path / "trace")
    swept("switchover", points)
    _sweep(lab, [(point, ("heal", "guard")[number % 2]) for number, point in enumerate(points)])
