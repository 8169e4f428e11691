"""The application of ``proxyroute serve`` with clusters that nobody keeps: the test puts in what is seen of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from proxyroute.caller import Caller
from proxyroute.config import Config, load
from proxyroute.config_web import WebConfig
from proxyroute.decided import Diagnosis
from proxyroute.glance import Glance
from proxyroute.journal import Listener
from proxyroute.model import Address, Observed, View
from proxyroute.outcome import Result
from proxyroute.web.app import create_app
from proxyroute.web.commands import Command, Perform
from proxyroute.web.hub import Hub
from proxyroute.web.server import served
from proxyroute.web.tokens import Scope, Tokens
from tests.support.process import free_port

FILE = """
version: 1
state_dir: state
web: {{}}
clusters:
  shop:
    account: {{user: engine, password: {{file: {folder}/engine.password}}}}
    replication: {{user: repl, password: {{file: {folder}/replication.password}}}}
    servers: {{db1: 10.0.0.1, db2: 10.0.0.2, db3: 10.0.0.3}}
    serve: {{period: 60s}}   # what a test has shown counts until it is over
    switchover: {{prefer: [db2]}}
  bank:
    account: {{user: engine, password: {{file: {folder}/engine.password}}}}
    replication: {{user: repl, password: {{file: {folder}/replication.password}}}}
    servers: {{db1: 10.0.1.1, db2: 10.0.1.2}}
    serve: {{period: 60s}}
    failover: {{profile: aggressive}}
"""
PASSWORD = "s3cret-of-the-engine"


def secret_of(token: str) -> str:
    """Returns the secret part of a token as ``token create`` prints it; which may hold underscores itself."""
    _, _, secret = token.split("_", 2)
    assert len(secret) >= 32, "too short to be looked for in other texts"
    return secret


def at_once(command: Command, caller: Caller, listener: Listener) -> tuple[Result, ...]:
    """Does any command, at once."""
    return (Result(caller.operation, command.kind, "done", text="done"),)


@dataclass
class Web:
    """A hub with its application."""

    config: Config
    hub: Hub
    app: FastAPI
    tokens: Tokens

    def token(self, scope: Scope = Scope.READ, name: str = "") -> str:
        """Returns a new token."""
        return self.tokens.create(name or str(scope), scope)[0]

    def client(self, scope: Scope | None = None, headers: Mapping[str, str] | None = None) -> TestClient:
        """Returns a client with a new token of ``scope``, or none."""
        own = {"Authorization": f"Bearer {self.token(scope)}"} if scope is not None else {}
        return TestClient(self.app, base_url="http://127.0.0.1:8480", headers={**own, **(headers or {})})

    def see(
        self, view: View, observed: Sequence[Observed] = (), diagnosis: Diagnosis | None = None, **more: Any
    ) -> None:
        """Shows what a keeper has seen, now."""
        primary = view.primary.name if view.primary else None
        values = {"at": time.time(), "observed": tuple(observed), "diagnosis": diagnosis, "intended": primary, **more}
        self.hub.show(Glance(view.cluster, view=view, **values))


def make_web(folder: Path, perform: Perform = at_once, settings: WebConfig | None = None, file: str = FILE) -> Web:
    """Returns a hub with its application, with its files in ``folder``; a second one goes on with them."""
    for name in ("engine", "replication"):
        (folder / f"{name}.password").write_text(f"{PASSWORD}\n")
        (folder / f"{name}.password").chmod(0o600)
    (folder / "proxyroute.yml").write_text(file.format(folder=folder))
    config = load(folder / "proxyroute.yml")
    hub = Hub(config.clusters, config.state_dir / "audit.jsonl", perform)
    tokens = Tokens(config.tokens_file)
    return Web(config, hub, create_app(hub, settings or WebConfig(), tokens), tokens)


@contextlib.contextmanager
def listening(web: Web, port: int = 0) -> Iterator[str]:
    """Serves it on loopback for a ``with`` block; yields the address to ask."""
    port = port or free_port()
    with served(web.app, WebConfig(listen=Address("127.0.0.1", port))):
        yield f"http://127.0.0.1:{port}"
