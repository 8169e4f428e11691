"""The judge of the load must be able to find against us: each count is shown to rise when it should."""

from __future__ import annotations

import pytest

from tests.support.load import Failure, Records, Write
from tests.support.verdict import blackout, judge

OLD, NEW = 1, 2


def write(n: int, sent: float, acknowledged: float | None = None, writer: int = 0) -> Write:
    return Write(writer, n, sent, sent + 0.001 if acknowledged is None else acknowledged)


def failure(n: int, at: float, phase: str = "statement", errno: int = 2013, writer: int = 0) -> Failure:
    return Failure(writer, n, at, at + 0.01, phase, errno, "")


CLEAN = Records(acknowledged=(write(1, 1.0), write(2, 2.0), write(4, 4.0)), failed=(failure(3, 3.0),))
ROWS = {(0, 1): OLD, (0, 2): OLD, (0, 4): NEW}
WINDOW = (0.0, 10.0)


def test_a_clean_run_has_errors_and_nothing_else_against_it() -> None:
    verdict = judge(CLEAN, {"db1": ROWS, "db2": ROWS}, "db2", [WINDOW])
    assert verdict.clean
    assert verdict.acknowledged == 3
    assert verdict.errors == {"statement 2013": 1}
    assert verdict.errors_per_session == 1
    assert verdict.refused == 0


def test_an_acknowledged_row_that_the_primary_lacks_is_lost_even_if_the_old_primary_has_it() -> None:
    new = {row: server for row, server in ROWS.items() if row != (0, 2)}
    verdict = judge(CLEAN, {"db1": ROWS, "db2": new}, "db2", [WINDOW])
    assert verdict.lost == {(0, 2)}
    assert not verdict.clean


def test_a_row_whose_write_errored_and_which_exists_is_ambiguous() -> None:
    rows = {**ROWS, (0, 3): OLD}
    verdict = judge(CLEAN, {"db1": rows, "db2": rows}, "db2", [WINDOW])
    assert verdict.ambiguous == {(0, 3)}
    assert not verdict.clean


def test_a_row_that_errored_while_connecting_cannot_exist_and_is_unexplained_if_it_does() -> None:
    records = Records(CLEAN.acknowledged, (failure(3, 3.0, phase="connect", errno=2003),))
    rows = {**ROWS, (0, 3): OLD}
    verdict = judge(records, {"db1": rows, "db2": rows}, "db2", [WINDOW])
    assert verdict.unexplained == {(0, 3)}
    assert verdict.refused == 1
    assert not verdict.clean


def test_a_row_nobody_wrote_is_unexplained() -> None:
    rows = {**ROWS, (7, 7): OLD}
    verdict = judge(CLEAN, {"db1": rows, "db2": rows}, "db2", [WINDOW])
    assert verdict.unexplained == {(7, 7)}


def test_a_row_on_one_server_only_is_a_double_primary_write() -> None:
    verdict = judge(CLEAN, {"db1": {**ROWS, (0, 3): OLD}, "db2": ROWS}, "db2", [WINDOW])
    assert verdict.diverged == {(0, 3)}
    assert verdict.double_primary == 1
    assert not verdict.clean


def test_a_row_that_two_servers_took_with_different_origin_is_a_double_primary_write() -> None:
    verdict = judge(CLEAN, {"db1": {**ROWS, (0, 4): OLD}, "db2": ROWS}, "db2", [WINDOW])
    assert verdict.diverged == {(0, 4)}


def test_a_write_begun_after_the_new_primary_had_answered_and_taken_by_the_old_one_overlaps() -> None:
    records = Records(acknowledged=(*CLEAN.acknowledged, write(5, 4.5), write(6, 5.0)))
    rows = {**ROWS, (0, 5): OLD, (0, 6): NEW}
    verdict = judge(records, {"db1": rows, "db2": rows}, "db2", [WINDOW])
    assert verdict.overlapping == {(0, 5)}
    assert verdict.double_primary == 1


def test_a_late_acknowledgement_from_the_old_primary_is_no_overlap() -> None:
    records = Records(acknowledged=(*CLEAN.acknowledged, write(5, 3.5, 4.5, writer=1)))
    rows = {**ROWS, (1, 5): OLD}
    verdict = judge(records, {"db1": rows, "db2": rows}, "db2", [WINDOW])
    assert verdict.overlapping == frozenset()
    assert verdict.double_primary == 0


def test_going_back_to_the_first_primary_is_no_overlap_when_each_way_has_its_window() -> None:
    records = Records(acknowledged=(write(1, 1.0), write(2, 2.0), write(3, 6.0)))
    rows = {(0, 1): OLD, (0, 2): NEW, (0, 3): OLD}
    assert judge(records, {"db1": rows}, "db1", [(0.0, 3.0), (3.0, 9.0)]).clean


def test_errors_are_counted_for_the_writer_that_has_most() -> None:
    records = Records(
        failed=(failure(1, 1.0), failure(2, 2.0), failure(1, 1.0, writer=1), failure(3, 3, "connect", 2003))
    )
    verdict = judge(records, {"db1": {}}, "db1", [WINDOW])
    assert verdict.errors_per_session == 3
    assert verdict.errors == {"statement 2013": 3, "connect 2003": 1}


@pytest.mark.parametrize(
    ("moments", "longest"),
    [
        ((1.0, 2.0, 2.5), 7.5),
        ((4.0, 5.0, 9.0), 4.0),
        ((), 10.0),
        ((11.0,), 10.0),
    ],
)
def test_blackout_is_the_longest_part_without_an_acknowledgement_edges_included(
    moments: tuple[float, ...], longest: float
) -> None:
    records = Records(acknowledged=tuple(write(i, m - 0.1, m) for i, m in enumerate(moments)))
    assert blackout(records, WINDOW) == pytest.approx(longest)
