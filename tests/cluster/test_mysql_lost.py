"""A MySQL server whose data are older than what it has written itself: it would follow, and never get that back."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from proxyroute.db.mysql import MySQL
from proxyroute.db.replication import ReplicationLogin
from proxyroute.db.session import Login
from proxyroute.errors import Diverged
from proxyroute.model import Deadline, Peer
from tests.support.mariadb import ENGINE, REPLICATION
from tests.support.mysql import MySQLCluster
from tests.support.wait import until

pytestmark = pytest.mark.matrix


def test_it_is_not_let_follow_without_what_its_receiver_leaves_out(start_mysql: Callable[..., MySQLCluster]) -> None:
    cluster = start_mysql(2)
    old, new = cluster
    old.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    cluster.await_synced()
    old.stop()
    shutil.copytree(old.folder / "data", old.folder / "behind")
    old.start()
    old.accept_writes()
    old.sql("INSERT INTO app.t VALUES (1)")
    lost = old.gtid()
    until(lambda: new.gtid() == lost, "the replica to have the row")
    old.kill9()
    shutil.rmtree(old.folder / "data")
    (old.folder / "behind").rename(old.folder / "data")
    old.start()
    for statement in ("STOP SLAVE", "RESET SLAVE ALL"):
        new.sql(statement)
    new.accept_writes()

    login, replica = Login(ENGINE.user, ENGINE.password), ReplicationLogin(REPLICATION.user, REPLICATION.password)
    server, source = (MySQL(node.name, node.address, login, replica) for node in (old, new))
    with pytest.raises(Diverged, match=rf"has lost {old.own_gtids}2, which it wrote itself"):
        server.follow(
            Peer(new.name, new.address, new.server_id),
            Deadline.after(10),
            source_has=lambda: source.position(Deadline.after(5)),
        )
    assert old.replication() == {}

    old.follow(new)  # as anybody would by hand: both threads run, and the row never comes
    new.sql("INSERT INTO app.t VALUES (2)")
    until(lambda: old.sql("SELECT id FROM app.t"), "something to come")
    assert [row["id"] for row in old.sql("SELECT id FROM app.t")] == [2]
    server.close()
    source.close()
