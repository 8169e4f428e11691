"""``init --from-replication-manager`` with what installations have: all is said, most of it is off, three clusters."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from proxyroute.cli import main
from proxyroute.config import load

DEFAULT = """\
[Default]
include = "{include}"
monitoring-datadir = "/var/lib/replication-manager"
monitoring-ticker = 2
monitoring-save-config = false
log-file = "/var/log/replication-manager.log"
log-level = 1
verbose = false
http-server = true
http-bind-address = "0.0.0.0"
http-port = "10001"
api-port = "10005"
api-credentials = "admin:s3cret-of-api"
mail-from = "mrm@example.net"
mail-to = "dba@example.net"
mail-smtp-addr = "smtp.example.net:25"
mail-smtp-user = "mrm"
mail-smtp-password = "s3cret-of-mail"
mail-smtp-tls-skip-verify = true
alert-slack-url = "https://hooks.example.net/s3cret-of-slack"
alert-slack-channel = "#dba"
graphite-metrics = true
graphite-embedded = true
arbitration-external = false
arbitration-external-secret = "s3cret-of-arbitrator"
arbitration-peer-hosts = "10.0.0.6:10001"
backup-physical-type = "mariabackup"
scheduler-db-servers-logical-backup = false
prov-orchestrator = "onpremise"
onpremise-ssh = true
onpremise-ssh-credential = "root:s3cret-of-ssh"
"""

SHOP = """\
[shop]
title = "shop"
db-servers-hosts = "db1.example.net:3306,db2.example.net:3306,db3.example.net:3306"
db-servers-prefered-master = "db1.example.net:3306"
db-servers-ignored-hosts = "db3.example.net:3306"
db-servers-backup-hosts = "db3.example.net:3306"
db-servers-credential = "mrm:s3cret:with:colons"
db-servers-connect-timeout = 5
db-servers-tls-ca-cert = "/etc/replication-manager/ca.pem"
db-servers-tls-client-cert = ""
db-servers-tls-client-key = ""
replication-credential = "repl:s3cret-of-repl"
replication-use-ssl = false
replication-multi-master = false
replication-multi-tier-slave = false
failover-mode = "automatic"
failover-limit = 5
failover-time-limit = 0
failover-at-sync = false
failover-max-slave-delay = 30
failover-readonly-state = true
failover-event-status = false
failover-falsepositive-ping-counter = 5
failover-falsepositive-heartbeat = true
failover-falsepositive-external = false
failover-falsepositive-external-port = 80
failover-pre-script = "/usr/local/bin/address down '10.0.0.100 24'"
failover-post-script = "/usr/local/bin/address up"
switchover-wait-kill = 5000
switchover-wait-trx = 10
switchover-wait-write-query = 10
switchover-at-sync = false
switchover-at-equal-gtid = false
switchover-max-slave-delay = 30
switchover-decrease-max-conn = true
switchover-decrease-max-conn-value = 10
autorejoin = true
autorejoin-script = ""
autorejoin-backup-binlog = true
autorejoin-flashback = false
autorejoin-mysqldump = false
check-replication-filters = true
force-slave-readonly = true
force-slave-heartbeat = false
haproxy = true
haproxy-servers = "10.0.0.21:1999,10.0.0.22:1999"
haproxy-mode = "runtimeapi"
haproxy-write-port = 3306
haproxy-read-port = 3307
haproxy-stat-port = 1988
haproxy-user = "admin"
haproxy-password = "s3cret-of-haproxy"
haproxy-ip-write-bind = "0.0.0.0"
haproxy-ip-read-bind = "0.0.0.0"
proxysql = false
proxysql-servers = "127.0.0.1"
proxysql-admin-port = "6032"
proxysql-password = "s3cret-of-proxysql"
maxscale = false
maxscale-servers = "10.0.0.31"
maxscale-pass = "s3cret-of-maxscale"
"""

LOCAL = """\
[{name}]
db-servers-hosts = "127.0.0.1:33{n}1,127.0.0.1:33{n}2"
db-servers-prefered-master = "127.0.0.1:33{n}1"
db-servers-credential = "root:"
replication-credential = "root:x"
failover-mode = "automatic"
haproxy = true
haproxy-write-port = 33{n}6
haproxy-read-port = 33{n}7
"""


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, dict[str, object]]]:
    """What is said, the file that is written, and what its clusters are configured to."""
    folder = tmp_path_factory.mktemp("moved")
    (folder / "cluster.d").mkdir()
    for name, text in (("shop", SHOP), ("a", LOCAL.format(name="a", n=1)), ("b", LOCAL.format(name="b", n=2))):
        (folder / "cluster.d" / f"{name}.toml").write_text(text)
    (folder / "config.toml").write_text(DEFAULT.replace("{include}", str(folder / "cluster.d")))
    target = folder / "etc" / "proxyroute.yml"
    words = ["init", "--config", str(target), "--from-replication-manager", str(folder / "config.toml")]
    outcome = CliRunner().invoke(main, words)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output, target, yaml.safe_load(target.read_text())["clusters"]


Converted = tuple[str, Path, dict[str, dict[str, object]]]


def test_what_is_written_is_what_was_meant_and_loads(converted: Converted) -> None:
    _, target, clusters = converted
    assert set(load(target).clusters) == {"shop", "a", "b"}
    shop = clusters["shop"]
    assert shop["account"] == {
        "user": "mrm",
        "password": {"file": f"{target.parent}/shop.engine.password"},
        "tls": {"ca": "/etc/replication-manager/ca.pem"},
    }
    assert shop["switchover"] == {
        "prefer": ["db1"],
        "never": ["db3"],
        "long_wait": "10s",
        "long_transaction": "10s",
        "max_lag": "30s",
        "max_connections": 10,
    }
    assert shop["failover"] == {"mode": "manual", "policy": "most_advanced", "per_day": 5}
    assert shop["scripts"] == {
        "address_down": ["/usr/local/bin/address", "down", "10.0.0.100 24"],
        "address_up": ["/usr/local/bin/address", "up"],
        "arguments": "replication-manager",
    }
    assert (target.parent / "shop.engine.password").read_text() == "s3cret:with:colons\n"


def test_a_mail_server_with_a_login_keeps_it_and_gets_it_by_tls_only(converted: Converted) -> None:
    _, target, clusters = converted
    password = {"file": f"{target.parent}/shop.mail.password"}
    sent = {"type": "email", "host": "smtp.example.net", "port": 25, "sender": "mrm@example.net"}
    assert clusters["shop"]["notices"] == [{**sent, "to": ["dba@example.net"], "user": "mrm", "password": password}]
    assert (target.parent / "shop.mail.password").read_text() == "s3cret-of-mail\n"


def test_each_cluster_of_this_host_gets_a_haproxy_of_its_own(converted: Converted) -> None:
    said, _, clusters = converted
    for name in ("a", "b"):
        (proxy,) = clusters[name]["proxies"]  # type: ignore[misc]
        assert proxy["config_file"] == f"/etc/haproxy/{name}.cfg"
        assert proxy["runtime_socket"] == f"/run/haproxy/{name}.sock"
        assert f"haproxy -W -f /etc/haproxy/{name}.cfg -S {proxy['master_socket']}" in said
    assert "name: edge1" in said
    assert "HAProxy runs elsewhere (10.0.0.21, 10.0.0.22)" in said


def test_no_secret_is_shown_or_written_where_others_read(converted: Converted) -> None:
    said, target, _ = converted
    assert "s3cret" not in said + target.read_text()


def test_every_option_is_told_of_once_and_what_is_off_is_nobodys_work(converted: Converted, tmp_path: Path) -> None:
    _, target, _ = converted
    source = target.parent.parent / "config.toml"
    again = CliRunner().invoke(
        main, ["init", "--config", str(tmp_path / "p.yml"), "--from-replication-manager", str(source), "--json"]
    )
    told = [o for o in json.loads(again.output)["options"] if o["cluster"] == "shop"]
    given = re.findall(r"^([a-z0-9-]+) = ", DEFAULT + SHOP, re.MULTILINE)
    counted = [o["option"] for o in told]
    assert len(counted) == len(set(counted))
    together = {"haproxy-servers", "haproxy-write-port", "haproxy-read-port", "haproxy-ip-write-bind"}
    assert set(given) - set(counted) <= together | {"haproxy-ip-read-bind"}, "those are told of with haproxy"
    assert all(o["text"] for o in told)
    by_hand = {o["option"] for o in told if o["verdict"] == "by hand"}
    assert not [o for o in by_hand if o.startswith(("proxysql", "maxscale", "arbitration", "failover-falsepositive"))]
    assert {"haproxy", "failover-mode", "db-servers-backup-hosts", "mail-smtp-tls-skip-verify"} <= by_hand
    assert not [o for o in told if o["text"] == "it is not known here"]


def test_what_is_the_same_is_said_once(converted: Converted) -> None:
    """Thirty lines that say one thing hide the one that says another."""
    said, target, _ = converted
    comments = target.read_text().partition("# By hand:")[2].replace("\n#  ", "")
    web = [line for line in comments.splitlines() if "http-port" in line]
    assert len(web) == 1
    assert web[0].startswith("# - a, b, shop: http-server, http-bind-address, http-port, api-port, api-credentials: ")
    assert said.count("`web: {}` serves on loopback") == 3, "once for each cluster"
