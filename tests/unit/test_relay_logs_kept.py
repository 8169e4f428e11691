"""MariaDB drops the relay logs of a channel that is started while neither thread runs: nothing here may start one so.

The server is made up: it falls at the first transaction that it applies, and drops what is received as MariaDB does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from proxyroute.db.mariadb_replication import MariaDBReplication
from proxyroute.db.mysql_replication import MySQLReplication
from proxyroute.db.replication import Replication, ReplicationLogin
from proxyroute.errors import ServerError, StatementError
from proxyroute.gtid import MySQLPosition
from proxyroute.model import Deadline, Peer, Receiver, Source, Status
from tests.support.builders import address, channel, position, replica

OLD, NEW = Peer("db1", address(1), 1), Peer("db2", address(2), 2)
STUCK = channel(receiver=Receiver.CONNECTING, applier=False, received="0-1-105", error="1062 Duplicate entry")
KEPT = "has received 0-1-105, which db1 may lack.*go as soon as replication starts there"


class Talk:
    """A session of db3. An applier that is started runs for ``looks`` more looks."""

    server = "db3"

    def __init__(self, source: Source, *, looks: int = 1, executed: str = "0-1-100") -> None:
        self.status = replica(3, source, executed=executed, writable=False)
        self.looks = looks
        self.told: list[str] = []

    @property
    def received(self) -> str:
        return str(self.status.sources[0].received)

    def now(self) -> Status:
        source = self.status.sources[0]
        if source.applier and self.looks == 0:
            self._is(applier=False, error="1062 Duplicate entry")
        self.looks -= bool(source.applier)
        return self.status

    def one(self, sql: str, deadline: Deadline, args: Sequence[Any] = ()) -> dict[str, Any]:
        return {"used": 0, "seconds": 0}

    def change(self, point: str, sql: str, deadline: Deadline, args: Sequence[Any] = ()) -> None:
        self.told.append(sql)
        source = self.status.sources[0]
        if sql.startswith("STOP"):
            self._is(receiver=Receiver.STOPPED)
            return
        if source.receiver is Receiver.STOPPED and not source.applier and sql.startswith("START SLAVE"):
            self._is(received=self.status.executed)
        if "SQL_THREAD" not in sql:
            self._is(receiver=Receiver.RUNNING)
        if "IO_THREAD" not in sql:
            self._is(applier=True)

    def _is(self, **changes: Any) -> None:
        self.status = replace(self.status, sources=(replace(self.status.sources[0], **changes),))


def replication(talk: Talk, kind: type[Replication] = MariaDBReplication) -> Replication:
    class Made(kind):  # type: ignore[misc,valid-type]
        def _status(self, deadline: Deadline) -> Status:
            return talk.now()

        def _channels(self, deadline: Deadline) -> tuple[Source, ...]:
            return talk.now().sources

    made: Replication = Made(lambda _: talk, ReplicationLogin("repl", ""))
    return made


def test_an_undone_failover_does_not_start_the_receiver_of_one_that_cannot_apply() -> None:
    talk = Talk(STUCK)
    made = replication(talk)
    made.stop_receiver(OLD, Deadline.after(5))
    for applier in (False, True):
        with pytest.raises(ServerError, match=KEPT):
            made.start_receiver(OLD, Deadline.after(5), applier=applier)
    assert (talk.told, talk.received) == (["STOP SLAVE IO_THREAD"], "0-1-105")


@pytest.mark.parametrize(
    "changes",
    [{"applier": True, "error": ""}, {"received": position("0-1-100")}],
    ids=["it applies", "all is applied"],
)
def test_the_receiver_of_any_other_is_started(changes: dict[str, Any]) -> None:
    talk = Talk(replace(STUCK, receiver=Receiver.STOPPED, **changes), looks=9)
    replication(talk).start_receiver(OLD, Deadline.after(5))
    assert talk.told == ["START SLAVE IO_THREAD"]


def test_mysql_starts_where_its_relay_logs_are() -> None:
    uuid = "00000001-0000-0000-0000-000000000000"
    received, executed = (MySQLPosition.parse(f"{uuid}:1-{n}") for n in (105, 100))
    talk = Talk(replace(STUCK, receiver=Receiver.STOPPED, received=received))
    talk.status = replace(talk.status, flavour="mysql", executed=executed)
    replication(talk, MySQLReplication).start_receiver(OLD, Deadline.after(5))
    assert talk.told == ["START REPLICA IO_THREAD FOR CHANNEL ''"]


def follow(talk: Talk, source: Peer = NEW, has: str = "0-1-100,0-2-101") -> None:
    replication(talk).follow(
        source, Deadline.after(5), instead_of=OLD, source_has=lambda: position(has), source_purged=None, options=None
    )


def test_heal_leaves_the_receiver_of_one_that_cannot_apply_running() -> None:
    talk = Talk(STUCK)
    with pytest.raises(StatementError, match="received events cannot be applied: 1062"):
        follow(talk)
    assert (talk.told, talk.received) == (["START SLAVE SQL_THREAD"], "0-1-105")


def test_heal_does_not_start_the_receiver_again_of_one_that_falls_only_when_it_is_stopped() -> None:
    talk = Talk(replace(STUCK, applier=True, error=""), looks=3)
    with pytest.raises(ServerError, match=KEPT.replace("db1", "db2")):
        follow(talk)
    assert (talk.told, talk.received) == (["STOP SLAVE IO_THREAD"], "0-1-105")


def test_a_channel_that_somebody_has_stopped_is_started_where_its_source_can_give_it_all_again() -> None:
    stopped = replace(STUCK, receiver=Receiver.STOPPED, error="")
    talk = Talk(stopped)
    with pytest.raises(ServerError, match=KEPT):
        follow(talk, OLD, "0-1-101")
    assert (talk.told, talk.received) == ([], "0-1-105")
    talk = Talk(stopped, looks=9)
    follow(talk, OLD, "0-1-105")
    assert talk.told == ["START SLAVE"]
