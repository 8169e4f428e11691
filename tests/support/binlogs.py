"""Files of a binary log that are made up, event by event."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from proxyroute.binlog import LogFile, read_log

TRANSACTIONAL, DDL, STANDALONE = 4, 32, 1


class Writer:
    """Makes up a file of a binary log, event by event."""

    def __init__(self, checksum: bool = True, server_id: int = 1) -> None:
        self.data = b"\xfebin"
        self._checksum = checksum
        head = b"\4\0" + bytes(60) + bytes([int(checksum)]) + (b"" if checksum else bytes(4))
        self.event(15, head, server_id)

    def event(self, kind: int, body: bytes, server_id: int = 1) -> Writer:
        event = struct.pack("<IBIIIH", 1000, kind, server_id, 19 + len(body) + 4 * self._checksum, 0, 0) + body
        self.data += event + (struct.pack("<I", zlib.crc32(event)) if self._checksum else b"")
        return self

    def state(self, *gtids: tuple[int, int, int]) -> Writer:
        return self.event(163, struct.pack("<I", len(gtids)) + b"".join(struct.pack("<IIQ", *g) for g in gtids))

    def gtid(self, sequence: int, flags: int = TRANSACTIONAL, server_id: int = 1, domain: int = 0) -> Writer:
        return self.event(162, struct.pack("<QIB", sequence, domain, flags) + bytes(6), server_id)

    def whole(self, *gtids: tuple[int, int, int]) -> Writer:
        """Writes transactions of one row each."""
        for domain, server_id, sequence in gtids:
            self.gtid(sequence, server_id=server_id, domain=domain).rows().commit()
        return self

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


UUID = "7beb7869-eb88-11f1-81d5-02fc00000001"


class MySQLWriter(Writer):
    """The same for MySQL."""

    def previous(self, *sets: tuple[str, tuple[tuple[int, int], ...]], tagged: bool = False) -> MySQLWriter:
        """Writes what was there before: for each tag of UUID its intervals, both ends included."""
        count = struct.pack("<Q", len(sets))
        body = b"\1" + count[:6] + b"\1" if tagged else count
        for tag, spans in sets:
            body += bytes.fromhex(UUID.replace("-", ""))
            body += bytes([len(tag) << 1]) + tag.encode() if tagged else b""
            body += struct.pack("<Q", len(spans)) + b"".join(struct.pack("<QQ", a, b + 1) for a, b in spans)
        self.event(35, body)
        return self

    def begins(self, number: int, tag: str = "") -> MySQLWriter:
        """Writes the event that begins a transaction."""
        uuid = bytes.fromhex(UUID.replace("-", ""))
        if not tag:
            self.event(33, b"\0" + uuid + struct.pack("<Q", number) + b"\2" + bytes(16))
            return self
        body = _varied(1) + _varied(58) + _varied(0) + _varied(0) + _varied(0) + _varied(1)
        body += b"".join(_varied(byte) for byte in uuid) + _varied(2) + _varied(number << 1)
        self.event(42, body + _varied(3) + _varied(len(tag)) + tag.encode() + _varied(4) + _varied(7))
        return self

    def changed(self, table: str = "t", kind: int = 30, bitmap: int = 3, note: str = "") -> MySQLWriter:
        if note:
            self.event(29, bytes([len(note)]) + note.encode())
        name = table.encode()
        self.event(19, bytes(8) + b"\3app\0" + bytes([len(name)]) + name + b"\0\2")
        images = 2 if kind == 31 else 1
        self.event(kind, bytes(8) + b"\2\0\2" + bytes([bitmap]) * images + b"rows")
        return self


def _varied(number: int) -> bytes:
    """Returns a number as tagged GTIDs have them: as many lowest bits are set as bytes follow the first."""
    more = 0
    while number >> (7 * (more + 1)):
        more += 1
    return ((number << (more + 1)) | ((1 << more) - 1)).to_bytes(more + 1, "little")
