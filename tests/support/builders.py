"""Values for tests of what is pure: healthy by default, so that a test names only what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from proxyroute.errors import Silence
from proxyroute.gtid import MariaDBPosition, MySQLPosition
from proxyroute.inspection import Inspection
from proxyroute.model import Address, Endpoint, Receiver, Silent, Source, Status, View

NOW = "0-1-100"
"""Where the primary stands, and everybody with it, unless told otherwise."""


def position(text: str) -> MariaDBPosition:
    return MariaDBPosition.parse(text)


def address(number: int) -> Address:
    return Address(f"10.0.0.{number}", 3306)


def server(number: int, executed: str = NOW, **changes: Any) -> Status:
    """Returns a MariaDB server ``db<number>`` that follows nobody and takes writes: a primary."""
    healthy = Status(
        name=f"db{number}",
        address=address(number),
        flavour="mariadb",
        version=(10, 11, 19),
        version_text="10.11.19-MariaDB",
        server_id=number,
        writable=True,
        executed=position(executed),
        connections=5,
        connections_limit=100,
        net_timeout_seconds=4.0,
        uptime_seconds=86400.0,
    )
    return replace(healthy, **changes)


def channel(upstream: int = 1, received: str = NOW, **changes: Any) -> Source:
    """Returns a running channel to ``db<upstream>``."""
    healthy = Source(
        channel="",
        address=address(upstream),
        user="repl",
        source_id=upstream,
        receiver=Receiver.RUNNING,
        applier=True,
        received=position(received),
        lag_seconds=0.0,
        heartbeat_seconds=1.0,
    )
    return replace(healthy, **changes)


def replica(number: int, *sources: Source, executed: str = NOW, **changes: Any) -> Status:
    """Returns a read-only server ``db<number>``; without ``sources`` it follows db1."""
    healthy = server(number, executed, writable=False, sources=sources or (channel(),))
    return replace(healthy, **changes)


def other_flavour(number: int, **changes: Any) -> Status:
    """Returns ``db<number>`` as a MySQL server below a primary of MariaDB, as in a cluster that is being migrated."""
    uuid, nothing = f"00000000-0000-0000-0000-{number:012d}", MySQLPosition.parse("")
    told: dict[str, Any] = {"flavour": "mysql", "version": (9, 7, 4), "uuid": uuid, "executed": nothing} | changes
    return replace(replica(number, replace(channel(), received=nothing)), **told)


def silent(number: int, kind: Silence = Silence.REFUSED) -> Silent:
    return Silent(f"db{number}", address(number), f"connection {kind}", kind)


def view(*servers: Status | Silent, inspections: Iterable[Inspection] = ()) -> View:
    """Returns a view of ``servers``, each inspected and found well unless ``inspections`` tells otherwise."""
    found = {s.name: inspection(s.name) for s in servers if isinstance(s, Status)}
    found |= {i.name: i for i in inspections}
    return View("shop", {s.name: s for s in servers}, found)


def inspection(name: str, **changes: Any) -> Inspection:
    return replace(Inspection(name, "proxyroute@10.0.0.9"), **changes)


def endpoints(seen: View) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(s.name, s.address) for s in seen.servers.values())
