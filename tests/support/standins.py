"""Hundreds of database servers in one process, as light as they can be: they speak MariaDB's protocol and answer the
statements of a probe with what real servers once said (``tests/recordings/mariadb/probe.json``), and nothing else.

``python -m tests.support.standins record`` makes that recording anew, from a private cluster. Needed when a statement
of the probe changes: whatever is not in the recording is answered with an error.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proxyroute.db import mariadb_read
from proxyroute.db.session import Login, Session
from proxyroute.model import Address, Deadline

RECORDING = Path(__file__).parents[1] / "recordings" / "mariadb" / "probe.json"
_GREETING = (
    b"\x0a10.11.6-MariaDB-stand-in\0" + struct.pack("<I", 1) + b"12345678\0" + struct.pack("<H", 0xF7FE) + b"\x2d"
    + struct.pack("<HH", 2, 0x81BF) + b"\x15" + b"\0" * 10 + b"123456789012\0mysql_native_password\0"
)  # fmt: skip
_OK = b"\x00\x00\x00\x02\x00\x00\x00"
_EOF = b"\xfe\x00\x00\x02\x00"
_QUERY, _QUIT = 3, 1
_PLACE = b"0000000000"
"""Stands in a prepared answer for a number of ten digits that grows: heartbeats."""


def packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number % 256]) + body


def _value(value: str | None) -> bytes:
    if value is None:
        return b"\xfb"
    data = value.encode()
    return (bytes([len(data)]) if len(data) < 251 else b"\xfc" + struct.pack("<H", len(data))) + data


class Answer:
    """A result set, and how it is written for one server."""

    def __init__(self, recorded: Mapping[str, Any]) -> None:
        self._columns = [base64.b64decode(column) for column in recorded["columns"]]
        self._names: list[str] = recorded["names"]
        self._rows: list[list[str | None]] = recorded["rows"]

    def written(self, values: Mapping[str, str]) -> bytes:
        """Returns the packets, with ``values`` in the place of what was recorded in these columns."""
        bodies = [bytes([len(self._columns)]), *self._columns, _EOF]
        for row in self._rows:
            bodies.append(b"".join(_value(values.get(n, v)) for n, v in zip(self._names, row, strict=True)))
        return b"".join(packet(number, body) for number, body in enumerate([*bodies, _EOF], 1))


class Recording:
    """What a primary and a replica have answered."""

    def __init__(self, file: Path = RECORDING) -> None:
        found = json.loads(file.read_text())
        self.answers = {role: {q["statement"]: Answer(q) for q in found[role]} for role in ("primary", "replica")}

    def of(self, role: str, values: Mapping[str, str]) -> dict[bytes, bytes]:
        return {sql.encode(): answer.written(values) for sql, answer in self.answers[role].items()}


class Servers:
    """Servers at addresses of loopback, in clusters of some each, of which the first is the primary.

    One listener has them all: which of them is meant is told by the address that a client has connected to.
    """

    def __init__(self, sizes: Sequence[int], port: int) -> None:
        self.clusters: list[list[Address]] = []
        """The addresses by cluster."""
        self.hung: set[str] = set()
        """Hosts that accept connections and answer nothing."""
        self.answered = 0
        self._recording = Recording()
        self._port = port
        self._answers: dict[str, dict[bytes, bytes]] = {}
        self._connections: set[_Connection] = set()
        number = 0
        for size in sizes:
            addresses = [Address(f"127.77.{(number + n) // 250}.{(number + n) % 250 + 1}", port) for n in range(size)]
            for n, address in enumerate(addresses):
                values = {"server_id": str(number + n + 1)}
                if n:
                    values |= {
                        "Master_Host": addresses[0].host, "Master_Port": str(port),
                        "Master_Server_Id": str(number + 1), "Slave_received_heartbeats": _PLACE.decode(),
                    }  # fmt: skip
                self._answers[address.host] = self._recording.of("replica" if n else "primary", values)
            number += size
            self.clusters.append(addresses)
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stand-ins", daemon=True)

    def answer(self, host: str, statement: bytes) -> bytes:
        """Returns the packets that answer ``statement``."""
        self.answered += 1
        found = self._answers[host].get(statement)
        if found is not None:
            return found.replace(_PLACE, b"%010d" % self.answered, 1)
        if statement[:4].upper() == b"SET ":
            return packet(1, _OK)
        return packet(1, b"\xff" + struct.pack("<H", 1064) + b"#42000not in the recording: " + statement[:200])

    def __enter__(self) -> Servers:
        self._thread.start()
        if not self._up.wait(10):
            raise OSError(f"no listener at port {self._port}")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        listening = self._loop.create_server(lambda: _Connection(self), "0.0.0.0", self._port, backlog=4096)
        server = self._loop.run_until_complete(listening)
        self._up.set()
        self._loop.run_forever()
        server.close()
        for connection in list(self._connections):
            connection.abort()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


class _Connection(asyncio.Protocol):
    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._logged_in = False
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._servers._connections.add(self)
        self._host = str(transport.get_extra_info("sockname")[0])
        if self._host not in self._servers.hung:
            transport.write(packet(0, _GREETING))

    def connection_lost(self, error: Exception | None) -> None:
        self._servers._connections.discard(self)

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._host in self._servers.hung:
            return
        data, at = self._waiting + data, 0
        answers = []
        while len(data) - at >= 4 and len(data) - at >= (size := 4 + int.from_bytes(data[at : at + 3], "little")):
            answers.append(self._take(data[at + 4 : at + size]))
            at += size
        self._waiting = data[at:]
        self._transport.write(b"".join(answers))

    def _take(self, body: bytes) -> bytes:
        if not self._logged_in:
            self._logged_in = True
            return packet(2, _OK)
        if body[0] == _QUERY:
            return self._servers.answer(self._host, body[1:])
        if body[0] == _QUIT:
            self._transport.close()
        return packet(1, _OK)


# -- Recording ------------------------------------------------------------------------------------------------


def _recorded(address: Address, login: Login) -> list[dict[str, Any]]:
    """Returns what a server answers to each statement of one look."""
    deadline = Deadline.after(10.0)
    found: list[dict[str, Any]] = []
    with Session("db", address, login).open(deadline) as session:
        connection = session._connection
        assert connection is not None
        driver: Any = connection
        packets: list[bytes] = []
        read = driver._read_packet

        def keep(*of: Any) -> Any:
            taken = read(*of)
            packets.append(taken.get_all_data())
            return taken

        driver._read_packet = keep
        run = session._run

        def note(sql: str, args: tuple[Any, ...], *more: Any, **named: Any) -> list[dict[str, Any]]:
            packets.clear()
            rows = run(sql, args, *more, **named)
            with driver.cursor() as cursor:
                statement = cursor.mogrify(sql, args or None)
            count = packets[0][0]
            columns = packets[1 : 1 + count]
            names = [_name(column) for column in columns]
            values = [[_text(row[name]) for name in names] for row in rows]
            encoded = [base64.b64encode(column).decode() for column in columns]
            found.append({"statement": statement, "names": names, "columns": encoded, "rows": values})
            return rows

        def one_by_one(statements: Sequence[str], until: Deadline) -> tuple[list[list[dict[str, Any]]], float]:
            return [session.read(sql, until) for sql in statements], 0.0

        setattr(session, "_run", note)  # noqa: B010 - a type checker would not let us
        setattr(session, "read_all", one_by_one)  # noqa: B010
        mariadb_read.read_status(session, "db", address, deadline)
    return found


def _name(column: bytes) -> str:
    """Returns the name that a column definition gives to its column: the fifth of its strings."""
    for _ in range(4):
        column = column[1 + column[0] :]
    return column[1 : 1 + column[0]].decode()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def record(file: Path = RECORDING) -> None:
    """Makes the recording from a private cluster of two."""
    from tests.support.accounts import ENGINE
    from tests.support.mariadb import LocalCluster

    with contextlib.closing(LocalCluster.start(2)) as cluster:
        login = Login(ENGINE.user, ENGINE.password)
        told = {
            "primary": _recorded(cluster["db1"].address, login),
            "replica": _recorded(cluster["db2"].address, login),
        }
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["record"]:
        sys.exit("usage: python -m tests.support.standins record")
    record()
