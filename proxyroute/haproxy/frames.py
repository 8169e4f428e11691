"""Numbered messages on a stream socket."""

from __future__ import annotations

import socket
import struct

_HEAD = struct.Struct("!QQ")


def put(channel: socket.socket, number: int, data: bytes) -> None:
    """Sends one message. Raises OSError when the other end is gone."""
    channel.sendall(_HEAD.pack(number, len(data)) + data)


def get(channel: socket.socket) -> tuple[int, bytes] | None:
    """Returns the next message with its number, None when the other end is closed or gone."""
    head = _exactly(channel, _HEAD.size)
    if head is None:
        return None
    number, size = _HEAD.unpack(head)
    data = _exactly(channel, size)
    return None if data is None else (number, data)


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    parts, left = [], size
    while left:
        try:
            part = channel.recv(min(left, 65536))
        except OSError:
            return None
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
