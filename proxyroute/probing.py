"""Looks at every server again and again, each in a thread of its own, and remembers what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxyroute.sight import Sightings

if TYPE_CHECKING:
    from proxyroute.ports import Server


class Prober:
    """Probes ``servers``; the objects are its own from then on, nobody else may use them."""

    def __init__(self, cluster: str, servers: Sequence[Server], period: float, patience: float) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Begins to look. Returns at once."""

    def stop(self) -> None:
        """Ends all looks and closes the connections."""

    def sightings(self) -> Sightings:
        """Returns what has been seen so far."""
        raise NotImplementedError

    def wait_change(self, seconds: float) -> bool:
        """Waits until something has changed since the last call, ``seconds`` at the most; tells whether it did."""
        raise NotImplementedError
