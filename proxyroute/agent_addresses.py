"""Which addresses this host has now, as the kernel says: by netlink, so that no program is needed for it."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address

_GET_ADDRESSES = 22
_END, _ERROR = 3, 2
_REQUEST_ALL = 0x1 | 0x300
_OWN, _ANY = 2, 1
"""The attribute that holds the own address, and the one that does where there is no peer."""
_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_SECONDS = 2.0
_FRESH = 1.0


def held(addresses: Sequence[str]) -> dict[str, bool]:
    """Returns, for each of ``addresses``, whether this host has it on any interface. Raises OSError."""
    if not addresses:
        return {}
    here = {ip_address(packed) for packed in _own()}
    return {text: ip_address(text) in here for text in addresses}


def _own() -> Iterator[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_SECONDS)
        body = _MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        kernel.send(_HEADER.pack(_HEADER.size + len(body), _GET_ADDRESSES, _REQUEST_ALL, 1, 0) + body)
        while True:
            for kind, content in _parts(kernel.recv(1 << 16)):
                if kind == _END:
                    return
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", content)[0]
                    raise OSError(number, os.strerror(number))
                found = dict(_attributes(content[_MESSAGE.size :]))
                if address := found.get(_OWN) or found.get(_ANY):
                    yield address


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[_aligned(length) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3


class Addresses:
    """The virtual addresses that an agent watches. What cannot be read is not known, and says why."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(addresses)
        self._again = 0.0
        self._last: Mapping[str, bool | None] = {}
        self.trouble = ""

    def look(self) -> Mapping[str, bool | None]:
        """Returns whether this host has each of them now; None of each when that cannot be told."""
        self._again = time.monotonic() + _FRESH
        try:
            self._last, self.trouble = held(self._addresses), ""
        except OSError as error:
            self._last = dict.fromkeys(self._addresses)
            self.trouble = f"the addresses of this host cannot be read: {error.strerror or error}"
        return self._last

    def lately(self) -> Mapping[str, bool | None]:
        """Returns the same as it was a moment ago at the most."""
        return self.look() if time.monotonic() >= self._again else self._last
