"""``agent``: its own options only, and a status file that is not what an agent writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from click.testing import Result as Outcome

from proxyroute.cli import main


def typed(*words: str) -> Outcome:
    outcome = CliRunner().invoke(main, list(words))
    assert outcome.exception is None or isinstance(outcome.exception, SystemExit), outcome.exc_info
    return outcome


@pytest.mark.parametrize("words", ["agent", "agent status"])
def test_only_what_an_agent_heeds_is_an_option_of_it(words: str) -> None:
    told = typed(*words.split(), "--help").output
    assert "/etc/proxyroute/agent.yml" in told
    assert not [option for option in ("$PROXYROUTE_CONFIG", "--url", "--ca", "--cluster") if option in told]
    assert typed(*words.split(), "--url", "http://127.0.0.1:1").exit_code == 2


@pytest.mark.parametrize(
    "text", ["[]", '"x"', '{"since": "now"}', '{"since": 1e300}', '{"addresses": []}', '{"trouble": 3}', "{"]
)
def test_a_status_file_of_somebody_else_is_said_to_be_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / "agent.yml"
    file.write_text(
        f"version: 1\nhost: edge1\ncluster: shop\nfolder: {tmp_path}\nkey_file: {tmp_path / 'key'}\n"
        f"config_file: {tmp_path / 'haproxy.cfg'}\nstate_dir: {tmp_path / 'state'}\n"
    )
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "status.json").write_text(text)
    outcome = typed("agent", "status", "--config", str(file))
    assert (outcome.exit_code, str(tmp_path / "state" / "status.json") in outcome.stderr) == (2, True)
