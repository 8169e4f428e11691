"""The file that says that a process serves and goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxyroute import sign
from proxyroute.errors import ConfigError
from proxyroute.sign import Sign


def test_it_is_there_while_it_serves_and_as_young_as_the_last_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ready"
    now = [100.0]
    monkeypatch.setattr(sign.time, "monotonic", lambda: now[0])
    served = Sign(file)
    assert not file.exists()
    served.ready()
    assert file.read_text() == f"{os.getpid()}\n"
    os.utime(file, (1.0, 1.0))
    served.alive()
    assert file.stat().st_mtime == 1.0, "one was given just now"
    now[0] += 2.0
    served.alive()
    assert file.stat().st_mtime > 1.0
    served.gone()
    assert not file.exists()
    served.gone()


def test_one_that_was_removed_is_not_made_again_and_nobody_minds(tmp_path: Path) -> None:
    served = Sign(tmp_path / "ready")
    served.ready()
    (tmp_path / "ready").unlink()
    served.alive()
    served.gone()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--ready-file .*nowhere/ready: No such file or directory"):
        Sign(tmp_path / "nowhere" / "ready").ready()


def test_without_a_file_nothing_is_done() -> None:
    served = Sign(None)
    served.ready()
    served.alive()
    served.gone()
