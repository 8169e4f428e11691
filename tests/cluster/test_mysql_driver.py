"""What the MySQL driver does to one server, by itself: the write lock, the dead man's switch, the end of sessions."""

from __future__ import annotations

import contextlib
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pymysql
import pytest

from proxyroute.conditions import anonymous
from proxyroute.db.mysql import MySQL
from proxyroute.db.recognised import recognised
from proxyroute.db.replication import ReplicationLogin
from proxyroute.db.session import Login, Session
from proxyroute.errors import LostReply, TimedOut, Unreachable
from proxyroute.gtid import Containment
from proxyroute.model import Deadline, Peer
from proxyroute.policy import Policy
from tests.support.accounts import Account
from tests.support.certificates import make_certificate
from tests.support.clients import Clients
from tests.support.mariadb import APPLICATION, ENGINE, REPLICATION, LocalCluster, Node
from tests.support.mysql import MySQLCluster
from tests.support.wait import until

pytestmark = pytest.mark.matrix
OPERATION = "20261128T000000-000001"
BATCH = Account("batch", "lab-batch")
LOGIN = Login(ENGINE.user, ENGINE.password)
REPLICA = ReplicationLogin(REPLICATION.user, REPLICATION.password)


@pytest.fixture(scope="module")
def running() -> Iterator[MySQLCluster]:
    with MySQLCluster.start(2) as cluster:
        cluster["db1"].sql("CREATE TABLE app.t (id INT PRIMARY KEY AUTO_INCREMENT)")
        cluster["db1"].sql("INSERT INTO app.t VALUES (1)")
        cluster.await_synced()
        yield cluster


@pytest.fixture
def db1(running: MySQLCluster) -> Iterator[Node]:
    """The primary; a test must leave it open, unlocked and with its limit."""
    node = running["db1"]
    yield node
    assert node.sql("INSERT INTO app.t VALUES ()", account=APPLICATION) == []
    assert int(node.value("@@global.max_connections")) == int(node.options["max-connections"] or 0)


@pytest.fixture
def server(db1: Node) -> Iterator[MySQL]:
    driver = MySQL(db1.name, db1.address, LOGIN, REPLICA)
    driver.connect(Deadline.after(5), OPERATION)
    yield driver
    driver.close()


def policy(**changes: float) -> Policy:
    return Policy(**{"lock_attempt": 0.2, "lock_pause": 0.05, **changes})


@contextlib.contextmanager
def writing(node: Node) -> Iterator[subprocess.Popen[str]]:
    """One write of an application, which says how it ended; it begins to wait before this returns."""
    code = (
        "import pymysql\n"
        f"c = pymysql.connect(host='127.0.0.1', port={node.port}, user='{APPLICATION.user}',"
        f" password='{APPLICATION.password}', autocommit=True, ssl_disabled=True)\n"
        "print('connected', flush=True)\n"
        "try:\n    c.cursor().execute('INSERT INTO app.t VALUES ()'); print('written')\n"
        "except pymysql.err.Error as error: print(error.args[0])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "connected\n"
        waiting = "SELECT COUNT(*) AS n FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for global%'"
        until(lambda: node.sql(waiting)[0]["n"], "the write to wait")
        yield child


def answer(child: subprocess.Popen[str]) -> str:
    said, _ = child.communicate(timeout=20)
    return said.strip()


def test_the_flavour_is_told_by_the_server_and_by_nobody_else(db1: Node) -> None:
    server = recognised("db1", db1.address, LOGIN, REPLICA)
    assert server.look(Deadline.after(5)).flavour == "mysql"
    assert server.statements("detach", policy(), Peer("db1", db1.address)) == ("STOP REPLICA",)
    server.close()


def test_a_server_that_was_replaced_by_one_of_another_flavour_is_recognised_again(
    running: MySQLCluster, start_cluster: Callable[..., LocalCluster]
) -> None:
    replica, other = running["db2"], start_cluster(1)["db1"]
    server = recognised("db2", replica.address, LOGIN, REPLICA)
    assert server.look(Deadline.after(5)).flavour == "mysql"
    replica.stop()
    other.restart(port=replica.port)
    server.close()
    assert server.look(Deadline.after(5)).flavour == "mariadb"
    server.close()
    other.stop()
    replica.start()
    until(replica.replicates, "db2 to follow again")


def test_writes_wait_while_they_are_blocked_and_go_on_afterwards(db1: Node, server: MySQL) -> None:
    server.block_writes(OPERATION, Deadline.after(3), policy())
    frozen = server.position(Deadline.after(1))
    assert server.write_state(Deadline.after(1), OPERATION).holders == {"engine"}
    with writing(db1) as child:
        assert server.position(Deadline.after(1)).equals(frozen) is Containment.YES
        server.unblock_writes(OPERATION, Deadline.after(3))
        assert answer(child) == "written"


def test_an_attempt_on_the_lock_is_ended_by_us_and_nothing_of_it_is_left(db1: Node, server: MySQL) -> None:
    with contextlib.ExitStack() as ends:
        holder = Clients(db1, ends).idle("LOCK TABLES app.t WRITE")
        began = time.monotonic()
        with pytest.raises(TimedOut, match=r"session \d+ of .* hold writes open: LOCK TABLES app.t WRITE"):
            server.block_writes(OPERATION, Deadline.after(0.6), policy())
        assert time.monotonic() - began < 2
        pending = "SELECT COUNT(*) AS n FROM performance_schema.metadata_locks WHERE LOCK_STATUS='PENDING'"
        assert db1.sql(pending)[0]["n"] == 0
        del holder
    server.block_writes(OPERATION, Deadline.after(3), policy())
    server.unblock_writes(OPERATION, Deadline.after(3))


def test_a_long_reader_is_ended_when_the_lock_waits_for_it_and_keeps_nobody_waiting(db1: Node, server: MySQL) -> None:
    with contextlib.ExitStack() as ends:
        clients = Clients(db1, ends)
        reading = clients.running("SELECT id, SLEEP(60) FROM app.t")
        holder = clients.idle("LOCK TABLES app.t READ")
        began = time.monotonic()
        server.block_writes(OPERATION, Deadline.after(2), policy())
        assert time.monotonic() - began < 1.5
        idle = "SELECT 1 FROM information_schema.PROCESSLIST WHERE ID=%s AND COMMAND='Sleep'"
        assert db1.sql(idle, (reading,)), "its statement has ended, its session has not"
        assert not clients.alive(holder), "it would have kept its table open for ever"
        assert db1.sql("SELECT COUNT(*) AS n FROM app.t", account=APPLICATION), "who reads does not wait"
        server.unblock_writes(OPERATION, Deadline.after(3))


def test_what_a_lock_that_died_left_behind_a_reader_ends_when_writes_are_let_go(db1: Node, server: MySQL) -> None:
    """The engine dies while the lock waits for a reader: the lock ends, and all who want that table go on waiting."""
    with contextlib.ExitStack() as ends:
        clients = Clients(db1, ends)
        clients.running("SELECT id, SLEEP(60) FROM app.t")
        with db1.session() as dead, dead.cursor() as cursor:
            cursor.execute("SET SESSION lock_wait_timeout=1")
            with pytest.raises(pymysql.err.OperationalError, match="Lock wait timeout"):
                cursor.execute("FLUSH TABLES WITH READ LOCK")
        other = clients.begun("SELECT COUNT(*) FROM app.t")
        stuck = "SELECT 1 FROM information_schema.PROCESSLIST WHERE ID=%s AND STATE='Waiting for table flush'"
        until(lambda: db1.sql(stuck, (other,)), "another reader to wait")
        server.unblock_writes(OPERATION, Deadline.after(3))
        until(lambda: not db1.sql(stuck, (other,)), "it to go on", 5)


def test_an_armed_server_refuses_writes_by_itself_when_everybody_of_ours_is_killed(db1: Node) -> None:
    code = (
        "import time; from proxyroute.db.mysql import MySQL; from proxyroute.model import *;"
        "from tests.cluster.test_mysql_driver import LOGIN, REPLICA, OPERATION, policy;"
        f"s = MySQL('db1', Address('127.0.0.1', {db1.port}), LOGIN, REPLICA); s.connect(Deadline.after(5), OPERATION);"
        "s.block_writes(OPERATION, Deadline.after(3), policy()); s.arm(OPERATION, 8.0, Deadline.after(3));"
        "print('armed', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == "armed\n"
        with writing(db1) as child:
            engine.kill()
            engine.wait()
            # the server looks every five seconds whether somebody who sleeps is still there: this must outlast that
            assert answer(child) == "1290"
    assert db1.value("@@global.super_read_only") == 1
    assert db1.sql(f"SELECT IS_USED_LOCK('proxyroute/{OPERATION}/armed') AS owner") == [{"owner": None}]
    db1.accept_writes()


def test_what_is_armed_is_disarmed_by_whoever_heals(db1: Node, server: MySQL) -> None:
    server.block_writes(OPERATION, Deadline.after(3), policy())
    server.arm(OPERATION, 20.0, Deadline.after(3))
    assert server.write_state(Deadline.after(1), OPERATION).holders == {"engine", "armed"}
    healer = MySQL(db1.name, db1.address, LOGIN, REPLICA)
    healer.unblock_writes(OPERATION, Deadline.after(5))
    state = healer.write_state(Deadline.after(1), OPERATION)
    assert (state.writable, state.holders) == (True, frozenset())
    healer.close()


def test_a_switch_that_comes_when_the_lock_has_ended_closes_nothing(db1: Node, server: MySQL) -> None:
    server.block_writes(OPERATION, Deadline.after(3), policy())
    (owner,) = db1.sql(f"SELECT IS_USED_LOCK('proxyroute/{OPERATION}/engine') AS id")
    db1.sql(f"KILL {owner['id']}")
    with pytest.raises(LostReply, match="not held back any more"):
        server.arm(OPERATION, 5.0, Deadline.after(3))
    state = server.write_state(Deadline.after(1), OPERATION)
    assert (state.writable, state.holders) == (True, frozenset())


def test_a_lock_that_nobody_speaks_for_is_ended_by_the_server(db1: Node, server: MySQL) -> None:
    server.block_writes(OPERATION, Deadline.after(3), policy(freeze_budget=1.0))
    with writing(db1) as child:
        assert answer(child) == "written"


def test_sessions_of_applications_are_ended_and_those_of_replicas_are_not(db1: Node, server: MySQL) -> None:
    dumps = "SELECT ID AS id FROM information_schema.PROCESSLIST WHERE COMMAND='Binlog Dump GTID'"
    before = db1.sql(dumps)
    with contextlib.ExitStack() as ends:
        clients = Clients(db1, ends)
        for _ in range(20):
            clients.idle("SELECT 1")
        assert server.kill_clients(Deadline.after(5)) >= 20
        assert server.client_sessions(Deadline.after(1)) == frozenset()
    assert before
    assert db1.sql(dumps) == before


def test_a_server_that_refuses_writes_refuses_them_of_root_too_and_after_a_restart(
    running: MySQLCluster, db1: Node, server: MySQL
) -> None:
    db1.sql("SET PERSIST read_only=OFF")
    assert server.look(Deadline.after(2)).settings["persisted"] == "read_only=OFF"
    server.refuse_writes(Deadline.after(3))
    with db1.session() as root, root.cursor() as cursor, pytest.raises(pymysql.err.OperationalError, match="1290"):
        cursor.execute("INSERT INTO app.t VALUES ()")
    assert "persisted" not in server.look(Deadline.after(2)).settings
    db1.restart()
    assert not db1.is_writable()
    db1.accept_writes()
    until(running["db2"].replicates, "db2 to follow again")


def test_the_statements_that_are_told_lead_back_to_where_every_transaction_has_a_gtid(running: MySQLCluster) -> None:
    db2 = running["db2"]
    with contextlib.closing(MySQL(db2.name, db2.address, LOGIN, REPLICA)) as driver:
        for mode in ("ON_PERMISSIVE", "OFF_PERMISSIVE"):
            db2.sql(f"SET GLOBAL gtid_mode={mode}")
        told = anonymous(driver.look(Deadline.after(2)))
        assert told is not None
        assert "gtid_mode=OFF_PERMISSIVE" in told.text
        for statement in re.findall(r"SET GLOBAL \w+=\w+", told.cure):
            db2.sql(statement)
        assert anonymous(driver.look(Deadline.after(2))) is None
    until(db2.replicates, "db2 to follow still")


def persisted(db1: Node) -> set[str]:
    return {str(r["name"]) for r in db1.sql("SELECT VARIABLE_NAME AS name FROM performance_schema.persisted_variables")}


@pytest.mark.parametrize("name", ["source", "replica"])
def test_semi_sync_that_was_persisted_otherwise_is_forgotten_and_what_agrees_is_kept(
    db1: Node, server: MySQL, name: str
) -> None:
    flag = f"rpl_semi_sync_{name}_enabled"
    role = {"source": "primary", "replica": "replica"}[name]
    db1.sql(f"SET PERSIST {flag}=OFF")
    server.semi_sync(Deadline.after(3), **{role: False})
    assert flag in persisted(db1)
    server.semi_sync(Deadline.after(3), **{role: True})
    assert (flag in persisted(db1), db1.value(f"@@global.{flag}")) == (False, 1)
    server.semi_sync(Deadline.after(3), **{role: False})


def test_an_offline_mode_that_was_persisted_is_forgotten_when_clients_are_let_in_again(
    db1: Node, server: MySQL
) -> None:
    settings = server.write_settings(Deadline.after(3))
    db1.sql("SET PERSIST offline_mode=ON")
    server.restore(settings, Deadline.after(3))
    assert ("offline_mode" in persisted(db1), db1.value("@@global.offline_mode")) == (False, 0)


def test_an_event_scheduler_that_was_persisted_off_is_forgotten_when_events_are_to_run(
    db1: Node, server: MySQL
) -> None:
    db1.sql("SET PERSIST event_scheduler=ON")
    server.stop_events(Deadline.after(3))
    assert "event_scheduler" in persisted(db1), "they are to run again when the operation is over"
    db1.sql("SET PERSIST event_scheduler=OFF")
    server.start_events(Deadline.after(3))
    assert "event_scheduler" not in persisted(db1)
    server.stop_events(Deadline.after(3))


def test_who_is_connected_and_may_write_is_named_while_super_read_only_is_not_set(db1: Node, server: MySQL) -> None:
    def writers() -> tuple[str, ...]:
        return server.inspect(Deadline.after(3), policy()).privileged_writers

    db1.sql("CREATE ROLE writers")
    db1.sql("GRANT CONNECTION_ADMIN ON *.* TO writers")
    db1.sql("CREATE USER batch@'127.0.0.%' IDENTIFIED BY 'lab-batch'")
    db1.sql("GRANT writers TO batch@'127.0.0.%'")
    db1.sql("SET GLOBAL read_only=1")
    try:
        with db1.session(BATCH):
            assert writers() == ("batch@127.0.0.%",)
            assert server.write_state(Deadline.after(1), OPERATION).half_closed
            assert server.look(Deadline.after(1)).half_closed
            server.refuse_writes(Deadline.after(3))
            assert writers() == ()
            assert not server.write_state(Deadline.after(1), OPERATION).half_closed
            assert not server.look(Deadline.after(1)).half_closed
    finally:
        db1.accept_writes()
        db1.sql("DROP USER batch@'127.0.0.%'")
        db1.sql("DROP ROLE writers")


def test_semi_synchronous_replication_is_switched_on_both_sides(db1: Node, server: MySQL) -> None:
    for wanted in (True, False):
        server.semi_sync(Deadline.after(3), primary=wanted, replica=wanted)
        seen = server.look(Deadline.after(3)).semi_sync
        assert (seen.available, seen.primary_enabled, seen.replica_enabled) == (True, wanted, wanted)


def test_a_session_over_tls_is_verified_and_one_without_it_asks_for_the_servers_key(db1: Node, tmp_path: Path) -> None:
    data = db1.folder / "data"
    trusted = ssl.create_default_context(cafile=str(data / "ca.pem"))
    trusted.check_hostname = False  # what MySQL makes for itself names no host
    account = "CREATE USER tls@'%' IDENTIFIED BY 'lab-tls'"  # never seen before: nothing of it is cached
    for login in (Login("tls", "lab-tls", trusted), Login("tls", "lab-tls")):
        db1.sql(account)
        with Session("db1", db1.address, login).open(Deadline.after(5)) as session:
            shown = session.one("SHOW SESSION STATUS LIKE 'Ssl_cipher'", Deadline.after(5))["Value"]
            assert bool(shown) is (login.tls is not None)
        db1.sql("DROP USER tls@'%'")
    unknown = ssl.create_default_context(cafile=str(make_certificate(tmp_path).ca))
    unknown.check_hostname = False
    with pytest.raises(Unreachable, match="certificate verify failed"):
        Session("db1", db1.address, Login(ENGINE.user, ENGINE.password, unknown)).open(Deadline.after(5))
