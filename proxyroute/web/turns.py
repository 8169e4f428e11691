"""Plans are made some at a time, for API and pages together: each has connections of its own to every server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from proxyroute.web.problems import too_many

AT_ONCE = 4
_making = threading.BoundedSemaphore(AT_ONCE)


@contextmanager
def turn() -> Iterator[None]:
    """Takes one of the turns for a ``with`` block. Raises Problem (429) when none is free."""
    if not _making.acquire(blocking=False):
        raise too_many(f"{AT_ONCE} plans are being made already", 2.0)
    try:
        yield
    finally:
        _making.release()
