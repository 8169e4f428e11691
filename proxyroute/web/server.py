"""Serves the application in a thread of its own, with an end that is bounded."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from proxyroute.config_web import WebConfig
from proxyroute.errors import ConfigError

_UP = 10.0
_END = 5


@contextlib.contextmanager
def served(app: FastAPI, settings: WebConfig) -> Iterator[None]:
    """Serves ``app`` for a ``with`` block. Raises ConfigError when it cannot listen there."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, host=settings.listen.host, port=settings.listen.port, log_config=None, access_log=False,
            ssl_certfile=str(settings.cert) if settings.cert else None,
            ssl_keyfile=str(settings.key) if settings.key else None,
            timeout_graceful_shutdown=_END, server_header=False, lifespan="off",
        )
    )  # fmt: skip
    thread = threading.Thread(target=_run, args=(server,), name="web", daemon=True)
    thread.start()
    ends = time.monotonic() + _UP
    while not server.started:
        if not thread.is_alive() or time.monotonic() > ends:
            raise ConfigError(f"cannot listen at {settings.listen}; is the port taken? change web.listen")
        thread.join(0.02)
    try:
        yield
    finally:
        app.state.streams.end()
        server.should_exit = True
        thread.join(2 * _END)


def _run(server: uvicorn.Server) -> None:
    with contextlib.suppress(SystemExit, OSError):  # told by whoever waits for it to be up
        server.run()
