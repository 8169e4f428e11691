"""What a guard needs when its engine is dead, and the unit's private /tmp and credentials with it."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxyroute import config_secrets, faults, guard, journal
from proxyroute.argv import run_argv
from proxyroute.config_secrets import Secret
from proxyroute.guard import Guard
from proxyroute.host import Host, output
from proxyroute.model import Deadline


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no folder for temporary files any more."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))


@pytest.mark.usefixtures("gone")
def test_a_program_runs_without_a_folder_for_temporary_files() -> None:
    assert run_argv(["printf", "here"], {}, Deadline.after(10)) == "here"


@pytest.mark.usefixtures("gone")
def test_a_program_of_a_host_does_so_too() -> None:
    host = Host("db1", ("env",))
    assert output(host.script("cat", stdin=b"given"), Deadline.after(10)) == b"given"


@pytest.mark.parametrize("told", ["", "/elsewhere"])
def test_programs_of_the_guard_find_a_folder_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    if told:
        monkeypatch.setenv("TMPDIR", told)
    started: list[dict[str, str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda argv, *, env, **_: started.append(env))
    lease: Any = None
    Guard(tmp_path / "op.jsonl", lease).begin()
    assert started[0]["TMPDIR"] == (told or str(tmp_path))


class _SeenEnoughError(Exception):
    pass


def test_the_guard_has_read_every_secret_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "engine").write_text("pass word\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(config_secrets, "_kept", {})

    @dataclass(frozen=True)
    class Config:
        secrets = Secret("credential", "engine"), Secret("credential", "never-there")
        proxies: tuple[dict[str, Secret], ...] = ({"password": secrets[0]}, {"password": secrets[1]})

    def enough(_: object) -> None:
        raise _SeenEnoughError

    monkeypatch.setattr(faults, "role", faults.role)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(journal, "read", lambda _: [{"config": {}, "plan": {}}])
    monkeypatch.setattr(guard, "from_snapshot", lambda _: Config())
    monkeypatch.setattr(guard, "plan_from_json", enough)
    with pytest.raises(_SeenEnoughError):
        guard.main([str(tmp_path / "op.jsonl")])
    (tmp_path / "engine").unlink()
    assert Secret("credential", "engine").reveal() == "pass word"
    (tmp_path / "never-there").write_text("late\n")
    assert Secret("credential", "never-there").reveal() == "late"
