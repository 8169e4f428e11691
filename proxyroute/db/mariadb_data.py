"""The data of applications on a MariaDB server: which schemas, how much, and whether a dump of them is consistent."""

from __future__ import annotations

from proxyroute.db.session import Session
from proxyroute.errors import ScriptFailed
from proxyroute.host import Program, output
from proxyroute.model import Deadline

SYSTEM_SCHEMAS = ("mysql", "information_schema", "performance_schema", "sys")


def schemas(session: Session, deadline: Deadline) -> list[str]:
    """Returns the schemas of the applications."""
    rows = session.read("SELECT SCHEMA_NAME AS name FROM information_schema.SCHEMATA", deadline)
    return [str(row["name"]) for row in rows if str(row["name"]).lower() not in SYSTEM_SCHEMAS]


def size(session: Session, deadline: Deadline, *, physical: bool) -> int:
    """Returns about how many bytes a dump has, or a ``physical`` copy: what is copied are files."""
    if physical:
        row = session.one("SELECT SUM(FILE_SIZE) AS size FROM information_schema.INNODB_SYS_TABLESPACES", deadline)
    else:
        row = session.one(
            "SELECT SUM(DATA_LENGTH) AS size FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN %s",
            deadline,
            (SYSTEM_SCHEMAS,),
        )
    return int(row["size"] or 0)


def cannot_dump(session: Session, deadline: Deadline) -> tuple[str, ...]:
    """Returns why no consistent dump can be taken there, in words."""
    rows = session.read(
        "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS t, ENGINE AS e FROM information_schema.TABLES"
        " WHERE TABLE_TYPE='BASE TABLE' AND TABLE_SCHEMA NOT IN %s AND COALESCE(ENGINE, '') <> 'InnoDB'",
        deadline,
        (SYSTEM_SCHEMAS,),
    )
    found = [f"{row['s']}.{row['t']} is {row['e']}, which has no consistent reading" for row in rows]
    for program in ("mariadb-dump", "mariadb"):
        try:
            output(Program((program, "--no-defaults", "--version")), deadline)
        except ScriptFailed as error:
            found.append(f"{error}; the package mariadb-client has it")
    return tuple(found)
