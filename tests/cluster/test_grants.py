"""The printed accounts work on a real server, and not one of their privileges is there without need."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import pymysql
import pytest

from proxyroute.db.grants import Accounts, Privilege, password_of
from proxyroute.db.mariadb_events import read_events
from proxyroute.db.mariadb_grants import (
    ENGINE,
    FORCE,
    SCHEDULER,
    account_statements,
    engine_privileges,
    missing_privileges,
)
from proxyroute.db.mariadb_inspect import inspect
from proxyroute.db.mariadb_read import read_status
from proxyroute.db.probe import RowProbe
from proxyroute.db.rows import parse_version
from proxyroute.db.session import Login, Session
from proxyroute.model import Address, Deadline, Epoch
from proxyroute.policy import Policy
from tests.support.mariadb import Account, LocalCluster, Node
from tests.support.wait import until

Start = Callable[..., LocalCluster]

LEAST = Account("least", "lab-least")
COPIER = Account("copier", "lab-copier")
PROVER = Account("prover", "lab-prover")

EVENT = "ALTER DEFINER=`maker`@`%` EVENT app.one"
CHANNEL = "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, MASTER_USER='x', MASTER_USE_GTID=slave_pos"

NEEDS: Mapping[str, tuple[str, ...]] = {
    "RELOAD": ("FLUSH TABLES WITH READ LOCK; UNLOCK TABLES", "BACKUP STAGE START; BACKUP STAGE END", "RESET SLAVE ALL"),
    "PROCESS": ("SELECT COUNT(*) FROM information_schema.INNODB_TRX",),
    "EVENT": (f"{EVENT} DISABLE",),
    "SET USER": (f"{EVENT} ENABLE",),
    "READ_ONLY ADMIN": ("SET GLOBAL read_only=0",),
    "REPLICATION SLAVE ADMIN": (
        f"{CHANNEL}, MASTER_DEMOTE_TO_SLAVE=1",
        "START SLAVE",
        "STOP SLAVE IO_THREAD",
        "STOP SLAVE",
        "SET GLOBAL gtid_slave_pos=@@global.gtid_binlog_pos",
        "SET GLOBAL rpl_semi_sync_slave_enabled=0",
    ),
    "REPLICATION MASTER ADMIN": ("SET GLOBAL rpl_semi_sync_master_enabled=0",),
    "BINLOG ADMIN": ("SET SESSION sql_log_bin=0; SET SESSION sql_log_bin=1",),
    "BINLOG MONITOR": ("SHOW MASTER STATUS",),
    "CONNECTION ADMIN": ("SET GLOBAL max_connections=150", "KILL HARD CONNECTION {victim}"),
    "SLAVE MONITOR": ("SHOW ALL SLAVES STATUS",),
    "SELECT ON mysql.global_priv": ("SELECT COUNT(*) FROM mysql.global_priv",),
    "SELECT ON mysql.roles_mapping": ("SELECT COUNT(*) FROM mysql.roles_mapping",),
    "SUPER": ("SET GLOBAL event_scheduler=OFF",),
    "CREATE USER": ("ALTER USER maker@'%' ACCOUNT LOCK",),
}
FREE = (
    "SELECT MASTER_GTID_WAIT('0-1-1', 0.01)",
    "SELECT GET_LOCK('x', 0), IS_USED_LOCK('x'), RELEASE_LOCK('x')",
    "XA RECOVER FORMAT='SQL'",
    "SELECT @@global.gtid_binlog_state, @@global.gtid_slave_pos",
    "SELECT COUNT(*) FROM information_schema.GLOBAL_STATUS",
)
DENIED = {1044, 1095, 1142, 1227}


@pytest.fixture
def node(start_cluster: Start) -> Node:
    node = start_cluster(1)["db1"]
    node.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    node.sql("CREATE USER maker@'%'")
    node.sql("CREATE DEFINER=maker@'%' EVENT app.one ON SCHEDULE EVERY 1 DAY DO SELECT 1")
    return node


def make_accounts(node: Node, *, scheduler: bool = False, force: bool = False, probe_schema: str = "proof") -> None:
    """Runs exactly what ``proxyroute grants`` prints, with passwords filled in."""
    version = parse_version(node.value("@@version"))
    accounts = Accounts(LEAST.user, replication_user=COPIER.user, probe_user=PROVER.user, probe_schema=probe_schema)
    statements = account_statements(version, accounts, scheduler=scheduler, force=force)
    for statement in statements:
        for account in (LEAST, COPIER, PROVER):
            statement = statement.replace(password_of(account.user), account.password)
        node.sql(statement)


def attempt(node: Node, statements: str) -> int:
    """Runs ``statements`` as the engine's account; returns the error number of the one that is refused, or 0."""
    with contextlib.ExitStack() as ends:
        if "{victim}" in statements:
            victim = ends.enter_context(node.session())
            statements = statements.format(victim=victim.thread_id())  # type: ignore[no-untyped-call]
        connection = ends.enter_context(node.session(LEAST))
        with connection.cursor() as cursor:
            for statement in statements.split("; "):
                try:
                    cursor.execute(statement)
                except pymysql.err.Error as error:
                    return int(error.args[0])
    return 0


def opened(node: Node, account: Account = LEAST) -> Session:
    login = Login(account.user, account.password)
    return Session(node.name, node.address, login).open(Deadline.after(5.0))


def test_every_statement_works_with_exactly_the_printed_accounts(node: Node) -> None:
    make_accounts(node, scheduler=True, force=True)
    refused = {s: number for group in NEEDS.values() for s in group if (number := attempt(node, s))}
    assert refused == {}
    assert [s for s in FREE if attempt(node, s)] == []


@pytest.mark.parametrize("privilege", [*ENGINE, SCHEDULER, FORCE], ids=str)
def test_without_one_privilege_its_statements_are_refused_and_it_is_named(node: Node, privilege: Privilege) -> None:
    scheduler, force = privilege == SCHEDULER, privilege == FORCE
    make_accounts(node, scheduler=scheduler, force=force)
    node.sql(f"REVOKE {privilege.name} ON {privilege.on} FROM '{LEAST.user}'@'%'")

    assert {s for s in NEEDS[str(privilege)] if attempt(node, s) not in DENIED} == set()

    version = parse_version(node.value("@@version"))
    grants = [str(line) for row in node.sql("SHOW GRANTS", account=LEAST) for line in row.values()]
    missing = missing_privileges(version, grants, scheduler=scheduler)
    assert missing == (() if force else (str(privilege),))


def test_what_others_do_is_seen_only_with_the_privilege(node: Node) -> None:
    """Here the server does not refuse: it shows less."""
    make_accounts(node)
    others = "SELECT COUNT(*) AS n FROM information_schema.PROCESSLIST WHERE USER='root'"
    with node.session(), opened(node) as session:
        assert session.one(others, Deadline.after(5.0))["n"] > 0
        assert len(read_events(session, Deadline.after(5.0))) == 1
    node.sql(f"REVOKE PROCESS, EVENT ON *.* FROM '{LEAST.user}'@'%'")
    with node.session(), opened(node) as session:
        assert session.one(others, Deadline.after(5.0))["n"] == 0
        assert read_events(session, Deadline.after(5.0)) == ()


def test_readings_need_nothing_more(node: Node) -> None:
    make_accounts(node)
    with opened(node) as session:
        status = read_status(session, "db1", node.address, Deadline.after(5.0))
        inspection = inspect(session, Deadline.after(5.0), Policy())
    assert status.writable
    assert inspection.missing_privileges == ()
    assert inspection.account == f"{LEAST.user}@%"


def test_the_engine_is_not_given_what_it_does_not_need(node: Node) -> None:
    make_accounts(node)
    names = {privilege.name for privilege in engine_privileges(parse_version(node.value("@@version")))}
    assert names.isdisjoint({"SUPER", "CREATE USER", "SHOW DATABASES", "REPLICATION SLAVE", "INSERT", "FILE"})
    assert attempt(node, "INSERT INTO app.t VALUES (1)") == 1142
    assert attempt(node, "SELECT COUNT(*) FROM app.t") == 1142


def test_one_more_connection_gets_in_at_the_limit_but_none_beyond_it(node: Node) -> None:
    """Why the limit is never lowered below the number of open connections: heal has to get in."""
    make_accounts(node)
    count = "SHOW GLOBAL STATUS LIKE 'threads_connected'"
    with contextlib.ExitStack() as ends, opened(node) as control:
        for _ in range(14):
            ends.enter_context(node.session(COPIER))
        until(lambda: control.one(count, Deadline.after(5.0))["Value"] == "15", "15 connections")
        control.change("mariadb.limit_connections", "SET GLOBAL max_connections=15", Deadline.after(5.0))
        with pytest.raises(pymysql.err.OperationalError, match="Too many connections"):
            node.connect(COPIER)
        with opened(node) as extra:
            assert extra.id
            with pytest.raises(pymysql.err.OperationalError, match="Too many connections"):
                node.connect(LEAST)
        control.change("mariadb.limit_connections", "SET GLOBAL max_connections=10", Deadline.after(5.0))
        with pytest.raises(pymysql.err.OperationalError, match="Too many connections"):
            node.connect(LEAST)
        control.change("mariadb.limit_connections", "SET GLOBAL max_connections=150", Deadline.after(5.0))


def test_the_other_accounts_can_do_their_work_and_no_more(start_cluster: Start) -> None:
    cluster = start_cluster(2)
    db1, db2 = cluster
    make_accounts(db1, probe_schema="my`proof")
    cluster.await_synced()
    db2.sql("STOP SLAVE")
    db2.sql(f"CHANGE MASTER TO MASTER_USER='{COPIER.user}', MASTER_PASSWORD='{COPIER.password}'")
    db2.sql("START SLAVE")
    until(db2.replicates, "db2 to replicate with the printed account")

    probe = RowProbe("my`proof", Login(PROVER.user, PROVER.password))
    route: Address = db1.address
    assert probe.read(route, Deadline.after(5.0)) == ""
    for operation in ("op-1", "op-2"):
        assert probe.write(route, operation, Epoch(1, 1), Deadline.after(5.0)) == db1.server_id
        assert probe.read(route, Deadline.after(5.0)) == operation
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        db1.sql("DELETE FROM `my``proof`.probe", account=PROVER)
