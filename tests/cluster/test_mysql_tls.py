"""A MySQL server is verified by the authorities of the machine where the configuration names none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxyroute.config_secrets import Secret
from proxyroute.config_values import Account, Tls
from proxyroute.db.mysql import MySQL
from proxyroute.db.mysql_rebuild import MySQLRebuild
from proxyroute.errors import ScriptFailed
from proxyroute.model import Deadline
from proxyroute.policy import Policy
from tests.support.accounts import ENGINE, REPLICATION
from tests.support.certificates import Certificate, make_certificate
from tests.support.mariadb import Node
from tests.support.mysql import MySQLCluster, mysql_root

pytestmark = pytest.mark.matrix
BY_THE_MACHINE = Account("archivist", Secret("env", "ARCHIVIST_PASSWORD"), Tls())


@pytest.fixture(autouse=True)
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVIST_PASSWORD", "lab-archivist")
    monkeypatch.setenv("ENGINE_PASSWORD", ENGINE.password)
    monkeypatch.setenv("REPLICATION_PASSWORD", REPLICATION.password)


@pytest.fixture(scope="module")
def db1() -> Iterator[Node]:
    with MySQLCluster.start(1) as cluster:
        db1 = cluster["db1"]
        db1.sql("CREATE USER archivist@'%' IDENTIFIED BY 'lab-archivist' REQUIRE SSL")
        db1.sql("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO archivist@'%'")
        yield db1


@pytest.fixture
def certified(db1: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """The server shows a certificate of an authority that the machine trusts."""
    made = make_certificate(tmp_path, db1.address.host)
    db1.sql(f"SET GLOBAL ssl_ca='{made.ca}'")
    db1.sql(f"SET GLOBAL ssl_cert='{made.cert}'")
    db1.sql(f"SET GLOBAL ssl_key='{made.key}'")
    db1.sql("ALTER INSTANCE RELOAD TLS")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.ca))
    monkeypatch.setenv("PATH", str(mysql_root().programs), prepend=":")
    return made


def rebuild(db1: Node) -> MySQLRebuild:
    login, client = BY_THE_MACHINE.login(), BY_THE_MACHINE.client_options("mysql")
    return MySQLRebuild(db1.name, db1.address, login, client)


def test_by_sessions_and_by_mysqls_own_programs(db1: Node, certified: Certificate, tmp_path: Path) -> None:
    server = rebuild(db1)
    name = next(iter(server.logs(Deadline.after(10))))
    assert server.fetch_log(name, tmp_path, Deadline.after(30)).read_bytes().startswith(b"\xfebin")


def test_a_program_does_not_believe_whoever_is_not_certified_by_them(
    db1: Node, certified: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    server, name = rebuild(db1), "binlog.000001"
    monkeypatch.setenv("SSL_CERT_FILE", str(make_certificate(tmp_path / "other", db1.address.host).ca))
    monkeypatch.setattr(server, "_client", BY_THE_MACHINE.client_options("mysql"))
    with pytest.raises(ScriptFailed, match="certificate verify failed"):
        server.fetch_log(name, tmp_path, Deadline.after(30))


@pytest.mark.parametrize(("tls", "cannot"), [(Tls(), True), (Tls(verify=False), False), (Tls(Path("/ca.pem")), False)])
def test_a_channel_has_no_authorities_of_the_machine(db1: Node, tls: Tls, cannot: bool) -> None:
    login = Account(ENGINE.user, Secret("env", "ENGINE_PASSWORD")).login()
    replication = Account(REPLICATION.user, Secret("env", "REPLICATION_PASSWORD"), tls).replication_login()
    server = MySQL(db1.name, db1.address, login, replication)
    try:
        assert server.inspect(Deadline.after(10), Policy()).unverifiable is cannot
    finally:
        server.close()
