"""The figures of the bench, on values where the right answer is known."""

from __future__ import annotations

import pytest

from tests.support.figures import figures, percentile


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5.0], 0.95, 5.0),
        ([float(n) for n in range(1, 21)], 0.95, 19.0),
        ([float(n) for n in range(20, 0, -1)], 0.95, 19.0),
        ([1.0, 2.0, 3.0], 0.0, 1.0),
        ([1.0, 2.0, 3.0], 1.0, 3.0),
    ],
)
def test_percentile_is_a_value_that_was_seen(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_figures_are_minimum_median_p95_and_maximum() -> None:
    assert figures([4.0, 1.0, 2.005, 3.0]) == {"min": 1.0, "median": 2.5, "p95": 4.0, "max": 4.0}
