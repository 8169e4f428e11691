"""What an inspection of a real server finds: who is at work, who may write past read_only, what is prepared."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from proxyroute.db import mariadb_inspect, mysql_inspect
from proxyroute.db.session import Login, Session
from proxyroute.inspection import Inspection, Transaction
from proxyroute.model import Deadline
from proxyroute.policy import Policy
from tests.support.clients import Clients
from tests.support.mariadb import APPLICATION, ENGINE, Account, LocalCluster, Node
from tests.support.wait import until

FLAVOURS = ("mysql",)
Start = Callable[..., LocalCluster]
INSPECT = {"mariadb": mariadb_inspect.inspect, "mysql": mysql_inspect.inspect}
SHOWING_LOCKS: dict[str, dict[str, Any]] = {"mariadb": {"plugin_load_add": "metadata_lock_info"}, "mysql": {}}
UNREADABLE = {"mariadb": "SELECT ON mysql.global_priv", "mysql": "SELECT ON performance_schema.*"}
STOPS_EVERYBODY = "super_read_only stops everybody"
EVERYTHING = Policy(long_transaction=0.0)


def inspected(node: Node, policy: Policy = EVERYTHING, account: Account = ENGINE) -> Inspection:
    with Session(node.name, node.address, Login(account.user, account.password)).open(Deadline.after(5.0)) as session:
        return INSPECT[session.flavour](session, Deadline.after(5.0), policy)


@pytest.fixture
def node(start_cluster: Start) -> Node:
    """A primary with the tables app.t (InnoDB, 10 rows) and app.m (MyISAM, 1 row)."""
    node = start_cluster(1)["db1"]
    node.sql("CREATE TABLE app.t (id INT PRIMARY KEY, v INT)")
    node.sql("INSERT INTO app.t SELECT seq, 0 FROM app.seq_1_to_10")
    node.sql("CREATE TABLE app.m (id INT) ENGINE=MyISAM")
    node.sql("INSERT INTO app.m VALUES (1)")
    return node


@pytest.fixture
def clients(node: Node) -> Iterator[Clients]:
    with contextlib.ExitStack() as ends:
        yield Clients(node, ends)


def found(node: Node, number: int) -> Transaction:
    """The entry for session ``number``; InnoDB refreshes its list ten times a second."""

    def look() -> Transaction | None:
        return next((t for t in inspected(node).transactions if t.session == number), None)

    entry = until(look, f"session {number} to be listed")
    assert entry is not None
    return entry


WRITERS: dict[str, Callable[[Clients], int]] = {
    "idle after an update": lambda c: c.idle("BEGIN", "UPDATE app.t SET v=1 WHERE id=1"),
    "idle with rows locked for an update": lambda c: c.idle("BEGIN", "SELECT * FROM app.t WHERE id=1 FOR UPDATE"),
    "running update": lambda c: c.running("UPDATE app.t SET v=v+SLEEP(60) WHERE id=1"),
    "running insert into a table without transactions": lambda c: c.running("INSERT INTO app.m SELECT SLEEP(60)"),
    "running DDL": lambda c: c.running("CREATE TABLE app.new AS SELECT SLEEP(60)"),
    "reading after a write": lambda c: c.running("SELECT SLEEP(60)", "BEGIN", "UPDATE app.t SET v=1 WHERE id=1"),
}


@pytest.mark.parametrize("case", WRITERS)
def test_whoever_writes_is_listed_as_a_writer(node: Node, clients: Clients, case: str) -> None:
    entry = found(node, WRITERS[case](clients))
    assert entry.writes
    assert entry.user == APPLICATION.user
    assert entry.host.startswith("127.0.0.1")


READERS: dict[str, Callable[[Clients], int]] = {
    "snapshot": lambda c: c.idle("START TRANSACTION WITH CONSISTENT SNAPSHOT"),
    "idle after a select": lambda c: c.idle("BEGIN", "SELECT * FROM app.t"),
    "shared row lock": lambda c: c.idle("BEGIN", "SELECT * FROM app.t WHERE id=1 LOCK IN SHARE MODE"),
    "long select": lambda c: c.running("SELECT SLEEP(60)"),
    "long select over a table": lambda c: c.running("/* report */ (SELECT SLEEP(60) FROM app.t)"),
    "temporary table only": lambda c: c.idle(
        "CREATE TEMPORARY TABLE app.x (id INT) ENGINE=InnoDB", "BEGIN", "INSERT INTO app.x VALUES (1)"
    ),
}


@pytest.mark.parametrize("case", READERS)
def test_whoever_only_reads_is_not_a_writer(node: Node, clients: Clients, case: str) -> None:
    assert not found(node, READERS[case](clients)).writes


def test_an_entry_tells_age_rows_and_statement(node: Node, clients: Clients) -> None:
    number = clients.running("UPDATE app.t SET v=v+SLEEP(60) WHERE id=10", "BEGIN", "UPDATE app.t SET v=1 WHERE id < 6")
    until(lambda: found(node, number).age_seconds >= 1.0, "the transaction to grow older")
    entry = found(node, number)
    assert (entry.kind, entry.rows_modified) == ("transaction", 5)
    assert entry.statement == "UPDATE app.t SET v=v+SLEEP(60) WHERE id=10"


def test_nothing_younger_than_the_limit_is_listed(node: Node, clients: Clients) -> None:
    number = clients.idle("BEGIN", "UPDATE app.t SET v=1 WHERE id=1")
    found(node, number)
    assert inspected(node, Policy(long_transaction=600.0)).transactions == ()


def test_our_own_sessions_and_those_of_monitor_users_are_not_listed(node: Node, clients: Clients) -> None:
    node.sql(f"GRANT ALL ON app.* TO '{ENGINE.user}'@'%'")
    ours = clients.idle("BEGIN", "UPDATE app.t SET v=1 WHERE id=1", account=ENGINE)
    number = clients.idle("BEGIN", "UPDATE app.t SET v=1 WHERE id=2")
    found(node, number)
    assert ours not in {t.session for t in inspected(node).transactions}
    watched = inspected(node, Policy(long_transaction=0.0, monitor_users=(APPLICATION.user,)))
    assert watched.transactions == ()


def test_whoever_only_holds_a_lock_by_name_is_not_listed(node: Node, clients: Clients) -> None:
    named = clients.idle("SELECT GET_LOCK('nightly', 0)")
    writer = clients.idle("BEGIN", "UPDATE app.t SET v=1 WHERE id=1")
    found(node, writer)
    assert named not in {t.session for t in inspected(node).transactions}


def test_the_holder_of_a_table_lock_is_named_where_the_server_shows_it(start_cluster: Start, flavour: str) -> None:
    """MariaDB does with the plugin metadata_lock_info."""
    node = start_cluster(1, options=SHOWING_LOCKS[flavour])["db1"]
    node.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    with contextlib.ExitStack() as ends:
        clients = Clients(node, ends)
        writer = found(node, clients.idle("LOCK TABLES app.t WRITE"))
        assert (writer.kind, writer.writes, writer.statement) == ("table lock", True, "LOCK TABLES app.t WRITE")
    with contextlib.ExitStack() as ends:
        clients = Clients(node, ends)
        node.sql(f"GRANT RELOAD ON *.* TO '{APPLICATION.user}'@'%'")
        holder = found(node, clients.idle("FLUSH TABLES WITH READ LOCK"))
        assert (holder.kind, holder.writes) == ("global lock", False)


def test_prepared_xa_transactions_survive_a_kill_and_are_listed_as_xa_commit_takes_them(
    node: Node, clients: Clients
) -> None:
    clients.idle("XA START 'order-17','b'", "UPDATE app.t SET v=1 WHERE id=1", "XA END 'order-17','b'")
    assert inspected(node).prepared_xa == ()
    session = clients.idle(
        "XA START 'x','b',7", "UPDATE app.t SET v=1 WHERE id=2", "XA END 'x','b',7", "XA PREPARE 'x','b',7"
    )
    node.sql(f"KILL {session}")
    seen = "SELECT 1 FROM information_schema.PROCESSLIST WHERE ID=%s"
    until(lambda: not node.sql(seen, (session,)), "the session to be gone")
    (xid,) = inspected(node).prepared_xa
    node.sql(f"XA ROLLBACK {xid}")
    assert inspected(node).prepared_xa == ()


# -- Privileged writers ---------------------------------------------------------------------------------------

BATCH = Account("batch", "lab-batch")


def make(node: Node, *grants: str) -> None:
    node.sql(f"CREATE USER '{BATCH.user}'@'127.0.0.%' IDENTIFIED BY '{BATCH.password}'")
    for grant in grants:
        node.sql(grant)


def can_write(node: Node, account: Account) -> bool:
    node.sql("SET GLOBAL read_only=1")
    try:
        node.sql("UPDATE app.t SET v=v+1 WHERE id=9", account=account)
    except pymysql.err.OperationalError:
        return False
    finally:
        node.sql("SET GLOBAL read_only=0")
    return True


@pytest.mark.mariadb_only(STOPS_EVERYBODY)
@pytest.mark.parametrize(
    ("grants", "named"),
    [
        (("GRANT READ_ONLY ADMIN ON *.* TO batch@'127.0.0.%'",), True),
        (("GRANT SUPER, BINLOG ADMIN, REPLICATION SLAVE ADMIN ON *.* TO batch@'127.0.0.%'",), False),
        (("GRANT ALL ON *.* TO batch@'127.0.0.%'",), True),
        (
            (
                "CREATE ROLE outer_role",
                "CREATE ROLE inner_role",
                "GRANT READ_ONLY ADMIN ON *.* TO inner_role",
                "GRANT inner_role TO outer_role",
                "GRANT outer_role TO batch@'127.0.0.%'",
                "SET DEFAULT ROLE outer_role FOR batch@'127.0.0.%'",
            ),
            True,
        ),
    ],
    ids=["READ_ONLY ADMIN", "SUPER", "ALL", "role in a role"],
)
def test_exactly_those_are_named_whose_write_the_server_lets_through(
    node: Node, clients: Clients, grants: tuple[str, ...], named: bool
) -> None:
    make(node, "GRANT UPDATE, SELECT ON app.* TO batch@'127.0.0.%'", *grants)
    assert can_write(node, BATCH) is named
    assert inspected(node).privileged_writers == ()
    clients.idle("SELECT 1", account=BATCH)
    assert inspected(node).privileged_writers == (("batch@127.0.0.%",) if named else ())


@pytest.mark.mariadb_only(STOPS_EVERYBODY)
def test_monitor_users_may_hold_a_privileged_session(node: Node, clients: Clients) -> None:
    make(node, "GRANT READ_ONLY ADMIN ON *.* TO batch@'127.0.0.%'")
    clients.idle("SELECT 1", account=BATCH)
    policy = Policy(monitor_users=(BATCH.user,))
    assert inspected(node, policy).privileged_writers == ()


@pytest.mark.mariadb_only(STOPS_EVERYBODY)
def test_replication_with_privileges_is_not_a_writer(start_cluster: Start) -> None:
    cluster = start_cluster(2)
    cluster["db1"].sql("GRANT READ_ONLY ADMIN ON *.* TO repl@'%'")
    cluster["db2"].sql("STOP SLAVE")
    cluster["db2"].follow(cluster["db1"])
    assert inspected(cluster["db1"]).privileged_writers == ()


# -- The account ----------------------------------------------------------------------------------------------


def test_what_the_account_may_not_read_is_named_and_left_empty(node: Node, clients: Clients, flavour: str) -> None:
    clients.idle("BEGIN", "UPDATE app.t SET v=1 WHERE id=1")
    found = inspected(node, account=APPLICATION)
    assert found.account == f"{APPLICATION.user}@%"
    assert {"PROCESS", "RELOAD", UNREADABLE[flavour]} <= set(found.missing_privileges)
    assert (found.privileged_writers, found.transactions, found.events) == ((), (), ())


def test_a_privilege_that_is_taken_away_is_missed_at_the_next_inspection(node: Node) -> None:
    assert inspected(node).missing_privileges == ()
    node.sql(f"REVOKE PROCESS ON *.* FROM '{ENGINE.user}'@'%'")
    assert inspected(node).missing_privileges == ("PROCESS",)


@pytest.mark.mariadb_only("the scheduler needs no other privilege than the rest")
def test_super_is_missed_where_events_run(node: Node) -> None:
    node.sql(f"REVOKE SUPER ON *.* FROM '{ENGINE.user}'@'%'")
    assert inspected(node).missing_privileges == ()
    node.sql("SET GLOBAL event_scheduler=ON")
    assert inspected(node).missing_privileges == ("SUPER",)


@pytest.mark.parametrize("option", ["binlog_do_db", "binlog_ignore_db"])
def test_filters_of_the_binary_log_are_seen(start_cluster: Start, option: str) -> None:
    options: dict[str, Any] = {option: "app"}
    assert inspected(start_cluster(1, options=options)["db1"]).binlog_filters == (f"{option}=app",)
