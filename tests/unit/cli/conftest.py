"""The command line, run against an engine that only remembers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as Outcome

import proxyroute.engine
from proxyroute.cli import main
from tests.unit.cli.samples import FakeEngine


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()

    def open_engine(_: object, listener: Callable[[dict[str, Any]], None] | None = None) -> FakeEngine:
        fake.listener = listener
        return fake

    monkeypatch.setattr(proxyroute.engine, "open_engine", open_engine)
    return fake


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    monkeypatch.setenv("ENGINE_PASSWORD", "x")
    monkeypatch.setenv("REPL_PASSWORD", "x")
    path = tmp_path / "proxyroute.yml"
    path.write_text(
        "version: 1\nclusters:\n  shop:\n    account: {user: u, password: {env: ENGINE_PASSWORD}}\n"
        "    replication: {user: r, password: {env: REPL_PASSWORD}}\n"
        "    servers: {db1: 10.0.0.1:3306, db2: 10.0.0.2:3306, db3: 10.0.0.3:3306}\n"
    )
    monkeypatch.setenv("PROXYROUTE_CONFIG", str(path))

    def invoke(*words: str, tty: bool = False, **options: Any) -> Outcome:
        monkeypatch.setattr("proxyroute.cli.switchover.on_terminal", lambda: tty)
        outcome = CliRunner().invoke(main, list(words), **options)
        assert outcome.exception is None or isinstance(outcome.exception, SystemExit), outcome.exc_info
        return outcome

    return invoke
