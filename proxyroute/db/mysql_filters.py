"""What a MySQL server leaves out of what it receives, where somebody has said so with CHANGE REPLICATION FILTER.

Such a filter is in no file: it goes with its channel, or with a restart. What the option file says comes again by
itself, and is not touched here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from proxyroute.db.replication import quoted
from proxyroute.db.session import Session
from proxyroute.model import Deadline

_EVERYWHERE = (
    "SELECT FILTER_NAME AS name, FILTER_RULE AS rule FROM performance_schema.replication_applier_global_filters"
    " WHERE CONFIGURED_BY='CHANGE_REPLICATION_FILTER' ORDER BY FILTER_NAME"
)
_OF_CHANNELS = (
    "SELECT CHANNEL_NAME AS channel, FILTER_NAME AS name, FILTER_RULE AS rule"
    " FROM performance_schema.replication_applier_filters"
    " WHERE CONFIGURED_BY='CHANGE_REPLICATION_FILTER_FOR_CHANNEL' ORDER BY FILTER_NAME"
)
_PAIR = re.compile(r"\(([^,]*),([^)]*)\)")

Filter = Mapping[str, Any]
"""``name`` and ``rule`` as the server tells them; ``channel`` where the filter is of that one alone."""


def read(session: Session, deadline: Deadline) -> list[dict[str, Any]]:
    """Returns the filters that no option file has: those of every channel first, then those of one."""
    everywhere = [dict(row) for row in session.read(_EVERYWHERE, deadline)]
    return [*everywhere, *(dict(row) for row in session.read(_OF_CHANNELS, deadline))]


def restore(session: Session, filters: Iterable[Filter], deadline: Deadline) -> None:
    """Sets ``filters`` as they were read; may be repeated. The applier stands still, and the channel is there."""
    for each in filters:
        session.change("mariadb.change_source", statement(each), deadline)


def statement(told: Filter) -> str:
    """Returns the statement that sets a filter as it was read. A name with a comma in it is taken for two names."""
    name, rule = str(told["name"]), str(told["rule"])
    if name == "REPLICATE_REWRITE_DB":
        values = [f"({_identifier(old)}, {_identifier(new)})" for old, new in _PAIR.findall(rule)]
    elif "_WILD_" in name:
        values = [quoted(pattern) for pattern in _parts(rule)]
    elif name.endswith("_TABLE"):
        values = [".".join(map(_identifier, table.split(".", 1))) for table in _parts(rule)]
    else:
        values = [_identifier(schema) for schema in _parts(rule)]
    whose = f" FOR CHANNEL {quoted(str(told['channel']))}" if "channel" in told else ""
    return f"CHANGE REPLICATION FILTER {name} = ({', '.join(values)}){whose}"


def _parts(rule: str) -> list[str]:
    return rule.split(",") if rule else []


def _identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
