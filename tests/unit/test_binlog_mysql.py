"""What is read out of the bytes of MySQL's binary log. The files are made up here; real ones are in tests/cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyroute.binlog import MySQLGTID, Table
from proxyroute.gtid import MySQLPosition, TaggedSource
from tests.support.binlogs import UUID, MySQLWriter


@pytest.mark.parametrize("checksum", [True, False])
def test_a_transaction_of_rows(tmp_path: Path, checksum: bool) -> None:
    log = MySQLWriter(checksum).previous(("", ((1, 41), (50, 60)))).begins(42)
    log.query("BEGIN")
    log.changed("t", note="INSERT INTO t").changed("u", 31).changed("t").commit()
    found = log.read(tmp_path)
    assert found.before == MySQLPosition.parse(f"{UUID}:1-41:50-60")
    (one,) = found.transactions
    assert one.gtid == MySQLGTID(TaggedSource(UUID), 42)
    assert one.position == MySQLPosition.parse(f"{UUID}:42")
    assert one.tables == (Table("app", "t"), Table("app", "u"))
    assert one.statements == ("INSERT INTO t",)
    assert (one.rows_only, one.full_images, one.transactional, one.ddl) == (True, True, True, False)
    data = (tmp_path / "binlog.000007").read_bytes()
    assert (data[one.start + 4], one.end) == (33, len(data))


@pytest.mark.parametrize("number", [1, 63, 64, 8191, 8192, 2**40])
def test_gtids_with_tags(tmp_path: Path, number: int) -> None:
    log = MySQLWriter().previous(("", ((1, 3),)), ("some_tag", ((2, 9),)), tagged=True).begins(number, "some_tag")
    log.query("BEGIN")
    found = log.changed().commit().read(tmp_path)
    assert found.before == MySQLPosition.parse(f"{UUID}:1-3:some_tag:2-9")
    assert [str(t.gtid) for t in found.transactions] == [f"{UUID}:some_tag:{number}"]


def test_definitions_statements_xa_and_what_is_not_transactional(tmp_path: Path) -> None:
    log = MySQLWriter()
    log.begins(1).query("CREATE TABLE t (id INT)")
    log.begins(2).query("BEGIN").query("INSERT INTO t VALUES (1)").commit()
    log.begins(3).query("BEGIN")
    log.changed().query("COMMIT")
    log.begins(4).query("BEGIN").query("SAVEPOINT `a`")
    log.changed().commit()
    log.begins(5).query("XA START X'78'")
    log.changed().query("XA END X'78'").event(38, b"\0")
    log.begins(6).query("XA COMMIT X'78'")
    log.begins(7).query("BEGIN").query("COMMIT")
    log.begins(8).event(40, b"packed")
    log.begins(9).query("BEGIN")
    log.changed(bitmap=1).commit()
    found = log.read(tmp_path).transactions
    assert [t.position for t in found] == [MySQLPosition.parse(f"{UUID}:{number}") for number in range(1, 10)]
    assert [t.ddl for t in found] == [True, *[False] * 8]
    assert [t.rows_only for t in found] == [False, False, True, True, False, False, True, True, True]
    assert [t.transactional for t in found] == [True, True, False, *[True] * 6]
    assert [t.xa for t in found] == [False] * 4 + [True] * 2 + [False] * 3
    assert [t.packed for t in found] == [False] * 7 + [True, False]
    assert [t.full_images for t in found] == [True] * 8 + [False]
    assert found[0].statements == ("CREATE TABLE t (id INT)",)


def test_what_has_no_end_is_left_out_and_named(tmp_path: Path) -> None:
    log = MySQLWriter().begins(1)
    log.query("BEGIN")
    log.changed().commit().event(3, b"")
    log.begins(2).query("BEGIN")
    found = log.read(tmp_path)
    assert [t.position for t in found.transactions] == [MySQLPosition.parse(f"{UUID}:1")]
    assert found.cut == f"{UUID}:2 has no end"
