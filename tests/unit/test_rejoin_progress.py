"""How far a copy is, how quick it goes and how long it may take: told every few seconds, not at every piece."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxyroute import rejoin_data
from proxyroute.rejoin_data import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    told = SimpleNamespace(now=100.0)
    monkeypatch.setattr(rejoin_data.time, "monotonic", lambda: told.now)
    return told


def test_rate_and_time_left_are_told_every_few_seconds(clock: SimpleNamespace) -> None:
    notes: list[str] = []
    watch = Progress(cast(Any, SimpleNamespace(note=notes.append)), 40_000_000)
    for second in range(1, 13):
        clock.now = 100.0 + second
        watch(1_000_000 * second)
    assert notes == [
        "5.0 MB of about 40.0 MB, 1.0 MB/s, about 35 s left",
        "10.0 MB of about 40.0 MB, 1.0 MB/s, about 30 s left",
    ]
    assert watch.done == 12_000_000


def test_more_than_was_expected_is_never_a_negative_time(clock: SimpleNamespace) -> None:
    notes: list[str] = []
    watch = Progress(cast(Any, SimpleNamespace(note=notes.append)), 1000)
    clock.now = 106.0
    watch(3000)
    assert notes == ["3.0 kB of about 1.0 kB, 500 B/s, about 0 s left"]
