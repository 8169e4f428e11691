"""Standard output that takes nothing: how an act has ended is still told by its exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import Result as Outcome

from proxyroute.cli import main
from proxyroute.errors import Aborted
from tests.unit.cli.samples import DONE, FakeEngine


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    ("words", "ended", "code"),
    [
        ("switchover --yes --json", DONE, 0),
        ("switchover --yes --json", replace(DONE, leftovers=("follow db3",)), 7),
        ("switchover --yes --json", Aborted("undone"), 4),
        ("heal", DONE, 0),
        ("status", DONE, 1),
        ("history", DONE, 1),
    ],
)
def test_on_a_full_disk_an_act_keeps_its_code_and_what_only_shows_has_failed(
    run: Callable[..., Outcome],
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    ended: object,
    code: int,
    buffered: bool,
) -> None:
    engine.outcome = ended  # type: ignore[assignment]
    with open("/dev/full", "wb", buffering=-1 if buffered else 0) as raw:
        full = io.TextIOWrapper(raw, write_through=not buffered)  # as with PYTHONUNBUFFERED
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as raised:
            main(words.split())
        monkeypatch.undo()
    assert raised.value.code == code
    assert "standard output: No space left on device" in capsys.readouterr().err


def test_an_act_keeps_its_code_where_both_streams_go_to_the_full_disk(
    run: Callable[..., Outcome], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.outcome = replace(DONE, leftovers=("follow db3",))
    with open("/dev/full", "wb") as out, open("/dev/full", "wb", buffering=0) as err:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out))
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, write_through=True))
        with pytest.raises(SystemExit) as raised:
            main(["switchover", "--yes", "--json"])
        monkeypatch.undo()
    assert raised.value.code == 7


@pytest.mark.parametrize("interval", ["-1", "0", "nan", "1e12", "inf"])
def test_an_interval_that_nobody_means_is_refused(
    run: Callable[..., Outcome], engine: FakeEngine, interval: str
) -> None:
    outcome = run("status", "--watch", "--interval", interval)
    assert (outcome.exit_code, "from 0.1 to 86400 seconds" in outcome.stderr) == (2, True)
