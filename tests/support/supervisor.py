"""Starts again what has ended, a moment later, as a service manager does with ``Restart=always``."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

RESTART_SECONDS = 0.1
"""RestartSec= of systemd, when nothing is said."""


@dataclass
class Service:
    """One process: how to start it (returns its pid), and how to clear away what it leaves behind."""

    name: str
    pid: int
    start: Callable[[], int]
    clear: Callable[[], None]
    starts: list[float] = field(default_factory=list)
    """When it was there again after each end, by the monotonic clock."""


class Supervisor:
    """Watches services from a thread of its own: children that end with their parent thread end with it."""

    def __init__(self, *services: Service) -> None:
        self._services = services
        self._failure: BaseException | None = None
        self._told, self._teller = os.pipe()
        self._thread = threading.Thread(target=self._run, name="supervisor")

    @property
    def failed(self) -> bool:
        """Whether a service could not be started again; nothing is watched any more then."""
        return self._failure is not None

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Watches no longer. Raises what became of a service that could not be started again."""
        os.close(self._teller)
        self._thread.join()
        os.close(self._told)
        if self._failure is not None and error is None:
            raise self._failure

    def _run(self) -> None:
        try:
            while service := self._ended():
                service.clear()
                if self._asked_to_end(RESTART_SECONDS):
                    return
                service.pid = service.start()
                service.starts.append(time.monotonic())
        except (OSError, RuntimeError) as failure:
            self._failure = failure

    def _ended(self) -> Service | None:
        """Returns the next service that ends, None when nothing is to be watched any more."""
        with contextlib.ExitStack() as opened:
            poll, by_descriptor = select.poll(), {}
            poll.register(self._told, select.POLLIN)
            for service in self._services:
                try:
                    descriptor = os.pidfd_open(service.pid)
                except ProcessLookupError:
                    return service
                opened.callback(os.close, descriptor)
                poll.register(descriptor, select.POLLIN)
                by_descriptor[descriptor] = service
            ready = {descriptor for descriptor, _ in poll.poll()}
            return None if self._told in ready else by_descriptor[min(ready)]

    def _asked_to_end(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._told, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
