"""Who reaches whom in a network: datagrams from everybody to everybody, and how long an answer takes."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from types import TracebackType

from tests.support.network import Network
from tests.support.wait import until

_PORT = 9
_ECHO = 7
Pair = tuple[str, str]


class Reach:
    """A socket on every host. Use in a ``with`` statement."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._sockets = {host: self._socket(host, _PORT) for host in network.hosts}
        self._echoes = {host: self._socket(host, _ECHO) for host in network.hosts}
        for echo in self._echoes.values():
            threading.Thread(target=_answer, args=(echo,), daemon=True).start()
        self._tokens = itertools.count(1)

    def _socket(self, host: str, port: int) -> socket.socket:
        with self._network.inside(host):
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((self._network.hosts[host], port))
        return opened

    @property
    def all(self) -> set[Pair]:
        """Everybody and everybody else."""
        return set(itertools.permutations(self._network.hosts, 2))

    def settle(self, expected: set[Pair]) -> set[Pair]:
        """Sends until all that is ``expected`` has arrived, and then once more; returns whatever has arrived.

        Whatever was sent before the last round has arrived by then, or is lost: the switch keeps the order.
        """
        token = str(next(self._tokens))
        seen: set[Pair] = set()

        def arrived() -> bool:
            self._send(token)
            seen.update(self._received(token))
            return expected <= seen

        with contextlib.suppress(AssertionError):  # the caller compares, and shows what is missing
            until(arrived, "datagrams", 10)
        last = str(next(self._tokens))
        self._send(last)
        final: set[Pair] = set()

        def ended() -> bool:
            for arrival, told in self._drain():
                (final if told == last else seen if told == token else set()).add(arrival)
            return expected <= final

        with contextlib.suppress(AssertionError):
            until(ended, "the last datagrams", 10)
        return seen | final

    def _send(self, token: str) -> None:
        for source, target in self.all:
            with contextlib.suppress(OSError):  # an earlier one has been answered with "host unreachable"
                word = f"{source} {target} {token}".encode()
                self._sockets[source].sendto(word, (self._network.hosts[target], _PORT))

    def _received(self, token: str) -> set[Pair]:
        return {arrival for arrival, told in self._drain() if told == token}

    def _drain(self) -> list[tuple[Pair, str]]:
        found = []
        for host, opened in self._sockets.items():
            while True:
                try:
                    word = opened.recv(100, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                except OSError:  # an earlier one has been answered with "host unreachable"
                    continue
                source, target, token = word.decode().split()
                if target == host:
                    found.append(((source, target), token))
        return found

    def round_trip(self, source: str, target: str, number: int = 5) -> float:
        """Returns the seconds that the fastest of some datagrams took there and back. Raises TimeoutError."""
        with self._network.inside(source):
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with opened:
            opened.settimeout(10)
            opened.connect((self._network.hosts[target], _ECHO))
            opened.send(b"first")  # finds the way; not measured
            opened.recv(100)
            return min(self._ask(opened) for _ in range(number))

    @staticmethod
    def _ask(opened: socket.socket) -> float:
        begun = time.monotonic()
        opened.send(b"again")
        opened.recv(100)
        return time.monotonic() - begun

    def arrivals(self, source: str, target: str, number: int) -> int:
        """Returns how many of a ``number`` of datagrams arrive."""
        token = str(next(self._tokens))
        count = 0
        for _ in range(number):
            word = f"{source} {target} {token}".encode()
            self._sockets[source].sendto(word, (self._network.hosts[target], _PORT))
            count += sum(told == token for _, told in self._drain())
        # those that are still under way: one more is sent until one arrives, for the switch keeps the order
        last = str(next(self._tokens))

        def ended() -> bool:
            nonlocal count
            word = f"{source} {target} {last}".encode()
            self._sockets[source].sendto(word, (self._network.hosts[target], _PORT))
            found = [told for _, told in self._drain()]
            count += found.count(token)
            return last in found

        until(ended, "the last datagram")
        return count

    def close(self) -> None:
        for opened in self._echoes.values():
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)  # wakes the thread that answers
        for opened in (*self._sockets.values(), *self._echoes.values()):
            opened.close()

    def __enter__(self) -> Reach:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _answer(echo: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            word, where = echo.recvfrom(100)
            if not where:
                return
            echo.sendto(word, where)
