"""Stand-ins for database servers, behind a real HAProxy: they greet as a MariaDB does and say who they are."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Sequence
from types import TracebackType

from proxyroute.model import Address, Endpoint
from tests.support.process import free_port

_ANSWER = b"\x01\x00\x00\x02\xff"


class StandIn:
    """One server. Greets each newcomer with its name, answers whatever it is sent, closes when the client does.

    ``arrived`` counts the connections it has accepted.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = Address("127.0.0.1", free_port())
        self.arrived = 0
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.name, self.address)

    def start(self) -> StandIn:
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server((self.address.host, self.address.port), backlog=512)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name=f"stand-in {self.name}", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends it and all its connections, as a server that is shut down."""
        self._stopping = True
        if self._thread is not None:
            self._thread.join()

    def _serve(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(timeout=0.02):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._answer(key.fileobj)
        for registered in list(self._selector.get_map().values()):
            if isinstance(registered.fileobj, socket.socket):
                registered.fileobj.close()
        self._selector.close()

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError):
            client, _ = self._listener.accept()
            self.arrived += 1
            client.setblocking(False)
            body = b"\x0a" + self.name.encode() + b"\x00"
            with contextlib.suppress(OSError):
                client.sendall(len(body).to_bytes(3, "little") + b"\x00" + body)
            self._selector.register(client, selectors.EVENT_READ)

    def _answer(self, client: object) -> None:
        assert isinstance(client, socket.socket)
        try:
            if client.recv(4096):
                client.sendall(_ANSWER)
                return
        except OSError:
            pass
        self._selector.unregister(client)
        client.close()


class Servers:
    """Some stand-ins, db1, db2, …, started together."""

    def __init__(self, count: int) -> None:
        self._all = [StandIn(f"db{n}").start() for n in range(1, count + 1)]

    def __getitem__(self, name: str) -> StandIn:
        return next(s for s in self._all if s.name == name)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(s.endpoint for s in self._all)

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._all:
            server.stop()


class Client:
    """A connection to a route; ``server`` is who greeted it, empty when it was closed without a greeting."""

    def __init__(self, address: Address, seconds: float = 10.0) -> None:
        self._socket = socket.create_connection((address.host, address.port), seconds)
        self._greeting: str | None = None

    @property
    def server(self) -> str:
        if self._greeting is None:
            self._greeting = self._read_greeting()
        return self._greeting

    def _read_greeting(self) -> str:
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while not data.endswith(b"\x00") or len(data) < 6:
                part = self._socket.recv(256)
                if not part:
                    return ""
                data += part
        return data[5:-1].decode()

    @property
    def waiting(self) -> bool:
        """Whether it is connected and has not been greeted yet."""
        self._socket.setblocking(False)
        try:
            return self._socket.recv(1, socket.MSG_PEEK) is None
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(10.0)

    @property
    def ended(self) -> bool:
        """Waits until the other side ends the connection; False when it has not after ten seconds."""
        assert self.server
        try:
            return self._socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def answers(self) -> bool:
        """Whether the server still answers on this connection."""
        try:
            self._socket.sendall(b"hello")
            return bool(self._socket.recv(64))
        except OSError:
            return False

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def servers_of(clients: Sequence[Client]) -> set[str]:
    """Returns who greeted them; closes them."""
    found = {client.server for client in clients}
    for client in clients:
        client.close()
    return found
