"""A readwritesplit for the double: it reads statements, so it can hold, repeat and replay them as MaxScale does.

Derived from what was seen of MaxScale when its REST API was recorded, and from its public manual. What it does by the
settings of its service, which are read anew each time:

- a write goes to the Master; a session keeps the Master it has for as long as that has the bit, runs and is not in
  maintenance, and goes to another with its next write (``master_reconnection``), else it ends;
- a write that finds no Master or loses its connection is tried again at once, then each full second until
  ``delayed_retry_timeout`` (``delayed_retry``, or ``transaction_replay``, which has it in it); without, its session
  ends;
- a transaction that is cut off, or whose server loses the bit, is replayed and compared (``transaction_replay``), but
  not if its COMMIT was under way (``transaction_replay_safe_commit``, from 24.02; before, it is replayed);
- with ``master_failure_mode=fail_instantly`` a session ends when there is no Master; with ``error_on_write`` a write
  gets an error instead;
- errors of a server that is still Master, 1290 among them, are answers and reach the client.

Where it is simpler than MaxScale: replies are passed on when they are whole (MaxScale streams them, and a session
whose reply was half delivered ends there); checksums are CRC-32 of whole replies; reads outside of a transaction are
SELECT and nothing else, in turn; ``max_slave_connections=0`` sends them to the Master, any other number means one; no
prepared statements, no load balancing, no causal reads, no pool; a backend that ended while nobody used it is noticed
at the next statement. Accounts are those of the tests.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pymysql

from proxyroute.model import Address
from tests.support.accounts import APPLICATION, ENGINE, PROBE, ROOT
from tests.support.maxscale import wire
from tests.support.maxscale.bits import Bit, usable
from tests.support.maxscale.router import Router
from tests.support.maxscale.wire import Gone, Reply, Wire

if TYPE_CHECKING:
    from tests.support.maxscale.double import Double
    from tests.support.maxscale.machine import Service

_PASSWORDS = {account.user: account.password for account in (APPLICATION, ENGINE, PROBE, ROOT)}
_ENDED = (1053, 1077, 1079, 1927)
"""Errors by which a server ends a session: they are the loss of a connection, and no answer."""
_AGAIN = 1.0
_COMMENT = re.compile(r"/\*.*?\*/|(?:--\s|#)[^\n]*", re.DOTALL)
_NO_READ = re.compile(r"\b(FOR\s+UPDATE|LOCK\s+IN|INTO|GET_LOCK|RELEASE_LOCK|LAST_INSERT_ID|NEXTVAL)\b", re.IGNORECASE)


class _Unavailable(Exception):
    """There is no Master, or it lets nobody in."""


class _Over(Exception):
    """The session ends: the client sees its connection break (2013)."""


@dataclass(frozen=True)
class Repeated:
    """A write that was sent again because its reply was lost: it may be there twice."""

    sql: str
    first: str
    again: str


@dataclass
class History:
    """What the splitters of one double have done beside passing on; it outlives a restart."""

    repeated: list[Repeated] = field(default_factory=list)
    replayed: int = 0
    """Transactions that were replayed."""
    ended: list[str] = field(default_factory=list)
    """Why sessions were ended by the router."""


@dataclass
class _Backend:
    server: str
    wire: Wire
    owner: object
    """Who has opened the connection, and would close it if it were forgotten."""

    def ask(self, command: bytes) -> Reply:
        """Returns the reply. Raises Gone, also when the server has said that it ends this session."""
        reply = self.wire.ask(command)
        if reply.error in _ENDED:
            raise Gone(sent=True)
        return reply


class Splitter(Router):
    """The listener of a service with the router readwritesplit."""

    def __init__(self, double: Double, address: Address, history: History) -> None:
        super().__init__(double, address, Bit.MASTER)
        self.history = history
        self._open: dict[int, _Split] = {}
        self._over = threading.Event()

    @property
    def service(self) -> Service:
        machine = self._double.machine
        return next(s for s in machine.services.values() if s.port == self._address.port)

    def on(self, parameter: str) -> bool:
        return self.service.parameters.get(parameter) in (True, "true")

    def bits(self, server: str) -> Bit:
        known = self._double.machine.servers.get(server)
        return known.bits if known is not None else Bit.NONE

    @property
    def members(self) -> list[str]:
        machine, service = self._double.machine, self.service
        names = machine.monitors[service.cluster].servers if service.cluster else service.servers
        return [name for name in names if name in machine.servers]

    def master(self) -> str | None:
        """Returns the Master for a newcomer: of several, one that does not hide a Slave bit, then the idlest."""
        found = [name for name in self.members if usable(self.bits(name), Bit.MASTER)]
        servers = self._double.machine.servers
        return min(found, key=lambda n: (Bit.SLAVE in self.bits(n), servers[n].connections), default=None)

    def reader(self) -> str | None:
        found = [name for name in self.members if usable(self.bits(name), Bit.SLAVE)]
        self._turn += 1
        return found[self._turn % len(found)] if found else None

    def connect(self, server: str, client: wire.Client) -> _Backend:
        """Opens a session on a server. Raises _Unavailable."""
        address = self._double.machine.servers[server].address
        try:
            opened = pymysql.connect(
                host=address.host, port=address.port, user=client.user, password=client.password,
                database=client.database or None, client_flag=client.flags & wire.MULTI_STATEMENTS, ssl_disabled=True,
                connect_timeout=3, autocommit=None,
            )  # fmt: skip
        except (pymysql.err.Error, OSError) as error:
            raise _Unavailable(str(error)) from None
        end: socket.socket = opened._sock  # type: ignore[attr-defined]
        end.settimeout(None)
        self._count(server, +1)
        return _Backend(server, Wire(end), opened)

    def close(self, backend: _Backend) -> None:
        with contextlib.suppress(OSError):
            backend.wire.socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            backend.wire.socket.close()
        self._count(backend.server, -1)

    def pause(self) -> bool:
        """Waits until the next try; False when everything is over."""
        return not self._over.wait(_AGAIN)

    def start(self) -> None:
        self._over.clear()
        super().start()

    def stop(self) -> None:
        self._over.set()
        super().stop()
        with self._lock:
            found = list(self._open.values())
        for session in found:
            session.end()

    def sessions(self) -> list[tuple[int, str]]:
        with self._lock:
            return [(n, s.at.server) for n, s in self._open.items() if s.at is not None]

    def _changed(self, server: str, before: Bit, after: Bit, at_once: bool) -> None:
        with self._lock:
            found = [s for s in self._open.values() if s.at is not None and s.at.server == server]
        instantly = self.service.parameters.get("master_failure_mode") == "fail_instantly"
        if at_once or (instantly and Bit.MASTER in before and self.master() is None):
            for session in found:
                session.end()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(Gone, _Over):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = next(self._numbers)
            machine = self._double.machine
            alive = any(Bit.RUNNING in machine.servers[name].bits for name in self.members)
            instantly = self.service.parameters.get("master_failure_mode") == "fail_instantly"
            closed = instantly and self.master() is None
            refusal = wire.error(1815, "Internal error: no server with the wanted role") if closed else b""
            # without a server that runs nobody knows the accounts
            known = wire.welcome(Wire(client), number, _PASSWORDS if alive else {}, refusal)
            if known is None:
                return
            session = _Split(self, client, known)
            with self._lock:
                self._open[number] = session
            try:
                session.run()
            except _Over as over:
                self.history.ended.append(str(over))
            finally:
                with self._lock:
                    del self._open[number]
                session.leave()


class _Split:
    """One client's session."""

    def __init__(self, router: Splitter, client: socket.socket, known: wire.Client) -> None:
        self._router = router
        self._client = Wire(client)
        self._known = known
        self.at: _Backend | None = None
        """Where its writes go."""
        self._reads: _Backend | None = None
        self._settings: list[bytes] = []
        """Commands that every new backend is told first."""
        self._log: list[tuple[bytes, int]] = []
        """The commands of the transaction that is open, with the checksums of their replies."""

    def run(self) -> None:
        while True:
            _, command = self._client.packet()
            kind = command[0]
            if kind == wire.QUIT:
                return
            if kind == wire.PING:
                self._client.send(1, wire.ok())
            elif kind in (wire.QUERY, wire.INIT_DB):
                self._client.send_raw(self._answer(command).raw)
            else:
                self._client.send(1, wire.error(1047, "the double knows no such command"))

    def end(self) -> None:
        """Cuts everything, from another thread."""
        for end in (self._client, *(b.wire for b in (self.at, self._reads) if b is not None)):
            with contextlib.suppress(OSError):
                end.socket.shutdown(socket.SHUT_RDWR)

    def leave(self) -> None:
        self._drop_master()
        if self._reads is not None:
            self._router.close(self._reads)

    def _answer(self, command: bytes) -> Reply:
        sql = _COMMENT.sub(" ", command[1:].decode(errors="replace")).strip()
        word = sql.split(None, 1)[0].upper() if command[0] == wire.QUERY and sql else ""
        setting = command[0] == wire.INIT_DB or word == "USE" or (word == "SET" and "GLOBAL" not in sql.upper())
        if setting and not self._log:
            return self._set(command)
        if word == "SELECT" and not self._log and not _NO_READ.search(sql) and self._may_read_elsewhere():
            return self._read(command)
        return self._write(command, sql)

    # -- settings and reads --

    def _set(self, command: bytes) -> Reply:
        """Every backend is told now, and those that come later are told first."""
        if self.at is None and self._router.master() is None and self._reader() is not None:
            reply = self._read(command)
        else:
            reply = self._write(command, "SET")
            if self._reads is not None:
                with contextlib.suppress(Gone):
                    self._reads.ask(command)
        if not reply.error:
            self._settings.append(command)
        return reply

    def _may_read_elsewhere(self) -> bool:
        return str(self._router.service.parameters.get("max_slave_connections", 255)) != "0"

    def _reader(self) -> _Backend | None:
        """Returns the backend for reads, a new one if that of before is not fit any more."""
        if not self._may_read_elsewhere():
            return None
        if self._reads is not None:
            bits = self._router.bits(self._reads.server)
            if Bit.SLAVE in bits and Bit.RUNNING in bits and Bit.MAINTENANCE not in bits:
                return self._reads
            self._router.close(self._reads)
            self._reads = None
        name = self._router.reader()
        if name is not None:
            with contextlib.suppress(_Unavailable, Gone):
                self._reads = self._opened(name)
        return self._reads

    def _read(self, command: bytes) -> Reply:
        reader = self._reader()
        if reader is not None:
            try:
                return reader.ask(command)
            except Gone:
                self._router.close(reader)
                self._reads = None
        return self._write(command, "SELECT")  # retry_failed_reads: elsewhere, and the Master will do

    def _opened(self, server: str) -> _Backend:
        backend = self._router.connect(server, self._known)
        for command in self._settings:
            backend.ask(command)
        return backend

    # -- writes --

    def _write(self, command: bytes, sql: str) -> Reply:
        """Returns the reply of the Master, now or later. Raises _Over."""
        began, lost_at, at_once = time.monotonic(), "", True
        while True:
            try:
                reply = self._try(command)
            except _Unavailable as why:
                if self._router.service.parameters.get("master_failure_mode") == "error_on_write" and not self._log:
                    return self._refused(1290, "no primary to write to")
                self._wait(began, f"no primary: {why}")
                at_once = True
            except Gone as gone:
                server = self.at.server if self.at is not None else ""
                self._drop_master()
                if gone.sent:
                    lost_at = server
                    self._check_lost(sql)
                elif not (self._router.on("transaction_replay") if self._log else self._reconnects or self._retries):
                    raise _Over("its connection had ended") from None
                if not at_once:
                    self._wait(began, "its connection was lost again")
                at_once = False
            else:
                if lost_at:
                    self._note(sql, lost_at)
                return self._done(command, reply)

    def _note(self, sql: str, lost_at: str) -> None:
        """What was repeated may be there twice: a write of its own, or a transaction whose COMMIT lost its reply."""
        commits = sql.upper().startswith("COMMIT")
        again = self.at.server if self.at is not None else ""
        written = [command[1:].decode(errors="replace") for command, _ in self._log] if commits else []
        for statement in written if self._log else [sql]:
            self._router.history.repeated.append(Repeated(statement, lost_at, again))

    def _try(self, command: bytes) -> Reply:
        if self._fit():
            assert self.at is not None
            return self.at.ask(command)
        had = self.at is not None
        name = self._router.master()
        if had and self._log and not self._router.on("transaction_replay"):
            raise _Over("its transaction is open on a server that is Master no more")
        if had and not self._log and not (self._reconnects or self._retries):
            raise _Over("its server is Master no more")
        if name is None:
            raise _Unavailable("there is no Master")
        self._drop_master()
        self.at = self._opened(name)
        self._replay()
        return self.at.ask(command)

    def _fit(self) -> bool:
        if self.at is None:
            return False
        bits = self._router.bits(self.at.server)
        return Bit.MASTER in bits and Bit.RUNNING in bits and Bit.MAINTENANCE not in bits

    def _replay(self) -> None:
        """Does the open transaction again on a new Master. Raises _Over when it reads something else there."""
        if not self._log:
            return
        assert self.at is not None
        self._router.history.replayed += 1
        for command, digest in self._log:
            if self.at.ask(command).digest != digest:
                raise _Over("its transaction read something else when it was replayed")

    def _check_lost(self, sql: str) -> None:
        """What was sent may have been done. Raises _Over if that may not be tried again."""
        if self._log:
            if not self._router.on("transaction_replay"):
                raise _Over("its transaction was cut off")
            safe = self._router.service.parameters.get("transaction_replay_safe_commit", False)
            if sql.upper().startswith("COMMIT") and safe in (True, "true"):
                raise _Over("its COMMIT was under way")
        elif not self._retries:
            raise _Over("a statement was under way")

    def _wait(self, began: float, why: str) -> None:
        """Waits until the next try. Raises _Over when there is none."""
        if not (self._router.on("transaction_replay") if self._log else self._retries):
            raise _Over(why)
        limit = _seconds(self._router.service.parameters.get("delayed_retry_timeout", "10000ms"))
        if time.monotonic() - began + _AGAIN > limit or not self._router.pause():
            raise _Over(f"{why}, for {limit:g} s")

    def _done(self, command: bytes, reply: Reply) -> Reply:
        if reply.status & wire.IN_TRANSACTION or (self._log and reply.error):
            self._log.append((command, reply.digest))
        elif not reply.error:
            self._log.clear()
        return reply

    def _refused(self, number: int, text: str) -> Reply:
        body = wire.error(number, text)
        return Reply(len(body).to_bytes(3, "little") + b"\x01" + body, number)

    def _drop_master(self) -> None:
        if self.at is not None:
            self._router.close(self.at)
            self.at = None

    @property
    def _retries(self) -> bool:
        return self._router.on("delayed_retry") or self._router.on("transaction_replay")

    @property
    def _reconnects(self) -> bool:
        return self._router.on("master_reconnection") or self._router.on("transaction_replay")


def _seconds(value: Any) -> float:
    text = str(value)
    return float(text.removesuffix("ms")) / 1000 if text.endswith("ms") else float(text.removesuffix("s"))
