"""Chunks lie side by side: whatever the key, each row is in exactly one of them."""

from __future__ import annotations

import itertools
import sqlite3
from typing import Any

import pytest

from proxyroute.db.compare import _range
from proxyroute.verify import Key, Shape


def _rows(table: list[Key], shape: Shape, after: Key | None, upto: Key | None) -> list[Any]:
    """Evaluates the condition by another database, on the same rows."""
    columns = ", ".join(shape.key)
    marks = ", ".join("?" for _ in shape.key)
    where, args = _range(shape, after, upto)
    with sqlite3.connect(":memory:") as database:
        database.execute(f"CREATE TABLE t ({columns})")
        database.executemany(f"INSERT INTO t VALUES ({marks})", table)
        found = database.execute(f"SELECT * FROM t{where.replace('%s', '?')} ORDER BY {columns}", args).fetchall()
    database.close()
    return found


@pytest.mark.parametrize("width", [1, 2, 3])
def test_every_row_is_in_one_chunk(width: int) -> None:
    shape = Shape((), tuple("abc"[:width]))
    table = sorted(itertools.product(range(3), repeat=width))
    for size in (1, 2, 4):
        bounds = [*table[size - 1 :: size], None]
        found: list[Any] = []
        after: Key | None = None
        for upto in bounds:
            found += _rows(table, shape, after, upto)
            after = upto
        assert found == table, size


def test_a_chunk_ends_where_it_is_told() -> None:
    shape = Shape((), ("a", "b"))
    table = sorted(itertools.product(range(4), repeat=2))
    for low, high in itertools.combinations(table, 2):
        assert _rows(table, shape, low, high) == [row for row in table if low < row <= high]
