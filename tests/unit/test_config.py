"""The configuration file: what it becomes, and how its mistakes are told."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from proxyroute import config as configuration
from proxyroute.config import Config, InvalidConfig, Secret, config_path, from_snapshot, load, snapshot
from proxyroute.config_receivers import EmailNotices, ScriptNotices, WebhookNotices
from proxyroute.errors import ConfigError
from proxyroute.model import Address, Severity
from proxyroute.policy import AGGRESSIVE, FailoverPolicy

MINIMAL = """\
version: 1
clusters:
  shop:
    account: {user: proxyroute, password: {env: ENGINE_PASSWORD}}
    replication: {user: repl, password: {env: REPL_PASSWORD}}
    servers:
      db1: 10.0.0.1:3306
      db2: {address: "10.0.0.2"}
"""

FULL = """\
version: 1
state_dir: state
clusters:
  shop:
    account:
      user: proxyroute
      password: {file: secrets/engine}
      tls: {ca: ca.pem}
    replication:
      user: repl
      password: {credential: repl}
      tls: {ca: /etc/mysql/ca.pem, verify: false}
    servers:
      db1: 10.0.0.1:3306
      db2: {address: "[fd00::2]:3307", replication: {user: other, password: {env: OTHER}}}
      db3: db3.example.net:3306
    switchover:
      prefer: [db2]
      never: [db3]
      freeze_budget: 1500ms
      long_wait: 2m
      drain: 0.5
      max_connections: 0
    proof: {schema: proxyroute, account: {user: probe, password: {env: PROBE}}}
    scripts:
      timeout: 10s
      arguments: replication-manager
      address_down: [/usr/local/bin/vip, down, 5]
    proxies:
      - {type: toy, name: edge1, absent: true, socket: run/toy.sock, write: "127.0.0.1:3306", timeout: 250ms}
      - {type: toy, name: edge2, socket: /run/toy.sock, write: "127.0.0.1:3307", set: [vip, set]}
    notices:
      - {type: webhook, url: {file: secrets/url}, header: X-Key, header_value: {env: OTHER}, ca: ca.pem, on: [trouble]}
      - {type: email, host: mail, sender: a@b.c, to: [d@e.f], user: u, password: {env: OTHER}, timeout: 500ms}
      - {type: script, run: [/usr/local/bin/tell, 5]}
"""


@dataclass(frozen=True)
class ToySettings:
    socket: Path
    write: Address
    timeout: float = 5.0
    set: tuple[str, ...] = ()
    read: Address | None = None

    def __post_init__(self) -> None:
        if self.timeout == 0:
            raise ValueError("timeout: must be above zero")
        if self.write == self.read:
            raise ValueError("write and read are the same")


class Toy:
    Settings = ToySettings


@pytest.fixture(autouse=True)
def toy_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "installed_adapters", lambda: {"toy": Toy})
    monkeypatch.setattr(configuration, "find_adapter", lambda _: Toy)


def read(folder: Path, text: str) -> Config:
    path = folder / "proxyroute.yml"
    path.write_text(text)
    return load(path)


def mistakes(folder: Path, text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(InvalidConfig) as caught:
        read(folder, text)
    assert all(p.file == str(folder / "proxyroute.yml") for p in caught.value.problems)
    return [(p.line, p.field, p.text) for p in caught.value.problems]


def one_mistake(folder: Path, text: str) -> tuple[int, str, str]:
    found = mistakes(folder, text)
    assert len(found) == 1, found
    return found[0]


def test_a_full_file_becomes_plain_values(tmp_path: Path) -> None:
    cluster = read(tmp_path, FULL).cluster("shop")
    assert cluster.state_dir == tmp_path / "state"
    assert cluster.account.user == "proxyroute"
    assert cluster.account.password == Secret("file", str(tmp_path / "secrets/engine"))
    assert cluster.account.tls is not None
    assert cluster.account.tls.ca == tmp_path / "ca.pem"
    assert cluster.replication.tls is not None
    assert cluster.replication.tls.ca == Path("/etc/mysql/ca.pem")
    assert not cluster.replication.tls.verify
    assert [s.address for s in cluster.servers.values()] == [
        Address("10.0.0.1", 3306),
        Address("fd00::2", 3307),
        Address("db3.example.net", 3306),
    ]
    assert cluster.replication_of("db1").user == "repl"
    assert cluster.replication_of("db2").user == "other"
    policy = cluster.policy
    assert (policy.prefer, policy.never, policy.max_connections) == (("db2",), ("db3",), 0)
    assert (policy.freeze_budget, policy.long_wait, policy.drain) == (1.5, 120.0, 0.5)
    assert policy.probe_schema == "proxyroute"
    assert cluster.scripts.moments == {"address_down": ("/usr/local/bin/vip", "down", "5")}
    first, second = cluster.proxies
    assert (first.type, first.name, first.absent) == ("toy", "edge1", True)
    assert first.settings == ToySettings(tmp_path / "run/toy.sock", Address("127.0.0.1", 3306), 0.25)
    assert second.settings.socket == Path("/run/toy.sock")
    assert second.settings.set == ("vip", "set")
    assert not second.absent
    web, mail, script = cluster.notices
    assert web == WebhookNotices(
        url=Secret("file", str(tmp_path / "secrets/url")), header="X-Key", header_value=Secret("env", "OTHER"),
        ca=tmp_path / "ca.pem", on=("trouble",),
    )  # fmt: skip
    assert mail == EmailNotices(
        host="mail", sender="a@b.c", to=("d@e.f",), user="u", password=Secret("env", "OTHER"), timeout=0.5
    )
    assert (mail.port_used, mail.on) == (587, ("operations", "trouble"))
    assert script == ScriptNotices(run=("/usr/local/bin/tell", "5"))


def test_what_yaml_takes_for_a_number_reaches_a_program_as_it_is_written(tmp_path: Path) -> None:
    """A hardware address whose every byte looks like minutes is a number to the base of 60, a leading 0 means octal."""
    words = "52:54:00:12:34:56, 0041765432100, 0755, 12:30, 0x1F, 1_000, +5, 5, 0.50, 1.5"
    text = MINIMAL + f"    scripts: {{fence: [/x, {words}]}}\n    notices: [{{type: script, run: [/x, {words}]}}]\n"
    cluster = read(tmp_path, text).cluster(None)
    (notice,) = cluster.notices
    assert isinstance(notice, ScriptNotices)
    assert cluster.scripts.moments["fence"] == notice.run == ("/x", *words.split(", "))


def test_a_server_that_is_called_by_a_number_is_found_by_its_name(tmp_path: Path) -> None:
    text = MINIMAL.replace("db1:", "007:") + "    switchover: {prefer: [007], max_connections: 0x10, drain: 010}\n"
    policy = read(tmp_path, text).cluster(None).policy
    assert (policy.prefer, policy.max_connections, policy.drain) == (("007",), 16, 8.0)


def test_what_may_be_left_out_has_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, MINIMAL + "    scripts:\n    proxies:\n    proof:\n    switchover:\n")
    cluster = config.cluster(None)
    assert cluster.state_dir == Path("/var/lib/proxyroute")
    assert (cluster.proof, cluster.proxies, cluster.scripts.moments) == (None, (), {})
    assert cluster.policy.probe_schema == ""
    assert cluster.servers["db2"].address == Address("10.0.0.2", 3306)


def test_a_snapshot_survives_json_and_rebuilds_the_same_configuration(tmp_path: Path) -> None:
    cluster = read(tmp_path, FULL).cluster("shop")
    assert from_snapshot(json.loads(json.dumps(snapshot(cluster)))) == cluster


@pytest.mark.parametrize(("taken", "now"), [(600.0, 300.0), (0.0, 300.0), (20.0, 20.0)])
def test_a_snapshot_with_a_time_that_scripts_had_formerly_is_healed_with_the_longest(
    tmp_path: Path, taken: float, now: float
) -> None:
    value = json.loads(json.dumps(snapshot(read(tmp_path, FULL).cluster("shop"))))
    value["cluster"]["scripts"]["timeout"] = taken
    assert snapshot(from_snapshot(value))["cluster"]["scripts"]["timeout"] == now


def test_a_snapshot_of_a_proxy_whose_adapter_is_gone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = snapshot(read(tmp_path, FULL).cluster("shop"))
    monkeypatch.setattr(configuration, "installed_adapters", lambda: {"toys": Toy})
    with pytest.raises(InvalidConfig, match=r"when the operation began.*no adapter 'toy'; did you mean toys\?"):
        from_snapshot(taken)


def test_a_secret_is_in_no_snapshot_and_no_repr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_PASSWORD", "s3cret")
    monkeypatch.setenv("REPL_PASSWORD", "s3cret")
    cluster = read(tmp_path, MINIMAL).cluster(None)
    assert cluster.account.login().password == "s3cret"
    for text in (repr(cluster), json.dumps(snapshot(cluster)), repr(cluster.account.login())):
        assert "s3cret" not in text
    assert cluster.replication.replication_login().password == "s3cret"


def test_several_clusters_need_a_name_and_one_does_not(tmp_path: Path) -> None:
    both = FULL + MINIMAL.split("clusters:\n")[1].replace("shop", "bar").replace("10.0.0.", "10.1.0.")
    config = read(tmp_path, both)
    assert config.cluster("bar").name == "bar"
    with pytest.raises(ConfigError, match="--cluster NAME with one of: shop, bar"):
        config.cluster(None)
    with pytest.raises(ConfigError, match=r"no cluster 'shopp'; did you mean shop\?"):
        config.cluster("shopp")


def test_yaml_anchors_and_merges_work(tmp_path: Path) -> None:
    text = MINIMAL.replace("account: {", "account: &a {").replace(
        "replication: {user: repl, password: {env: REPL_PASSWORD}}", "replication: {<<: *a, user: repl}"
    )
    cluster = read(tmp_path, text).cluster(None)
    assert (cluster.replication.user, cluster.replication.password) == ("repl", Secret("env", "ENGINE_PASSWORD"))


MISTAKES: list[tuple[str, str, str, int, str, str]] = [
    # what is replaced, by what, and the line, field and text that must be told
    ("unknown field", "    servers:\n", "    servres: {}\n    servers:\n", 6, "clusters.shop.servres", "servers?"),
    (
        "unknown field far from all",
        "user: repl,",
        "user: repl, zzz: 1,",
        5,
        "clusters.shop.replication.zzz",
        "known are password, tls, user",
    ),
    ("missing", "user: proxyroute, ", "", 4, "clusters.shop.account.user", "is missing; write user: NAME"),
    (
        "empty password",
        "password: {env: REPL_PASSWORD}",
        "password:",
        5,
        "clusters.shop.replication.password",
        "is missing; write password: {file",
    ),
    (
        "inline password",
        "{env: ENGINE_PASSWORD}",
        "hunter2",
        4,
        "clusters.shop.account.password",
        "a secret is never written into this file; write {file: /path}",
    ),
    (
        "two places for a secret",
        "{env: ENGINE_PASSWORD}",
        "{env: A, file: /b}",
        4,
        "clusters.shop.account.password",
        "names 2 places",
    ),
    (
        "misspelt kind of secret",
        "{env: ENGINE_PASSWORD}",
        "{enw: A}",
        4,
        "clusters.shop.account.password.enw",
        "did you mean env?",
    ),
    ("number for text", "user: proxyroute", "user: 0755", 4, "clusters.shop.account.user", "put it into quotes"),
    ("wrong version", "version: 1", "version: 2", 1, "version", "must be 1"),
    ("bad port", "10.0.0.1:3306", "10.0.0.1:99999", 7, "clusters.shop.servers.db1.address", "not between 1 and 65535"),
    ("address not text", "10.0.0.1:3306", "3306", 7, "clusters.shop.servers.db1.address", "write host:port"),
    ("duplicate address", '"10.0.0.2"', "10.0.0.1", 8, "clusters.shop.servers.db2.address", "address of shop.db1"),
    ("bad server name", "db1:", '"db 1":', 7, "clusters.shop.servers.db 1", "is not a name"),
    ("bad cluster name", "  shop:", "  ../shop:", 3, "clusters.../shop", "is not a name"),
    ("duplicate key", "    servers:", "    servers: {}\n    servers:", 7, "clusters.shop.servers", "first in line 6"),
]


@pytest.mark.parametrize(("before", "after", "line", "field", "text"), [m[1:] for m in MISTAKES], ids=lambda _: "")
def test_a_mistake_names_line_field_and_what_would_be_right(
    tmp_path: Path, before: str, after: str, line: int, field: str, text: str
) -> None:
    assert before in MINIMAL
    found = one_mistake(tmp_path, MINIMAL.replace(before, after, 1))
    assert found[:2] == (line, field)
    assert text in found[2]
    assert "hunter2" not in found[2]


SECTION_MISTAKES: list[tuple[str, int, str, str]] = [
    ("switchover: {freeze_budget: 3 parsecs}", 9, "switchover.freeze_budget", "'3 parsecs' is not a duration"),
    ("switchover: {freeze_budget: -1}", 9, "switchover.freeze_budget", "is not a duration"),
    (f"switchover: {{freeze_budget: 1{'0' * 400}}}", 9, "switchover.freeze_budget", "is not a duration"),
    (f"switchover: {{freeze_budget: 1{'0' * 400}h}}", 9, "switchover.freeze_budget", "is not a duration"),
    ("switchover: {freeze_budget: 0}", 9, "switchover.freeze_budget", "above zero"),
    ("switchover: {freeze_bugdet: 3s}", 9, "switchover.freeze_bugdet", "did you mean freeze_budget?"),
    ("switchover: {freeze: gently}", 9, "switchover.freeze", "flush_tables or backup_stage"),
    ("switchover: {order: soon}", 9, "switchover.order", "lock_early or read_only_first"),
    ("switchover: {order: 3}", 9, "switchover.order", "must be text"),
    ("switchover: {max_connections: many}", 9, "switchover.max_connections", "must be a whole number"),
    ("switchover: {probe_schema: x}", 9, "switchover.probe_schema", "is not known here"),
    (
        "switchover:\n      prefer:\n      - db2\n      - db9",
        12,
        "switchover.prefer[1]",
        "no server 'db9'; did you mean",
    ),
    ("switchover: {never: db1}", 9, "switchover.never", "must be a list; write [db1]"),
    ("switchover: {prefer: [db1], never: [db1]}", 9, "switchover.never[0]", "preferred as well"),
    ("scripts: {address_up: vip up}", 9, "scripts.address_up", "must be a list; write [vip, up]"),
    ("scripts: {address_up: []}", 9, "scripts.address_up", "is empty"),
    ("scripts:\n      timeout: 0", 10, "scripts.timeout", "must be more than 0 seconds, and at most 5m"),
    ("scripts: {timeout: 301s}", 9, "scripts.timeout", "at most 5m"),
    ("scripts: {fence: [/x, on]}", 9, "scripts.fence[1]", "must be text; put it into quotes"),
    ("scripts: {arguments: mha}", 9, "scripts.arguments", "'environment' or 'replication-manager'"),
    ("proof: {schema: 'a`b', account: {user: p, password: {env: P}}}", 9, "proof", "is not plain"),
    ("proof: {schema: p}", 9, "proof.account", "is missing"),
    ("proxies: [{name: e, socket: /s, write: w}]", 9, "proxies[0].type", "is missing"),
    ("proxies: [{type: toy, name: 007, socket: /s, write: a}]", 9, "proxies[0].name", "put it into quotes"),
    ("proxies: [{type: toi, name: e}]", 9, "proxies[0].type", "no adapter 'toi'; did you mean toy?"),
    ("proxies: [{type: toy, name: e, sokcet: /s}]", 9, "proxies[0].sokcet", "did you mean socket?"),
    ("proxies: [{type: toy, name: e, write: w}]", 9, "proxies[0].socket", "is missing"),
    ("proxies: [{type: toy, socket: /s, write: 'a:1'}]", 9, "proxies[0].name", "is missing"),
    ("proxies: [{type: toy, name: e, socket: /s, write: ':1'}]", 9, "proxies[0].write", "is not an address"),
    ("proxies: [{type: toy, name: e, socket: /s, write: a, absent: 3}]", 9, "proxies[0].absent", "true or false"),
    ("proxies: [{type: toy, name: e, socket: /s, write: a, timeout: 0}]", 9, "proxies[0].timeout", "above zero"),
    ("proxies: [{type: toy, name: e, socket: /s, write: a, read: a}]", 9, "proxies[0]", "are the same"),
    ("proxies:\n    - toy", 10, "proxies[0]", "must be a mapping"),
    ("notices:\n    - tell", 10, "notices[0]", "must be a mapping"),
    ("notices: [{url: {env: U}}]", 9, "notices[0].type", "is missing; write type: webhook"),
    ("notices: [{type: mail}]", 9, "notices[0].type", "no type 'mail'; did you mean email?"),
    ("notices: [{type: [email]}]", 9, "notices[0].type", "no type ['email']; did you mean email?"),
    ("proxies: [{type: [haproxy], name: e}]", 9, "proxies[0].type", "no adapter ['haproxy']; "),
    ("proxies: [{type: {haproxy: 1}, name: e}]", 9, "proxies[0].type", "no adapter {'haproxy': 1}"),
    ("notices: [{type: webhook}]", 9, "notices[0].url", "is missing"),
    ("notices: [{type: webhook, url: 'https://x/hunter2'}]", 9, "notices[0].url", "never written into this file"),
    ("notices: [{type: webhook, url: {enw: U}}]", 9, "notices[0].url.enw", "did you mean env?"),
    ("notices: [{type: webhook, url: {env: U}, header: X}]", 9, "notices[0]", "come together"),
    ("notices: [{type: webhook, url: {env: U}, on: [truoble]}]", 9, "notices[0].on", "operations and trouble"),
    ("notices: [{type: webhook, url: {env: U}, on: trouble}]", 9, "notices[0].on", "must be a list; write [trouble]"),
    ("notices: [{type: webhook, url: {env: U}, timeout: 0}]", 9, "notices[0].timeout", "more than 0"),
    ("notices: [{type: email, host: m, sender: a@b, to: [ops]}]", 9, "notices[0].to", "must be an e-mail address"),
    ("notices: [{type: email, host: m, sender: a@b, to: [c@d], tls: ssl}]", 9, "notices[0].tls", "must be starttls"),
    (
        "notices: [{type: email, host: m, sender: a@b, to: [c@d], tls: none, user: u, password: {env: P}}]",
        9,
        "notices[0].tls",
        "could read the password",
    ),
    ("notices: [{type: script, run: tell me}]", 9, "notices[0].run", "must be a list; write [tell, me]"),
    ("notices: [{type: script, run: []}]", 9, "notices[0].run", "is empty"),
]


@pytest.mark.parametrize(
    ("section", "line", "field", "text"), SECTION_MISTAKES, ids=[m[0][:40] for m in SECTION_MISTAKES]
)
def test_a_mistake_in_a_section_is_told(tmp_path: Path, section: str, line: int, field: str, text: str) -> None:
    found = one_mistake(tmp_path, MINIMAL + f"    {section}\n")
    assert found[:2] == (line, f"clusters.shop.{field}")
    assert text in found[2]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = MINIMAL.replace("user: repl, ", "").replace("10.0.0.1:3306", "10.0.0.1:x")
    text += "    switchover: {prefer: [db3], drain: soon}\n    proxies: [{type: tyo, name: '/'}]\n"
    fields = [field for _, field, _ in mistakes(tmp_path, text)]
    assert fields == [
        "clusters.shop.replication.user",
        "clusters.shop.servers.db1.address",
        "clusters.shop.switchover.drain",
        "clusters.shop.switchover.prefer[0]",
        "clusters.shop.proxies[0].name",
        "clusters.shop.proxies[0].type",
    ]


def test_a_misspelt_field_hides_no_other_mistake_and_is_not_missing_as_well(tmp_path: Path) -> None:
    text = MINIMAL + "    proxies: [{type: toy, name: e, sokcet: /s, write: a, set: [[]]}]\n"
    assert [field.rpartition(".")[2] for _, field, _ in mistakes(tmp_path, text)] == ["set[0]", "sokcet"]


def test_one_server_in_two_clusters_is_a_mistake(tmp_path: Path) -> None:
    other = MINIMAL.split("clusters:\n")[1].replace("shop", "bar").replace("10.0.0.1", "10.1.0.1")
    line, field, text = one_mistake(tmp_path, MINIMAL + other)
    assert (line, field) == (14, "clusters.bar.servers.db2.address")
    assert "already the address of shop.db2" in text


def test_an_adapter_that_cannot_be_imported_is_a_mistake_where_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> type[Toy]:
        raise ConfigError(f"the adapter {name!r} cannot be imported")

    monkeypatch.setattr(configuration, "find_adapter", broken)
    line, field, text = one_mistake(tmp_path, MINIMAL + "    proxies:\n    - {type: toy, name: e, write: w}\n")
    assert (line, field, text) == (10, "clusters.shop.proxies[0].type", "the adapter 'toy' cannot be imported")
    assert read(tmp_path, MINIMAL).cluster(None).proxies == ()


def test_two_proxies_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    proxy = "{type: toy, name: e, socket: /s, write: a}"
    _, field, text = one_mistake(tmp_path, MINIMAL + f"    proxies: [{proxy}, {proxy}]\n")
    assert field == "clusters.shop.proxies[1].name"
    assert "already called e" in text


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("version: [1\n", 2, "is not proper YAML"),
        ("a: &a [*a]\n", 1, "contains itself"),
        ("version: 1\nstate_dir: 2026-13-45\n", 2, "put it into quotes"),
        ("? [a]\n: 1\n", 1, "key that is not plain text"),
        ("[]\n", 1, "must be a mapping"),
        ("a: " + "[" * 5000, 0, "nests deeper than can be read"),
        ("", 1, "is missing; write version: 1"),
    ],
)
def test_broken_yaml_is_told_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    found = mistakes(tmp_path, text)
    assert any(at == line and said in what for at, _, what in found), found


def test_a_missing_file_tells_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="proxyroute init --config"):
        load(tmp_path / "none.yml")


def test_the_path_comes_from_the_option_then_the_environment_then_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PROXYROUTE_CONFIG", raising=False)
    assert config_path() == Path("/etc/proxyroute/proxyroute.yml")
    monkeypatch.setenv("PROXYROUTE_CONFIG", "/a.yml")
    assert config_path() == Path("/a.yml")
    assert config_path("/b.yml") == Path("/b.yml")


# -- findings --


def test_findings_tell_what_the_file_refers_to_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", "x")
    monkeypatch.setenv("PROBE", "x")
    cluster = read(tmp_path, FULL).cluster("shop")
    found = {(f.code, f.subject) for f in cluster.findings()}
    assert found == {
        ("config.secret", "account"),
        ("config.secret", "replication"),
        ("config.tls", "account"),
        ("config.script", "address_down"),
        ("config.secret", "notices[0].url"),
        ("config.notice", "notices[0].ca"),
        ("config.notice", "notices[2]"),
    }
    notices = [f for f in cluster.findings() if f.subject.startswith("notices")]
    assert {f.severity for f in notices} == {Severity.WARNING}, "no operation is refused for them"


def test_nothing_is_found_when_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_PASSWORD", "x")
    monkeypatch.setenv("REPL_PASSWORD", "x")
    cluster = read(tmp_path, MINIMAL + "    scripts: {address_up: [sh, -c, 'true']}\n").cluster(None)
    assert cluster.findings() == ()


def test_unverified_tls_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_PASSWORD", "x")
    monkeypatch.setenv("REPL_PASSWORD", "x")
    text = MINIMAL.replace("account: {user: proxyroute,", "account: {user: proxyroute, tls: {verify: false},")
    (finding,) = read(tmp_path, text).cluster(None).findings()
    assert (finding.code, finding.severity) == ("config.tls-unverified", Severity.WARNING)


def test_replication_over_tls_becomes_options_of_the_channel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OTHER", "x")
    cluster = read(tmp_path, FULL).cluster("shop")
    account = replace(cluster.replication, password=Secret("env", "OTHER"))
    options: dict[str, Any] = dict(account.replication_login().options)
    assert options == {"ssl": True, "ssl_verify": False, "ssl_ca": "/etc/mysql/ca.pem"}
    assert dict(cluster.replication_of("db2").replication_login().options) == {}


def test_relative_tls_paths_of_replication_are_a_mistake(tmp_path: Path) -> None:
    text = MINIMAL.replace("replication: {user: repl,", "replication: {user: repl, tls: {ca: ca.pem},")
    line, field, said = one_mistake(tmp_path, text)
    assert (line, field) == (5, "clusters.shop.replication")
    assert "on the database servers; write absolute paths" in said


# -- Failover -------------------------------------------------------------------------------------------------


def failover(tmp_path: Path, *lines: str) -> FailoverPolicy:
    text = MINIMAL + "    failover:\n" + "".join(f"      {line}\n" for line in lines)
    return read(tmp_path, text).cluster(None).failover


def test_a_profile_counts_for_what_is_not_written(tmp_path: Path) -> None:
    assert failover(tmp_path, "mode: manual") == FailoverPolicy()
    assert FailoverPolicy().probe_period == 0.5, "what is promised: every server is looked at twice a second"
    found = failover(tmp_path, "profile: aggressive", "patience: 700ms", "confirm:")
    assert found == replace(FailoverPolicy(), **{**AGGRESSIVE, "profile": "aggressive", "patience": 0.7})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("mode: auto", "failover.mode: must be manual or automatic"),
        ("looks: 1", "failover.looks: must be 2 or more"),
        ("heartbeats: 1", "failover.heartbeats: must be more than 1"),
        ("patience: 0", "failover.patience: must be more than 0 seconds"),
        ("patiense: 1s", "did you mean patience?"),
    ],
)
def test_a_mistake_about_failover_is_told(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(InvalidConfig, match=re.escape(words)):
        failover(tmp_path, line)
