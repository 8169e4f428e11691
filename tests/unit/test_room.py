"""Room for an archive: asked for before a file is copied, and told apart when a disk becomes full in the midst."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from proxyroute import room
from proxyroute.archive import save
from proxyroute.errors import NoRoom, ScriptFailed
from proxyroute.gtid import MariaDBPosition
from proxyroute.model import Deadline
from proxyroute.remains import save_left
from tests.support.binlogs import Writer
from tests.unit.test_salvage import Files


def _free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))


def _files() -> Files:
    return Files(
        {
            "b.1": Writer().state().whole((0, 1, 1), (0, 1, 2)),
            "b.2": Writer().state((0, 1, 2)).whole((0, 1, 3)),
        }
    )


def _kept(files: Files, folder: Path, *, dead: bool) -> None:
    position, deadline = MariaDBPosition.parse("0-1-1"), Deadline.after(10)
    if dead:
        save_left(files, 1, 1, position, position, folder, deadline)
    else:
        save(files, MariaDBPosition.parse("0-1-3"), position, folder, deadline)


@pytest.mark.parametrize("dead", [False, True])
def test_nothing_is_fetched_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: bool) -> None:
    files = _files()
    size = len(files.logs_["b.2"].data)
    _free(monkeypatch, size + room.SPARE - 1)
    with pytest.raises(NoRoom, match=r"no room for b\.2 of db1: 16 MiB are free in .*, 17 are needed"):
        _kept(files, tmp_path, dead=dead)
    assert files.fetched == []
    assert list(tmp_path.iterdir()) == []
    _free(monkeypatch, max(len(log.data) for log in files.logs_.values()) + room.SPARE)
    _kept(files, tmp_path, dead=dead)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ScriptFailed("status 1")])
def test_a_disk_that_becomes_full_in_the_midst_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: bool, error: Exception
) -> None:
    files = _files()
    plain = files.fetch_log

    def fetch(file: str, folder: Path, deadline: Deadline) -> Path:
        if not files.fetched:
            return plain(file, folder, deadline)
        (folder / file).write_bytes(b"half")
        _free(monkeypatch, 0)
        raise error

    files.fetch_log = fetch  # type: ignore[method-assign]
    with pytest.raises(NoRoom, match=r"became full: .*; nothing was kept there"):
        _kept(files, tmp_path, dead=dead)
    assert list(tmp_path.iterdir()) == []


def test_another_error_is_not_taken_for_it(tmp_path: Path) -> None:
    files = _files()

    def fetch(file: str, folder: Path, deadline: Deadline) -> Path:
        raise ScriptFailed("exited with status 1: no such file")

    files.fetch_log = fetch  # type: ignore[method-assign]
    with pytest.raises(ScriptFailed, match="no such file"):
        _kept(files, tmp_path, dead=False)


def test_room_where_a_folder_will_be_made(tmp_path: Path) -> None:
    assert room.free(tmp_path / "a" / "b") == pytest.approx(shutil.disk_usage(tmp_path).free, abs=1 << 28)
