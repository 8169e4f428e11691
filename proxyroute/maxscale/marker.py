"""The epoch of a route, kept in MaxScale itself.

MaxScale has no place for an epoch, and its conditional requests make the change they refuse. So each route that is
settled leaves a server object that no service and no monitor uses, and whose name says it all:
``proxyroute-shop-3-7-db2`` is route 3.7 of cluster ``shop`` to ``db2``. Making it is exclusive, MaxScale saves it with
its other objects, and every engine on any host reads it in the request that reads the states.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxyroute.model import Endpoint, Epoch, RouteTable

_PREFIX = "proxyroute"
PARAMETERS = {"address": "127.0.0.1", "port": 9}
"""Nobody connects there."""


@dataclass(frozen=True)
class Marker:
    """What one of these objects says."""

    name: str
    epoch: Epoch
    primary: str | None


def name_of(cluster: str, table: RouteTable) -> str:
    """Returns the name of the object for ``table`` of ``cluster``."""
    tail = f"-{table.primary}" if table.primary is not None else ""
    return f"{_PREFIX}-{cluster}-{table.epoch.term}-{table.epoch.serial}{tail}"


def markers(cluster: str, servers: Sequence[Endpoint], data: Sequence[Mapping[str, Any]]) -> list[Marker]:
    """Returns those of ``cluster`` among the ``data`` of ``GET /servers``, the highest epoch last."""
    pattern = re.compile(rf"{re.escape(f'{_PREFIX}-{cluster}')}-(\d+)-(\d+)(?:-(.+))?")
    known = {endpoint.name for endpoint in servers}
    found = []
    for item in data:
        matched = pattern.fullmatch(str(item["id"]))
        if matched and (matched[3] is None or matched[3] in known):
            found.append(Marker(matched[0], Epoch(int(matched[1]), int(matched[2])), matched[3]))
    # under one epoch a route may be closed first and opened then: the opened one counts
    return sorted(found, key=lambda m: (m.epoch, m.primary is not None))
