"""``proxyroute init`` against real servers: one is named, the others are found, and the file it writes is read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from proxyroute.cli import main
from proxyroute.config import load
from proxyroute.db.discovery import discover, possible_replicas
from proxyroute.db.session import Login, Session
from proxyroute.model import Address, Deadline
from tests.support.mariadb import ENGINE, REPLICATION, LocalCluster

FLAVOURS = ("mysql",)
FEW = {"mariadb": "PROCESS, SLAVE MONITOR", "mysql": "PROCESS, REPLICATION CLIENT"}
LOGIN = Login(ENGINE.user, ENGINE.password)


def init(folder: Path, *words: str, **options: str) -> Result:
    target = folder / "etc" / "proxyroute.yml"
    outcome = CliRunner().invoke(main, ["init", "--config", str(target), *words], **options)
    assert outcome.exception is None or isinstance(outcome.exception, SystemExit), outcome.exc_info
    return outcome


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "engine.secret"
    file.write_text(f"{ENGINE.password}\n")
    file.chmod(0o600)
    return file


def test_from_one_replica_the_whole_cluster_is_found_and_silence_is_told(cluster: LocalCluster, flavour: str) -> None:
    replica, closed = cluster.nodes["db3"].address, Address("127.0.0.1", 1)
    # what the engine has no need to know, it may not ask there: a replica on a port of its own has to be named
    unlisted = [cluster.nodes["db2"].address] if flavour == "mysql" else []
    found = discover([replica, *unlisted, closed], LOGIN)
    assert found.servers[0].address == replica
    assert {s.address for s in found.servers} == {node.address for node in cluster}
    assert [s.address for s in found.servers if s.writable] == [cluster.nodes["db1"].address]
    assert list(found.silent) == [closed]


def test_without_the_privilege_to_list_replicas_they_are_looked_for_where_they_connect_from(
    cluster: LocalCluster, flavour: str
) -> None:
    primary = cluster.nodes["db1"]
    primary.sql("CREATE USER few@'%' IDENTIFIED BY 'few'")
    primary.sql(f"GRANT {FEW[flavour]} ON *.* TO few@'%'")
    session = Session("db1", primary.address, Login("few", "few"))
    deadline = Deadline.after(20)
    session.open(deadline)
    try:
        assert possible_replicas(session, Address("10.0.0.1", 3307), deadline) == [Address("127.0.0.1", 3307)]
    finally:
        session.close()


def test_replicas_that_do_not_report_their_host_are_looked_for_where_they_connect_from(
    start_cluster: Callable[..., LocalCluster],
) -> None:
    cluster = start_cluster(3, options={"report_host": ""})
    cluster.primary.sql("CREATE USER finder@'%' IDENTIFIED BY 'finder'")
    cluster.primary.sql("GRANT ALL ON *.* TO finder@'%'")
    cluster.await_synced()
    found = discover([cluster.primary.address], Login("finder", "finder"))
    assert {s.address for s in found.servers} == {node.address for node in cluster}


def test_init_writes_a_commented_configuration_that_is_read_back(
    cluster: LocalCluster, tmp_path: Path, password: Path
) -> None:
    addresses = [str(node.address) for node in cluster]
    words = [word for address in reversed(addresses) for word in ("--server", address)]
    outcome = init(tmp_path, *words, "--user", ENGINE.user, "--password-file", str(password), "--cluster", "shop")
    assert outcome.exit_code == 0, outcome.output
    config = load(tmp_path / "etc" / "proxyroute.yml")
    shop = config.cluster("shop")
    assert str(shop.servers["db1"].address) == addresses[0], "the primary comes first"
    assert {str(s.address) for s in shop.servers.values()} == set(addresses)
    assert shop.account.login().password == ENGINE.password
    assert shop.replication.user == REPLICATION.user, "as a replica says"
    missing = tmp_path / "etc" / "replication.password"
    assert f"Put the replication account's password into {missing}" in outcome.output
    text = (tmp_path / "etc" / "proxyroute.yml").read_text()
    assert ENGINE.password not in text
    assert "the primary, server id 1" in text


def test_what_init_has_commented_out_is_proper_configuration_too(
    cluster: LocalCluster, tmp_path: Path, password: Path
) -> None:
    init(tmp_path, "--server", str(cluster.nodes["db2"].address), "--user", ENGINE.user,
         "--password-file", str(password))  # fmt: skip
    written = tmp_path / "etc" / "proxyroute.yml"
    lines = written.read_text().splitlines()
    uncommented = [line.replace("    # ", "    ", 1) if line.startswith("    # ") else line for line in lines]
    full = tmp_path / "full.yml"
    full.write_text("\n".join(uncommented) + "\n")
    cluster_config = load(full).cluster(None)
    assert [p.type for p in cluster_config.proxies] == ["haproxy"]
    assert cluster_config.proof is not None
    assert set(cluster_config.scripts.moments) == {"address_down", "address_up"}
    defaults = load(written).cluster(None).policy
    assert {k: v for k, v in vars(cluster_config.policy).items() if k != "probe_schema"} == {
        k: v for k, v in vars(defaults).items() if k != "probe_schema"
    }, "the commented values are the defaults"
    assert yaml.safe_load(written.read_text())["version"] == 1


@pytest.mark.whatever_servers("it ends before any server is asked")
def test_init_never_overwrites(tmp_path: Path, password: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "proxyroute.yml").write_text("mine")
    outcome = init(tmp_path, "--server", "127.0.0.1:1", "--user", "x", "--password-file", str(password))
    assert outcome.exit_code == 3
    assert "never overwritten" in outcome.stderr
    assert (tmp_path / "etc" / "proxyroute.yml").read_text() == "mine"


@pytest.mark.whatever_servers("it ends before any server is asked")
def test_init_writes_nothing_when_no_server_answers(tmp_path: Path, password: Path) -> None:
    outcome = init(tmp_path, "--server", "127.0.0.1:1", "--user", "x", "--password-file", str(password))
    assert outcome.exit_code == 3
    assert "no server answers" in outcome.stderr
    assert not (tmp_path / "etc").exists()


def test_init_asks_for_the_password_only_when_somebody_is_there(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--server", str(cluster.nodes["db1"].address), "--user", ENGINE.user)
    outcome = init(tmp_path, *words)
    assert outcome.exit_code == 2
    assert "add --password-file FILE" in outcome.stderr
    monkeypatch.setattr("proxyroute.cli.init.on_terminal", lambda: True)
    outcome = init(tmp_path, *words, "--json", input=f"{ENGINE.password}\n")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout[outcome.stdout.index("{") :])
    assert found["primary"] == "db1"
    kept = tmp_path / "etc" / "engine.password"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert load(tmp_path / "etc" / "proxyroute.yml").cluster(None).account.login().password == ENGINE.password


@pytest.mark.whatever_servers("it ends before any server is asked")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--server", "db1:x"], "--server: 'db1:x' is not an address"),
        (["--cluster", "a b"], "is not a name for a cluster"),
    ],
)
def test_a_wrong_option_is_told(tmp_path: Path, password: Path, words: list[str], said: str) -> None:
    given = ["--server", "127.0.0.1:1", "--user", "x", "--password-file", str(password), *words]
    outcome = init(tmp_path, *given)
    assert outcome.exit_code == 2
    assert said in outcome.stderr
