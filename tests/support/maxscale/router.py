"""The data plane of a double: sessions of real clients, each carried to one real server that the bits name.

It is no readwritesplit (that is :mod:`tests.support.maxscale.splitter`): it reads no statement, so it cannot move a
session, wait with a statement or repeat one. It does what a readconnroute does: a newcomer gets a server with the
wanted role, running and neither in maintenance nor drained; with none it is refused with error 1815; a session whose
server loses the role, stops running or is set to maintenance ends with its next statement, at once when that was
forced.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxyroute.model import Address
from tests.support.maxscale.bits import Bit, usable

if TYPE_CHECKING:
    from tests.support.maxscale.double import Double


@dataclass
class _Session:
    number: int
    server: str
    client: socket.socket
    backend: socket.socket
    doomed: bool = False
    """It ends with its next statement."""

    def end(self) -> None:
        for end in (self.client, self.backend):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Router:
    """One service's listener."""

    def __init__(self, double: Double, address: Address, role: Bit) -> None:
        self._double = double
        self._address = address
        self._role = role
        self._lock = threading.Lock()
        self._sessions: dict[int, _Session] = {}
        self._numbers: Iterator[int] = iter(range(1, 1 << 30))
        self._turn = 0
        self._listening: socket.socket | None = None

    def start(self) -> None:
        self._listening = socket.create_server((self._address.host, self._address.port))
        self._double.machine.listeners.append(self._changed)
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def stop(self) -> None:
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
        with contextlib.suppress(ValueError):
            self._double.machine.listeners.remove(self._changed)
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.end()

    def sessions(self) -> list[tuple[int, str]]:
        """Returns number and server of each session."""
        with self._lock:
            return [(s.number, s.server) for s in self._sessions.values()]

    def _changed(self, server: str, before: Bit, after: Bit, at_once: bool) -> None:
        with self._lock:
            found = [s for s in self._sessions.values() if s.server == server]
        for session in found:
            session.doomed = Bit.MAINTENANCE in after or not self._carries(after)
            if at_once:
                session.end()

    def _carries(self, bits: Bit) -> bool:
        return Bit.RUNNING in bits and bool(bits & (self._role | Bit.MASTER))

    def _target(self) -> str | None:
        """Returns a server with the role, in turn; the Master where there is none with Slave."""
        machine = self._double.machine
        service = next(s for s in machine.services.values() if s.port == self._address.port)
        cluster = machine.monitors[service.cluster].servers if service.cluster else service.servers
        members = [name for name in cluster if name in machine.servers]
        for role in (self._role, Bit.MASTER):
            # a Master hides its Slave bit, and still has it: it gets reads as well
            found = [name for name in members if usable(machine.servers[name].bits, role)]
            if found:
                self._turn += 1
                return found[self._turn % len(found)]
        return None

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            name = self._target()
            if name is None:
                self._refuse(client, 1815, "Internal error: no server with the wanted role")
                return
            address = self._double.machine.servers[name].address
            try:
                backend = socket.create_connection((address.host, address.port), 3)
            except OSError:
                self._refuse(client, 2003, f"cannot connect to {name}")
                return
            with backend:
                for end in (client, backend):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    end.settimeout(None)
                with self._lock:
                    number = next(self._numbers)
                    session = self._sessions[number] = _Session(number, name, client, backend)
                self._count(name, +1)
                try:
                    if self._target_lost(name):  # it changed while we were connecting
                        return
                    self._pump(session)
                finally:
                    with self._lock:
                        del self._sessions[number]
                    self._count(name, -1)

    def _target_lost(self, name: str) -> bool:
        return not self._carries(self._double.machine.servers[name].bits)

    def _count(self, name: str, step: int) -> None:
        server = self._double.machine.servers.get(name)
        if server is not None:
            with self._lock:
                # those of before a restart end after it
                server.connections = max(0, server.connections + step)

    @staticmethod
    def _pump(session: _Session) -> None:
        with contextlib.suppress(OSError), selectors.DefaultSelector() as selector:
            selector.register(session.client, selectors.EVENT_READ, session.backend)
            selector.register(session.backend, selectors.EVENT_READ, session.client)
            while True:
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    data = key.fileobj.recv(65536)
                    if not data or (session.doomed and key.fileobj is session.client):
                        return
                    key.data.sendall(data)

    @staticmethod
    def _refuse(client: socket.socket, number: int, text: str) -> None:
        body = b"\xff" + number.to_bytes(2, "little") + b"#HY000" + text.encode()
        with contextlib.suppress(OSError):
            client.sendall(len(body).to_bytes(3, "little") + b"\x00" + body)
