"""The reference pages know every field, command, option and exit code that there is."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import click
import pytest

from proxyroute import errors
from proxyroute.adapters import find_adapters
from proxyroute.cli import main
from proxyroute.config import from_snapshot, load, snapshot
from proxyroute.config_receivers import RECEIVERS, NoticeConfig
from proxyroute.config_shape import parse_duration
from proxyroute.config_values import ServeConfig
from proxyroute.config_vrrp import VrrpConfig
from proxyroute.config_web import WebConfig
from proxyroute.hooks import __doc__ as hooks_doc
from proxyroute.notify_receivers import __doc__ as notices_doc
from proxyroute.policy import AGGRESSIVE, FailoverPolicy, Policy

DOCS = Path(__file__).parents[2] / "docs" / "reference"
CONFIGURATION = (DOCS / "configuration.md").read_text()
CLI = (DOCS / "cli.md").read_text()
EVERYWHERE = ("config", "cluster", "json", "url", "token_file", "ca")
"""Options of every command, documented once."""


def section(title: str) -> str:
    return CONFIGURATION.partition(f"\n{title}\n")[2].partition("\n## ")[0].partition("\n### ")[0]


def fields_of(text: str) -> dict[str, str]:
    """Returns the first two columns of a table: field names, and what stands beside them."""
    rows = re.findall(r"^\| (`[^|]+?) \|([^|]*)\|", text, re.MULTILINE)
    return {name: beside.strip() for names, beside in rows for name in re.findall(r"`([^`]+)`", names)}


def test_every_field_of_the_policy_is_documented_with_its_default() -> None:
    documented = fields_of(section("## `switchover`"))
    fields = {
        f.name: f.default for f in dataclasses.fields(Policy) if f.name not in ("probe_schema", "aside", "rebuilt")
    }
    assert set(documented) == set(fields)
    for name, default in fields.items():
        told = documented[name].strip("`")
        if isinstance(default, bool):
            assert told == str(default).lower(), name
        elif isinstance(default, float):
            assert parse_duration(told) == default, name
        else:
            assert told == ("[]" if default == () else str(default)), name


def test_every_field_of_serve_is_documented_with_its_default() -> None:
    documented = fields_of(section("## `serve`"))
    fields = {f.name: f.default for f in dataclasses.fields(ServeConfig)}
    assert set(documented) == set(fields)
    for name, default in fields.items():
        told = documented[name].strip("`")
        assert told == str(default).lower() if isinstance(default, bool) else parse_duration(told) == default, name


def test_every_field_of_the_web_is_documented() -> None:
    assert set(fields_of(section("## `web`"))) == {f.name for f in dataclasses.fields(WebConfig)}


def test_every_field_of_vrrp_is_documented() -> None:
    assert set(fields_of(section("## `vrrp`"))) == {f.name for f in dataclasses.fields(VrrpConfig)}


def test_every_field_of_failover_is_documented_with_its_default_and_that_of_the_profile() -> None:
    documented = fields_of(section("## `failover`"))
    fields = {f.name: f.default for f in dataclasses.fields(FailoverPolicy)}
    assert set(documented) == set(fields)
    for name, default in fields.items():
        told = documented[name].strip("`")
        same = parse_duration(told) == default if isinstance(default, float) else told == str(default).lower()
        assert same, name
    profiled = dict(re.findall(r"^\| `(\w+)` .*; aggressive `([^`]+)`", section("## `failover`"), re.MULTILINE))
    assert {name: parse_duration(told) for name, told in profiled.items() if name != "looks"} == {
        name: value for name, value in AGGRESSIVE.items() if name != "looks"
    }
    assert int(profiled["looks"]) == AGGRESSIVE["looks"]


def test_the_example_is_a_configuration_and_survives_a_snapshot(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", CONFIGURATION, re.DOTALL)
    path = tmp_path / "proxyroute.yml"
    path.write_text(example)
    shop = load(path).cluster(None)
    assert [p.type for p in shop.proxies] == ["haproxy", "hook"]
    assert from_snapshot(json.loads(json.dumps(snapshot(shop)))) == shop


@pytest.mark.parametrize("name", sorted(find_adapters()))
def test_every_setting_of_our_adapters_is_documented(name: str) -> None:
    documented = fields_of(section(f"### `type: {name}`"))
    assert set(documented) == {f.name for f in dataclasses.fields(find_adapters()[name].Settings)}


@pytest.mark.parametrize("name", sorted(RECEIVERS))
def test_every_setting_of_a_receiver_of_notices_is_documented(name: str) -> None:
    common = {f.name for f in dataclasses.fields(NoticeConfig)}
    assert set(fields_of(section("## `notices`"))) == common | {"type"}
    documented = fields_of(section(f"### `type: {name}`").partition("\n| variable |")[0])
    assert set(documented) == {f.name for f in dataclasses.fields(RECEIVERS[name])} - common


def test_every_variable_that_a_script_of_notices_is_told_is_documented() -> None:
    told = set(re.findall(r"^``(PROXYROUTE_\w+)``", notices_doc or "", re.MULTILINE))
    assert told == set(re.findall(r"`(PROXYROUTE_\w+)`", section("### `type: script`")))


def test_every_variable_that_a_script_is_told_is_documented() -> None:
    told = set(re.findall(r"^``(PROXYROUTE_\w+?)(?:_HOST|_PORT)?``", hooks_doc or "", re.MULTILINE))
    assert told == set(re.findall(r"`(PROXYROUTE_\w+)`", section("## `scripts`")))


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_and_option_is_documented(name: str) -> None:
    found = re.search(rf"^### `{name}\b(.*?)(?=^##)", CLI + "\n## end", re.MULTILINE | re.DOTALL)
    assert found, name
    for parameter in main.commands[name].params:
        if isinstance(parameter, click.Option) and parameter.name not in EVERYWHERE:
            assert parameter.opts[0] in found[1], parameter.opts[0]


def test_every_exit_code_is_documented() -> None:
    raised = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and hasattr(e, "exit_code")}
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", CLI, re.MULTILINE)}
    assert documented == raised | {0, 7, 130}
    assert documented == {int(code) for code in re.findall(r"^ +(\d+) ", main.help or "", re.MULTILINE)}
