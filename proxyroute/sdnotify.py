"""Tells the service manager how this process is, by the protocol of sd_notify: one datagram, a few lines.

Without a manager (``NOTIFY_SOCKET`` is not set) nothing is sent. Nothing here raises for what the manager does, and
nothing waits for it: whoever runs has more important things to do.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_LONGEST = 400
"""Characters of a status; it is one line in ``systemctl status``."""


class Manager:
    """The service manager, as far as it wants to be told."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Takes ``NOTIFY_SOCKET`` and the watchdog's variables out of ``environment``: they are meant for us alone.

        A HAProxy or a script that we start would otherwise speak in our name.
        """
        environment = os.environ if environment is None else environment
        self._address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", str(os.getpid()))
        self.watchdog = int(microseconds) / 1e6 if microseconds.isdigit() and watched == str(os.getpid()) else 0.0
        """After so many seconds without a sign of life we are killed; 0: nobody watches."""
        self._status = ""
        self._alive_at = float("-inf")

    @property
    def there(self) -> bool:
        return self._address[:1] in ("/", "@")

    def ready(self) -> None:
        """It is up; or, after :meth:`reloading`, the new configuration is in force (or refused)."""
        self._send("READY=1")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Shows ``text`` in ``systemctl status``; the same text again is not sent."""
        line = " ".join(text.split())[:_LONGEST]
        if line != self._status and self._send(f"STATUS={line}"):
            self._status = line

    def alive(self) -> None:
        """A sign of life; sent three times in the time after which we would be killed."""
        now = time.monotonic()
        if self.watchdog and now - self._alive_at >= self.watchdog / 3:
            self._alive_at = now
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> bool:
        if not self.there:
            return False
        # a name in the abstract namespace begins with @ in the variable and with a zero for the kernel
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto("\n".join(lines).encode(), address)
            return True
        return False
