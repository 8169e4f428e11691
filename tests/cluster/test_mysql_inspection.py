"""What an inspection of a MySQL server finds besides: locks of its own kinds, and that nobody could see any."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pymysql
import pytest

from proxyroute.db.mysql import MySQL
from proxyroute.db.replication import ReplicationLogin
from proxyroute.db.session import Login
from proxyroute.model import Deadline, Peer, Severity
from proxyroute.policy import Policy
from proxyroute.preflight import survey
from tests.cluster.test_inspection import found, inspected
from tests.support.builders import server, view
from tests.support.clients import Clients
from tests.support.mariadb import APPLICATION, ENGINE, REPLICATION, Node
from tests.support.mysql import MySQLCluster

pytestmark = pytest.mark.matrix
Start = Callable[..., MySQLCluster]


@pytest.fixture
def node(start_mysql: Start) -> Node:
    node: Node = start_mysql(1)["db1"]
    for table in ("t", "u"):
        node.sql(f"CREATE TABLE app.{table} (id INT PRIMARY KEY, v INT)")
    return node


@pytest.fixture
def clients(node: Node) -> Iterator[Clients]:
    with contextlib.ExitStack() as ends:
        yield Clients(node, ends)


@pytest.mark.parametrize(
    ("table", "name"),
    [("setup_instruments", "wait/lock/metadata/sql/mdl"), ("setup_consumers", "global_instrumentation")],
)
def test_that_locks_are_not_recorded_is_an_error_on_the_primary(
    node: Node, clients: Clients, table: str, name: str
) -> None:
    assert inspected(node).unrecorded == ""
    switch = f"UPDATE performance_schema.{table} SET ENABLED=%s WHERE NAME=%s"
    node.sql(switch, ("NO", name))
    clients.idle("LOCK TABLES app.t WRITE")
    seen = inspected(node)
    assert (seen.unrecorded, seen.transactions) == (name, ())
    told = [f for f in survey(view(server(1), inspections=(seen,)), Policy()) if f.code == "primary.locks"]
    assert [(f.severity, f.forceable) for f in told] == [(Severity.ERROR, True)]
    cure = told[0].cure.removeprefix("on db1: ").partition(";")[0]
    node.sql(cure)
    assert inspected(node).unrecorded == ""
    assert found(node, clients.idle("LOCK TABLES app.u WRITE")).kind == "table lock"


def test_a_server_without_performance_schema_is_inspected_and_named(start_mysql: Start) -> None:
    seen = inspected(start_mysql(1, options={"performance_schema": "OFF"})["db1"])
    assert (seen.unrecorded, seen.missing_privileges) == ("performance_schema", ())
    (told,) = [f for f in survey(view(server(1), inspections=(seen,)), Policy()) if f.code == "primary.locks"]
    assert "runs with performance_schema=OFF" in told.text


def test_a_backup_lock_is_named_and_ended_where_it_keeps_a_new_primary_from_being_made(start_mysql: Start) -> None:
    cluster = start_mysql(2)
    cluster["db1"].sql(f"GRANT BACKUP_ADMIN ON *.* TO '{APPLICATION.user}'@'%'")
    cluster.await_synced()
    node = cluster["db2"]
    with contextlib.ExitStack() as ends:
        clients = Clients(node, ends)
        session = clients.idle("LOCK INSTANCE FOR BACKUP")
        ((number, whose),) = inspected(node).backups
        assert (number, whose.partition("@")[0]) == (session, APPLICATION.user)
        with pytest.raises(pymysql.err.Error, match="3857"):
            node.sql("STOP REPLICA")
        replication = ReplicationLogin(REPLICATION.user, REPLICATION.password)
        server = MySQL(node.name, node.address, Login(ENGINE.user, ENGINE.password), replication)
        server.detach(Peer("db1", cluster["db1"].address, 1), Deadline.after(10))
        server.close()
        assert not clients.alive(session)
    assert inspected(node).backups == ()
    assert not node.replicates()
