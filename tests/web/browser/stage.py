"""Pages without servers: a hub that is shown whatever a test wants to be seen, served for a real browser."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from proxyroute.config import load
from proxyroute.config_values import ClusterConfig
from proxyroute.config_web import WebConfig
from proxyroute.glance import Glance
from proxyroute.gtid import MariaDBPosition
from proxyroute.known import Known, remember
from proxyroute.model import Address, Epoch, Finding, Observed, Published, SemiSync, Silent, Status, View
from proxyroute.sight import Sightings
from proxyroute.web.app import create_app
from proxyroute.web.commands import Perform
from proxyroute.web.hub import Hub
from proxyroute.web.server import served
from proxyroute.web.tokens import Scope, Tokens
from tests.support.builders import channel, replica, server
from tests.support.process import free_port

SECRET = "hunter2-never-shown"


def configuration(folder: Path, clusters: Sequence[str], **more: Any) -> Path:
    """Writes a configuration file with these clusters, each of three servers and two proxies."""
    values: dict[str, Any] = {}
    (folder / "password").touch(mode=0o600)
    (folder / "password").write_text(SECRET)
    for number, name in enumerate(clusters):
        net = f"127.{number // 250}.{number % 250}"  # where nobody listens, and says so at once
        values[name] = {
            "account": {"user": "proxyroute", "password": {"file": str(folder / "password")}},
            "replication": {"user": "repl", "password": {"file": str(folder / "password")}},
            "servers": {f"db{n}": f"{net}.{n}:1" for n in (1, 2, 3)},
            "serve": {"period": "60s"},  # what a test has shown counts until it is over
            **more,
        }
    file = folder / "proxyroute.yml"
    file.write_text(yaml.safe_dump({"version": 1, "state_dir": str(folder / "state"), "web": {}, "clusters": values}))
    return file


def sync(*, primary: bool) -> SemiSync:
    """Returns semi-synchronous replication as it should be, on either side."""
    if primary:
        return SemiSync(True, True, True, clients=2, wait_point="AFTER_SYNC", timeout_seconds=10, wait_no_replica=True)
    return SemiSync(True, replica_enabled=True, replica_active=True)


def three(position: int = 1000, lag: float = 0.0, behind: int = 0, semi: bool = True) -> list[Status | Silent]:
    """Returns a primary and two replicas in good order."""
    at, there = f"0-1-{position}", f"0-1-{position - behind}"
    of, off = sync(primary=True), sync(primary=False)
    none = SemiSync(available=True)
    source = channel(received=at, lag_seconds=lag)
    return [
        server(1, at, semi_sync=of if semi else none),
        replica(2, source, executed=there, semi_sync=off if semi else none),
        replica(3, channel(received=at, lag_seconds=0.0), executed=at, semi_sync=off if semi else none),
    ]


def proxies(primary: str = "db1", *, count: int = 2, **changes: Any) -> tuple[Observed, ...]:
    """Returns proxies that send writes to ``primary``."""
    readers = tuple(n for n in ("db1", "db2", "db3") if n != primary)
    agreed = Published(primary, Epoch(3, 1))
    seen = [
        Observed(f"edge{n}", True, Epoch(3, 1), primary, readers, {primary: 12 * n}, published=agreed)
        for n in range(1, count + 1)
    ]
    return tuple(replace(o, **changes) if n == 0 and changes else o for n, o in enumerate(seen))


@dataclass
class Stage:
    """A hub, its application, and where it is served."""

    hub: Hub
    tokens: Tokens
    url: str
    port: int
    state_dir: Path

    def show(
        self,
        cluster: str,
        servers: Sequence[Status | Silent],
        observed: Sequence[Observed] = (),
        at: float | None = None,
        **more: Any,
    ) -> None:
        """Lets ``servers`` and ``observed`` be seen of ``cluster``."""
        self.hub.show(glance(self.hub.config(cluster), servers, observed, at, **more))


def glance(
    config: ClusterConfig,
    servers: Sequence[Status | Silent],
    observed: Sequence[Observed] = (),
    at: float | None = None,
    **more: Any,
) -> Glance:
    """Returns what a keeper would show of these."""
    moved = []
    for n, s in enumerate(servers):
        own = list(config.servers.values())[n].address
        if isinstance(s, Status):
            s = replace(s, sources=tuple(replace(c, address=_at(config, c.address)) for c in s.sources))
        moved.append(replace(s, address=own))
    view = View(config.name, {s.name: s for s in moved})
    at = time.time() if at is None else at
    known: Known | None = more.pop("known", None)
    known = known or remember(Sightings.of(view, 0.0), None, 0.0, at)
    intended = more.pop("intended", view.primary.name if view.primary else None)
    limits: tuple[Finding, ...] = more.pop("limits", ())
    return Glance(config.name, at, view, tuple(observed), known=known, intended=intended, limits=limits, **more)


def _at(config: ClusterConfig, address: Address) -> Address:
    number = address.host.rpartition(".")[2]
    return next((s.address for s in config.servers.values() if s.address.host.endswith(f".{number}")), address)


def position(text: str) -> MariaDBPosition:
    return MariaDBPosition.parse(text)


@contextlib.contextmanager
def staged(
    folder: Path, *clusters: str, perform: Perform | None = None, port: int | None = None, **more: Any
) -> Iterator[Stage]:
    """Serves the pages of these clusters for a ``with`` block; again in the same folder is a restart of the daemon."""
    config = load(configuration(folder, clusters or ("shop",), **more))
    hub = Hub(config.clusters, folder / "audit.jsonl", perform)
    settings = WebConfig(Address("127.0.0.1", port or free_port()))
    tokens = Tokens(folder / "tokens.json")
    with served(create_app(hub, settings, tokens), settings):
        yield Stage(hub, tokens, f"http://{settings.listen}", settings.listen.port, config.state_dir)
    hub.close(5.0)


def token(stage: Stage, scope: Scope = Scope.ADMIN, name: str = "ann") -> str:
    return stage.tokens.create(name, scope)[0]


def journals(stage: Stage, cluster: str) -> tuple[str, str]:
    """Puts a switchover of a real cluster on record, and the same one cut off in its midst; returns their ids."""
    lines = (Path(__file__).parent / "switchover.jsonl").read_text().splitlines(keepends=True)
    done = json.loads(lines[0])["operation"]
    cut = f"{done[:-6]}abcdef"
    folder = stage.state_dir / cluster / "journal"
    folder.mkdir(parents=True)
    (folder / f"{done}.jsonl").write_text("".join(lines))
    begun = [line.replace(done, cut) for line in lines[:32]]
    (folder / f"{cut}.jsonl").write_text("".join(begun))
    return done, cut
