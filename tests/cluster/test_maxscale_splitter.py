"""The double's readwritesplit on real servers: what it does with statements, by the settings of its service."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from tests.support.accounts import Account
from tests.support.mariadb import Connection, LocalCluster, Node
from tests.support.maxscale.backends import Databases
from tests.support.maxscale.double import Double
from tests.support.scene import connect
from tests.support.wait import until

RETRY = {"delayed_retry": True, "transaction_replay": True}
NAMES = ("one", "two")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two servers; both take writes where a test says so, so that where a statement went is seen in what is there."""
    with contextlib.closing(LocalCluster.start(2)) as made:
        for node in made:
            node.sql("STOP ALL SLAVES")
        for node in made:
            node.sql("SET GLOBAL read_only=0")
            node.sql("CREATE TABLE app.t (id INT, server INT) ENGINE=InnoDB")
        yield made


@pytest.fixture
def begin(cluster: LocalCluster) -> Iterator[Callable[..., Double]]:
    with contextlib.ExitStack() as ends:

        def made(**parameters: Any) -> Double:
            for node in cluster:
                node.sql("DELETE FROM app.t")
                node.sql("SET GLOBAL read_only=0")
            known = dict(zip(NAMES, (node.address for node in cluster), strict=True))
            double = Double(known, Databases(), monitor=False, split=True, service_parameters=parameters)
            ends.enter_context(double)
            double.start(route=True)
            for name in NAMES:
                double.machine.change(name, "set", "running")
            double.machine.change("one", "set", "master")
            double.machine.change("two", "set", "slave")
            return double

        yield made


@pytest.fixture
def one(cluster: LocalCluster) -> Node:
    return next(iter(cluster))


@pytest.fixture
def two(cluster: LocalCluster) -> Node:
    return list(cluster)[1]


@contextlib.contextmanager
def session(double: Double) -> Iterator[Connection]:
    with contextlib.closing(connect(double.write)) as opened:
        yield opened


def run(opened: Connection, sql: str) -> Any:
    """Runs a statement and returns the first value, if there is one."""
    with opened.cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
        return next(iter(row.values())) if row else None


def server(opened: Connection, *, locked: bool = False) -> int:
    return int(run(opened, f"SELECT @@server_id AS id{' FOR UPDATE' if locked else ''}"))


def move(double: Double, *, old: str = "one", new: str = "two") -> None:
    double.machine.change(new, "set", "master")
    double.machine.change(old, "clear", "master")


def broken(opened: Connection, sql: str) -> int:
    """Runs a statement that must fail, and returns the number of the error."""
    with pytest.raises(pymysql.err.Error) as caught:
        run(opened, sql)
    return int(caught.value.args[0])


INSERT = "INSERT INTO app.t VALUES (1, @@server_id)"


def rows(node: Node) -> int:
    return int(node.value("(SELECT COUNT(*) FROM app.t)"))


def test_reads_go_to_a_slave_writes_and_transactions_to_the_master(
    begin: Callable[..., Double], one: Node, two: Node
) -> None:
    with session(begin()) as opened:
        assert server(opened) == two.server_id
        assert server(opened, locked=True) == one.server_id
        run(opened, INSERT)
        assert (rows(one), rows(two)) == (1, 0)
        run(opened, "BEGIN")
        assert server(opened) == one.server_id
        run(opened, "COMMIT")
        assert server(opened) == two.server_id


def test_reads_go_to_the_master_when_it_may_have_no_slaves(begin: Callable[..., Double], one: Node) -> None:
    with session(begin(max_slave_connections=0)) as opened:
        assert server(opened) == one.server_id


def test_settings_go_to_whoever_is_asked_next(begin: Callable[..., Double], two: Node) -> None:
    double = begin()
    with session(double) as opened:
        run(opened, "SET @mine = 7")
        assert int(run(opened, "SELECT @mine AS mine")) == 7
        run(opened, "USE app")
        move(double)
        run(opened, "INSERT INTO t VALUES (@mine, @@server_id)")
    assert two.sql("SELECT * FROM app.t") == [{"id": 7, "server": two.server_id}]


def test_a_wrong_password_and_nobody_running_let_nobody_in(begin: Callable[..., Double]) -> None:
    double = begin()
    with pytest.raises(pymysql.err.OperationalError) as caught:
        connect(double.write, Account("app", "wrong"))
    assert caught.value.args[0] == 1045
    for name in NAMES:
        double.machine.change(name, "clear", "running")
    with pytest.raises(pymysql.err.OperationalError) as caught:
        connect(double.write)
    assert caught.value.args[0] == 1045


def test_errors_of_the_master_reach_the_client(begin: Callable[..., Double], one: Node) -> None:
    double = begin(**RETRY)
    with session(double) as opened:
        one.sql("SET GLOBAL read_only=1")
        assert broken(opened, INSERT) == 1290
        one.sql("SET GLOBAL read_only=0")
        run(opened, INSERT)
    assert double.history.repeated == []


@pytest.mark.parametrize(("reconnects", "code"), [(True, 0), (False, 2013)])
def test_an_idle_session_goes_on_at_the_next_master_with_master_reconnection(
    begin: Callable[..., Double], two: Node, reconnects: bool, code: int
) -> None:
    double = begin(master_reconnection=reconnects)
    with session(double) as opened:
        run(opened, INSERT)
        move(double)
        if code:
            assert broken(opened, INSERT) == code
        else:
            run(opened, INSERT)
            assert rows(two) == 1


def test_without_a_master_a_write_waits_for_one_till_the_next_second(begin: Callable[..., Double], two: Node) -> None:
    double = begin(delayed_retry=True)
    with session(double) as opened:
        double.machine.change("one", "clear", "master")
        timer = threading.Timer(0.2, lambda: double.machine.change("two", "set", "master"))
        timer.start()
        began = time.monotonic()
        run(opened, INSERT)
        assert 0.9 < time.monotonic() - began < 3, "each full second"
        timer.join()
    assert rows(two) == 1


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({}, 2013),
        ({"delayed_retry": True, "delayed_retry_timeout": "500ms"}, 2013),
        ({"master_failure_mode": "error_on_write"}, 1290),
    ],
    ids=["no-retry", "timeout", "error_on_write"],
)
def test_without_a_master_a_write_fails_as_it_is_set(
    begin: Callable[..., Double], parameters: dict[str, Any], code: int
) -> None:
    double = begin(**parameters)
    with session(double) as opened:
        run(opened, INSERT)
        double.machine.change("one", "clear", "master")
        assert server(opened) > 0, "reads go on"
        assert broken(opened, INSERT) == code


def test_fail_instantly_ends_sessions_and_refuses_newcomers_while_there_is_no_master(
    begin: Callable[..., Double],
) -> None:
    double = begin(master_failure_mode="fail_instantly")
    with session(double) as opened:
        run(opened, INSERT)
        double.machine.change("one", "clear", "master")
        assert broken(opened, "SELECT 1") == 2013
    with pytest.raises(pymysql.err.OperationalError) as caught:
        connect(double.write)
    assert caught.value.args[0] == 1815


@contextlib.contextmanager
def under_way(double: Double, node: Node, sql: str, *before: str) -> Iterator[list[Any]]:
    """For a ``with`` block ``sql`` runs on ``node`` through the router; what came of it is in the list after that."""
    ended: list[Any] = []
    with session(double) as opened:
        for statement in before:
            run(opened, statement)

        def go() -> None:
            try:
                ended.append(run(opened, sql))
            except pymysql.err.Error as error:
                ended.append(int(error.args[0]))

        thread = threading.Thread(target=go)
        thread.start()
        try:
            until(lambda: ended or found(node), "the statement to run")
            assert not ended
            yield ended
        finally:
            thread.join(20)


def found(node: Node) -> list[int]:
    """Returns the sessions of the application that wait for a lock or sleep in a statement."""
    busy = "SELECT id FROM information_schema.processlist WHERE user='app' AND command='Query'"
    return [int(row["id"]) for row in node.sql(busy)]


def kill(node: Node) -> None:
    for number in found(node):
        node.sql(f"KILL {number}")


SLOW = "INSERT INTO app.t SELECT 1, @@server_id FROM (SELECT SLEEP(IF(@@server_id = {slow}, 20, 0))) AS s"


def test_a_write_that_lost_its_reply_is_repeated_at_once_and_noted(
    begin: Callable[..., Double], one: Node, two: Node
) -> None:
    double = begin(delayed_retry=True)
    with under_way(double, one, SLOW.format(slow=one.server_id)) as ended:
        move(double)
        began = time.monotonic()
        kill(one)
    assert ended == [None]
    assert time.monotonic() - began < 0.9, "the Master is there already"
    assert (rows(one), rows(two)) == (0, 1)
    (repeated,) = double.history.repeated
    assert (repeated.first, repeated.again) == ("one", "two")


def test_a_write_whose_reply_was_lost_after_it_was_done_is_there_twice(
    begin: Callable[..., Double], one: Node, two: Node
) -> None:
    """Row and reply part in a statement that goes on after its insert: what tests of duplicates are to find."""
    body = "BEGIN INSERT INTO app.t VALUES (1, @@server_id); DO SLEEP(IF(@@server_id = {}, 20, 0)); END"
    for node in (one, two):
        node.sql("DROP PROCEDURE IF EXISTS app.slow")
        node.sql(f"CREATE PROCEDURE app.slow() SQL SECURITY INVOKER {body.format(one.server_id)}")
    double = begin(delayed_retry=True)
    with under_way(double, one, "CALL app.slow()") as ended:
        move(double)
        kill(one)
    assert ended == [None]
    assert (rows(one), rows(two)) == (1, 1)
    assert len(double.history.repeated) == 1


def test_without_retry_a_write_that_is_cut_off_ends_its_session(begin: Callable[..., Double], one: Node) -> None:
    double = begin()
    with under_way(double, one, SLOW.format(slow=one.server_id)) as ended:
        move(double)
        kill(one)
    assert ended == [2013]
    assert double.history.ended == ["a statement was under way"]


def test_an_open_transaction_is_replayed_on_the_next_master(begin: Callable[..., Double], one: Node, two: Node) -> None:
    double = begin(transaction_replay=True)
    with session(double) as opened:
        run(opened, "BEGIN")
        run(opened, INSERT)
        move(double)
        run(opened, "INSERT INTO app.t VALUES (2, @@server_id)")
        run(opened, "COMMIT")
    assert (rows(one), rows(two)) == (0, 2)
    assert (double.history.replayed, double.history.repeated) == (1, [])


def test_an_open_transaction_breaks_without_replay(begin: Callable[..., Double], one: Node) -> None:
    double = begin(delayed_retry=True)
    with session(double) as opened:
        run(opened, "BEGIN")
        run(opened, INSERT)
        move(double)
        assert broken(opened, INSERT) == 2013
    until(lambda: rows(one) == 0, "it to be rolled back")


def test_a_transaction_that_reads_something_else_there_is_not_replayed(
    begin: Callable[..., Double], one: Node, two: Node
) -> None:
    double = begin(transaction_replay=True)
    two.sql("INSERT INTO app.t VALUES (9, 9)")
    with session(double) as opened:
        run(opened, "BEGIN")
        assert run(opened, "SELECT COUNT(*) AS n FROM app.t") == 0
        move(double)
        assert broken(opened, INSERT) == 2013
    assert rows(two) == 1


@pytest.mark.parametrize("safe", [True, False])
def test_a_commit_under_way_is_replayed_only_where_that_is_not_held_to_be_unsafe(
    begin: Callable[..., Double], one: Node, two: Node, safe: bool
) -> None:
    double = begin(transaction_replay=True, transaction_replay_safe_commit=safe)
    holder = one.connect()
    with contextlib.closing(holder), holder.cursor() as cursor:
        cursor.execute("BACKUP STAGE START")
        cursor.execute("BACKUP STAGE BLOCK_COMMIT")
        with under_way(double, one, "COMMIT", "BEGIN", INSERT) as ended:
            move(double)
            kill(one)
    assert ended == ([2013] if safe else [None])
    assert (rows(one), rows(two)) == (0, 0 if safe else 1)
    assert (INSERT in [write.sql for write in double.history.repeated]) is not safe, "it might be there twice"


def test_maintenance_by_force_ends_sessions_now(begin: Callable[..., Double]) -> None:
    double = begin()
    with session(double) as opened:
        run(opened, INSERT)
        double.machine.change("one", "set", "maintenance", force=True)
        assert broken(opened, INSERT) == 2013
