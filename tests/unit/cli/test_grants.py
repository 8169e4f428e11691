"""``proxyroute grants``: the SQL for the version that servers have, asked for or given."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result as Outcome

from proxyroute.errors import ConfigError
from proxyroute.model import Address, Silent
from tests.unit.cli.samples import FakeEngine, server, view

Run = Callable[..., Outcome]


def test_offline_no_configuration_is_needed(run: Run, tmp_path: Path) -> None:
    outcome = run("grants", "--version-of", "10.6.12", "--config", str(tmp_path / "none.yml"))
    assert outcome.exit_code == 0
    assert outcome.output.startswith("-- MariaDB 10.6.12. Run this once, on the primary")
    assert "If event_scheduler is ON there, add --scheduler." in outcome.output
    assert "TO 'replication'@'%';" in outcome.output


def test_names_come_from_the_configuration_and_statements_can_be_copied_whole(run: Run, engine: FakeEngine) -> None:
    outcome = run("grants", "--engine-host", "10.0.0.%", "--force")
    lines = [line for line in outcome.output.splitlines() if not line.startswith("--")]
    assert all(line.endswith(";") for line in lines if line)
    assert any(
        line.startswith("GRANT RELOAD, ") and line.endswith("CREATE USER ON *.* TO 'u'@'10.0.0.%';") for line in lines
    )
    assert "GRANT REPLICATION SLAVE ON *.* TO 'r'@'%';" in lines
    assert "add --scheduler" not in outcome.output, "the servers have said that it is off"


def test_the_oldest_version_counts_and_a_running_scheduler_needs_more(run: Run, engine: FakeEngine) -> None:
    engine.reading = view(server(1, event_scheduler=True), server(2, of=1, version=(10, 6, 12)))
    found = json.loads(run("grants", "--json").output)
    assert found["version"] == "10.6.12"
    assert "SUPER" in {p["name"] for p in found["privileges"]}


@pytest.fixture
def greeter() -> int:
    """A port at which somebody greets as MariaDB does, before any login."""
    listener = socket.create_server(("127.0.0.1", 0))
    version = b"5.5.5-10.11.19-MariaDB-log\0" + b"x" * 40

    def greet() -> None:
        with listener, listener.accept()[0] as connection:
            connection.sendall(bytes([len(version) + 1, 0, 0, 0, 10]) + version)

    threading.Thread(target=greet, daemon=True).start()
    return int(listener.getsockname()[1])


def test_before_the_account_exists_the_servers_greeting_tells_the_version(
    run: Run, engine: FakeEngine, greeter: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "proxyroute.yml"
    config.write_text(config.read_text().replace("10.0.0.1:3306", f"127.0.0.1:{greeter}"))
    engine.reading = view(Silent("db1", Address("127.0.0.1", greeter), "access denied"))
    outcome = run("grants")
    assert outcome.exit_code == 0
    assert outcome.output.startswith("-- MariaDB 10.11.19.")


def test_without_its_password_the_engine_is_not_needed(
    run: Run, greeter: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "proxyroute.yml"
    config.write_text(config.read_text().replace("10.0.0.1:3306", f"127.0.0.1:{greeter}"))

    def refuses(*_: object) -> FakeEngine:
        raise ConfigError("no password")

    monkeypatch.setattr("proxyroute.engine.open_engine", refuses)
    assert run("grants").output.startswith("-- MariaDB 10.11.19.")


def test_when_nobody_answers_the_way_out_is_told(run: Run, engine: FakeEngine, tmp_path: Path) -> None:
    config = tmp_path / "proxyroute.yml"
    text = config.read_text()
    for number in (1, 2, 3):
        text = text.replace(f"10.0.0.{number}:3306", f"127.0.0.1:{number}")
    config.write_text(text)
    engine.reading = view(replace(Silent("db1", Address("127.0.0.1", 1), "gone")))
    outcome = run("grants")
    assert outcome.exit_code == 3
    assert "give it by --version-of" in outcome.stderr


def test_a_version_that_is_none_is_told(run: Run) -> None:
    outcome = run("grants", "--version-of", "eleven")
    assert outcome.exit_code == 2
    assert "write e.g. 10.11.6" in outcome.stderr


def test_accounts_of_the_proof_and_of_single_servers_are_not_forgotten(
    run: Run, engine: FakeEngine, tmp_path: Path
) -> None:
    config = tmp_path / "proxyroute.yml"
    text = config.read_text().replace(
        "db3: 10.0.0.3:3306", "db3: {address: 10.0.0.3:3306, replication: {user: r3, password: {env: R3}}}"
    )
    config.write_text(text + "    proof: {schema: sentry, account: {user: p, password: {env: P}}}\n")
    text = run("grants").output
    assert "CREATE SCHEMA IF NOT EXISTS `sentry`;" in text
    assert "Replication also logs in as r3" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("8.0.36", "MariaDB has no 8.0; add --flavour mysql"),
        ("9.7.4", "MariaDB has no 9.7; add --flavour mysql"),
        ("5.5.1", "MariaDB 5.5.1 is too old: ProxyRoute needs 10.5.0 or later"),
        ("10.3.2", "MariaDB 10.3.2 is too old"),
        ("5.7.44 --flavour mysql", "MySQL 5.7.44 is too old: ProxyRoute needs 8.0.17 or later"),
    ],
)
def test_no_statements_are_printed_that_a_server_would_refuse(run: Run, words: str, said: str) -> None:
    outcome = run("grants", "--version-of", *words.split())
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert said in outcome.stderr


@pytest.mark.parametrize("words", ["10.5.0", "11.8.3", "8.0.17 --flavour mysql", "9.7.4 --flavour mysql"])
def test_an_account_that_is_there_is_no_reason_to_stop(run: Run, words: str) -> None:
    outcome = run("grants", "--version-of", *words.split())
    assert outcome.exit_code == 0
    assert "An account that is there keeps its password." in outcome.output
    assert outcome.output.count("CREATE USER IF NOT EXISTS ") == 2
