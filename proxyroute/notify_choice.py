"""What of all that ``serve`` tells is worth a message. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from proxyroute.notify_message import Notice

TOPICS: dict[str, frozenset[str]] = {
    "operations": frozenset({"operation", "healed", "acted"}),
    "trouble": frozenset({"state", "trouble", "refused", "blocked", "corrected", "address"}),
}
"""What a receiver can be configured to be told, and the kinds of notices that belong to it."""
TEST = "test"
"""The kind of notice that every receiver gets."""

_AGAIN = 3600.0
"""Seconds until the same is worth a message again."""


def kinds_of(topics: tuple[str, ...]) -> frozenset[str]:
    """Returns the kinds of notices that belong to ``topics``."""
    return frozenset({TEST}).union(*(TOPICS[topic] for topic in topics))


class Choice:
    """Chooses for one cluster: of its state only the turn to bad and the return, of the rest nothing twice an hour."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bad = False
        self._told: dict[tuple[str, str, str], float] = {}

    def takes(self, notice: Notice) -> bool:
        """Tells whether ``notice`` is worth a message; to be asked once for each."""
        if notice.kind == "state":
            turned = notice.level == "bad" if not self._bad else notice.level == "good"
            self._bad ^= turned
            return turned
        if not any(notice.kind in kinds for kinds in TOPICS.values()):
            return False
        now = self._clock()
        self._told = {key: at for key, at in self._told.items() if now - at < _AGAIN}
        # 'after 3.02 s' and 'after 3.04 s' are the same trouble; another operation makes it another one
        operation = (notice.details.get("report") or {}).get("operation", "")
        if notice.kind == "blocked":  # what cannot be done is tried again and again, each time as another one
            operation = ""
        key = (notice.kind, operation, re.sub(r"\d+", "#", notice.text))
        new = key not in self._told
        self._told.setdefault(key, now)
        return new
