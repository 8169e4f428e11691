"""Whether this host may have missed how an operation ended: then another one that has not should hold the address.

A host that loses the shared folder while nothing is going on has the route that counts. One that was told to hold
newcomers, or to close its route, and hears nothing any more does not know where writes go by now.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from proxyroute.haproxy.release import Phase

BACK = 50
"""How far a host steps back: behind any that does not."""
_PATIENCE = 2.0
"""Seconds for which doubt must last where the address is: others have found the same by then, if it is so. When all
lose the folder at once it must not move."""


class Doubt:
    """``midway`` says whether the last thing that was heard has begun an operation."""

    def __init__(self, midway: bool = False) -> None:
        self.midway = midway
        self._since: float | None = None

    def told(self, phase: Phase) -> None:
        """Something was heard: a hold is the beginning of an operation, all else its end, or leads nowhere yet."""
        self.midway = phase is Phase.HOLD

    def since(self, *, silent: bool, closed: bool) -> float | None:
        """Returns since when there is doubt, by this host's monotonic clock, None for none.

        ``silent``: the folder cannot be read, or not believed. ``closed``: the route in force leads nowhere, as in the
        midst of a failover.
        """
        if not (silent and (self.midway or closed)):
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()
        return self._since

    def steps_back(self, here: Collection[bool | None]) -> int:
        """Returns what is added to this host's priority for the virtual address: 0, or less.

        ``here`` says of each address that is watched whether this host has it, None when that is not known; of
        none it may have all.
        """
        if self._since is None:
            return 0
        elsewhere = bool(here) and all(has is False for has in here)
        return -BACK if elsewhere or time.monotonic() - self._since >= _PATIENCE else 0
