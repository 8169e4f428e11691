"""Root does not write in the state_dir of another user: whoever serves could not read that."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result as Outcome

from tests.unit.cli.samples import FakeEngine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
WRITING = ("check", "plan", "switchover --yes", "failover --acknowledge", "heal", "rejoin db2 --yes", "verify", "pause",
    "orders --reset", "publish", "serve")  # fmt: skip
READING = ("status", "history", "show 20260101", "render", "orders")


@pytest.fixture
def state(tmp_path: Path, run: Callable[..., Outcome]) -> Path:
    file = tmp_path / "proxyroute.yml"
    text = file.read_text().replace("10.0.0.", "127.0.0.").replace(":3306", ":1")
    file.write_text(f"{text}state_dir: {tmp_path / 'state'}\n")
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.mark.parametrize("words", WRITING)
def test_what_writes_there_is_refused_for_root_before_anything_is_written(
    run: Callable[..., Outcome], engine: FakeEngine, state: Path, words: str
) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(state, nobody.pw_uid, nobody.pw_gid)
    outcome = run(*words.split())
    assert outcome.exit_code == 2
    assert f"{state} belongs to nobody" in outcome.stderr
    assert "runuser -u nobody -- proxyroute " in outcome.stderr
    assert not engine.asked
    assert not list(state.iterdir())


def test_a_user_that_only_another_host_knows_is_named_by_its_number(
    run: Callable[..., Outcome], engine: FakeEngine, state: Path
) -> None:
    os.chown(state, 3999999, 3999999)
    assert "setpriv --reuid 3999999 --clear-groups -- proxyroute " in run("heal").stderr


def test_a_disk_on_which_all_that_root_writes_is_its_owners_is_as_good_as_our_own(
    run: Callable[..., Outcome], engine: FakeEngine, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network disk with root_squash does."""
    os.chown(state, 65534, 65534)
    monkeypatch.setattr("proxyroute.cli.context._written_by", lambda _: 65534)
    assert run("heal").exit_code == 0


@pytest.mark.parametrize("words", READING)
def test_what_only_reads_goes_on_and_writes_nothing(run: Callable[..., Outcome], state: Path, words: str) -> None:
    os.chown(state, 65534, 65534)
    outcome = run(*words.split())  # with an engine as it is, whose servers do not answer
    assert "belongs to" not in outcome.output
    assert not list(state.iterdir())


def test_roots_own_folder_and_one_that_is_not_there_are_as_before(
    run: Callable[..., Outcome], engine: FakeEngine, state: Path
) -> None:
    assert run("heal").exit_code == 0
    state.rmdir()
    assert run("heal").exit_code == 0
