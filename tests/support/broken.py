"""A cluster whose old primary has what the new one lacks, and the means to bring it back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from proxyroute.db import mariadb_grants, mysql_grants
from proxyroute.db.grants import password_of
from proxyroute.db.rows import parse_version
from tests.support.accounts import Account
from tests.support.lab import CLUSTER_NAME, Lab
from tests.support.load import TABLE, RowId
from tests.support.mariadb import Node
from tests.support.netlab import NetLab
from tests.support.wait import until

REBUILD = Account("proxyroute_rejoin", "lab-rejoin")
HUNDRED = "WITH RECURSIVE s (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM s WHERE seq < 100)"
TABLES = (
    "CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(40)) ENGINE=InnoDB",
    "CREATE TABLE app.u (a INT, b VARCHAR(10), c DECIMAL(10,2), PRIMARY KEY (a, b)) ENGINE=InnoDB",
    f"INSERT INTO app.t {HUNDRED} SELECT seq, CONCAT('row ', seq) FROM s",
    f"INSERT INTO app.u {HUNDRED} SELECT seq, CONCAT('k', seq), seq / 3 FROM s",
)
ERRANT = (
    "INSERT INTO app.t VALUES (1000, 'extra')",
    "UPDATE app.t SET v='overwritten' WHERE id <= 3",
    "DELETE FROM app.t WHERE id = 50",
    "BEGIN; UPDATE app.u SET c=0 WHERE a > 90; DELETE FROM app.t WHERE id=51; COMMIT",
)


def ready(lab: Lab | NetLab, hosts: bool = False) -> None:
    """Gives the site tables, the account of ``rejoin``, and hosts on which commands run (this machine)."""
    primary = lab.cluster.primary
    grants = mysql_grants if lab.cluster.flavour == "mysql" else mariadb_grants
    for statement in grants.rebuild_statements(parse_version(primary.value("@@version")), REBUILD.user):
        primary.sql(statement.replace(password_of(REBUILD.user), REBUILD.password))
    for statement in TABLES:
        primary.sql(statement)
    lab.cluster.await_synced()
    secret = lab.folder / "rejoin.password"
    secret.touch(mode=0o600)
    secret.write_text(REBUILD.password)
    values = yaml.safe_load(lab.config.read_text())
    part = values["clusters"][CLUSTER_NAME]
    part["rejoin"] = {"account": {"user": REBUILD.user, "password": {"file": str(secret)}}}
    if hosts:
        part["servers"] = {node.name: {"address": str(node.address), "host": host_of(node)} for node in lab.cluster}
    lab.config.write_text(yaml.safe_dump(values, sort_keys=False))


def host_of(node: Node) -> dict[str, Any]:
    """The host of a node is this machine; its service is one process with a pid file."""
    script = node.folder / "service"
    script.write_text(_SERVICE.format(folder=node.folder, program=node.program()))
    script.chmod(0o755)
    return {
        "shell": ["env"],
        "data_dir": str(node.folder / "data"),
        "stop": [str(script), "stop"],
        "start": [str(script), "start"],
    }


_SERVICE = """#!/bin/sh
cd {folder}
runs() {{
    # that of the server itself, and of one that is still starting, which a service manager knows as well
    for pid in $(cat mariadb.pid started.pid 2>/dev/null); do
        # a child of the test's that has ended stays until the test asks for it
        grep -q '^State:[[:space:]]*[^Z[:space:]]' "/proc/$pid/status" 2>/dev/null && return 0
    done
    return 1
}}
case $1 in
stop)
    runs && kill "$pid"
    while runs; do sleep 0.02; done ;;
start)
    runs && exit 0
    setsid {program} --defaults-file={folder}/my.cnf >>{folder}/error.log 2>&1 </dev/null &
    echo "$!" >started.pid ;;
esac
exit 0
"""


def diverge(lab: Lab, statements: Sequence[str] = ERRANT, *, more: int = 20) -> tuple[Node, Node]:
    """Makes another server the primary while the old one goes on writing; returns the old and the new primary.

    The old one is left read-only, replicating from nobody; the new one has ``more`` writes of its own, and the third
    server follows it.
    """
    old = lab.cluster.primary
    names = [node.name for node in lab.cluster if node is not old]
    new = lab.cluster[names[0]]
    lab.cluster.await_synced()
    for name in names:
        lab.cluster[name].sql("STOP SLAVE")
    run(old, statements)
    old.sql("SET GLOBAL read_only=1")
    new.sql("RESET SLAVE ALL")
    new.sql("SET GLOBAL read_only=0")
    for number in range(more):
        new.sql("REPLACE INTO app.t VALUES (%s, %s)", (2000 + number, f"new {number}"))
    for name in names[1:]:
        lab.cluster[name].follow(new)
    lab.run("publish", check=True)
    return old, new


def undone(lab: Lab | NetLab, node: Node) -> None:
    """Asserts that ``rejoin`` makes a server follow without what only it has; after :func:`ready`."""
    status, value = lab.json("rejoin", node.name, "--method", lab.cluster.undoing, "--yes")
    assert status == 0, value


def run(node: Node, statements: Sequence[str]) -> None:
    """Runs the statements in one session of root; several in one text are separated by semicolons."""
    with node.open_to_root(), node.session() as session, session.cursor() as cursor:
        for text in statements:
            for statement in text.split("; "):
                cursor.execute(statement)


def await_equal(old: Node, new: Node) -> None:
    """Returns when both have one position, and asserts that their rows are the same."""
    until(lambda: old.gtid() == new.gtid(), "both to have one position")
    for table in ("app.t", "app.u"):
        assert rows(old, table) == rows(new, table), table


def rows(node: Node, table: str) -> list[dict[str, Any]]:
    """Returns the rows of a table in the order of its key."""
    return node.sql(f"SELECT * FROM {table} ORDER BY 1, 2")


def archive_of(lab: Lab) -> Path:
    """Returns the latest archive."""
    folders = (lab.folder / "state" / CLUSTER_NAME / "archive").iterdir()
    return max(folders, key=lambda f: f.name)


def archived_rows(lab: Lab | NetLab) -> set[RowId]:
    """Returns every row of the writers (tests.support.load) that is in an archive."""
    schema, table = TABLE.split(".")
    row = re.compile(rf"### INSERT INTO `{schema}`\.`{table}`\n### SET\n###   @1=(\d+).*\n###   @2=(\d+)")
    found: set[RowId] = set()
    for file in lab.folder.rglob(f"state/{CLUSTER_NAME}/archive/*/decoded.sql"):
        found |= {(int(writer), int(n)) for writer, n in row.findall(file.read_text())}
    return found
