"""Standing orders: what people have told ProxyRoute to heed in a cluster until they say otherwise.

Which servers are in maintenance, whether ``serve`` pauses, who is to become primary first or never. They lie beside the
journals, so that every engine that shares those heeds them, and outlive every process. Each names who gave it and why.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from proxyroute.atomic import leave_to_owner, put
from proxyroute.deadline import Deadline
from proxyroute.errors import JournalError, Refused
from proxyroute.model import Finding, Severity
from proxyroute.policy import Policy

_FORMAT = 1
_KEPT = 200
"""So many changes are remembered."""
_LOCK = 2.0
_POLL = 0.02
Kind = Literal["maintenance", "paused", "ranks"]
RANKS = ("prefer", "never", "neither")
"""What can be said of a server as a candidate; ``neither`` takes back what the configuration says."""


@dataclass(frozen=True)
class Order:
    """One standing order."""

    by: str
    at: float
    """Unix time."""
    why: str = ""
    until: float | None = None
    """Unix time at which it ends by itself; None: never."""
    rank: str = ""
    """For one about a candidate: one of :data:`RANKS`."""

    def holds(self, wall: float) -> bool:
        """Tells whether it still counts at the Unix time ``wall``."""
        return self.until is None or wall < self.until

    def __str__(self) -> str:
        since = time.strftime("%F %T", time.localtime(self.at))
        until = f", until {time.strftime('%F %T', time.localtime(self.until))}" if self.until is not None else ""
        return f"{self.why + ', ' if self.why else ''}{self.by}, {since}{until}"


@dataclass(frozen=True)
class Standing:
    """The orders of one cluster that hold now."""

    maintenance: Mapping[str, Order] = field(default_factory=dict)
    """By server."""
    paused: Order | None = None
    ranks: Mapping[str, Order] = field(default_factory=dict)
    """By server."""
    unreadable: str = ""
    """Why nobody knows what they are; then nothing is done by itself."""
    withheld: str = ""
    """Why nothing is done by itself although nobody has ordered that here: a cluster manager is in maintenance."""

    @property
    def idle(self) -> str:
        """Why ``serve`` does nothing by itself; empty: it does."""
        if self.unreadable:
            return f"the standing orders cannot be read: {self.unreadable}"
        return f"paused ({self.paused})" if self.paused is not None else self.withheld

    def policy(self, policy: Policy, rebuilt: Collection[str] = ()) -> Policy:
        """Returns ``policy`` with these orders in it; the servers ``rebuilt`` are left alone as well."""
        said = {name: order.rank for name, order in self.ranks.items()}
        first = sorted((n for n, rank in said.items() if rank == "prefer"), key=lambda n: -self.ranks[n].at)
        return replace(
            policy,
            prefer=(*first, *(n for n in policy.prefer if n not in said)),
            never=(*(n for n in policy.never if n not in said), *(n for n, rank in said.items() if rank == "never")),
            aside=(*self.maintenance, *(n for n in rebuilt if n not in self.maintenance)),
            rebuilt=tuple(rebuilt),
        )

    def findings(self, cluster: str) -> tuple[Finding, ...]:
        """Returns what keeps ``serve`` from acting by itself."""
        if self.unreadable:
            text = f"the standing orders cannot be read, so nothing is done by itself: {self.unreadable}"
            return (Finding("failover.orders", Severity.ERROR, cluster, text, "proxyroute orders --reset", True),)
        if self.paused is not None:
            text = f"ProxyRoute pauses: {self.paused}"
            return (Finding("failover.paused", Severity.ERROR, cluster, text, "proxyroute resume"),)
        if self.withheld:
            cure = "end the maintenance there: docs/guide/pacemaker.md"
            return (Finding("failover.withheld", Severity.ERROR, cluster, self.withheld, cure),)
        return ()

    def lines(self) -> tuple[str, ...]:
        """Returns one line for each order, for people."""
        found = [f"paused: {self.paused}"] if self.paused is not None else []
        found += [f"{name} is in maintenance: {order}" for name, order in self.maintenance.items()]
        said = {"prefer": "is preferred", "never": "never becomes primary", "neither": "is a candidate like others"}
        found += [f"{name} {said[order.rank]}: {order}" for name, order in self.ranks.items()]
        return (*found, *([self.idle] if self.unreadable else []), *([self.withheld] if self.withheld else []))


FINDINGS = ("failover.paused", "failover.orders", "failover.withheld")
"""Codes of everything that comes from here."""


class Book:
    """Where the standing orders of a cluster are kept. Any thread and any process may use it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Standing:
        """Returns the orders that hold now. Raises nothing: see :attr:`Standing.unreadable`."""
        try:
            values = self._values()
            return _standing(values, time.time())
        except JournalError as error:
            return Standing(unreadable=str(error))

    def changes(self) -> tuple[Mapping[str, Any], ...]:
        """Returns the last changes, oldest first: ``at``, ``by``, ``why``, ``what``. Raises JournalError."""
        return tuple(self._values()["changes"])

    def give(self, kind: Kind, server: str, order: Order | None, *, by: str, why: str, what: str) -> None:
        """Gives an order, or with None ends it; ``what`` says so in words, see :meth:`changes`.

        ``server`` is empty for ``paused``. Raises JournalError, Refused.
        """
        with self._writing() as values:
            kept = values["orders"].setdefault(kind, {})
            kept.pop(server, None)
            if order is not None:
                kept[server] = asdict(order)
            values["changes"].append({"at": time.time(), "by": by, "why": why, "what": what})

    def reset(self) -> Path | None:
        """Begins anew, with what was there kept beside it; returns where. Raises JournalError."""
        if not self._file.exists():
            return None
        aside = self._file.with_name(f"{self._file.name}.{time.time():.0f}")
        try:
            self._file.rename(aside)
        except OSError as error:
            raise JournalError(f"{self._file}: {error.strerror}") from error
        return aside

    # -- helpers --

    def _values(self) -> dict[str, Any]:
        try:
            text = self._text()
        except FileNotFoundError:
            return {"format": _FORMAT, "orders": {}, "changes": []}
        except (OSError, ValueError) as error:
            raise JournalError(f"{self._file}: {error}") from error
        try:
            values = json.loads(text)
            if values["format"] != _FORMAT:
                raise JournalError(f"{self._file}: its format is {values['format']!r}, that of another version")
            _standing(values, 0.0)  # what is understood once is understood always
            list(values["changes"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JournalError(f"{self._file}: is damaged ({type(error).__name__}: {error})") from error
        else:
            return dict(values)

    def _text(self) -> str:
        try:
            return self._file.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise
        except OSError:  # it was replaced on a network disk while we had it open (ESTALE): the new one is there
            return self._file.read_text(encoding="utf-8")

    @contextmanager
    def _writing(self) -> Iterator[dict[str, Any]]:
        """Yields what is kept, to be changed; what has ended is dropped. One process of a host at a time."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._file.with_suffix(".lock").open("w") as lock:
                leave_to_owner(lock.fileno(), self._file)
                _lock(lock.fileno(), Deadline.after(_LOCK))
                values = self._values()
                yield values
                wall = time.time()
                for kept in values["orders"].values():
                    for name in [n for n, o in kept.items() if not Order(**o).holds(wall)]:
                        del kept[name]
                values["changes"] = values["changes"][-_KEPT:]
                put(self._file, json.dumps(values, indent=1).encode())
        except OSError as error:
            raise JournalError(f"{self._file}: {error.strerror}; state_dir must be writable") from error


def _lock(handle: int, deadline: Deadline) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if deadline.passed:
                raise Refused("somebody else is changing the standing orders; try again") from None
            time.sleep(_POLL)
        else:
            return


def _standing(values: Mapping[str, Any], wall: float) -> Standing:
    kept = {kind: {name: Order(**order) for name, order in found.items()} for kind, found in values["orders"].items()}
    now = {kind: {n: o for n, o in found.items() if o.holds(wall)} for kind, found in kept.items()}
    if any(order.rank not in RANKS for order in kept.get("ranks", {}).values()):
        raise ValueError("a rank is not known")
    if not all(isinstance(order.at, int | float) for found in kept.values() for order in found.values()):
        raise ValueError("a time is no number")
    return Standing(now.get("maintenance", {}), now.get("paused", {}).get(""), now.get("ranks", {}))
