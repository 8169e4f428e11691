"""What is read out of the bytes of a binary log. The files are made up here; real ones are in tests/cluster."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from proxyroute.binlog import LogFile, Table, read_log
from proxyroute.gtid import GTID, MariaDBPosition

TRANSACTIONAL, DDL, STANDALONE = 4, 32, 1


class Writer:
    """Makes up a file of a binary log, event by event."""

    def __init__(self, checksum: bool = True) -> None:
        self.data = b"\xfebin"
        self._checksum = checksum
        self.event(15, b"\4\0" + bytes(60) + bytes([int(checksum)]) + (b"" if checksum else bytes(4)))

    def event(self, kind: int, body: bytes, server_id: int = 1) -> Writer:
        event = struct.pack("<IBIIIH", 1000, kind, server_id, 19 + len(body) + 4 * self._checksum, 0, 0) + body
        self.data += event + (struct.pack("<I", zlib.crc32(event)) if self._checksum else b"")
        return self

    def state(self, *gtids: tuple[int, int, int]) -> Writer:
        return self.event(163, struct.pack("<I", len(gtids)) + b"".join(struct.pack("<IIQ", *g) for g in gtids))

    def gtid(self, sequence: int, flags: int = TRANSACTIONAL, server_id: int = 1) -> Writer:
        return self.event(162, struct.pack("<QIB", sequence, 0, flags) + bytes(6), server_id)

    def rows(self, table: str = "t", kind: int = 23, bitmap: int = 3, note: str = "INSERT") -> Writer:
        name = table.encode()
        self.event(160, note.encode())
        self.event(19, bytes(8) + b"\3app\0" + bytes([len(name)]) + name + b"\0\2")
        images = 2 if kind == 24 else 1
        return self.event(kind, bytes(8) + b"\2" + bytes([bitmap]) * images + b"rows")

    def query(self, text: str) -> Writer:
        return self.event(2, struct.pack("<IIBHH", 0, 0, 3, 0, 0) + b"app\0" + text.encode())

    def commit(self) -> Writer:
        return self.event(16, bytes(8))

    def read(self, folder: Path) -> LogFile:
        path = folder / "binlog.000007"
        path.write_bytes(self.data)
        return read_log(path)


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
    assert [t.gtid.sequence for t in log.read(tmp_path).transactions] == [1]


@pytest.mark.parametrize(("data", "told"), [(b"\xfdbin1234", "encrypted"), (b"", "no file|not a file")])
def test_what_is_no_binary_log_is_refused(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "binlog.000001"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=told):
        read_log(path)


def test_an_encrypted_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="encrypted"):
        Writer().event(164, bytes(17)).read(tmp_path)
