"""The clock by which a lease is judged."""

from __future__ import annotations

import time


def now() -> float:
    """Seconds on a clock that nobody sets, that all processes of this host share, and that runs while it sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
