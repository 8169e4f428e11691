"""What keepalived is told: text from a configuration, and how mistakes in that are told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxyroute.cli import main
from proxyroute.config import InvalidConfig, from_snapshot, load, snapshot
from proxyroute.config_vrrp import VrrpConfig
from proxyroute.vrrp import FILE, keepalived
from tests.cluster.test_keepalived_check import SITE

PART = """\
    vrrp:
      addresses: [10.0.0.100/24, 10.0.0.101/24]
      hosts: {edge1: 10.0.0.11, edge2: 10.0.0.12}
      interface: eth0
      interfaces: {edge2: ens3}
      router_id: 51
"""


def of(tmp_path: Path, text: str) -> VrrpConfig:
    path = tmp_path / "proxyroute.yml"
    path.write_text(SITE + text)
    found = load(path).cluster(None)
    assert from_snapshot(json.loads(json.dumps(snapshot(found)))) == found
    assert found.vrrp is not None
    return found.vrrp


def lines(config: VrrpConfig, host: str) -> list[str]:
    """Returns what is said, without comments and blanks at the ends."""
    return [re.sub(r"\s*#.*", "", line).strip() for line in keepalived("shop", config, host).splitlines()]


def test_each_host_is_told_of_the_other_and_nobody_is_told_to_begin(tmp_path: Path) -> None:
    config = of(tmp_path, PART)
    one, two = lines(config, "edge1"), lines(config, "edge2")
    for said, own, peer, interface in (
        (one, "10.0.0.11", "10.0.0.12", "eth0"),
        (two, "10.0.0.12", "10.0.0.11", "ens3"),
    ):
        assert f"unicast_src_ip {own}" in said
        assert said[said.index("unicast_peer {") + 1 : said.index("unicast_peer {") + 3] == [peer, "}"]
        assert f"interface {interface}" in said
        assert "priority 100" in said, "equal: who comes back takes the address away from nobody"
        said_to_all = {"state BACKUP", "advert_int 1", "enable_script_security", "route", "current", "init_file 0"}
        assert said_to_all <= set(said)
        assert "nopreempt" not in said, "a host that steps back must be overtaken"
        assert 'file "/var/lib/proxyroute-agent/priority"' in said
        assert {"10.0.0.100/24", "10.0.0.101/24"} <= set(said)
        assert "version 3" not in said
        assert not any("track_process" in line for line in said)
        assert said.count("}") == sum(line.endswith("{") for line in said)
    assert config.plain == ("10.0.0.100", "10.0.0.101")


def test_parts_of_a_second_need_the_later_version_and_a_process_may_be_watched_as_well(tmp_path: Path) -> None:
    said = lines(of(tmp_path, PART + "      advertisement: 250ms\n      track_process: haproxy\n"), "edge1")
    assert {"version 3", "advert_int 0.25", "process haproxy"} <= set(said)


WRONG = {
    "addresses: [10.0.0.100]": r"vrrp\.addresses: '10.0.0.100' is not an IPv4 address with its network",
    "addresses: ['fd00::1/64']": r"vrrp\.addresses: 'fd00::1/64' is not an IPv4",
    "addresses: 10.0.0.100/24": r"vrrp\.addresses: must be a list",
    "addresses: [10.0.0.11/24]": r"vrrp\.hosts: 10.0.0.11 is the virtual address",
    "hosts: {edge1: 10.0.0.11}": r"vrrp\.hosts: needs two hosts",
    "hosts: {edge1: 10.0.0.11, edge3: 10.0.0.12}": r"vrrp\.hosts\.edge3: there is no proxy 'edge3'; did you mean",
    "hosts: {edge1: 10.0.0.11, edge2: '10.0.0.12:3306'}": r"vrrp\.hosts: '10.0.0.12:3306' is not an IPv4 address",
    "hosts: {edge1: 10.0.0.11, edge2: 10.0.0.11}": r"vrrp\.hosts: two hosts have the same address",
    "interface: 'a b'": r"vrrp\.interface: 'a b' is not an interface",
    "interfaces: {edge3: eth1}": r"vrrp\.interfaces: there is no host 'edge3'",
    "router_id: 256": r"vrrp\.router_id: must be from 1 to 255",
    "advertisement: 1h": r"vrrp\.advertisement: must be from 50ms to 40s",
    "check: [check]": r"vrrp\.check: 'check' must be an absolute path",
    "check: ['/bin/check', 'a \" b']": r"vrrp\.check: .* is not a word without",
    "priority_file: priority": r"vrrp\.priority_file: 'priority' must be an absolute path",
    "script_user: ''": r"vrrp\.script_user: '' is not a word",
    "prority: 3": r"vrrp\.prority: is not known here",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, line: str) -> None:
    field = line.partition(":")[0]
    kept = [other for other in PART.splitlines() if not other.strip().startswith(f"{field}:")]
    if field == "hosts":
        kept = [other for other in kept if "interfaces" not in other]
    with pytest.raises(InvalidConfig, match=WRONG[line]):
        of(tmp_path, "\n".join([*kept, f"      {line}", ""]))


def test_what_is_missing_is_told_with_an_example(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig) as told:
        of(tmp_path, "    vrrp: {}\n")
    for example in ("addresses: [10.0.0.100/24]", "hosts: {edge1: 10.0.0.11", "interface: eth0", "router_id: 51"):
        assert f"is missing; write {example}" in str(told.value)


def test_the_command_prints_one_file_or_all(tmp_path: Path) -> None:
    config = of(tmp_path, PART)
    argv = ["--config", str(tmp_path / "proxyroute.yml"), "render", "keepalived"]
    one = CliRunner().invoke(main, [*argv, "--host", "edge2"])
    assert (one.exit_code, one.output) == (0, keepalived("shop", config, "edge2"))
    both = CliRunner().invoke(main, argv)
    assert [line for line in both.output.splitlines() if line.startswith("# ----")] == [
        f"# ---- edge1: {FILE}",
        f"# ---- edge2: {FILE}",
    ]
    told = CliRunner().invoke(main, [*argv, "--json"])
    assert json.loads(told.output)["edge1"] == {FILE: keepalived("shop", config, "edge1")}


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        (PART, ["keepalived", "--host", "edge3"], "there is no host 'edge3' in vrrp; did you mean"),
        ("", ["keepalived"], "shop has no vrrp in"),
        (PART, ["--backends", "keepalived"], "--proxy and --backends are not for render keepalived"),
    ],
)
def test_what_cannot_be_rendered_says_why(tmp_path: Path, text: str, words: list[str], said: str) -> None:
    path = tmp_path / "proxyroute.yml"
    path.write_text(SITE + text)
    done = CliRunner().invoke(main, ["--config", str(path), "render", *words])
    assert done.exit_code == 2
    assert said in done.output
