"""Waiting for a condition instead of sleeping for a while and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = 20.0, pause: float = 0.01) -> T:
    """Returns the first true value of ``condition``, asked every ``pause`` seconds.

    Raises AssertionError, naming ``what`` was waited for and the last value seen, after ``seconds``.
    """
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}; last seen: {value!r}")
        time.sleep(pause)
