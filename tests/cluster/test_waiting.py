"""The wait for a position that does not come: it ends in time, says what was waited for, and costs no connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxyroute.db.mariadb import MariaDB
from proxyroute.db.replication import ReplicationLogin
from proxyroute.db.session import Login
from proxyroute.errors import TimedOut
from proxyroute.gtid import MariaDBPosition
from proxyroute.model import Deadline
from tests.support.mariadb import ENGINE, REPLICATION, LocalCluster


@pytest.fixture
def replica(cluster: LocalCluster) -> Iterator[MariaDB]:
    node = cluster["db2"]
    login, replication = Login(ENGINE.user, ENGINE.password), ReplicationLogin(REPLICATION.user, REPLICATION.password)
    server = MariaDB(node.name, node.address, login, replication)
    yield server
    server.close()


def test_the_last_moment_of_a_wait_is_not_taken_for_a_server_that_is_silent(replica: MariaDB) -> None:
    """The server may answer a moment before the deadline, which then leaves no time for another question."""
    goal, line = MariaDBPosition.parse("0-1-4711"), None
    for number in range(120):
        with pytest.raises(TimedOut, match="apply 0-1-4711"):
            replica.wait_for(goal, Deadline.after(0.005 + number * 0.0001))
        line = line or replica.line()
        assert replica.line() == line, "the connection is the same"
