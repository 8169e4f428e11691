"""Progress is shown as it happens and never makes the operation wait."""

from __future__ import annotations

import threading

import pytest

from proxyroute.cli import progress
from proxyroute.cli.progress import Progress
from tests.unit.cli.samples import (
    RECORDS,
)


def test_a_reader_that_stands_still_never_makes_the_operation_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = threading.Event()
    written: list[str] = []

    class Stuck:
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> None:
            assert reading.wait(60)
            written.append(text)

        def flush(self) -> None: ...

    monkeypatch.setattr(progress.sys, "stdout", Stuck())
    with Progress() as listener:
        for record in RECORDS:
            listener(dict(record))  # returns although nothing can be written
        assert written == []
        reading.set()
    assert any("freeze" in text for text in written)


def test_a_reader_that_is_gone_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(progress.sys, "stdout", Gone())
    with Progress() as listener:
        for record in RECORDS:
            listener(dict(record))


def test_on_a_terminal_a_step_is_shown_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Terminal:
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            written.append(text)

        def flush(self) -> None: ...

    monkeypatch.setattr(progress.sys, "stdout", Terminal())
    with Progress() as listener:
        listener({"kind": "step", "name": "freeze"})
        listener({"kind": "stepped", "name": "freeze", "seconds": 0.1, "detail": "", "error": "no lock"})
    assert written[0] == "  freeze …"
    assert "FAILED: no lock" in "".join(written[1:])
