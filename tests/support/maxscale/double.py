"""A MaxScale that is none: a real HTTP server before a state machine, and behind it a router for real sessions.

The state machine was derived from recordings of MaxScale 22.08.14, 24.02.3 and a pre-release of 24.08
(``tests/recordings/maxscale``) and reads none of them; a test compares each recording with it. What several with
``config_sync_cluster`` refuse each other is in none of them.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from proxyroute.model import Address
from tests.support.maxscale.answers import Request
from tests.support.maxscale.api import Api
from tests.support.maxscale.auth import Auth
from tests.support.maxscale.backends import Backend, MadeUp
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.config_sync import ConfigSync
from tests.support.maxscale.documents import Documents
from tests.support.maxscale.machine import Machine
from tests.support.maxscale.router import Router
from tests.support.maxscale.splitter import History, Splitter
from tests.support.process import free_port

Interference = Callable[[Request], float]
"""Given a request that has arrived: seconds by which its answer is held back; below zero: it is dropped unanswered."""


@dataclass
class Tls:
    cert: Path
    key: Path


@dataclass
class Settings:
    """How a double is set up."""

    version: str = "24.02.3"
    monitor: bool = True
    running: bool = True
    monitor_parameters: Mapping[str, Any] = field(default_factory=dict)
    service_parameters: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    look_seconds: float = 0.1
    command_seconds: float = 0.2
    tls: Tls | None = None
    readwrite_hosts: bool = True
    services: bool = True
    split: bool = False
    """The listener of a readwritesplit reads statements; otherwise it does what a readconnroute does."""
    config_sync: ConfigSync | None = None


class Double:
    """One MaxScale with services ``RW`` (readwritesplit) and ``RO`` (readconnroute, slave), and monitor ``Mon``."""

    def __init__(self, servers: Mapping[str, Address], backend: Backend | None = None, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.host, self.port = "127.0.0.1", free_port()
        self.write = Address("127.0.0.1", free_port())
        self.read = Address("127.0.0.1", free_port())
        self.requests: list[tuple[str, str, str]] = []
        """Method, path and query of everything that has arrived, in order."""
        self.interfere: Interference = lambda request: 0.0
        self.after_answer: Callable[[], None] = lambda: None
        """Called once, when the next answer has been sent."""
        self.backend = backend if backend is not None else MadeUp.with_primary(servers, next(iter(servers)))
        self.machine = self._set_up(servers)
        self._http: http.server.ThreadingHTTPServer | None = None
        self._routers: list[Router] = []
        self._more: dict[str, Router] = {}
        self.history = History()
        """What the readwritesplit has repeated, replayed and ended."""

    def _set_up(self, servers: Mapping[str, Address]) -> Machine:
        s = self.settings
        machine = Machine(s.version, self.backend, look_seconds=s.look_seconds, command_seconds=s.command_seconds)
        machine.parameters |= {"admin_port": self.port, **s.parameters}
        machine.sync = s.config_sync
        for name, address in servers.items():
            machine.add_server(name, address)
        if s.monitor:
            machine.add_monitor("Mon", running=s.running, **s.monitor_parameters)
        cluster = "Mon" if s.monitor else ""
        if s.services:
            ports = (self.read.port, self.write.port)
            machine.add_service("RO", "readconnroute", ports[0], cluster=cluster, router_options="slave")
            machine.add_service("RW", "readwritesplit", ports[1], cluster=cluster, **s.service_parameters)
        return machine

    @property
    def url(self) -> str:
        return f"{'https' if self.settings.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def login_url(self) -> str:
        """The URL with the account that a MaxScale is delivered with."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://admin:mariadb@{rest}"

    @classmethod
    def empty(cls, version: str = "24.02.3") -> Double:
        """Returns one that runs, has no objects yet, and routes as a readwritesplit does what is made in it."""
        made = cls({}, MadeUp(), version=version, monitor=False, services=False, split=True)
        return made.start()

    def bits(self, server: str) -> Bit:
        """Returns the bits of a server, the hidden ones included."""
        return self.machine.servers[server].bits

    def state(self, server: str) -> str:
        return self.machine.servers[server].state

    # -- life --

    def start(self, *, route: bool = False) -> Double:
        """Begins to answer; with ``route`` also at the ports of the services."""
        self.machine.start()
        self._serve()
        if route:
            self._routers = [self._router(self.write), Router(self, self.read, Bit.SLAVE)]
            for router in self._routers:
                router.start()
        return self

    def _router(self, address: Address) -> Router:
        """Returns a router for writes."""
        return Splitter(self, address, self.history) if self.settings.split else Router(self, address, Bit.MASTER)

    def stop(self) -> None:
        """Ends at once: nobody answers any more, and no session is left."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        for router in (*self._routers, *self._more.values()):
            router.stop()
        self.machine.end()

    def restart(self) -> None:
        """Ends and begins again; states are lost, unless a monitor finds them."""
        route = bool(self._routers)
        self.stop()
        self.machine.listeners.clear()
        self.machine = self.machine.after_restart()
        self.start(route=route)

    def __enter__(self) -> Double:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _serve(self) -> None:
        double, machine = self, self.machine
        api = Api(machine, Auth(machine, readwrite_hosts=self.settings.readwrite_hosts))
        api.sessions, api.listen, api.unlisten = self._sessions, self._listen, self._unlisten

        class Handler(_Handler):
            def answer(self, request: Request) -> None:
                double.requests.append((request.method, request.path, request.query))
                wait = double.interfere(request)
                if wait < 0:
                    self.close_connection = True
                    return
                answer, content = api.answer(request)
                time.sleep(wait)
                self.send(answer.status, answer.headers, content)
                then, double.after_answer = double.after_answer, lambda: None
                then()

        self._http = _Server((self.host, self.port), Handler)
        if self.settings.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.settings.tls.cert, self.settings.tls.key)
            self._http.context = context
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def _listen(self, name: str, port: int) -> None:
        router = self._router(Address(self.host, port))
        router.start()
        self._more[name] = router

    def _unlisten(self, name: str) -> None:
        self._more.pop(name).stop()

    def _sessions(self, documents: Documents) -> list[dict[str, Any]]:
        found = []
        for router, service in zip(self._routers, ("RW", "RO"), strict=False):
            for number, server in router.sessions():
                found.append(documents.session(number, service, server))
        return found


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    context: ssl.SSLContext | None = None

    def __init__(self, *arguments: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Nobody who keeps a connection goes on talking to what has ended."""
        super().server_close()
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is not None:
            request.settimeout(5)
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except OSError:
                return  # plain HTTP, or a client that does not trust us: dropped
        with request:
            super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is its own affair."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def answer(self, request: Request) -> None:
        raise NotImplementedError

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        path, _, query = self.path.partition("?")
        scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
        base = f"{scheme}://{self.headers.get('Host')}{'/v1' if path.startswith('/v1') else ''}"
        self._bodiless = body is None
        query = query.replace("%5B", "[").replace("%5D", "]").replace("%2F", "/").replace("%2C", ",")
        self.answer(Request(self.command, path, query, dict(self.headers), body, base, encrypted=scheme == "https"))

    do_GET = do_HEAD = do_OPTIONS = do_POST = do_PUT = do_PATCH = do_DELETE = do_TRACE = _any  # noqa: N815

    def send(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        with contextlib.suppress(OSError):
            self.send_response_only(status)
            if self._bodiless:  # a request without a body is the last one of its connection
                self.send_header("Connection", "close")
                self.close_connection = True
            now = time.gmtime()
            self.send_header("Date", time.strftime("%a, %d %b %y %H:%M:%S GMT", now))
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def reachable(address: Address) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection((address.host, address.port), 1):
        return True
    return False
