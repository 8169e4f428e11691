"""As much of the protocol of MariaDB's clients as a router must understand: a greeting, whole replies, their status.

Text protocol only: no TLS, no compression, no prepared statements, no packet of 16 MB, no ``LOAD DATA LOCAL``. None of
it is announced to clients, so that those who keep to the protocol do not try.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

QUIT, INIT_DB, QUERY, PING = 0x01, 0x02, 0x03, 0x0E
IN_TRANSACTION, AUTOCOMMIT, MORE_RESULTS = 0x1, 0x2, 0x8
CONNECT_WITH_DB, MULTI_STATEMENTS = 0x8, 0x10000
_PLUGIN, _LENENC_AUTH = 0x80000, 0x200000
_CAPABILITIES = 0x1 | 0x2 | 0x4 | CONNECT_WITH_DB | 0x200 | 0x400 | 0x2000 | 0x8000 | MULTI_STATEMENTS | 0x20000
_CAPABILITIES |= _PLUGIN | 0x100000 | _LENENC_AUTH
_NATIVE = b"mysql_native_password\0"
_OK, _ERROR, _EOF, _LOCAL_FILE = 0x00, 0xFF, 0xFE, 0xFB


class Gone(Exception):
    """The other end is not there any more. ``sent`` tells whether it may have got what was to be sent."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the connection has ended")
        self.sent = sent


@dataclass(frozen=True)
class Reply:
    """Everything a server has answered to one command."""

    raw: bytes
    error: int = 0
    status: int = AUTOCOMMIT
    digest: int = 0
    """A checksum of everything but the status: column names, rows, counts, the number of an error."""


class Wire:
    """One connection, packet by packet."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._buffer = b""

    def packet(self) -> tuple[bytes, bytes]:
        """Returns the next packet as it came, and its content. Raises Gone."""
        head = self._take(4)
        length = int.from_bytes(head[:3], "little")
        if length == 0xFFFFFF:
            raise NotImplementedError("a packet of 16 MB")
        body = self._take(length)
        return head + body, body

    def _take(self, number: int) -> bytes:
        while len(self._buffer) < number:
            try:
                more = self.socket.recv(65536)
            except OSError:
                more = b""
            if not more:
                raise Gone(sent=True)
            self._buffer += more
        taken, self._buffer = self._buffer[:number], self._buffer[number:]
        return taken

    def send(self, number: int, body: bytes) -> None:
        """Sends one packet. Raises Gone."""
        self.send_raw(len(body).to_bytes(3, "little") + bytes([number & 0xFF]) + body)

    def send_raw(self, data: bytes) -> None:
        """Sends packets as they came. Raises Gone."""
        try:
            self.socket.sendall(data)
        except OSError:
            raise Gone(sent=True) from None

    def ask(self, command: bytes) -> Reply:
        """Sends one command and returns the whole reply. Raises Gone, with ``sent`` false if it was gone before."""
        if self._buffer or select.select([self.socket], [], [], 0)[0]:  # a server speaks unasked only when it ends us
            raise Gone(sent=False)
        self.send(0, command)
        return self._reply()

    def _reply(self) -> Reply:
        raw, digest = b"", 0
        while True:
            head, body = self.packet()
            raw += head
            if body[0] == _ERROR:
                number = int.from_bytes(body[1:3], "little")
                return Reply(raw, number, 0, zlib.crc32(body[1:3], digest))
            if body[0] == _LOCAL_FILE:
                raise NotImplementedError("LOAD DATA LOCAL")
            if body[0] == _OK:
                _, at = _integer(body, 1)
                _, at = _integer(body, at)
                digest, status = zlib.crc32(body[:at], digest), int.from_bytes(body[at : at + 2], "little")
            else:
                more, digest, status, error = self._rows(body, digest)
                raw += more
                if error:
                    return Reply(raw, error, 0, digest)
            if not status & MORE_RESULTS:
                return Reply(raw, 0, status, digest)

    def _rows(self, count: bytes, digest: int) -> tuple[bytes, int, int, int]:
        """Reads columns and rows; returns them as they came, the checksum, the status, and the number of an error."""
        raw, digest, ends = b"", zlib.crc32(count, digest), 0
        while True:
            head, body = self.packet()
            raw += head
            if body[0] == _ERROR:
                return raw, digest, 0, int.from_bytes(body[1:3], "little")
            if body[0] == _EOF and len(body) < 9:
                ends += 1
                if ends == 2:
                    return raw, digest, int.from_bytes(body[3:5], "little"), 0
            else:
                digest = zlib.crc32(body, digest)


def _integer(body: bytes, at: int) -> tuple[int, int]:
    """Returns a length-encoded integer and where it ends."""
    first = body[at]
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
    return (int.from_bytes(body[at + 1 : at + 1 + size], "little") if size else first), at + 1 + size


def ok() -> bytes:
    """The content of a packet that says that all is well."""
    return bytes([_OK, 0, 0, AUTOCOMMIT, 0, 0, 0])


def error(number: int, text: str) -> bytes:
    """The content of a packet that tells an error."""
    return bytes([_ERROR]) + number.to_bytes(2, "little") + b"#HY000" + text.encode()


# -- the greeting --


@dataclass(frozen=True)
class Client:
    """Who has logged in, and how."""

    user: str
    password: str
    database: str
    flags: int


def welcome(wire: Wire, number: int, passwords: Mapping[str, str], refusal: bytes = b"") -> Client | None:
    """Greets a client and lets it in if it knows its password; None when it was refused. Raises Gone.

    With a ``refusal`` (see ``error``) nobody is let in.
    """
    scramble = bytes(1 + byte % 126 for byte in os.urandom(20))  # no zero byte is allowed in it
    low, high = (_CAPABILITIES & 0xFFFF).to_bytes(2, "little"), (_CAPABILITIES >> 16).to_bytes(2, "little")
    greeting = b"\x0a5.5.5-10.11.0-MariaDB-double\0" + number.to_bytes(4, "little") + scramble[:8] + b"\0" + low
    greeting += bytes([45, AUTOCOMMIT, 0]) + high + bytes([21]) + bytes(10) + scramble[8:] + b"\0" + _NATIVE
    wire.send(0, greeting)
    head, body = wire.packet()
    flags = int.from_bytes(body[:4], "little")
    user, at = _text(body, 32)
    length, at = _integer(body, at) if flags & _LENENC_AUTH else (body[at], at + 1)
    proof, at = body[at : at + length], at + length
    database, at = _text(body, at) if flags & CONNECT_WITH_DB else ("", at)
    plugin, _ = _text(body, at) if flags & _PLUGIN and at < len(body) else (_NATIVE[:-1].decode(), at)
    if plugin != _NATIVE[:-1].decode():
        wire.send(head[3] + 1, bytes([_EOF]) + _NATIVE + scramble + b"\0")
        head, proof = wire.packet()
    if user not in passwords or proof != _proof(passwords[user], scramble):
        wire.send(head[3] + 1, error(1045, f"Access denied for user '{user}'"))
        return None
    wire.send(head[3] + 1, refusal or ok())
    if refusal:
        return None
    return Client(user, passwords[user], database, flags)


def _text(body: bytes, at: int) -> tuple[str, int]:
    end = body.index(0, at)
    return body[at:end].decode(), end + 1


def _proof(password: str, scramble: bytes) -> bytes:
    """What mysql_native_password answers to ``scramble``."""
    if not password:
        return b""
    once = hashlib.sha1(password.encode()).digest()
    mixed = hashlib.sha1(scramble + hashlib.sha1(once).digest()).digest()
    return bytes(a ^ b for a, b in zip(once, mixed, strict=True))
