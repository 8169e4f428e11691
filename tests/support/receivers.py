"""Those who are told: a real web service and a real mail server on loopback, and certificates for them."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.support.process import free_port
from tests.support.wait import until


@dataclass(frozen=True)
class Certificate:
    """A server's certificate for one address, and the authority that vouches for it."""

    ca: Path
    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context


def certificate(folder: Path, names: str = "IP:127.0.0.1,DNS:localhost") -> Certificate:
    """Makes an authority and a certificate for ``names`` in ``folder``."""
    folder.mkdir(exist_ok=True)
    (folder / "extension").write_text(f"subjectAltName={names}\n")
    for argv in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=lab-ca -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extension -out server.pem",
    ):
        subprocess.run(["openssl", *argv.split()], cwd=folder, check=True, capture_output=True)
    return Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")


@dataclass(frozen=True)
class Request:
    """One POST as it arrived."""

    path: str
    headers: dict[str, str]
    value: Any


class WebService:
    """Takes what is POSTed. ``answers`` are the next status codes, 200 when there are none; a 0 means silence."""

    def __init__(self, certified: Certificate | None = None) -> None:
        self.requests: list[Request] = []
        self.answers: list[int] = []
        self._hung = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                code = service.answers.pop(0) if service.answers else 200
                service.requests.append(Request(self.path, dict(self.headers), json.loads(data)))
                if code == 0:
                    service._hung.wait(60)
                    return
                self.send_response(code)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: Any) -> None:
                """A client that breaks off is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if certified is not None:
            self._server.socket = certified.context().wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._scheme = "https" if certified else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}/hook/t0ken"

    @property
    def values(self) -> list[Any]:
        return [request.value for request in self.requests]

    def await_values(self, number: int, seconds: float = 20.0) -> list[Any]:
        """Returns what was POSTed once there are ``number`` of them."""
        until(lambda: len(self.requests) >= number, f"{number} notices", seconds)
        return self.values

    def close(self) -> None:
        self._hung.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> WebService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class MailServer:
    """A mail server that keeps what it is given. ``tls`` is ``starttls``, ``tls`` or ``none``, as in the product."""

    tls: str = "none"
    certified: Certificate | None = None
    password: str = ""
    """Asked of the user ``prober`` when it is not empty."""
    refused: tuple[str, ...] = ()
    """Recipients it does not know."""
    busy: int = 0
    """How often it answers 451 before it takes a mail."""
    mails: list[EmailMessage] = field(default_factory=list)

    def __enter__(self) -> MailServer:
        context = self.certified.context() if self.certified else None
        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=free_port(),
            ssl_context=context if self.tls == "tls" else None,
            tls_context=context if self.tls == "starttls" else None,
            require_starttls=self.tls == "starttls",
            authenticator=self._authenticate if self.password else None,
            auth_require_tls=self.tls == "starttls",
        )
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    @property
    def port(self) -> int:
        return int(self._controller.port)

    def _authenticate(self, _: SMTP, __: Session, ___: Envelope, ____: str, data: Any) -> AuthResult:
        given = isinstance(data, LoginPassword) and (data.login, data.password)
        return AuthResult(success=given == (b"prober", self.password.encode()), handled=False)

    async def handle_RCPT(self, _: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:  # noqa: N802
        if self.password and not session.authenticated:
            return "530 log in first"
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.busy:
            self.busy -= 1
            return "451 try again later"
        content = envelope.original_content or b""
        mail = message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 taken"


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield listener.getsockname()[1]
