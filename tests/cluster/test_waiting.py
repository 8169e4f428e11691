"""The wait for a position that does not come: it ends in time, says what was waited for, and costs no connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxyroute.errors import TimedOut
from proxyroute.gtid import MariaDBPosition, MySQLPosition
from proxyroute.model import Deadline
from proxyroute.ports import Server
from tests.support.drivers import server_of
from tests.support.mariadb import LocalCluster

FLAVOURS = ("mysql",)
NEVER = {
    "mariadb": MariaDBPosition.parse("0-1-4711"),
    "mysql": MySQLPosition.parse("3e11fa47-71ca-11e1-9e33-c80aa9429562:4711"),
}


@pytest.fixture
def replica(cluster: LocalCluster) -> Iterator[Server]:
    server = server_of(cluster["db2"])
    server.look(Deadline.after(5))  # connected: a wait of some milliseconds leaves no time for that
    yield server
    server.close()


def test_the_last_moment_of_a_wait_is_not_taken_for_a_server_that_is_silent(replica: Server, flavour: str) -> None:
    """The server may answer a moment before the deadline, which then leaves no time for another question."""
    goal, line = NEVER[flavour], None
    for number in range(120):
        with pytest.raises(TimedOut, match=f"apply {goal}"):
            replica.wait_for(goal, Deadline.after(0.005 + number * 0.0001))
        line = line or replica.line()
        assert replica.line() == line, "the connection is the same"
