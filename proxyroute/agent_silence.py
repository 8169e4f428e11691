"""How long ago the folder was heard, and by when writes have to be closed for it."""

from __future__ import annotations

import math
import time

from proxyroute.model import Deadline

_LAST_LOOK = 0.25
"""Seconds that a look gets whose time is over: with the pause before it all by which writes are closed late."""


class Silence:
    """The timer of ``on_silence: close_writes``, by a clock that goes on while the host sleeps.

    Nobody looks at it while something else is done, so nothing takes longer than is left.
    """

    def __init__(self, after: float) -> None:
        """``after`` is in seconds; 0 for never."""
        self._after = after
        self._began = 0.0
        self._heard = -math.inf
        """Never, so far: an agent that is started when the folder is gone closes writes at once."""
        self._in_time = False
        self._until = math.inf

    @property
    def over(self) -> bool:
        """Whether writes have to be closed."""
        return self._left <= 0.0

    def begin(self) -> None:
        """A look at the folder begins: a last short one when the time is over, and at its leisure after that."""
        self._began = _now()
        self._until = time.monotonic() + max(self._left, _LAST_LOOK) if self._in_time else math.inf
        self._in_time = not self.over

    def heard(self) -> None:
        """The folder was read. What it said was so when the look began, and perhaps not any more a moment later."""
        self._heard, self._in_time = self._began, True
        self._until = time.monotonic() + self._left

    def within(self, seconds: float) -> Deadline:
        """Returns the deadline of what may take so many seconds, unless writes have to be closed before."""
        return Deadline(min(time.monotonic() + seconds, self._until))

    @property
    def _left(self) -> float:
        return self._heard + self._after - _now() if self._after else math.inf


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
