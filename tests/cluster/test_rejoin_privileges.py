"""The account of ``rejoin`` lacks something: that is told before any data of a server go, and not in their midst."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from proxyroute.db import mariadb_grants, mysql_grants
from tests.support.broken import REBUILD, await_equal, diverge, ready, rows
from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.mysql import MySQLCluster, mysql_root

FLAVOURS = ("mysql",)
QUICK = ("SHOW VIEW", "TRIGGER", "INSERT", "CREATE ROUTINE")
NEEDED = {"mariadb": mariadb_grants.REBUILD, "mysql": mysql_grants.REBUILD}
ASIDE = {"mariadb": mariadb_grants.NOT_TO_DUMP, "mysql": mysql_grants.NOT_TO_DUMP}
"""What new data by a dump come without; which that is tests/unit/test_accounts.py holds."""
BY_SUPER = {
    *("SET USER", "REPLICATION SLAVE ADMIN", "REPLICATION MASTER ADMIN", "BINLOG ADMIN", "BINLOG MONITOR"),
    *("CONNECTION ADMIN", "SLAVE MONITOR"),
}
"""What whoever has ``SUPER`` may all the same, before MariaDB 11.0."""


@pytest.fixture
def lab(start_lab: Callable[..., Lab], servers: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A site where new data come by a dump."""
    if servers is MySQLCluster:
        monkeypatch.setenv("PATH", str(mysql_root().programs), prepend=":")
    with start_lab(3) as started:
        ready(started)
        yield started


def refused_without(lab: Lab, privilege: str, on: Node, old: Node) -> str:
    """Takes a privilege away ``on`` one server for the time of a reseed of ``old``; returns what was said."""
    whom = f"ON *.* {{}} '{REBUILD.user}'@'%'"
    on.sql(f"SET STATEMENT sql_log_bin=0 FOR REVOKE {privilege} {whom.format('FROM')}")
    try:
        before, there = rows(old, "app.t"), old.gtid()
        status, value = lab.json("rejoin", old.name, "--method", "reseed", "--yes")
        assert status == 3, f"{privilege} on {on.name}: {value}"
        assert (rows(old, "app.t"), old.gtid()) == (before, there), f"without {privilege} something was changed"
        assert not old.is_writable()
        return " ".join([value["error"]["text"], *(f["text"] for f in value["error"]["findings"])])
    finally:
        on.sql(f"SET STATEMENT sql_log_bin=0 FOR GRANT {privilege} {whom.format('TO')}")


def test_what_a_reseed_would_lack_is_named_while_the_data_are_there(lab: Lab) -> None:
    old, new = diverge(lab)
    for privilege in QUICK:
        for node in (old, new):
            said = refused_without(lab, privilege, node, old)
            assert f"lacks {privilege} on {node.name}" in said, said
            assert "proxyroute grants" in said
    assert lab.json("rejoin", old.name, "--method", "reseed", "--yes")[0] == 0
    await_equal(old, new)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_each_privilege_of_a_reseed_is_missed_before_the_data_go(lab: Lab) -> None:
    """What is needed to read its log, or to look at it, is missed by the statement that takes it, as early."""
    old, new = diverge(lab)
    flavour = lab.cluster.flavour
    privileges = [p.name for p in NEEDED[flavour] if p.name not in ASIDE[flavour] | BY_SUPER]
    assert set(QUICK) < set(privileges)
    for privilege in privileges:
        for node in (old, new):
            said = refused_without(lab, privilege, node, old)
            assert f"lacks {privilege} on {node.name}" in said or "denied" in said.lower(), f"{privilege}: {said}"
    assert lab.json("rejoin", old.name, "--method", "reseed", "--yes")[0] == 0
    await_equal(old, new)
