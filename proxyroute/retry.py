"""When something that failed is tried again."""

from __future__ import annotations

import time

_FIRST_RETRY = 1.0
_LAST_RETRY = 300.0


class Retry:
    """When something that failed is tried again: soon at first, then ever more seldom."""

    def __init__(self) -> None:
        self._pause = _FIRST_RETRY
        self._at = 0.0

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._at

    def failed(self) -> None:
        self._at, self._pause = time.monotonic() + self._pause, min(2 * self._pause, _LAST_RETRY)

    def reset(self) -> None:
        self._pause, self._at = _FIRST_RETRY, 0.0
