"""One MySQL server becomes a clone of another: whom it trusts, how far it tells that it is, what a failure leaves."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxyroute.db import mysql_clone
from proxyroute.db.grants import password_of
from proxyroute.db.mysql_grants import rebuild_statements
from proxyroute.db.mysql_rebuild import MySQLRebuild
from proxyroute.db.rows import parse_version
from proxyroute.db.session import Login, Session
from proxyroute.errors import StatementError
from proxyroute.host import Host
from proxyroute.model import Deadline
from tests.support.broken import REBUILD
from tests.support.certificates import make_certificate
from tests.support.mariadb import Node
from tests.support.mysql import MySQLCluster

pytestmark = pytest.mark.matrix
SETTINGS = "SHOW GLOBAL VARIABLES WHERE Variable_name LIKE 'clone_ssl%' OR Variable_name='clone_valid_donor_list'"


@pytest.fixture
def pair(start_mysql: Callable[..., MySQLCluster]) -> tuple[Node, Node]:
    """A server that may become a clone of the other one, and that other one."""
    cluster = start_mysql(2)
    source, target = cluster["db1"], cluster["db2"]
    for statement in rebuild_statements(parse_version(source.value("@@version")), REBUILD.user):
        source.sql(statement.replace(password_of(REBUILD.user), REBUILD.password))
    source.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    cluster.await_synced()
    target.sql("STOP SLAVE")
    for node in (source, target):
        node.let_copy()
    return target, source


@pytest.fixture
def sessions(pair: tuple[Node, Node]) -> Iterator[tuple[Session, Session]]:
    target, login, deadline = pair[0], Login(REBUILD.user, REBUILD.password), Deadline.after(60)
    with (
        Session(target.name, target.address, login).open(deadline) as here,
        Session(target.name, target.address, login).open(deadline) as aside,
    ):
        yield here, aside


def test_how_far_a_clone_is_is_told_while_it_goes_on(
    pair: tuple[Node, Node], sessions: tuple[Session, Session]
) -> None:
    target, source = pair
    target.sql("SET GLOBAL clone_max_data_bandwidth=1")  # MiB per second: it would take a minute
    told: list[int] = []

    def watch(done: int) -> None:
        told.append(done)
        if len(set(told)) > 2:
            target.sql("SET GLOBAL clone_max_data_bandwidth=0")

    login = Login(REBUILD.user, REBUILD.password)
    mysql_clone.clone(*sessions, source.address, login, {}, watch, lambda: None, Deadline.after(300))
    assert told == sorted(told)
    assert len(set(told)) > 1, told  # a busy machine may send nearly all between two looks


def test_a_source_that_a_stranger_has_certified_gets_no_login_and_all_is_as_before(
    pair: tuple[Node, Node], sessions: tuple[Session, Session], tmp_path: Path
) -> None:
    target, source = pair
    target.sql("SET GLOBAL clone_ssl_key='/nowhere/key.pem'")
    before = target.sql(SETTINGS)
    trusting = ssl.create_default_context(cafile=str(source.folder / "data/ca.pem"))
    login, deadline = Login(REBUILD.user, REBUILD.password, trusting), Deadline.after(60)
    assert mysql_clone.unverified(sessions[0], login, {}, deadline) == [
        "db2 would not verify from whom it clones: name replication.tls.ca in the configuration, a file on that "
        "server; or on it: SET PERSIST clone_ssl_ca=…"
    ]
    strange = {"clone_ssl_ca": str(make_certificate(tmp_path).ca), "clone_ssl_key": "", "clone_ssl_cert": ""}
    assert mysql_clone.unverified(sessions[0], login, strange, deadline) == []
    with pytest.raises(StatementError, match="certificate verify failed"):
        mysql_clone.clone(*sessions, source.address, login, strange, lambda _: None, lambda: None, deadline)
    assert target.sql(SETTINGS) == before
    assert target.value("(SELECT COUNT(*) FROM app.t)") == 0


def test_a_server_whose_plugin_cannot_be_had_keeps_its_channels(pair: tuple[Node, Node]) -> None:
    target, source = pair
    target.sql("UNINSTALL PLUGIN clone")
    with target.open_to_root():
        target.sql(f"REVOKE INSERT ON *.* FROM '{REBUILD.user}'@'%'")
    login = Login(REBUILD.user, REBUILD.password)
    host = Host(target.name, ("env",), data_dir=str(target.folder / "data"))
    here, there = (MySQLRebuild(node.name, node.address, login, {}, host) for node in (target, source))
    before = target.gtid()
    with pytest.raises(StatementError, match="INSERT command denied"):
        here.copy_from(there, lambda _: None, Deadline.after(60))
    assert len(target.channels()) == 1
    assert not target.half_built()
    assert target.gtid() == before
    assert target.refuses_everybody()
