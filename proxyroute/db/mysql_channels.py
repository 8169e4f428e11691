"""The replication channels of a MySQL server whose data are being replaced: forgotten first, made again at the end.

What ``mariadb_channels`` says of why holds here. The mark is a GTID that nobody makes, in ``gtid_purged``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxyroute.db import mysql_filters
from proxyroute.db.mysql_read import read_channels, read_position
from proxyroute.db.mysql_replication import option_clauses
from proxyroute.db.replication import quoted
from proxyroute.db.session import Session
from proxyroute.gtid import Containment
from proxyroute.logged import HALF_BUILT_HERE
from proxyroute.model import Deadline

_NOWHERE = "not-yet.invalid"
"""No host has this name."""


def forget(session: Session, deadline: Deadline) -> None:
    """No channel is left, and what is executed says that the data are not whole; may be repeated.

    What was received and not applied goes: whoever calls this has made sure that it is elsewhere.
    """
    session.change("rejoin.stop_replication", "STOP REPLICA", deadline)
    if read_position(session, deadline).contains(HALF_BUILT_HERE) is not Containment.YES:
        # before the channels go: a server that follows nobody might be let follow by any engine
        session.change("rejoin.set_position", "SET GLOBAL gtid_purged=%s", deadline, (f"+{HALF_BUILT_HERE}",))
    for channel in read_channels(session, deadline):
        sql = f"RESET REPLICA ALL FOR CHANNEL {quoted(channel.channel)}"
        session.change("rejoin.stop_replication", sql, deadline)


def make(session: Session, channel: Mapping[str, Any], deadline: Deadline) -> None:
    """Makes a forgotten ``channel`` again, unless there is one: stopped, and leading nowhere yet.

    ``channel`` has its ``name``, None where there was none, and its ``options`` by the keys of ``SOURCE_OPTIONS``: its
    delay belongs to this server, and is kept by whoever points it to a source. So do its ``filters``.
    """
    if channel["name"] is not None and not read_channels(session, deadline):
        _make(session, channel, deadline)
    mysql_filters.restore(session, channel.get("filters", ()), deadline)  # an earlier version has kept none


def _make(session: Session, channel: Mapping[str, Any], deadline: Deadline) -> None:
    given = option_clauses(channel["options"])
    options = ", ".join(["SOURCE_HOST=%s", *(clause for clause, _ in given), "SOURCE_AUTO_POSITION=1"])
    sql = f"CHANGE REPLICATION SOURCE TO {options} FOR CHANNEL {quoted(channel['name'])}"
    args = (_NOWHERE, *(value for _, values in given for value in values))
    session.change("mariadb.change_source", sql, deadline, args)
