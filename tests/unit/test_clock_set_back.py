"""Which operation was the last is told by their epochs: a clock may be set back, and those of two hosts differ."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from proxyroute.decided import Plan
from proxyroute.history import Ledger, waiting_for_heal
from proxyroute.journal import Journal
from proxyroute.model import Epoch
from proxyroute.operation import Operation
from tests.support.fakeworld import FakeLease

EARLIER, LATER = "20261129T130000-aaaaaa", "20261129T120500-bbbbbb"
"""By their names the later one was before the other."""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ended(tmp_path, EARLIER, Epoch(7, 1), "db1", "db2")
    ended(tmp_path, LATER, Epoch(8, 1), "db2", "db1", leftover="db3")
    return Ledger(tmp_path)


def ended(folder: Path, operation: str, epoch: Epoch, primary: str, candidate: str, leftover: str = "") -> None:
    """Puts a switchover on record that is done."""
    plan = Plan("shop", primary, candidate, ("db3",))
    with contextlib.closing(Journal(folder / f"{operation}.jsonl")) as journal:
        op = Operation.create(journal, FakeLease([]), operation, "switchover", epoch, plan)
        if leftover:
            op.leftover("follow", leftover, "it is away")
        op.end("done", "")


def test_the_last_one_is_the_one_with_the_highest_epoch(ledger: Ledger) -> None:
    assert [s.operation for s in ledger.summaries()] == [EARLIER, LATER]
    last = ledger.last_acted()
    assert last is not None
    assert (last.operation, last.ended_with) == (LATER, "db1")
    assert ledger.highest() == Epoch(8, 1)


def test_what_the_last_one_left_to_do_waits_for_heal(ledger: Ledger) -> None:
    assert [s.operation for s in waiting_for_heal(ledger.summaries())] == [LATER]
