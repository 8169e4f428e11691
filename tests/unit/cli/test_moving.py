"""``init --from-replication-manager``: what that tool is configured to do, in our words, and nothing passed over."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from proxyroute.cli import main, repman, repman_options, repman_read
from proxyroute.config import load

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "moving-over.md"

FULL = """
[Default]
include = "{include}"
monitoring-ticker = 2
failover-mode = "manual"
mail-from = "mrm@example.net"
mail-to = "dba@example.net, ops@example.net"
mail-smtp-addr = "mail.example.net:25"
http-server = true
prov-orchestrator = "onpremise"

[shop]
title = "shop"
db-servers-hosts = "db1.example.net:3306,db2.example.net:3307,db3.example.net"
db-servers-credential = "mrm:s3cret-of-mrm"
replication-credential = "repl:s3cret-of-repl"
db-servers-prefered-master = "db2.example.net:3307"
db-servers-ignored-hosts = "db3.example.net:3306"
failover-mode = "automatic"
failover-limit = 3
failover-time-limit = 600
failover-at-sync = true
switchover-wait-trx = 7
switchover-max-slave-delay = 0
failover-pre-script = "/usr/local/bin/vip down"
failover-post-script = "/usr/local/bin/vip up"
autorejoin = true
autorejoin-flashback = true
haproxy = true
haproxy-servers = "127.0.0.1"
haproxy-write-port = 3316
haproxy-read-port = 3317
force-slave-semisync = true
a-thing-of-tomorrow = "x"
"""

INCLUDED = """
title = "Books"
db-servers-hosts = "10.0.0.1:3306,10.0.0.2:3306"
db-servers-credential = "mrm:hash_9f8e7d"
replication-credential = "repl:other"
maxscale = true
maxscale-servers = "10.0.0.8,10.0.0.9"
maxscale-user = "proxyroute"
maxscale-pass = "s3cret-of-maxscale"
maxscale-monitor = false
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "cluster.d"
    folder.mkdir()
    (folder / "books.toml").write_text(INCLUDED)
    file = tmp_path / "config.toml"
    file.write_text(FULL.replace("{include}", str(folder)))
    return file


def init(tmp_path: Path, source: Path, *words: str) -> tuple[Result, Path]:
    target = tmp_path / "etc" / "proxyroute.yml"
    outcome = CliRunner().invoke(
        main, ["init", "--config", str(target), "--from-replication-manager", str(source), *words]
    )
    assert outcome.exception is None or isinstance(outcome.exception, SystemExit), outcome.exc_info
    return outcome, target


def test_a_whole_configuration_is_converted_and_loads(tmp_path: Path, source: Path) -> None:
    outcome, target = init(tmp_path, source)
    assert outcome.exit_code == 0, outcome.output
    config = load(target)
    shop, books = config.clusters["shop"], config.clusters["books"]
    assert [str(s.address) for s in shop.servers.values()] == [
        "db1.example.net:3306",
        "db2.example.net:3307",
        "db3.example.net:3306",
    ]
    assert (shop.policy.prefer, shop.policy.never, shop.policy.long_wait) == (("db2",), ("db3",), 7.0)
    assert (shop.failover.mode, shop.failover.per_day, shop.failover.quiet_period) == ("automatic", 3, 600)
    assert books.failover.mode == "manual", "the default section counts for who says nothing else"
    assert [p.name for p in books.proxies] == ["maxscale1", "maxscale2"]
    written = yaml.safe_load(target.read_text())["clusters"]
    assert written["shop"]["proxies"][0] | {"name": ""} == {
        "type": "haproxy", "name": "", "config_file": "/etc/haproxy/haproxy.cfg", "write": "*:3316", "read": "*:3317",
    }  # fmt: skip
    assert written["shop"]["scripts"] == {
        "address_down": ["/usr/local/bin/vip", "down"],
        "address_up": ["/usr/local/bin/vip", "up"],
        "arguments": "replication-manager",
    }
    assert {p["mode"] for p in written["books"]["proxies"]} == {"driving"}
    assert written["shop"]["notices"][0]["to"] == ["dba@example.net", "ops@example.net"]


def test_passwords_are_in_files_that_only_we_read_and_nowhere_else(tmp_path: Path, source: Path) -> None:
    outcome, target = init(tmp_path, source)
    secrets = {"s3cret-of-mrm", "s3cret-of-repl", "s3cret-of-maxscale", "hash_9f8e7d"}
    assert not [s for s in secrets if s in outcome.output or s in target.read_text()]
    kept = {f.name: f.read_text() for f in target.parent.iterdir() if f != target}
    assert kept == {
        "shop.engine.password": "s3cret-of-mrm\n",
        "shop.replication.password": "s3cret-of-repl\n",
        "books.replication.password": "other\n",
        "books.maxscale.password": "s3cret-of-maxscale\n",
    }
    assert {stat.S_IMODE((target.parent / name).stat().st_mode) for name in kept} == {0o600}
    assert "db-servers-credential: its password is encrypted with replication-manager's key" in outcome.output


def test_every_option_is_told_of_once_and_what_is_left_stands_in_the_file(tmp_path: Path, source: Path) -> None:
    outcome, target = init(tmp_path, source, "--json")
    told = json.loads(outcome.output)
    assert told["clusters"] == ["shop", "books"]
    by_option = {o["option"]: o["verdict"] for o in told["options"] if o["cluster"] == "shop"}
    given = {line.split(" = ")[0] for line in FULL.splitlines() if " = " in line}
    assert by_option.keys() >= given - {"haproxy-servers", "haproxy-write-port", "haproxy-read-port"}
    assert by_option["a-thing-of-tomorrow"] == "by hand"
    assert by_option["autorejoin"] == "not needed"
    assert by_option["prov-orchestrator"] == "left out"
    counted = [(o["cluster"], o["option"]) for o in told["options"]]
    assert len(counted) == len(set(counted))
    comments = [line for line in target.read_text().splitlines() if line.startswith("#")]
    for option in (name for name, verdict in by_option.items() if verdict == "by hand"):
        assert any(option in line for line in comments), option


def test_that_no_failover_runs_the_script_of_before_a_failover_stands_in_the_file(tmp_path: Path, source: Path) -> None:
    outcome, target = init(tmp_path, source, "--json")
    (told,) = [o for o in json.loads(outcome.output)["options"] if o["option"] == "failover-pre-script"]
    assert told["verdict"] == "by hand"
    assert "in a switchover only: what it does to a primary that is gone belongs into scripts.fence" in told["text"]
    left = target.read_text().partition("# By hand:")[2].replace("\n#  ", "")
    assert f"shop: failover-pre-script: {told['text']}" in left


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[shop", "config.toml: is not TOML"),
        ("", "no section describes a cluster"),
        ("[shop]\ntitle = 'x'", "[shop]: db-servers-hosts is missing"),
        ("[shop]\ndb-servers-hosts = 'db1:99999'", "[shop]: db-servers-hosts: "),
        ("[shop]\ndb-servers-hosts = 'db1'\nfailover-limit = 'many'", "failover-limit: 'many' is not a number"),
        ("[shop]\ndb-servers-hosts = 'db1'\nfailover-time-limit = inf", "failover-time-limit: inf is not a number"),
        ("[Default]\ninclude = '/nowhere'\n[shop]\ndb-servers-hosts = 'a'", "include: /nowhere is not a folder here"),
    ],
)
def test_what_cannot_be_understood_is_told_with_its_place_and_nothing_is_written(
    tmp_path: Path, text: str, complaint: str
) -> None:
    source = tmp_path / "config.toml"
    source.write_text(text)
    outcome, target = init(tmp_path, source)
    assert outcome.exit_code == 2
    assert complaint in outcome.output
    assert not target.parent.exists()


def test_nothing_is_written_when_the_result_would_not_load(tmp_path: Path) -> None:
    source = tmp_path / "config.toml"
    source.write_text("[a]\ndb-servers-hosts = 'db1,db2'\ndb-servers-credential = 'u:p'\n[b]\ndb-servers-hosts = 'db1'")
    outcome, target = init(tmp_path, source)
    assert outcome.exit_code == 2
    assert "db1:3306" in outcome.output, "an address may stand only once"
    assert f"what {source} becomes: clusters.b.servers.db1" in outcome.output, "no line of a file that is gone"
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize(
    ("options", "field", "value", "by_hand"),
    [
        ("failover-time-limit = 2592000", "failover.quiet_period", "2592000s", ""),
        ("switchover-wait-trx = 2.5", "switchover.long_wait", "2.5s", ""),
        ("mail-to = 'Ops <o@b.c>,'\nmail-from = 'Me <me@b.c>'", "notices", {"sender": "me@b.c", "to": ["o@b.c"]}, ""),
        ("mail-to = 'ops@b.c, root'", "notices", {"to": ["ops@b.c"]}, "--test; root is none"),
        ("mail-to = 'root'\nmail-smtp-user = 'u'", "notices", None, "email} needs an address; root is none"),
        ("mail-to = 'ops@b.c'\nmail-from = 'me'", "notices", {"sender": "proxyroute@localhost"}, "'me' is no address"),
        (
            "db-servers-prefered-master = 'db1,db2'\ndb-servers-ignored-hosts = 'db1'",
            "switchover", {"prefer": ["db2"], "never": ["db1"]}, "db1 was preferred as well",
        ),
        ("db-servers-tls-client-cert = '/c'", "account.tls", None, "db-servers-tls-client-key is missing"),
        ("db-servers-tls-client-key = '/k'", "account.tls", None, "db-servers-tls-client-cert is missing"),
    ],
)  # fmt: skip
def test_what_we_would_not_load_is_converted_otherwise_or_left_to_do(
    tmp_path: Path, options: str, field: str, value: Any, by_hand: str
) -> None:
    source = tmp_path / "config.toml"
    source.write_text(f"[shop]\ndb-servers-hosts = 'db1,db2'\n{options}\n")
    outcome, target = init(tmp_path, source)
    assert outcome.exit_code == 0, outcome.output
    found: Any = yaml.safe_load(target.read_text())["clusters"]["shop"]
    for part in field.split("."):
        found = found.get(part)
    found = found[0] if isinstance(found, list) else found
    assert found == value or found | value == found
    assert set(load(target).clusters) == {"shop"}
    if by_hand:
        assert by_hand in target.read_text().partition("# By hand:")[2].replace("\n#  ", "")


def test_names_of_version_one_are_understood(tmp_path: Path) -> None:
    source = tmp_path / "config.toml"
    source.write_text('hosts="10.0.0.1,10.0.0.2"\nuser="mrm:a"\nrpluser="r:b"\ninteractive=true\nwait-trx=4\n')
    found = repman_read.read(source)
    moved = repman.convert(found, source, tmp_path)
    assert moved.clusters["config"]["failover"] == {"mode": "manual"}
    assert moved.clusters["config"]["switchover"] == {"long_wait": "4s"}


@pytest.mark.parametrize("proxies", ["", "haproxy=true\nhaproxy-servers='10.0.0.5,10.0.0.6'"])
def test_a_failover_stays_manual_while_no_route_can_be_closed(tmp_path: Path, proxies: str) -> None:
    source = tmp_path / "config.toml"
    source.write_text(f"[shop]\ndb-servers-hosts='a,b'\nfailover-mode='automatic'\n{proxies}\n")
    moved = repman.convert(repman_read.read(source), source, tmp_path)
    assert moved.clusters["shop"]["failover"]["mode"] == "manual"
    note = next(n for n in moved.notes if n.option == "failover-mode")
    assert note.verdict == "by hand"
    assert "until the proxies are configured" in note.text


def test_the_guide_lists_every_option() -> None:
    text = GUIDE.read_text()
    known = {*repman_options.NOT_NEEDED, *repman_options.BY_HAND, *repman.HANDLERS, *repman.OTHERS}
    assert not [option for option in sorted(known) if f"`{option}`" not in text]


def test_the_other_options_do_not_go_with_it(tmp_path: Path, source: Path) -> None:
    outcome, target = init(tmp_path, source, "--user", "x")
    assert outcome.exit_code == 2
    assert "leave the other options out" in outcome.output
    assert not target.exists()
    outcome = CliRunner().invoke(main, ["init", "--config", str(target)])
    assert outcome.exit_code == 2
    assert "--server HOST:PORT and --user USER are needed" in outcome.output
