"""What is read out of the bytes of a binary log. The files are made up here; real ones are in tests/cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyroute.binlog import Table, read_log
from proxyroute.gtid import GTID, MariaDBPosition
from tests.support.binlogs import DDL, STANDALONE, Writer


@pytest.mark.parametrize("checksum", [True, False])
def test_a_transaction_of_rows(tmp_path: Path, checksum: bool) -> None:
    log = (
        Writer(checksum).state((0, 1, 41), (7, 2, 3)).gtid(42).rows("t").rows("u", 24).rows("t").commit().read(tmp_path)
    )
    assert log.before == MariaDBPosition((GTID(0, 1, 41), GTID(7, 2, 3)))
    (one,) = log.transactions
    assert one.gtid == GTID(0, 1, 42)
    assert one.tables == (Table("app", "t"), Table("app", "u"))
    assert (one.rows_only, one.full_images, one.transactional, one.ddl) == (True, True, True, False)
    assert one.statements[0] == "INSERT"
    data = (tmp_path / "binlog.000007").read_bytes()
    assert one.end == len(data)
    assert data[one.start + 4] == 162


@pytest.mark.parametrize("kind", [23, 24, 25])
def test_rows_without_all_columns(tmp_path: Path, kind: int) -> None:
    (one,) = Writer().gtid(1).rows(kind=kind, bitmap=1).commit().read(tmp_path).transactions
    assert not one.full_images


def test_definitions_statements_and_what_is_not_transactional(tmp_path: Path) -> None:
    log = Writer()
    log.gtid(1, DDL | STANDALONE).query("CREATE TABLE t (id INT)")
    log.gtid(2).query("INSERT INTO t VALUES (1)").commit()
    log.gtid(3, 0).rows().query("COMMIT")
    log.gtid(4).query("SAVEPOINT `a`").rows().commit()
    found = log.read(tmp_path).transactions
    assert [t.gtid.sequence for t in found] == [1, 2, 3, 4]
    assert [t.ddl for t in found] == [True, False, False, False]
    assert [t.rows_only for t in found] == [False, False, True, True]
    assert [t.transactional for t in found] == [False, True, False, True]


def test_a_statement_that_looks_like_an_event_is_none(tmp_path: Path) -> None:
    text = "/* \n# at 4\n#261125  1:42:30 server id 1  end_log_pos 793 \tGTID 0-9-9 trans\n*/ DROP TABLE x"
    (one,) = Writer().gtid(5, DDL | STANDALONE).query(text).read(tmp_path).transactions
    assert one.gtid == GTID(0, 1, 5)


def test_what_is_cut_off_is_left_out(tmp_path: Path) -> None:
    log = Writer().gtid(1).rows().commit().gtid(2).rows().commit()
    log.data = log.data[:-5]
    found = log.read(tmp_path)
    assert [t.gtid.sequence for t in found.transactions] == [1]
    assert found.cut.startswith("0-1-2 has no end: the event at ")
    assert found.cut.endswith(" is cut off")


def test_what_has_no_end_is_left_out_and_named(tmp_path: Path) -> None:
    found = Writer().gtid(1).rows().commit().gtid(2).rows().read(tmp_path)
    assert [t.gtid.sequence for t in found.transactions] == [1]
    assert found.cut == "0-1-2 has no end"


def test_a_file_ends_where_a_checksum_is_wrong(tmp_path: Path) -> None:
    log = Writer().gtid(1).rows().commit()
    whole = len(log.data)
    log.gtid(2).rows().commit().gtid(3).rows().commit()
    log.data = log.data[: whole + 25] + b"?" + log.data[whole + 26 :]
    found = log.read(tmp_path)
    assert [t.gtid.sequence for t in found.transactions] == [1]
    assert found.cut == f"the event at {whole} has a wrong checksum"


def test_zeros_that_a_power_cut_has_left_are_no_events(tmp_path: Path) -> None:
    log = Writer().gtid(1).rows().commit()
    whole = len(log.data)
    log.data += bytes(5000)
    found = log.read(tmp_path)
    assert [t.gtid.sequence for t in found.transactions] == [1]
    assert found.cut == f"the event at {whole} is cut off"


def test_a_file_in_use_has_its_checksum_all_the_same_and_tells_whose_it_is(tmp_path: Path) -> None:
    log = Writer(server_id=7).gtid(1).rows().commit()
    log.data = log.data[:21] + b"\1" + log.data[22:]  # the flag of a file that was not closed
    found = log.read(tmp_path)
    assert ([t.gtid.sequence for t in found.transactions], found.server_id, found.cut) == ([1], 7, "")


@pytest.mark.parametrize(("data", "told"), [(b"\xfdbin1234", "encrypted"), (b"what is this", "not a file")])
def test_what_is_no_binary_log_is_refused(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "binlog.000001"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=told):
        read_log(path)


def test_an_encrypted_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="encrypted"):
        Writer().event(164, bytes(17)).read(tmp_path)
