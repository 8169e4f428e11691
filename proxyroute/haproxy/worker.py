"""Access to a disk that may hang for ever: always from another thread, never longer than a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from proxyroute.errors import ShareError, TimedOut
from proxyroute.model import Deadline

T = TypeVar("T")

_MOST_STUCK = 8


class Worker:
    """Runs accesses to one disk. One that does not return is left behind; when many are, no more are begun."""

    def __init__(self, what: str) -> None:
        """``what`` names the disk in errors."""
        self._what = what
        self._stuck: set[threading.Thread] = set()

    @property
    def stuck(self) -> int:
        """How many accesses have been given up and have still not returned."""
        self._stuck = {thread for thread in self._stuck if thread.is_alive()}
        return len(self._stuck)

    def call(self, access: Callable[[], T], deadline: Deadline) -> T:
        """Returns what ``access`` returns, or raises what it raises; an OSError as ShareError.

        Raises TimedOut when it has not come back by ``deadline``: then what it was to change is unknown.
        """
        deadline.require(self._what)
        if self.stuck >= _MOST_STUCK:
            raise TimedOut(f"{self._what} hangs: {self.stuck} accesses have not returned")
        result: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                result.append(access())
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                failure.append(error)

        thread = threading.Thread(target=run, name=f"disk {self._what}", daemon=True)
        thread.start()
        thread.join(deadline.left)
        if thread.is_alive():
            self._stuck.add(thread)
            raise TimedOut(f"{self._what} has not answered in time")
        if failure:
            if isinstance(failure[0], OSError):
                error = failure[0]
                raise ShareError(f"{error.filename or self._what}: {error.strerror or error}") from error
            raise failure[0]
        return result[0]
