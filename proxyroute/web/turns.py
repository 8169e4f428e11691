"""Plans are made some at a time, for API and pages together: each has connections of its own to every server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from proxyroute.web.auth import Principal
from proxyroute.web.problems import too_many
from proxyroute.web.tokens import Scope

AT_ONCE = 4
EACH = 2
"""For one token."""
_KEPT = 1
"""Of them, for those who may act on what is planned."""
_SOON = 2.0
_lock = threading.Lock()
_making: list[str] = []
"""For whom, by the name of the token."""


@contextmanager
def turn(principal: Principal) -> Iterator[None]:
    """Takes one of the turns for a ``with`` block. Raises Problem (429) when none is free for ``principal``."""
    with _lock:
        if _making.count(principal.name) >= EACH:
            raise too_many(f"{EACH} plans are being made for {principal.name} already", _SOON)
        if len(_making) >= AT_ONCE - (0 if principal.may(Scope.OPERATE) else _KEPT):
            raise too_many(f"{len(_making)} plans are being made already", _SOON)
        _making.append(principal.name)
    try:
        yield
    finally:
        with _lock:
            _making.remove(principal.name)
