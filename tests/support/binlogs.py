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
