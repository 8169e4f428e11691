"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.mariadb import LocalCluster


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """Three servers of the test's own: db1 takes writes, db2 and db3 follow it. Up in about 0.3 seconds."""
    with LocalCluster.start(3) as started:
        yield started
