"""How often something may be done: so many at once, and then so many a minute. Bounded memory; any thread may ask."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST = 4096


class Rate:
    """One limit for each key, e.g. an address."""

    def __init__(
        self, burst: int, per_minute: float, most: int = _MOST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``burst`` may be used at once; what was used comes back at ``per_minute``. The ``most`` latest are known."""
        self._burst = float(burst)
        self._per_second = per_minute / 60.0
        self._most = most
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """Uses one. Returns 0, or after how many seconds there will be one; then none is used."""
        with self._lock:
            left, now = self._of(key)
            if left >= 1.0:
                self._keep(key, left - 1.0, now)
                return 0.0
            return (1.0 - left) / self._per_second

    def _of(self, key: str) -> tuple[float, float]:
        now = self._clock()
        left, at = self._left.get(key, (self._burst, now))
        return min(self._burst, left + (now - at) * self._per_second), now

    def _keep(self, key: str, left: float, now: float) -> None:
        self._left[key] = (left, now)
        self._left.move_to_end(key)
        while len(self._left) > self._most:
            self._left.popitem(last=False)

    def __len__(self) -> int:
        with self._lock:
            return len(self._left)
