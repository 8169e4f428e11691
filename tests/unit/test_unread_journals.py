"""What nobody can read is never said not to be there: an operation in it may be open."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxyroute import journal
from proxyroute.caller import Caller
from proxyroute.cli import main
from proxyroute.config import load
from proxyroute.errors import JournalError, ProxyRouteError
from proxyroute.history import Ledger
from proxyroute.web.audit import Actor
from proxyroute.web.commands import Command
from proxyroute.web.performing import perform

NOBODY = 65534
NAME = "20260101-000000-abcd"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the journals of a cluster whose servers do not answer, at a place that everybody may enter."""
    monkeypatch.setenv("SECRET", "x")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        (Path(place) / "proxyroute.yml").write_text(
            "version: 1\nstate_dir: state\nclusters:\n  shop:\n    account: {user: u, password: {env: SECRET}}\n"
            "    replication: {user: r, password: {env: SECRET}}\n    servers: {db1: 127.0.0.1:1, db2: 127.0.0.2:1}\n"
        )
        made = Path(place) / "state" / "shop" / "journal"
        made.mkdir(parents=True)
        (made / f"{NAME}.jsonl").write_text("no record\n{}\n")
        yield made


@pytest.fixture
def run(folder: Path) -> Run:
    """Types a command, as ourselves or as ``nobody``."""

    def invoke(*words: str, user: int = os.geteuid()) -> tuple[int, str]:
        before = os.geteuid()
        os.seteuid(user)
        try:
            done = CliRunner().invoke(main, ["--config", str(folder.parents[2] / "proxyroute.yml"), *words])
        finally:
            os.seteuid(before)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return done.exit_code, done.output

    return invoke


def test_heal_says_what_it_cannot_read_and_is_not_done(run: Run, folder: Path) -> None:
    code, text = run("heal")
    assert code == 5
    assert "nothing is open" not in text
    assert "not a record" in text
    assert f"mv {folder}/{NAME}.jsonl {folder}/{NAME}.jsonl.damaged" in text
    code, text = run("heal", "--json")
    assert (code, json.loads(text)["unread"][0]["code"]) == (5, "journal.damaged")


def test_history_says_it_too(run: Run, folder: Path) -> None:
    code, text = run("history")
    assert code == 0
    assert "no operation yet" not in text
    assert f"mv {folder}/{NAME}.jsonl {folder}/{NAME}.jsonl.damaged" in text
    (folder / f"{NAME}.jsonl").unlink()
    assert "no operation yet" in run("history")[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("words", ["status", "history", f"show {NAME}", "plan", "check", "switchover --yes", "heal"])
@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_folder_that_may_not_be_entered_is_named_by_every_command(
    run: Run, folder: Path, words: str, closed: int
) -> None:
    run("check")  # what is imported late may lie where nobody may read
    places = (folder, *folder.parents)
    for place in places[closed + 1 : 3]:
        os.chown(place, NOBODY, NOBODY)
    places[closed].chmod(0o700)
    code, text = run(*words.split(), user=NOBODY)
    assert code != 0
    assert "Permission denied" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_journal_of_another_user_is_given_back_not_put_aside(run: Run, folder: Path) -> None:
    for place in (folder, *folder.parents[:2]):
        os.chown(place, NOBODY, NOBODY)
    (folder / f"{NAME}.jsonl").chmod(0o600)
    code, text = run("heal", user=NOBODY)
    assert code == 5
    assert f"chown -R --reference={folder.parents[1]} {folder.parents[1]}" in text
    assert "mv " not in text


def test_a_disk_that_fails_is_no_empty_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> list[str]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "listdir", fails)
    for ask in (journal.journals, journal.stamps, lambda f: list(Ledger(f).damaged())):
        with pytest.raises(JournalError, match=f"{folder}: Input/output error"):
            ask(folder)


def test_what_may_be_read_again_is_read_again(folder: Path) -> None:
    before = journal.stamps(folder)
    (folder / f"{NAME}.jsonl").chmod(0o640)
    assert journal.stamps(folder) != before


def test_by_the_api_heal_is_not_done_either(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(folder.parents[2] / "proxyroute.yml").clusters["shop"]
    with pytest.raises(ProxyRouteError, match=f"what cannot be read may be open: shop: {folder}") as raised:
        perform(config, Command("heal", "shop", Actor("ann", "127.0.0.1")), Caller("ann"), lambda _: None)
    assert raised.value.exit_code == 5
