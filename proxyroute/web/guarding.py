"""What stands before every route: whose host name is asked for, how much may be sent, and headers for browsers."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxyroute.config_web import WebConfig
from proxyroute.web.problems import Problem

LONGEST_BODY = 64 * 1024
"""Bytes of a request."""
_HEALTH = ("/health", "/v1/health", "/liveness", "/readiness")
"""What load balancers ask for, under whatever name; it tells nothing but yes and no."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_YEAR = 365 * 86400


def headers_of(settings: WebConfig) -> dict[str, str]:
    """Returns the headers that every answer has."""
    told = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Cache-Control": "no-store",
    }
    if settings.tls or settings.plain:
        told["Strict-Transport-Security"] = f"max-age={_YEAR}"
    return told


class Guarding:
    """The outermost part of the application."""

    def __init__(self, app: ASGIApp, settings: WebConfig) -> None:
        self._app = app
        self._hosts = _hosts(settings)
        self._headers = [(n.lower().encode(), v.encode()) for n, v in headers_of(settings).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name, value) for name, value in self._headers if name not in given]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        left = LONGEST_BODY

        async def receiving() -> Message:
            nonlocal left
            message = await receive()
            if message["type"] == "http.request":
                left -= len(message.get("body", b""))
                if left < 0:
                    raise HTTPException(413, f"more than {LONGEST_BODY} bytes were sent")
            return message

        problem = self._problem(scope)
        if problem is not None:
            await problem.response(Request(scope))(scope, receive, sending)
            return
        await self._app(scope, receiving, sending)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        length = headers.get(b"content-length", "")
        if length.isdigit() and int(length) > LONGEST_BODY:
            return Problem(413, f"more than {LONGEST_BODY} bytes were sent")
        host = headers.get(b"host", "")
        if host and not scope["path"].startswith(_HEALTH) and not self._ours(host):
            return Problem(421, f"{host} is not a name of this daemon", cure="if it is, add it to web.hosts")
        return None

    def _ours(self, host: str) -> bool:
        """A page of another site can make a name of its own mean our address; an address it cannot."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._hosts or _is_address(name)


def _hosts(settings: WebConfig) -> frozenset[str]:
    own = ("localhost", settings.listen.host, socket.gethostname(), *settings.hosts)
    return frozenset(_lower((*own, *(urlsplit(origin).hostname or "" for origin in settings.origins)))) - {""}


def _lower(names: Iterable[str]) -> Iterable[str]:
    return (name.lower().rstrip(".") for name in names)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
