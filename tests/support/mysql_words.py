"""What scenarios say in MariaDB's words, in MySQL's: so that one scenario is told on both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxyroute.gtid import MySQLPosition

_UNLOGGED = re.compile(r"SET STATEMENT sql_log_bin=0 FOR ", re.IGNORECASE)
_SEMI_SYNC = re.compile(r"\brpl_semi_sync_(master|slave)_(\w+)", re.IGNORECASE)
_NUMBERS = re.compile(r"\bFROM app\.seq_1_to_(\d+)")
_SIDES = {"master": "source", "slave": "replica"}
_REPLACED = re.compile(r"CREATE OR REPLACE TABLE (\S+) ")
_NAMED = re.compile(r"(STOP|START|RESET) SLAVE '([^']*)'( ALL)?")
_CHANGED = re.compile(r"CHANGE MASTER '([^']*)' TO (.*)")
_ABOUT_CHANNELS = re.compile(r"\s*(STOP|START|RESET|CHANGE MASTER|GRANT)\b")
_FILTER = re.compile(r"SET GLOBAL replicate_(\w+)='([^']*)'")
_KILL = re.compile(r"KILL HARD CONNECTION (\d+)")
_SAID = {"SHOW MASTER STATUS": "SHOW BINARY LOG STATUS"}
_NEITHER = re.compile(r"SET GLOBAL gtid_strict_mode=")
_RENAMED = {"Replica_": "Slave_", "Source_": "Master_", "_Source": "_Master"}


def translated(statement: str) -> tuple[str, ...]:
    """Returns the statements that do on MySQL what ``statement`` does on MariaDB."""
    statement = _SEMI_SYNC.sub(_semi_sync, statement)
    statement = _NUMBERS.sub(
        r"FROM (WITH RECURSIVE s (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM s WHERE seq < \1)"
        " SELECT seq FROM s) AS numbers",
        statement,
    )
    unlogged = _UNLOGGED.match(statement)
    if unlogged:
        return ("SET SESSION sql_log_bin=0", statement[unlogged.end() :])
    if found := _REPLACED.match(statement):
        return (f"DROP TABLE IF EXISTS {found[1]}", statement.replace("OR REPLACE ", "", 1))
    if found := _FILTER.fullmatch(statement):
        return (f"CHANGE REPLICATION FILTER REPLICATE_{found[1].upper()}=({found[2]})",)
    if found := _NAMED.fullmatch(statement):
        return (f"{found[1]} REPLICA{found[3] or ''} FOR CHANNEL '{found[2]}'",)
    if found := _KILL.fullmatch(statement):
        return (f"KILL CONNECTION {found[1]}",)
    if _NEITHER.match(statement):
        return ("DO 0",)
    if found := _CHANGED.fullmatch(statement):
        return (f"{translated(f'CHANGE MASTER TO {found[2]}')[0]} FOR CHANNEL '{found[1]}'",)
    if _ABOUT_CHANNELS.match(statement) and "ON *.*" not in statement:
        said = statement.replace("CHANGE MASTER TO", "CHANGE REPLICATION SOURCE TO").replace("MASTER_", "SOURCE_")
        return (re.sub(r"^(\s*(?:STOP|START|RESET)) SLAVE\b", r"\1 REPLICA", said),)
    return (_SAID.get(statement, statement),)


def _semi_sync(found: re.Match[str]) -> str:
    rest = found[2].replace("no_slave", "no_replica")
    return f"rpl_semi_sync_{_SIDES[found[1].lower()]}_{rest}"


def semi_sync_as_told(variable: str) -> str:
    """Returns the name that MariaDB gives a variable of semi-synchronous replication."""
    return variable.replace("_source_", "_master_").replace("_replica_", "_slave_")


def as_told(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row of SHOW REPLICA STATUS under the names that MariaDB gives its columns."""
    found: dict[str, Any] = {}
    for column, value in row.items():
        name = column
        for new, old in _RENAMED.items():
            name = name.replace(new, old)
        found[name] = value
    found["Connection_name"] = row["Channel_Name"]
    received = MySQLPosition.parse(str(row["Retrieved_Gtid_Set"]))
    found["Gtid_IO_Pos"] = str(received.merge(MySQLPosition.parse(str(row["Executed_Gtid_Set"]))))
    return found
