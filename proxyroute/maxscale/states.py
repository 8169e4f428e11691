"""What MaxScale shows of its servers, and which bits have to move for a route. Pure.

A state is a set of bits; what is shown is only a rendering. ``Master`` hides ``Slave``, ``Maintenance`` and ``Down``
hide both, and what is hidden still acts. So a bit that cannot be seen is set or cleared all the same: both are
idempotent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxyroute.model import Address, Endpoint, RouteTable


@dataclass(frozen=True)
class Shown:
    """One server object as MaxScale shows it."""

    name: str
    address: Address
    text: str
    """``attributes.state``."""

    @property
    def _words(self) -> frozenset[str]:
        return frozenset(word.strip() for word in self.text.split(","))

    @property
    def running(self) -> bool:
        return "Running" in self._words

    @property
    def maintenance(self) -> bool:
        return "Maintenance" in self._words

    @property
    def aside(self) -> bool:
        """Taken out on purpose: newcomers are not sent here, whatever its role."""
        return bool(self._words & {"Maintenance", "Draining", "Drained"})

    @property
    def master(self) -> bool:
        return "Master" in self._words

    @property
    def slave(self) -> bool:
        return bool(self._words & {"Slave", "Relay Master"})

    @property
    def hides(self) -> bool:
        """Whether role bits may be set that are not shown."""
        return self.maintenance or not self.running


@dataclass(frozen=True)
class Known:
    """The servers of a cluster as one MaxScale knows them."""

    by_name: Mapping[str, Shown]
    """By the name they have in our configuration."""
    missing: tuple[Endpoint, ...] = ()
    twice: Mapping[str, tuple[Shown, ...]] = field(default_factory=dict)
    """Servers that are known under several names."""

    @property
    def masters(self) -> tuple[str, ...]:
        """Servers that newcomers with writes may be sent to."""
        return tuple(n for n, s in self.by_name.items() if s.master and s.running and not s.aside)

    @property
    def readers(self) -> tuple[str, ...]:
        """Servers that get reads; the Master where there is no other."""
        found = tuple(n for n, s in self.by_name.items() if s.slave and not s.master and s.running and not s.aside)
        return found or self.masters[:1]

    @property
    def aside(self) -> tuple[str, ...]:
        return tuple(n for n, s in self.by_name.items() if s.aside)

    @property
    def lost(self) -> bool:
        """Nothing runs and nothing is in maintenance: as after a restart without a monitor."""
        return bool(self.by_name) and not any(s.running or s.maintenance for s in self.by_name.values())


def match(servers: Sequence[Endpoint], data: Sequence[Mapping[str, Any]]) -> Known:
    """Returns ``servers`` as they stand in the ``data`` of ``GET /servers``, matched by address and port."""
    shown = list(read(data))
    found: dict[str, Shown] = {}
    missing, twice = [], {}
    for endpoint in servers:
        same = tuple(s for s in shown if _key(s.address) == _key(endpoint.address))
        if not same:
            missing.append(endpoint)
        elif len(same) > 1:
            twice[endpoint.name] = same
        else:
            found[endpoint.name] = same[0]
    return Known(found, tuple(missing), twice)


def read(data: Sequence[Mapping[str, Any]]) -> Iterator[Shown]:
    """Yields every server object that has an address."""
    for item in data:
        attributes = item["attributes"]
        parameters = attributes.get("parameters", {})
        if parameters.get("address"):
            address = Address(str(parameters["address"]), int(parameters.get("port") or 3306))
            yield Shown(str(item["id"]), address, str(attributes.get("state", "")))


def _key(address: Address) -> tuple[str, int]:
    return address.host.lower().rstrip("."), address.port


@dataclass(frozen=True)
class Move:
    """One bit of one server: ``set`` or ``clear``."""

    server: str
    """Its name in MaxScale."""
    verb: str
    bit: str


def urgent(table: RouteTable, known: Known) -> list[Move]:
    """Returns what moves the writes. The new Master comes first, so that there is no moment without one.

    In between there are two for less than a millisecond; the old one's writes are locked, or refused, by then.
    """
    moves = []
    primary = known.by_name.get(table.primary) if table.primary else None
    if primary is not None:
        if not primary.running:
            moves.append(Move(primary.name, "set", "running"))
        if not primary.master or primary.hides:
            moves.append(Move(primary.name, "set", "master"))
    for name, shown in known.by_name.items():
        if name != table.primary and (shown.master or shown.hides):
            moves.append(Move(shown.name, "clear", "master"))
    return moves


def lasting(table: RouteTable, known: Known) -> list[Move]:
    """Returns what moves the reads. Maintenance and drain are the operator's and never touched.

    The primary's own bit for reads goes first, because ``Master`` hides it and it acts all the same; then newcomers
    among the readers get theirs, and who is none any more loses it. A server that gets no reads keeps ``running``:
    that it lives is nobody's word here.
    """
    readers = {reader.name for reader in table.readers if reader.name != table.primary}
    moves = []
    primary = known.by_name.get(table.primary) if table.primary else None
    if primary is not None:
        moves.append(Move(primary.name, "clear", "slave"))
    for name, shown in known.by_name.items():
        if name in readers:
            if not shown.running:
                moves.append(Move(shown.name, "set", "running"))
            if not shown.slave or shown.hides:
                moves.append(Move(shown.name, "set", "slave"))
    for name, shown in known.by_name.items():
        if name not in readers and name != table.primary and (shown.slave or shown.master or shown.hides):
            moves.append(Move(shown.name, "clear", "slave"))
    return moves


def unmet(table: RouteTable, known: Known, *, reads: bool = True) -> list[str]:
    """Returns, in words, where ``known`` is not what ``table`` wants; nothing where it cannot be seen."""
    found = []
    wanted = (table.primary,) if table.primary else ()
    if known.masters != wanted:
        shown = known.by_name.get(table.primary) if table.primary else None
        why = f" ({shown.name} is {shown.text})" if shown is not None and shown.name else ""
        found.append(f"writes go to {_names(known.masters)}, not to {_names(wanted)}{why}")
    if reads and table.primary:
        aside = set(known.aside)
        readers = {r.name for r in table.readers} & known.by_name.keys() - aside
        if set(known.readers) - aside != (readers or {table.primary} - aside):
            found.append(f"reads go to {_names(known.readers)}, not to {_names(sorted(readers))}")
    return found


def _names(names: Sequence[str]) -> str:
    return " and ".join(names) or "nobody"
