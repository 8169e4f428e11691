"""The map by which HAProxy routes: read from its file at the start, changed at run time by single commands.

Three keys. ``route`` is ``<server>/<epoch>``: one entry, so that one command moves primary and epoch together and no
crash can come between them. ``readers`` is ``<server>=<weight>,…``, kept for those who compare. ``hold`` is
``<until>/<length>`` in milliseconds, the first of Unix time; newcomers wait while it lasts. ``!closed`` stands for no
server: no backend has such a name, so HAProxy closes the connection; a missing entry does the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from proxyroute.model import NO_EPOCH, Epoch, Reader, RouteTable

CLOSED = "!closed"
NO_HOLD = "0"
_ROUTE = re.compile(r"([^/]+)/([0-9]+\.[0-9]+)")
_HOLD = re.compile(r"([0-9]+)/([0-9]+)")
_READER = re.compile(r"([^=,]+)=([0-9]+)")
_HEADER = "# Written by ProxyRoute and changed at run time; `proxyroute publish` writes it anew.\n"


@dataclass(frozen=True)
class RouteMap:
    """What the map says. Compares by route and readers; a hold is passing and takes no part."""

    primary: str | None
    epoch: Epoch
    readers: tuple[Reader, ...] = ()

    @classmethod
    def of(cls, table: RouteTable) -> RouteMap:
        return cls(table.primary, table.epoch, tuple(sorted(table.readers, key=lambda r: r.name)))

    @classmethod
    def parse(cls, entries: Mapping[str, str]) -> RouteMap:
        """Reads the entries of a map. Nothing there is a closed route. Raises ValueError for what we never write."""
        primary, epoch = parse_route(entries.get("route", f"{CLOSED}/{NO_EPOCH}"))
        readers = []
        for part in filter(None, entries.get("readers", "").split(",")):
            found = _READER.fullmatch(part)
            if found is None:
                raise ValueError(f"{part!r} is not a reader")
            readers.append(Reader(found[1], int(found[2])))
        return cls(primary, epoch, tuple(readers))

    @property
    def route(self) -> str:
        return f"{self.primary or CLOSED}/{self.epoch}"

    @property
    def readers_text(self) -> str:
        return ",".join(f"{r.name}={r.weight}" for r in self.readers)

    def text(self) -> str:
        """Returns the content of the file."""
        return f"{_HEADER}route {self.route}\nreaders {self.readers_text or ','}\nhold {NO_HOLD}\n"


def parse_route(value: str) -> tuple[str | None, Epoch]:
    """Reads a ``route`` entry. Raises ValueError for what we never write."""
    found = _ROUTE.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is not a route")
    return (None if found[1] == CLOSED else found[1]), Epoch.parse(found[2])


def hold_until(value: str) -> float:
    """Reads a ``hold`` entry: the Unix time until which newcomers wait, 0.0 for none."""
    found = _HOLD.fullmatch(value)
    return int(found[1]) / 1000 if found else 0.0


def parse_file(text: str) -> dict[str, str]:
    """Returns the entries of a map file as HAProxy reads it."""
    entries: dict[str, str] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            key, _, value = line.strip().partition(" ")
            entries.setdefault(key, value.strip())
    return entries


def parse_runtime(answer: str) -> dict[str, str]:
    """Returns the entries of ``show map`` on the runtime socket: each line begins with an address."""
    entries: dict[str, str] = {}
    for line in answer.splitlines():
        fields = line.split(" ", 2)
        if len(fields) == 3 and fields[0].startswith("0x"):
            entries.setdefault(fields[1], fields[2])
    return entries
