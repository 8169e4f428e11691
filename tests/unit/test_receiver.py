"""What a server shows of a receiver that gets through to its source, step by step, on both flavours."""

from __future__ import annotations

from typing import Any

import pytest

from proxyroute.db import mariadb_read, mysql_read
from proxyroute.db.session import Session
from proxyroute.model import Deadline, Receiver, Source

MARIADB: dict[str, Any] = {
    "Connection_name": "", "Master_Host": "10.0.0.1", "Master_Port": 3306, "Master_User": "repl", "Gtid_IO_Pos": "",
    "Slave_SQL_Running": "Yes", "Seconds_Behind_Master": 0, "SQL_Delay": 0, "Slave_heartbeat_period": 1,
    "Using_Gtid": "Slave_Pos",
}  # fmt: skip
MYSQL: dict[str, Any] = {
    "Channel_Name": "", "Source_Host": "10.0.0.1", "Source_Port": 3306, "Source_User": "repl", "Retrieved_Gtid_Set": "",
    "Replica_SQL_Running": "Yes", "Seconds_Behind_Source": 0, "SQL_Delay": 0, "Auto_Position": 1,
}  # fmt: skip


class _Showing(Session):
    """A server that shows one channel."""

    def __init__(self, row: dict[str, Any]) -> None:
        self._row = row

    def read(self, sql: str, deadline: Deadline, args: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        return [self._row]

    def read_all(self, statements: Any, deadline: Deadline) -> tuple[list[list[dict[str, Any]]], float]:
        return [[self._row], []], 0.0


def channel(flavour: str, shown: str, source_id: int) -> Source:
    soon = Deadline.after(5)
    if flavour == "mysql":
        row = {**MYSQL, "Replica_IO_Running": shown, "Source_Server_Id": source_id}
        return mysql_read.read_channels(_Showing(row), soon)[0]
    row = {**MARIADB, "Slave_IO_Running": shown, "Master_Server_Id": source_id}
    return mariadb_read.read_channels(_Showing(row), soon)[0]


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
@pytest.mark.parametrize(
    ("shown", "source_id", "state"),
    [
        ("No", 0, Receiver.STOPPED),
        ("Connecting", 0, Receiver.CONNECTING),
        ("Yes", 0, Receiver.CONNECTING),  # for some milliseconds: it has not asked yet whom it is connected to
        ("Yes", 1, Receiver.RUNNING),
        ("Connecting", 1, Receiver.CONNECTING),
        ("No", 1, Receiver.STOPPED),
    ],
)
def test_it_runs_once_it_knows_its_source(flavour: str, shown: str, source_id: int, state: Receiver) -> None:
    found = channel(flavour, shown, source_id)
    assert (found.receiver, found.source_id) == (state, source_id or None)
