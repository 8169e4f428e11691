"""Which numbers of a writer are being applied, as ``gtid_owned`` tells it."""

from __future__ import annotations

import pytest

from proxyroute.db.mysql_compare import owned_by

ONE, TWO = "00000001-0000-0000-0000-000000000000", "00000002-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("", {}),
        (f"{ONE}:5#12", {5: 12}),
        (f"{ONE.upper()}:5#12:6#13", {5: 12, 6: 13}),
        (f"{TWO}:5#12,\n{ONE}:7#14", {7: 14}),
        (f"{ONE}:blue:5#12", {}),
        (f"{ONE}:5#12:blue:6#13", {5: 12}),
    ],
)
def test_numbers_under_a_tag_are_not_those_without(told: str, found: dict[int, int]) -> None:
    assert owned_by(ONE, told) == found
