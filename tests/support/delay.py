"""A relay between two interfaces that hands every frame on some milliseconds later, in either direction.

Not every kernel has ``netem``; this stands in a host's cable instead: one interface is the host's end, the other one
leads to the switch. Run as a program in the switch's namespace. It says ``ready`` when it listens. On SIGTERM it
takes no more frames, hands on what it still has, and ends. It imports nothing of ours, so that it is there at once.
"""

import argparse
import contextlib
import select
import signal
import socket
import time
from collections import deque

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_PACKET_IGNORE_OUTGOING = 23
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_ALL_PROTOCOLS = 3
_BUFFER = 16 * 1024 * 1024
_LARGEST = 128 * 1024
"""The kernel hands over what it has not cut into packets yet: with a header that says how, which we hand back to it."""


def listen(interface: str) -> socket.socket:
    """Returns a socket that takes every frame that comes in at ``interface``, and puts frames out there."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    for option in (_SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
        opened.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    opened.setblocking(False)
    opened.bind((interface, _ALL_PROTOCOLS))
    return opened


class Relay:
    """Both directions; what waits is in the order in which it is due, for all of it waits equally long."""

    def __init__(self, one: str, other: str, seconds: float) -> None:
        ends = listen(one), listen(other)
        self._to = {ends[0]: ends[1], ends[1]: ends[0]}
        self._seconds = seconds
        self._waiting: deque[tuple[float, socket.socket, bytes]] = deque()
        # a signal ends no select of Python's: something has to become readable
        self._woken, self._wake = socket.socketpair()
        self._ending = False

    def end(self, number: int, frame: object) -> None:
        """For signals: no more frames are taken."""
        self._wake.send(b"!")

    def run(self) -> None:
        """Returns after SIGTERM, when nothing waits any more."""
        while self._waiting or not self._ending:
            pause = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            readable, _, _ = select.select([] if self._ending else [self._woken, *self._to], [], [], pause)
            self._ending = self._ending or self._woken in readable
            for end in readable:
                if end is not self._woken:
                    self._take(end)
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, end, frame = self._waiting.popleft()
                # full, or down: the frame is lost, as it would be in a cable
                with contextlib.suppress(OSError):
                    end.send(frame)

    def _take(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):  # nothing more, or the interface went down
            while True:
                self._waiting.append((time.monotonic() + self._seconds, self._to[end], end.recv(_LARGEST)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="delay")
    parser.add_argument("one")
    parser.add_argument("other")
    parser.add_argument("milliseconds", type=float)
    options = parser.parse_args()
    relay = Relay(options.one, options.other, options.milliseconds / 1000)
    signal.signal(signal.SIGTERM, relay.end)
    print("ready", flush=True)
    relay.run()


if __name__ == "__main__":
    main()
