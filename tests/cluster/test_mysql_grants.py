"""The accounts for MySQL that are printed work on a real server, and not one of their privileges is without need."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import pymysql
import pytest

from proxyroute.db.grants import Accounts, Privilege, password_of
from proxyroute.db.mariadb_events import read_events, set_event_status
from proxyroute.db.mysql_compare import MySQLCompare
from proxyroute.db.mysql_grants import (
    ENGINE,
    FORCE,
    REBUILD,
    WRITERS,
    account_statements,
    engine_privileges,
    missing_privileges,
    rebuild_statements,
)
from proxyroute.db.mysql_inspect import inspect
from proxyroute.db.mysql_read import read_status
from proxyroute.db.rows import parse_version
from proxyroute.db.session import Login, Session
from proxyroute.errors import ProxyRouteError
from proxyroute.model import Deadline
from proxyroute.outcome import Verdict
from proxyroute.policy import Policy
from proxyroute.verify import Comparison, compare
from tests.support.mariadb import Account, Node
from tests.support.mysql import MySQLCluster

pytestmark = pytest.mark.matrix
LEAST = Account("least", "lab-least")

EVENT = "ALTER DEFINER=`maker`@`%` EVENT app.one"
CHANNEL = "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=1, SOURCE_USER='x', SOURCE_AUTO_POSITION=1"
NEVER = "ffffffff-ffff-ffff-ffff-ffffffffffff:1"

NEEDS: Mapping[str, tuple[str, ...]] = {
    "RELOAD": ("FLUSH TABLES WITH READ LOCK; UNLOCK TABLES", "RESET REPLICA ALL FOR CHANNEL ''"),
    "PROCESS": ("SELECT COUNT(*) FROM information_schema.INNODB_TRX",),
    "EVENT": (f"{EVENT} DISABLE",),
    "REPLICATION CLIENT": ("SHOW REPLICA STATUS", "SHOW BINARY LOG STATUS"),
    "REPLICATION_SLAVE_ADMIN": (CHANNEL, "START REPLICA FOR CHANNEL ''", "STOP REPLICA FOR CHANNEL ''"),
    "SYSTEM_VARIABLES_ADMIN": (
        "SET GLOBAL read_only=0",
        "SET GLOBAL super_read_only=0",
        "SET GLOBAL max_connections=150",
        "SET GLOBAL event_scheduler=ON",
        "SET GLOBAL rpl_semi_sync_source_enabled=0",
        "SET SESSION sql_log_bin=0; SET SESSION sql_log_bin=1",
    ),
    "CONNECTION_ADMIN": ("KILL CONNECTION {root}",),
    "SYSTEM_USER": ("KILL CONNECTION {root}",),
    "SET_ANY_DEFINER": (f"{EVENT} ENABLE",),
    "XA_RECOVER_ADMIN": ("XA RECOVER CONVERT XID",),
    "SELECT ON performance_schema.*": (
        "SELECT COUNT(*) FROM performance_schema.metadata_locks",
        "SELECT COUNT(*) FROM performance_schema.replication_connection_status",
    ),
    str(WRITERS[0]): ("SELECT User, Host, Super_priv, account_locked FROM mysql.user",),
    str(WRITERS[1]): ("SELECT User, Host FROM mysql.global_grants WHERE Priv='CONNECTION_ADMIN'",),
    str(WRITERS[2]): ("SELECT FROM_USER, FROM_HOST, TO_USER, TO_HOST FROM mysql.role_edges",),
    "CREATE USER": ("ALTER USER maker@'%' ACCOUNT LOCK",),
}
FREE = (
    f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{NEVER}', 0.01)",
    "SELECT GET_LOCK('x', 0), IS_USED_LOCK('x'), RELEASE_LOCK('x')",
    "SELECT @@global.gtid_executed, @@global.server_uuid",
    "SELECT COUNT(*) FROM performance_schema.global_status",
    "SELECT COUNT(*) FROM performance_schema.global_variables",
    "SELECT COUNT(*) FROM performance_schema.persisted_variables",
)
DENIED = {1044, 1095, 1142, 1227, 1401}

REBUILDS: Mapping[str, str] = {
    "SELECT": "SELECT COUNT(*) FROM app.t",
    "SHOW VIEW": "SHOW CREATE VIEW app.v",
    "TRIGGER": "SHOW CREATE TRIGGER app.tr",
    "EVENT": "SHOW CREATE EVENT app.one",
    "RELOAD": "FLUSH TABLES WITH READ LOCK; UNLOCK TABLES",
    "PROCESS": "SELECT COUNT(*) FROM information_schema.INNODB_TABLESPACES",
    "REPLICATION SLAVE": "SHOW BINLOG EVENTS LIMIT 1",
    "REPLICATION CLIENT": "SHOW BINARY LOGS",
    "REPLICATION_SLAVE_ADMIN": "STOP REPLICA",
    "SYSTEM_VARIABLES_ADMIN": "SET SESSION sql_log_bin=0",
    "REPLICATION_APPLIER": "BINLOG 'AAAA'",
    "TRANSACTION_GTID_TAG": "SET SESSION gtid_next='ffffffff-ffff-ffff-ffff-ffffffffffff:tag:1'",
    "CONNECTION_ADMIN": "CREATE TABLE app.x (id INT); DROP TABLE app.x",
    "SET_ANY_DEFINER": "CREATE DEFINER=maker@'%' VIEW app.w AS SELECT 1 AS one; DROP VIEW app.w",
    "SYSTEM_USER": "CREATE DEFINER=root@localhost VIEW app.w AS SELECT 1 AS one; DROP VIEW app.w",
    "ALLOW_NONEXISTENT_DEFINER": "CREATE DEFINER=nobody@'%' VIEW app.w AS SELECT 1 AS one; DROP VIEW app.w",
    "BACKUP_ADMIN": "LOCK INSTANCE FOR BACKUP; UNLOCK INSTANCE",
    "CLONE_ADMIN": "CLONE INSTANCE FROM x@'127.0.0.1':1 IDENTIFIED BY 'x'",
    "CREATE": "CREATE TABLE app.x (id INT); DROP TABLE app.x",
    "DROP": "DROP TABLE IF EXISTS app.x",
    "ALTER": "ALTER TABLE app.t DISABLE KEYS",
    "INSERT": "INSERT INTO app.t VALUES (1); ROLLBACK",
    "INDEX": "CREATE INDEX i ON app.t (id); DROP INDEX i ON app.t",
    "UPDATE": "UPDATE app.t SET id=id",
    "DELETE": "DELETE FROM app.t WHERE id=0",
    "REFERENCES": "CREATE TABLE app.x (id INT, FOREIGN KEY (id) REFERENCES app.t (id)); DROP TABLE app.x",
    "CREATE VIEW": "CREATE VIEW app.w AS SELECT 1 AS one; DROP VIEW app.w",
    "CREATE ROUTINE": "CREATE PROCEDURE app.q() SELECT 1; DROP PROCEDURE app.q",
    "ALTER ROUTINE": "DROP PROCEDURE IF EXISTS app.nothing",
    "EXECUTE": "CREATE VIEW app.w AS SELECT app.f() AS one; DROP VIEW app.w",
}
"""What the account of rejoin does, by the privilege that it takes: where read_only is set, and without binary log."""
REFUSED = DENIED | {1290, 1370, 1449, 1356, 6038}


@pytest.fixture(scope="module")
def running() -> Iterator[Node]:
    with MySQLCluster.start(1) as cluster:
        node = cluster["db1"]
        node.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
        node.sql("CREATE USER maker@'%'")
        node.sql("CREATE DEFINER=maker@'%' EVENT app.one ON SCHEDULE EVERY 1 DAY DO SELECT 1")
        yield node


@pytest.fixture
def node(running: Node) -> Iterator[Node]:
    yield running
    running.sql(f"DROP USER IF EXISTS {LEAST.user}")


def make_account(node: Node, *, force: bool = False) -> None:
    """Runs exactly what ``proxyroute grants`` prints for the engine, with the password filled in."""
    version = parse_version(node.value("@@version"))
    for statement in account_statements(version, Accounts(LEAST.user), force=force):
        node.sql(statement.replace(password_of(LEAST.user), LEAST.password))


def attempt(node: Node, statements: str) -> int:
    """Runs ``statements`` as the engine's account; returns the error number of the one that is refused, or 0."""
    with contextlib.ExitStack() as ends:
        if "{root}" in statements:
            root = ends.enter_context(node.session())
            statements = statements.format(root=root.thread_id())  # type: ignore[no-untyped-call]
        connection = ends.enter_context(node.session(LEAST))
        with connection.cursor() as cursor:
            for statement in statements.split("; "):
                try:
                    cursor.execute(statement)
                except pymysql.err.Error as error:
                    return int(error.args[0])
    return 0


def opened(node: Node) -> Session:
    return Session(node.name, node.address, Login(LEAST.user, LEAST.password)).open(Deadline.after(5.0))


def test_every_statement_works_with_exactly_the_printed_account(node: Node) -> None:
    make_account(node, force=True)
    refused = {s: number for group in NEEDS.values() for s in group if (number := attempt(node, s))}
    assert refused == {}
    assert [s for s in FREE if attempt(node, s)] == []
    node.sql("ALTER USER maker@'%' ACCOUNT UNLOCK")


@pytest.mark.parametrize("privilege", [*ENGINE, *WRITERS, FORCE], ids=str)
def test_without_one_privilege_its_statements_are_refused_and_it_is_named(node: Node, privilege: Privilege) -> None:
    make_account(node, force=privilege == FORCE)
    node.sql(f"REVOKE {privilege.name} ON {privilege.on} FROM '{LEAST.user}'@'%'")
    assert {s for s in NEEDS[str(privilege)] if attempt(node, s) not in DENIED} == set()
    grants = [str(line) for row in node.sql("SHOW GRANTS", account=LEAST) for line in row.values()]
    missing = missing_privileges(parse_version(node.value("@@version")), grants)
    assert missing == ((str(privilege),) if privilege in ENGINE else ())


def test_readings_need_nothing_more_and_write_nothing(node: Node) -> None:
    make_account(node)
    with opened(node) as session:
        status = read_status(session, "db1", node.address, Deadline.after(5.0))
        inspection = inspect(session, Deadline.after(5.0), Policy())
    assert status.writable
    assert inspection.missing_privileges == ()
    assert inspection.account == f"{LEAST.user}@%"
    names = {privilege.name for privilege in engine_privileges(parse_version(node.value("@@version")))}
    assert names.isdisjoint({"SUPER", "CREATE USER", "SHOW DATABASES", "REPLICATION SLAVE", "INSERT", "FILE"})
    assert attempt(node, "INSERT INTO app.t VALUES (1)") == 1142
    assert attempt(node, "SELECT authentication_string FROM mysql.user") == 1143


@pytest.mark.parametrize("name", ["plain", "täglich"])
def test_an_event_is_switched_and_nothing_else_about_it_changes_nor_gets_into_the_log(node: Node, name: str) -> None:
    make_account(node)
    node.sql(f"CREATE DEFINER=maker@'%' EVENT app.`{name}` ON SCHEDULE EVERY 1 DAY COMMENT 'kept' DO SELECT 'ü'")
    asked = "SELECT * FROM information_schema.EVENTS WHERE EVENT_NAME=%s"
    (before,), log = node.sql(asked, (name,)), node.gtid()
    with opened(node) as session:
        (event,) = (e for e in read_events(session, Deadline.after(5)) if e.name == name)
        for status, shown in (("replica side", "_SIDE_DISABLED"), ("disabled", "DISABLED"), ("enabled", "ENABLED")):
            set_event_status(session, event, status, Deadline.after(5))
            (now,) = node.sql(asked, (name,))
            assert now["STATUS"].endswith(shown)
            changing = {"STATUS", "LAST_ALTERED", "LAST_EXECUTED", "ORIGINATOR"}
            assert {k: v for k, v in now.items() if k not in changing} == {
                k: v for k, v in before.items() if k not in changing
            }
    assert node.gtid() == log
    node.sql(f"DROP EVENT app.`{name}`")


def test_the_account_of_rejoin_compares_with_exactly_what_is_printed(
    start_mysql: Callable[..., MySQLCluster],
) -> None:
    cluster = start_mysql(2)
    primary, replica = cluster["db1"], cluster["db2"]
    primary.sql("CREATE TABLE app.t (id INT PRIMARY KEY, v JSON)")
    for statement in rebuild_statements(parse_version(primary.value("@@version")), LEAST.user):
        primary.sql(statement.replace(password_of(LEAST.user), LEAST.password))
    for number in range(20):
        primary.sql("INSERT INTO app.t VALUES (%s, %s)", (number, f'{{"number": {number}}}'))
    cluster.await_synced()
    assert compared(primary, replica).verdict is Verdict.PROVEN
    # who may apply what a dead primary had may set gtid_next as well
    for name in ("SELECT", "REPLICATION CLIENT", "SYSTEM_VARIABLES_ADMIN, REPLICATION_APPLIER"):
        primary.sql(f"REVOKE {name} ON *.* FROM '{LEAST.user}'@'%'")
        cluster.await_synced()
        with pytest.raises(ProxyRouteError):
            compared(primary, replica)
        primary.sql(f"GRANT {name} ON *.* TO '{LEAST.user}'@'%'")
    cluster.await_synced()


def compared(primary: Node, replica: Node) -> Comparison:
    login = Login(LEAST.user, LEAST.password)
    sides = [MySQLCompare(node.name, node.address, login) for node in (primary, replica)]
    try:
        return compare(sides[0], sides[1], Deadline.after(10))
    finally:
        for side in sides:
            side.close()


@pytest.fixture
def furnished(running: Node) -> Iterator[Node]:
    """A server with something of everything that a dump may hold, which refuses writes."""
    running.sql("CREATE VIEW app.v AS SELECT 1 AS one")
    running.sql("CREATE TRIGGER app.tr BEFORE INSERT ON app.t FOR EACH ROW SET NEW.id = NEW.id")
    running.sql("INSTALL PLUGIN clone SONAME 'mysql_clone.so'")
    running.sql("CREATE FUNCTION app.f() RETURNS INT DETERMINISTIC RETURN 1")
    for statement in rebuild_statements(parse_version(running.value("@@version")), LEAST.user):
        running.sql(statement.replace(password_of(LEAST.user), LEAST.password))
    running.sql("SET GLOBAL read_only=1")
    try:
        yield running
    finally:
        running.sql("SET GLOBAL read_only=0")
        running.sql("UNINSTALL PLUGIN clone")
        for what in (f"USER {LEAST.user}", "FUNCTION app.f", "TRIGGER app.tr", "VIEW app.v"):
            running.sql(f"DROP {what}")


def test_what_a_reseed_does_works_with_exactly_the_printed_account_and_not_with_less(furnished: Node) -> None:
    assert {str(privilege) for privilege in REBUILD} == set(REBUILDS)
    refused = {s: n for s in REBUILDS.values() if (n := attempt(furnished, f"SET autocommit=0; {s}")) in REFUSED}
    assert refused == {}
    for privilege, statements in REBUILDS.items():
        furnished.sql(f"REVOKE {privilege} ON *.* FROM '{LEAST.user}'@'%'")
        assert attempt(furnished, statements) in REFUSED, privilege
        furnished.sql(f"GRANT {privilege} ON *.* TO '{LEAST.user}'@'%'")
