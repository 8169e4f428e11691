"""A MySQL server that is a member of a replication group: it is known as one, and never given a channel of ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxyroute.db.mysql import MySQL
from proxyroute.db.replication import ReplicationLogin
from proxyroute.db.session import Login
from proxyroute.errors import ServerError
from proxyroute.model import Deadline, Peer
from tests.support.mariadb import ENGINE, REPLICATION
from tests.support.mysql import MySQLCluster
from tests.support.process import free_port

pytestmark = pytest.mark.matrix
GROUP = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"


def test_a_member_of_a_group_is_known_and_follows_nobody(start_mysql: Callable[..., MySQLCluster]) -> None:
    cluster = start_mysql(2)
    old, new = cluster
    for statement in ("STOP REPLICA", "RESET REPLICA ALL"):
        new.sql(statement)
    login, replica = Login(ENGINE.user, ENGINE.password), ReplicationLogin(REPLICATION.user, REPLICATION.password)
    server = MySQL(new.name, new.address, login, replica)
    new.sql("INSTALL PLUGIN group_replication SONAME 'group_replication.so'")
    assert not server.look(Deadline.after(5)).group  # it is there, and not in use
    port = free_port()
    for name, value in (
        ("group_name", f"'{GROUP}'"),
        ("local_address", f"'127.0.0.1:{port}'"),
        ("group_seeds", f"'127.0.0.1:{port}'"),
        ("bootstrap_group", "ON"),
    ):
        new.sql(f"SET GLOBAL group_replication_{name}={value}")
    new.sql("START GROUP_REPLICATION")
    assert server.look(Deadline.after(5)).group
    new.sql("SET GLOBAL super_read_only=1")  # as a secondary is
    peer = Peer(old.name, old.address, old.server_id)
    with pytest.raises(ServerError, match="is a member of a replication group"):
        server.follow(peer, Deadline.after(5))
    assert new.replication() == {}
    server.close()
