"""A server of MySQL that comes back: it follows when it has nothing of its own, and is left alone when it has."""

from __future__ import annotations

import pytest

from proxyroute.gtid import MySQLPosition
from tests.support.death import brought_back, failed_over, remembered
from tests.support.lab import Lab
from tests.support.load import create_table
from tests.support.scene import assert_order, books, other, switched

pytestmark = pytest.mark.matrix
FLAVOURS = ("mysql",)
SITE = {"n": 3, "more": {"failover": {"policy": "most_advanced"}}, "policy": {"prove": "3s", "settle": "10s"}}


def test_what_only_it_has_is_named_and_a_person_decides(site: Lab) -> None:
    old = site.cluster.primary
    create_table(old)
    site.cluster.await_synced()
    remembered(site)
    old.kill9()
    failed_over(site, code=7)
    new = site.cluster.primary
    old.start()
    old.sql("INSERT INTO app.load_rows VALUES (7, 7, 7)")  # root writes where super_read_only gave way for a moment
    extra = str(MySQLPosition.parse(old.gtid()).minus(MySQLPosition.parse(new.gtid())))
    for words in ((), ("--method", "flashback", "--yes"), ("--method", "reseed", "--yes")):
        status, value = site.json("rejoin", old.name, *words)
        assert status == 3, value
        (finding,) = value["error"]["findings"]
        assert finding["code"] == "rejoin.by_hand"
        assert extra in finding["text"]
        assert "mysqlbinlog" in finding["cure"]
        assert "CLONE INSTANCE" in finding["cure"]
        assert not old.is_writable()
        assert not old.replicates()
    with new.session() as connection, connection.cursor() as cursor:  # the person decides that the row may stay
        for statement in (f"SET gtid_next='{extra}'", "BEGIN", "COMMIT", "SET gtid_next=AUTOMATIC"):
            cursor.execute(statement)
    brought_back(site, old)
    old.sql("SET STATEMENT sql_log_bin=0 FOR DELETE FROM app.load_rows WHERE writer=7")
    assert_order(site, new.name)


def test_a_switchover_before_and_after_it_has_rejoined(site: Lab) -> None:
    old, target = site.cluster.primary, other(site)
    with books(site) as kept:
        switched(site, "--to", target)
        kept.go_on()
        switched(site, "--to", old.name)
    assert_order(site, old.name)
