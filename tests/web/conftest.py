"""What the tests of the web share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.web import Web, make_web


@pytest.fixture
def web(tmp_path: Path) -> Web:
    """A hub with its application; nothing was seen yet, and every command succeeds at once."""
    return make_web(tmp_path)
