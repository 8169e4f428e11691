"""Some minutes of what moves all the time, for the small curves of a page: how far replicas are behind, how much is
written. Bounded; a sample every other second.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from proxyroute.gtid import MariaDBPosition, Position
from proxyroute.model import Status, View
from proxyroute.web.shown import lag_of

EVERY = 2.0
"""Seconds between two samples."""
KEPT = 150
"""So many of each are kept: five minutes."""


@dataclass(frozen=True)
class Curve:
    """Samples of one thing, the oldest first; None where it was not to be known."""

    values: tuple[float | None, ...]
    every: float = EVERY

    @property
    def last(self) -> float | None:
        return self.values[-1] if self.values else None

    @property
    def top(self) -> float:
        return max((v for v in self.values if v is not None), default=0.0)


class Samples:
    """The curves of one cluster. For one thread at a time."""

    def __init__(self) -> None:
        self._next = 0.0
        self._lags: dict[str, deque[float | None]] = {}
        self._writes: deque[float | None] = deque(maxlen=KEPT)
        self._before: tuple[float, int] | None = None

    def take(self, view: View, at: float) -> None:
        """Takes a sample of ``view``, seen at ``at`` (Unix time), if it is time for one."""
        if at < self._next:
            return
        self._next = at + EVERY
        for name in [n for n in self._lags if n not in view.servers]:
            del self._lags[name]
        for name in view.servers:
            self._lags.setdefault(name, deque(maxlen=KEPT)).append(_lag(view.status(name)))
        self._writes.append(self._rate(view, at))

    def lag(self, server: str) -> Curve:
        """Returns how many seconds ``server`` was behind."""
        return Curve(tuple(self._lags.get(server, ())))

    def writes(self) -> Curve:
        """Returns how many transactions a second the primary has written."""
        return Curve(tuple(self._writes))

    def _rate(self, view: View, at: float) -> float | None:
        primary = view.primary
        count = transactions(primary.executed) if primary is not None else None
        before, self._before = self._before, (at, count) if count is not None else None
        if count is None or before is None or at <= before[0] or count < before[1]:
            return None
        return (count - before[1]) / (at - before[0])


def _lag(server: Status | None) -> float | None:
    return lag_of(server) if server is not None else None


def transactions(position: Position) -> int | None:
    """Returns a number that grows by one with each transaction; None when a position has no such number."""
    if not isinstance(position, MariaDBPosition):
        return None
    highest: dict[int, int] = {}
    for gtid in position.entries:
        highest[gtid.domain] = max(gtid.sequence, highest.get(gtid.domain, 0))
    return sum(highest.values())
