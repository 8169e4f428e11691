"""What makes ``scripts/bench failover`` end with 1: a broken promise, a missed target, a soak that proves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import bench_failover, bench_soak
from tests.support.bench_failover import TARGETS, Books, Round, main
from tests.support.verdict import Verdict

LOST = frozenset({("a writer", 1)})
SOAK = {
    "profile": "default", "minutes": 0.1, "disturbances": {"starve": 1}, "with_latencies": True, "false_failovers": 0,
    "diagnoses": {}, "acknowledged": 100, "lost": 0, "errors": {}, "longest_gap_s": 0.1,
}  # fmt: skip


def books(profile: str, fault: str, seconds: float, *, semi_sync: bool = False, **verdict: Any) -> Books:
    one = Round(profile, fault, "db1", "db2", seconds, (seconds, 0.0, 0.0, 0.0), 1.0, True, (0.0, seconds))
    return Books((one,), Verdict(acknowledged=100, **verdict), semi_sync)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Books]:
    """What the next benches come to, one after the other."""
    found: list[Books] = []
    monkeypatch.setattr(bench_failover, "measure", lambda *_, **__: found.pop(0))
    return found


@pytest.mark.parametrize(("profile", "fault"), TARGETS)
@pytest.mark.parametrize(("over", "code"), [(-0.1, 0), (0.0, 0), (0.1, 1)])
def test_a_median_above_its_target_is_a_failure(
    measured: list[Books], profile: str, fault: str, over: float, code: int
) -> None:
    measured.append(books(profile, fault, TARGETS[profile, fault] + over))
    assert main(["--profile", profile, "--fault", fault, "--count", "1"]) == code


def test_where_there_is_no_target_none_is_missed(measured: list[Books]) -> None:
    assert ("aggressive", "hang") not in TARGETS
    measured.append(books("aggressive", "hang", 40.0))
    assert main(["--profile", "aggressive", "--fault", "hang"]) == 0


def test_one_bad_profile_of_two_is_enough(measured: list[Books]) -> None:
    measured += [books("default", "kill", 9.0), books("aggressive", "kill", 0.5)]
    assert main(["--fault", "kill"]) == 1


@pytest.mark.parametrize(
    ("semi_sync", "verdict", "code"),
    [
        (True, {"lost": LOST}, 1),
        (False, {"lost": LOST}, 0),
        (False, {"unexplained": LOST}, 1),
        (False, {"diverged": LOST}, 1),
        (True, {"ambiguous": LOST}, 0),
    ],
)
def test_what_became_of_the_writes(measured: list[Books], semi_sync: bool, verdict: dict[str, Any], code: int) -> None:
    measured.append(books("default", "kill", 1.0, semi_sync=semi_sync, **verdict))
    assert main(["--profile", "default", "--fault", "kill"]) == code


@pytest.mark.parametrize(
    ("change", "code"),
    [({}, 0), ({"false_failovers": 1}, 1), ({"lost": 1}, 1), ({"with_latencies": False}, 1)],
    ids=["calm", "a false failover", "a loss", "without latencies"],
)
def test_a_soak_proves_something_only_with_every_disturbance(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], code: int
) -> None:
    monkeypatch.setattr(bench_soak, "soak", lambda *_, **__: {**SOAK, **change})
    assert main(["--soak", "0.1", "--profile", "default"]) == code
