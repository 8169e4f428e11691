"""``init`` where nothing can be written: it says so before it asks anybody for anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from click.testing import Result as Outcome

from proxyroute.cli import main

MOVED = '[shop]\ndb-servers-hosts = "127.0.0.1:1"\n'


def init(target: Path | str, *words: str) -> Outcome:
    outcome = CliRunner().invoke(main, ["--config", str(target), "init", *words])
    assert outcome.exception is None or isinstance(outcome.exception, SystemExit), outcome.exc_info
    return outcome


@pytest.mark.parametrize("moving", [True, False])
def test_a_folder_that_cannot_be_made_is_said_before_anybody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moving: bool
) -> None:
    monkeypatch.setattr("proxyroute.cli.init.discover", lambda *_: pytest.fail("a server is asked"))
    monkeypatch.setattr("proxyroute.cli.init._secret", lambda *_: pytest.fail("a password is asked for"))
    (tmp_path / "config.toml").write_text(MOVED)
    (tmp_path / "file").write_text("")
    words = ["--from-replication-manager", str(tmp_path / "config.toml")]
    outcome = init(tmp_path / "file" / "p.yml", *(words if moving else ["--server", "127.0.0.1:1", "--user", "u"]))
    assert outcome.exit_code == 2
    assert (
        f"{tmp_path / 'file'} cannot be made: {tmp_path / 'file'} is no folder; name another file by --config"
        in outcome.stderr
    )


def test_a_folder_that_nothing_can_be_written_in_is_said_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyroute.cli.moving.os.access", lambda *_: False)
    outcome = init(tmp_path / "p.yml", "--server", "127.0.0.1:1", "--user", "u")
    assert (outcome.exit_code, f"nothing can be written in {tmp_path}" in outcome.stderr) == (2, True)


def test_a_folder_that_is_gone_beneath_us_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    outcome = init("p.yml", "--server", "127.0.0.1:1", "--user", "u")
    assert (outcome.exit_code, "cd /" in outcome.stderr) == (2, True)
