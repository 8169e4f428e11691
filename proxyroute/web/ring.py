"""The last events, numbered, for those who listen: whoever was cut off goes on where he was."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_KEPT = 5000


@dataclass(frozen=True)
class Event:
    """Something that has happened."""

    id: str
    """Grows within one run of the daemon: ``RUN-NUMBER``."""
    type: str
    """``cluster`` (its line of truth, or what blocks, has changed), ``command`` (a command has begun, or ended),
    ``record`` (an operation has written a record), or ``notice``."""
    cluster: str
    data: Mapping[str, Any]
    """JSON values."""
    at: float
    """Unix time."""


class Ring:
    """A bounded number of events. Any thread may publish and read."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._run = secrets.token_hex(4)
        self._number = 0
        self._events: deque[tuple[int, Event]] = deque(maxlen=kept)
        self._lock = threading.Lock()
        self._wakers: dict[int, Callable[[], None]] = {}
        self._next_waker = 0

    def publish(self, type: str, cluster: str, data: Mapping[str, Any]) -> Event:
        """Keeps an event and wakes everybody who listens."""
        with self._lock:
            self._number += 1
            event = Event(f"{self._run}-{self._number}", type, cluster, data, time.time())
            self._events.append((self._number, event))
            wakers = list(self._wakers.values())
        for wake in wakers:
            wake()
        return event

    @property
    def last_id(self) -> str:
        with self._lock:
            return f"{self._run}-{self._number}"

    def after(self, id: str, limit: int = 500) -> tuple[list[Event], bool]:
        """Returns the events after ``id``, ``limit`` at most, and whether none between is missing.

        When some are missing (the ring has gone on, or the daemon has been started anew) what is there is returned:
        the listener has to read the state again.
        """
        run, _, number = id.rpartition("-")
        with self._lock:
            if run != self._run or not number.isdigit() or int(number) > self._number:
                return [e for _, e in self._events][-limit:], False
            seen = int(number)
            first = self._events[0][0] if self._events else self._number + 1
            if seen == self._number:
                return [], True
            start = max(0, seen + 1 - first)
            found = [self._events[i][1] for i in range(start, min(start + limit, len(self._events)))]
            return found, seen + 1 >= first

    def wake(self, call: Callable[[], None]) -> Callable[[], None]:
        """Calls ``call``, which must return at once, after each event; returns what ends that."""
        with self._lock:
            key = self._next_waker
            self._next_waker += 1
            self._wakers[key] = call

        def end() -> None:
            with self._lock:
                self._wakers.pop(key, None)

        return end

    @property
    def listeners(self) -> int:
        with self._lock:
            return len(self._wakers)
