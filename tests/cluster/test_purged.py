"""A replica is pointed to a source whose binary log begins later than where the replica stands."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxyroute.errors import ServerError, TimedOut, Unserved
from proxyroute.gtid import Containment
from proxyroute.model import Deadline, Peer, Receiver
from proxyroute.policy import Policy
from tests.support.drivers import server_of
from tests.support.lab import Lab
from tests.support.mariadb import LocalCluster, Node
from tests.support.wait import until

FLAVOURS = ("mysql",)
ROWS = "(SELECT COUNT(*) FROM app.t)"


def write(primary: Node) -> None:
    for number in range(5):
        primary.sql(f"INSERT INTO app.t VALUES ({number})")


def purge(node: Node) -> None:
    """Only its last, empty log is left."""
    until(lambda: node.value(ROWS) == 5, f"{node.name} to have it all")
    node.sql("FLUSH BINARY LOGS")
    last = node.sql("SHOW MASTER STATUS")[0]["File"]

    def only_the_last() -> bool:
        node.sql(f"PURGE BINARY LOGS TO '{last}'")  # one in use stays
        return [row["Log_name"] for row in node.sql("SHOW BINARY LOGS")] == [last]

    until(only_the_last, "only the last binary log to be left")


def follow(replica: Node, source: Node, seconds: float = 30.0) -> None:
    """As after a switchover: the channel that led to db1 is to lead to ``source``."""
    server, at = server_of(replica), server_of(source)
    deadline = Deadline.after(seconds)
    try:
        server.follow(
            Peer(source.name, source.address), deadline,
            source_has=lambda: at.position(deadline), source_purged=lambda: at.purged(deadline),
        )  # fmt: skip
    finally:
        server.close()
        at.close()


def delay(node: Node) -> None:
    """It applies what it receives an hour later."""
    for statement in ("STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY=3600", "START SLAVE"):
        node.sql(statement)
    until(node.replicates, f"{node.name} to follow")


@pytest.fixture
def three(start_cluster: Callable[..., LocalCluster]) -> LocalCluster:
    cluster = start_cluster(3)
    cluster["db1"].sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    cluster.await_synced()
    return cluster


def received(node: Node, goal: Node) -> bool:
    """Whether ``node`` has fetched all that ``goal`` has executed."""
    server, other = server_of(node), server_of(goal)
    try:
        source = server.look(Deadline.after(5)).source
        wanted = other.position(Deadline.after(5))
        return source is not None and source.received.contains(wanted) is Containment.YES
    finally:
        server.close()
        other.close()


def test_what_the_next_source_has_purged_is_applied_from_the_relay_logs_before_they_go(three: LocalCluster) -> None:
    db1, db2, db3 = three
    db3.sql("STOP SLAVE SQL_THREAD")
    write(db1)
    until(lambda: received(db3, db1), "db3 to receive it")
    purge(db2)
    follow(db3, db2)
    assert (db3.source_port(), db3.value(ROWS)) == (db2.port, 5)


def test_relay_logs_that_a_start_would_drop_are_not_given_up(three: LocalCluster, flavour: str) -> None:
    """Both threads are stopped, and nobody else can give it what lies there."""
    db1, db2, db3 = three
    db3.sql("STOP SLAVE SQL_THREAD")
    write(db1)
    until(lambda: received(db3, db1), "db3 to receive it")
    db3.sql("STOP SLAVE")
    purge(db2)
    if flavour == "mysql":  # it starts where its relay logs are
        follow(db3, db2)
        assert (db3.source_port(), db3.value(ROWS)) == (db2.port, 5)
        return
    with pytest.raises(Unserved, match="needs 0-1-6"):
        follow(db3, db2)
    assert received(db3, db1)
    db2.sql("STOP SLAVE")
    db3.sql("START SLAVE")
    until(lambda: db3.value(ROWS) == 5, "db3 to get it from db1 again")
    db3.sql("STOP SLAVE SQL_THREAD")
    db1.sql("INSERT INTO app.t VALUES (77)")
    until(lambda: received(db3, db1), "db3 to receive one more")
    db3.sql("STOP SLAVE IO_THREAD")
    with pytest.raises(ServerError, match=r"has received 0-1-7.*go as soon as replication starts there"):
        follow(db3, db2)
    assert received(db3, db1)


@pytest.mark.mariadb_only("MySQL starts where its relay logs are")
def test_one_that_cannot_apply_keeps_its_relay_logs_whoever_would_have_it_receive_again(three: LocalCluster) -> None:
    db1, db2, db3 = three
    db3.sql("SET STATEMENT sql_log_bin=0 FOR INSERT INTO app.t VALUES (0)")
    write(db1)
    until(lambda: received(db3, db1) and db3.replication()["Last_SQL_Errno"] == 1062, "db3 to stand on its own row")
    purge(db2)
    server, old = server_of(db3), Peer(db1.name, db1.address)
    try:
        with pytest.raises(ServerError, match=r"received events cannot be applied.*1062"):
            follow(db3, db2)  # as heal does
        assert received(db3, db1)
        assert server.look(Deadline.after(5)).sources[0].receiver is Receiver.RUNNING
        server.stop_receiver(old, Deadline.after(5))
        with pytest.raises(ServerError, match=r"has received 0-1-.*go as soon as replication starts there"):
            server.start_receiver(old, Deadline.after(5))  # as an undone failover does
    finally:
        server.close()
    assert received(db3, db1)


def test_what_a_delayed_replica_has_received_is_never_given_up(three: LocalCluster) -> None:
    db1, db2, db3 = three
    delay(db3)
    write(db1)
    until(lambda: received(db3, db1), "db3 to receive it")
    purge(db2)
    with pytest.raises(TimedOut, match="db3 to apply what it has received"):
        follow(db3, db2, seconds=3.0)
    assert db3.source_port() == db1.port
    assert received(db3, db1), "its relay logs are still there"
    assert db3.value(ROWS) == 0, "it is still delayed"
    assert db3.replicates(), "it goes on where it is"


def test_one_that_cannot_apply_in_time_what_is_to_go_receives_again_where_it_was(three: LocalCluster) -> None:
    """A delay that ends in time, but for a lock that does not."""
    db1, db2, db3 = three
    with db3.session() as holder:
        holder.cursor().execute("LOCK TABLES app.t READ")
        write(db1)
        until(lambda: received(db3, db1), "db3 to receive it")
        purge(db2)
        with pytest.raises(TimedOut, match="db3 to apply what it has received"):
            follow(db3, db2, seconds=3.0)
        until(db3.replicates, "it to go on where it is")
    until(lambda: db3.value(ROWS) == 5, "db3 to apply it")
    follow(db3, db2)
    assert db3.source_port() == db2.port


@pytest.mark.mariadb_only("gtid_purged is a variable there, and no file is asked")
def test_a_source_whose_oldest_log_somebody_has_removed_serves_whom_it_can(three: LocalCluster) -> None:
    db1, db2, db3 = three
    write(db1)
    until(lambda: db3.value(ROWS) == 5, "db3 to have it all")
    purge(db2)
    db2.sql("FLUSH BINARY LOGS")
    oldest = Path(db2.value("@@log_bin_basename")).parent / db2.sql("SHOW BINARY LOGS")[0]["Log_name"]
    oldest.unlink()
    server = server_of(db2)
    try:
        assert server.purged(Deadline.after(3.0)) is None
        assert server.inspect(Deadline.after(3.0), Policy()).purged is None
    finally:
        server.close()
    follow(db3, db2)
    assert db3.source_port() == db2.port


def test_one_that_the_next_source_cannot_serve_keeps_its_channel(three: LocalCluster) -> None:
    db1, db2, db3 = three
    db3.sql("STOP SLAVE")
    write(db1)
    purge(db2)
    with pytest.raises(Unserved, match=r"db2 has not in its binary log any more.*rejoin db3 --method reseed"):
        follow(db3, db2)
    assert db3.source_port() == db1.port
    db3.sql("START SLAVE")
    until(lambda: db3.value(ROWS) == 5, "db3 to get it from db1")
    follow(db3, db2)
    assert db3.source_port() == db2.port


def test_it_is_told_while_commits_wait_for_the_very_replica_that_is_to_follow(
    start_cluster: Callable[..., LocalCluster],
) -> None:
    """The next group of commits waits behind the first one, with the lock of the binary log held (MariaDB)."""
    db1, db2 = start_cluster(2, semi_sync=True)
    db1.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    until(lambda: received(db2, db1), "db2 to receive it")
    db1.sql("SET GLOBAL rpl_semi_sync_master_timeout=60000")
    db2.sql("STOP SLAVE IO_THREAD")
    writers = [threading.Thread(target=db1.sql, args=(f"INSERT INTO app.t VALUES ({n})",)) for n in range(4)]
    for writer in writers:
        writer.start()
    waiting = "SHOW STATUS LIKE 'Rpl_semi_sync_master_wait_sessions'"
    committing = "(SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'INSERT INTO app.t%')"
    until(lambda: db1.value(committing) == len(writers), "the writers to wait")
    until(lambda: int(db1.sql(waiting)[0]["Value"]) > 0, "an acknowledgement to be waited for")
    server = server_of(db1)
    try:
        purged = server.purged(Deadline.after(3.0))
        assert purged is not None
        assert purged.empty
        assert server.inspect(Deadline.after(3.0), Policy()).purged == purged, "whatever else cannot be told meanwhile"
    finally:
        server.close()
        db2.sql("START SLAVE IO_THREAD")
        for writer in writers:
            writer.join(20.0)
    assert db1.value("(SELECT COUNT(*) FROM app.t)") == len(writers)


def test_the_plan_tells_before_whom_the_candidate_cannot_serve(start_lab: Callable[..., Lab]) -> None:
    with start_lab(3) as lab:
        db1, db2, db3 = lab.cluster
        db1.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
        lab.cluster.await_synced()
        assert told(lab) == []
        delay(db3)
        write(db1)
        until(lambda: received(db3, db1), "db3 to receive it")
        purge(db2)
        (found,) = told(lab)
        assert "from its relay logs first, which db2 has not in its binary log any more" in found["text"]
        assert (found["subject"], found["severity"]) == ("db3", "warning")


def told(lab: Lab) -> list[dict[str, Any]]:
    findings = lab.json("plan", "--to", "db2")[1]["findings"]
    return [finding for finding in findings if finding["code"] == "replica.unserved"]
