"""Half an archive that a dead process has left is removed by the next one; what others make is left alone."""

from __future__ import annotations

import os
from pathlib import Path

from proxyroute.archive import making

GONE = 2**22 + 1
"""The number of a process that no Linux gives."""


def test_only_what_nobody_makes_any_more_is_removed(tmp_path: Path) -> None:
    def begun(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        return folder

    left = begun(f".making-db-20260101T000000-{GONE}")
    before_a_restart = begun(f".making-db-20260101T000000-{os.getpid()}")
    others = (
        begun(f".making-db-2-20260101T000000-{GONE}"),
        begun(f".making-db-20260101T000000-{os.getppid()}"),
    )
    with making("db", tmp_path) as aside:
        assert not left.exists()
        assert not before_a_restart.exists()
        assert all(other.exists() for other in others)
        with making("db-2", tmp_path) as beside:
            assert not others[0].exists()
            assert aside.exists()
            assert beside.exists()
    assert list(tmp_path.iterdir()) == [others[1]]
