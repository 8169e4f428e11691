"""The replication channels of a MariaDB server whose data are being replaced: forgotten first, made again at the end.

A channel starts with its server. In the midst of a load it would go on at the place of the old data in what there is of
the new ones, and nobody would see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxyroute.binlog import HALF_BUILT
from proxyroute.db.mariadb_read import SOURCE_OPTIONS, read_channels
from proxyroute.db.session import Session
from proxyroute.gtid import MariaDBPosition
from proxyroute.model import Deadline

_NOWHERE = "not-yet.invalid"
"""No host has this name."""


def forget(session: Session, deadline: Deadline) -> None:
    """No channel is left, and the position says that the data are not what it was reached with; may be repeated.

    What was received and not applied goes: whoever calls this has made sure that it is elsewhere.
    """
    session.change("rejoin.stop_replication", "STOP ALL SLAVES", deadline)
    row = session.one(
        "SELECT @@global.gtid_slave_pos AS pos, @@global.gtid_binlog_state AS log, @@global.server_id AS id", deadline
    )
    # a position that lacks a domain of the binary log, or is behind it, is refused
    stood = MariaDBPosition.parse(row["pos"] or "").merge(MariaDBPosition.parse(row["log"] or ""))
    mark = MariaDBPosition.parse(f"{HALF_BUILT}-{row['id']}-1")
    session.change(
        "rejoin.set_position", "SET GLOBAL gtid_slave_pos=%s", deadline, (stood.merge(mark).latest_text,)
    )  # before the channels go: a server that follows nobody might be let follow by any engine
    for channel in read_channels(session, deadline):
        session.change("rejoin.stop_replication", f"RESET SLAVE {_quoted(channel.channel)} ALL", deadline)


def make(session: Session, channel: Mapping[str, Any], deadline: Deadline) -> None:
    """Makes a forgotten ``channel`` again, unless there is one: stopped, and leading nowhere yet.

    ``channel`` has its ``name`` and its ``options`` by the keys of ``SOURCE_OPTIONS``: delays and filters belong to
    this server, and are kept by whoever points it to a source.
    """
    if read_channels(session, deadline):
        return
    clauses: list[str] = ["MASTER_HOST=%s"]
    args: list[Any] = [_NOWHERE]
    for key, value in channel["options"].items():
        if isinstance(value, list):
            if value:
                clauses.append(f"{SOURCE_OPTIONS[key][1]}=({', '.join(str(int(number)) for number in value)})")
            continue
        clauses.append(f"{SOURCE_OPTIONS[key][1]}=%s")
        args.append(int(value) if isinstance(value, bool) else value)
    sql = f"CHANGE MASTER {_quoted(channel['name'])} TO {', '.join(clauses)}, MASTER_USE_GTID=slave_pos"
    session.change("mariadb.change_source", sql, deadline, tuple(args))


def _quoted(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "''") + "'"
