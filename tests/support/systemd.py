"""The other side of sd_notify: a datagram socket that listens as systemd does."""

from __future__ import annotations

import socket
from types import TracebackType

from tests.support.wait import until


class Systemd:
    """Hears what a service tells. ``address`` is a path, or ``@NAME`` in the abstract namespace."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.told: list[str] = []
        """Every line so far."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)

    def __enter__(self) -> Systemd:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def heard(self) -> list[str]:
        """Returns what was told since the last call."""
        found: list[str] = []
        while True:
            try:
                found += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                self.told += found
                return found

    def await_told(self, beginning: str, seconds: float = 20.0) -> str:
        """Returns the first line from now on that begins so, once it was told."""
        seen = len(self.told)

        def found() -> str:
            self.heard()
            return next((line for line in self.told[seen:] if line.startswith(beginning)), "")

        return until(found, f"{beginning} to be told; so far: {self.told}", seconds)
