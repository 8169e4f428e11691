"""What a channel of a MySQL server is told when it is pointed at another source."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxyroute.db.mysql_replication import MySQLReplication
from proxyroute.gtid import MySQLPosition
from proxyroute.model import Deadline
from tests.support.builders import channel
from tests.unit.test_relay_logs_kept import NEW, OLD, Talk, replication

HAS = MySQLPosition.parse("00000001-0000-0000-0000-000000000000:1-100")


class Pointed(Talk):
    """A server whose channel is where it was last told to be."""

    def change(self, point: str, sql: str, deadline: Deadline, args: tuple[object, ...] = ()) -> None:  # type: ignore[override]
        super().change(point, sql, deadline, args)
        if sql.startswith("CHANGE"):
            self._is(address=NEW.address)


@pytest.mark.parametrize("chooses", [True, False])
def test_a_channel_that_chooses_its_source_does_so_no_more_once_it_is_pointed_elsewhere(chooses: bool) -> None:
    talk = Pointed(replace(channel(chooses_source=chooses), received=HAS), looks=99)
    talk.status = replace(talk.status, flavour="mysql", executed=HAS)
    replication(talk, MySQLReplication).follow(
        NEW, Deadline.after(5), instead_of=OLD, source_has=lambda: HAS, source_purged=None, options=None
    )
    (pointed,) = (sql for sql in talk.told if sql.startswith("CHANGE"))
    assert ("SOURCE_CONNECTION_AUTO_FAILOVER=0" in pointed) is chooses
