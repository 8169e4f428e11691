"""A backup locks the instance of a MySQL replica: a new primary ends it, who is to follow waits for its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pymysql
import pytest

from tests.support.death import brought_back, failed_over, remembered
from tests.support.lab import Lab
from tests.support.mariadb import Connection, Node
from tests.support.mysql import MySQLCluster
from tests.support.scene import assert_order, switched
from tests.support.wait import until

pytestmark = pytest.mark.matrix


@contextlib.contextmanager
def _backup(node: Node) -> Iterator[Connection]:
    """For a ``with`` block: a session that holds what a physical backup holds while it copies."""
    with node.session() as session:
        with session.cursor() as cursor:
            cursor.execute("LOCK INSTANCE FOR BACKUP")
        yield session


def _goes_on(session: Connection) -> bool:
    try:
        session.ping(reconnect=False)
    except pymysql.Error:
        return False
    return True


def test_a_failover_ends_the_backup_of_its_winner_and_waits_for_no_other() -> None:
    with Lab.start(3, provider=MySQLCluster, semi_sync=True, policy={"prove": "3s", "settle": "5s"}) as lab:
        old = lab.cluster.primary
        one, other = (node for node in lab.cluster if node is not old)
        remembered(lab)
        with _backup(one) as first, _backup(other) as second:
            old.kill9()
            value = failed_over(lab, code=7)
            new = lab.cluster.primary
            still, ended = (second, first) if new is one else (first, second)
            (left,) = (node for node in (one, other) if node is not new)
            assert not _goes_on(ended), "the backup of the new primary holds its lock on"
            assert _goes_on(still), "the backup of a replica was ended"
            assert any(left.name in told for told in value["result"]["leftovers"]), value["result"]
        done = lab.run("heal")
        assert done.returncode in (0, 7), done.stdout + done.stderr
        assert left.source_port() == new.port
        assert_order(lab, new.name, aside=[old.name])
        brought_back(lab, old)


def test_a_winner_that_has_to_fetch_first_ends_its_backup_before_that() -> None:
    with Lab.start(3, provider=MySQLCluster, policy={"prove": "3s", "settle": "5s"}) as lab:
        old, new, ahead = lab.cluster
        old.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
        lab.cluster.await_synced()
        remembered(lab)
        assert lab.run("maintenance", ahead.name, "on").returncode == 0  # never promoted, and gives what it has
        new.sql("STOP SLAVE IO_THREAD")
        old.sql("INSERT INTO app.t VALUES (1)")
        until(lambda: ahead.gtid() == old.gtid(), "one replica to have the row")
        with _backup(new) as backup:
            old.kill9()
            value = failed_over(lab, "--force", "--fenced-by", "me", "--to", new.name, code=7)
            assert not _goes_on(backup), "the backup of the new primary holds its lock on"
        assert value["plan"]["plan"]["candidate"] == new.name
        assert new.sql("SELECT id FROM app.t") == [{"id": 1}]
        assert_order(lab, new.name, aside=[old.name, ahead.name])


def test_a_switchover_attaches_nobody_who_is_being_backed_up() -> None:
    """He could not be pointed at the new primary before the commit, and everything would be undone for that."""
    with Lab.start(3, provider=MySQLCluster, semi_sync=True, policy={"prove": "3s", "settle": "5s"}) as lab:
        _, new, third = lab.cluster
        with _backup(third) as backup:
            value = switched(lab, "--to", new.name, code=7)
            assert _goes_on(backup), "the backup of a replica was ended"
            assert lab.cluster.writable == (new.name,)
            assert any(third.name in told for told in value["result"]["leftovers"]), value["result"]
        assert lab.run("heal").returncode == 0
        assert_order(lab, new.name)
