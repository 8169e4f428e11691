"""Serves the application in a thread of its own, with an end that is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from proxyroute.config_web import WebConfig
from proxyroute.errors import ConfigError
from proxyroute.model import Address
from proxyroute.web.connections import Connection

_UP = 10.0
_END = 5
_ABORT = 1.0
_HEADERS = 32 * 1024
"""Bytes of headers that a request may have."""
_RENEW_EVERY = 5.0
_log = logging.getLogger("proxyroute.web")


@contextlib.contextmanager
def served(app: FastAPI, settings: WebConfig) -> Iterator[None]:
    """Serves ``app`` for a ``with`` block. Raises ConfigError when it cannot listen there, or not with these files.

    A certificate that is put in place of the old one is taken up within some seconds, for new connections.
    """
    check_files(settings)
    config = uvicorn.Config(
        app, host=settings.listen.host, port=settings.listen.port, log_config=None, access_log=False,
        ssl_certfile=str(settings.cert) if settings.cert else None,
        ssl_keyfile=str(settings.key) if settings.key else None,
        proxy_headers=bool(settings.trusted_proxies), forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=_END, server_header=False, lifespan="off", h11_max_incomplete_event_size=_HEADERS,
        http=Connection, ws="none",
    )  # fmt: skip
    config.load()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=_run, args=(server,), name="web", daemon=True)
    thread.start()
    ends = time.monotonic() + _UP
    while not server.started:
        if not thread.is_alive() or time.monotonic() > ends:
            raise ConfigError(f"cannot listen at {settings.listen}: {_why_not(settings.listen)}; change web.listen")
        thread.join(0.02)
    over = threading.Event()
    if config.ssl is not None:
        threading.Thread(target=_renew, args=(config.ssl, settings, over), name="web tls", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        app.state.streams.end()
        server.should_exit = True
        thread.join(2 * _END)


def check_files(settings: WebConfig) -> None:
    """Raises ConfigError when certificate and key cannot be read, or do not belong together."""
    if settings.tls:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)


def _load(context: ssl.SSLContext, settings: WebConfig) -> None:
    assert settings.cert is not None
    for file in (settings.cert, settings.key):
        try:
            Path(str(file)).read_bytes()
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror}; web.cert and web.key must be readable for us") from None
    try:
        context.load_cert_chain(settings.cert, settings.key, password=lambda: "")  # one in use would be asked for
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or str(error)
        raise ConfigError(
            f"{settings.cert} and {settings.key} cannot be used: {why}; "
            "web.cert is the certificate with its chain, web.key its key without a passphrase, both PEM"
        ) from None


def _renew(context: ssl.SSLContext, settings: WebConfig, over: threading.Event) -> None:
    """Takes up new files; those that cannot be used are told, and the old ones stay."""
    seen = _stamp(settings)
    while not over.wait(_RENEW_EVERY):
        stamp = _stamp(settings)
        if stamp == seen:
            continue
        seen = stamp
        try:
            check_files(settings)
            _load(context, settings)
        except ConfigError as error:
            _log.warning("the certificate in use stays: %s", error)
        else:
            _log.info("%s is in use now", settings.cert)


def _stamp(settings: WebConfig) -> tuple[int, ...]:
    found = []
    for file in (settings.cert, settings.key):
        with contextlib.suppress(OSError):
            found += [os.stat(str(file)).st_mtime_ns, os.stat(str(file)).st_ino]
    return tuple(found)


def _why_not(address: Address) -> str:
    """Returns why nobody can listen at ``address``: uvicorn keeps that to itself."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(place)
    except OSError as error:
        return error.strerror or str(error)
    return f"it was not up within {_UP:g} s"


def _run(server: uvicorn.Server) -> None:
    with contextlib.suppress(SystemExit, OSError):  # told by whoever waits for it to be up
        asyncio.run(_serve(server))


async def _serve(server: uvicorn.Server) -> None:
    await server.serve()
    # whoever keeps a TLS connection open and does not answer its end
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    ends = time.monotonic() + _ABORT
    while server.server_state.connections and time.monotonic() < ends:
        await asyncio.sleep(0)
