"""What ``scripts/bench switchover`` judges: bars that are the same on every flavour, told one by one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import bench
from tests.support.bench import ABOVE_FLOOR, BARS, FLAVOURS, Books, Run, main
from tests.support.load import ROOT_FOLDER, Failure, Records, Write
from tests.support.verdict import Verdict

ONE = frozenset({(0, 1)})
BEGUN = 10.0
FLOOR_MS = 20.0
CUT = Failure(0, 9, BEGUN, BEGUN + 0.01, "statement", 2013, "lost")


def books(
    gap_ms: float = 30.0,
    *,
    transport: str = "haproxy",
    given: bool = False,
    errors: int = 0,
    fresh_errors: int = 0,
    refused: int = 0,
    **verdict: Any,
) -> Books:
    """One run of each kind, in whose midst nobody could write: with the floor for ``FLOOR_MS``, else for ``gap_ms``."""
    windows = ((0.0, 1.0), (BEGUN, BEGUN + 1.0))
    times = []
    for (begin, end), gap in zip(windows, (FLOOR_MS, gap_ms), strict=True):
        after = begin + 0.01 + gap / 1000
        times += [begin + 0.01, *(after + 0.005 * n for n in range(int((end - after) / 0.005)))]
    writes = tuple(Write(0, n, at, at) for n, at in enumerate(times))
    runs = tuple(Run(product, "db1", "db2", window) for product, window in zip((False, True), windows, strict=True))
    ambiguous = verdict.pop("ambiguous", frozenset())
    return Books(
        runs,
        Records(writes, (CUT,) * errors),
        Records(writes, (CUT,) * fresh_errors),
        Verdict(acknowledged=len(writes), **verdict),
        Verdict(acknowledged=len(writes), refused=refused, ambiguous=ambiguous),
        transport,
        given,
    )


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What was printed of each bar, by its name."""
    lines = capsys.readouterr().out.partition("Bars, the same on every flavour\n")[2].splitlines()
    names = {what: name for name, (_, what) in books().bars.items()}
    found = {name: line for what, name in names.items() for line in lines if line.strip().startswith(f"{what} ")}
    assert len(found) == len(lines) == len(BARS) + 2
    return found


@pytest.mark.parametrize("on", FLAVOURS)
def test_where_every_bar_is_held_it_ends_with_0_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], on: str
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_: books(FLOOR_MS + 14, errors=1))
    assert main(["switchover", "--flavour", on]) == 0
    assert all(line.endswith(": held") for line in told(capsys).values())


@pytest.mark.parametrize("on", FLAVOURS)
@pytest.mark.parametrize(
    ("found", "bar"),
    [
        (books(FLOOR_MS + 16), "above_floor_median_ms"),
        (books(errors=2), "errors_per_session"),
        (books(fresh_errors=1), "fresh_errors"),
        (books(refused=1), "refused_new"),
        (books(lost=ONE), "lost"),
        (books(diverged=ONE), "double_primary"),
        (books(ambiguous=ONE), "ambiguous"),
        (books(unexplained=ONE), "unexplained"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_bar_that_is_not_held_is_named_and_ends_it_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], on: str, found: Books, bar: str
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_: found)
    assert main(["switchover", f"--flavour={on}"]) == 1
    assert [name for name, line in told(capsys).items() if line.endswith(": NOT HELD")] == [bar]


def test_a_switchover_that_was_undone_is_told_in_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def undone(*_: object) -> Books:
        raise RuntimeError("proxyroute switchover ended with 4: out of time")

    monkeypatch.setattr(bench, "measure", undone)
    assert main(["switchover"]) == 1
    assert "ended with 4: out of time" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ABOVE_FLOOR)
def test_how_far_above_the_floor_it_may_be_depends_on_who_has_to_notice(kind: str) -> None:
    median, p95 = ABOVE_FLOOR[kind]
    for above in (median - 1, median + 1, p95 + 1):
        transport = kind if kind == "haproxy" else "agents"
        held = books(FLOOR_MS + above, transport=transport, given=kind == "network disk").held
        assert held["above_floor_median_ms"] is (above <= median)
        assert held["above_floor_p95_ms"] is (above <= p95)


@pytest.mark.parametrize("words", [["--flavour", "mysql"], ["--flavour=mysql"], ["--flavour", "mariadb"], []])
def test_the_root_is_made_for_mysql_however_it_is_asked_for(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT_FOLDER / "scripts/bench", tmp_path / "scripts/bench")
    for stand_in in ("scripts/setup", "scripts/roots", ".venv/bin/python"):
        (tmp_path / stand_in).write_text(f'#!/bin/sh\necho "{stand_in}" "$@"\n')
        (tmp_path / stand_in).chmod(0o755)
    done = subprocess.run(
        [tmp_path / "scripts/bench", "switchover", *words], capture_output=True, text=True, check=True, env=os.environ
    )
    before, ran = done.stdout.splitlines()[:-1], done.stdout.splitlines()[-1]
    assert before == (
        ["scripts/setup --for matrix", "scripts/roots sid"] if "mysql" in str(words) else ["scripts/setup"]
    )
    assert ran.split() == [".venv/bin/python", "-m", "tests.support.bench", "switchover", *words]


def test_a_flavour_is_not_asked_for_by_less_than_its_option() -> None:
    """scripts/bench would not know that a root is needed."""
    with pytest.raises(SystemExit):
        main(["switchover", "--flav", "mysql"])
