"""How long something may take, and what may end it earlier.

A *chore* is work that can be taken up again at any time: its end is near when it is cut short anywhere. While one runs
(:func:`giving_way`), every deadline that it makes ends as well as soon as something more urgent has come up. As every
wait takes a deadline, that reaches every wait, also those in the threads of ``operation.each``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from proxyroute.errors import GaveWay, TimedOut

Urgent = Callable[[], str]
"""Returns in words what is more urgent now, an empty string when nothing is. Asked often, by several threads."""

_SLICE = 0.1
"""Seconds for which a chore may wait for something without asking whether it is to give way."""

_urgent: ContextVar[Urgent | None] = ContextVar("urgent", default=None)


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock by which a wait must be over. Every wait takes one."""

    at: float
    urgent: Urgent | None = field(default_factory=_urgent.get, compare=False, repr=False)
    """Of a chore: what ends the wait earlier."""

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Returns the deadline that lies ``seconds`` from now; in a chore one that gives way."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def firm(cls, seconds: float) -> Deadline:
        """Returns the deadline that lies ``seconds`` from now whatever is more urgent: for what tidies up."""
        return cls(time.monotonic() + seconds, None)

    @property
    def left(self) -> float:
        """Seconds left, never below zero."""
        left = max(0.0, self.at - time.monotonic())
        return 0.0 if left and self.urgent is not None and self.urgent() else left

    @property
    def passed(self) -> bool:
        return self.left <= 0.0

    @property
    def gives_way(self) -> bool:
        """Whether something else than the clock may end it: then nobody blocks for longer than :attr:`slice`."""
        return self.urgent is not None

    @property
    def slice(self) -> float:
        """Seconds to block at a stretch: all that are left, but only a moment where something may end it earlier."""
        return min(self.left, _SLICE) if self.gives_way else self.left

    def require(self, what: str) -> float:
        """Returns the seconds left. Raises TimedOut, naming ``what`` was waited for, when there are none.

        That is GaveWay when it is not the clock that has ended it.
        """
        left = self.left
        if left <= 0.0:
            if self.at > time.monotonic() and self.urgent is not None:
                raise GaveWay(f"{self.urgent()}; no longer waited for {what}")
            raise TimedOut(f"out of time while waiting for {what}")
        return left

    def __reduce__(self) -> tuple[type[Deadline], tuple[float, None]]:
        """In another process, that of the shared folder, only the clock ends it: whoever waits for that one asks."""
        return type(self), (self.at, None)

    def within(self, seconds: float) -> Deadline:
        """Returns the earlier of this deadline and ``seconds`` from now."""
        return Deadline(min(self.at, time.monotonic() + seconds), self.urgent)


@contextmanager
def giving_way(urgent: Urgent) -> Iterator[None]:
    """For a ``with`` block: a chore, which ends early once ``urgent`` says something.

    Only for what can be taken up later: never around an undo. Raises GaveWay, with what was said, instead of whatever
    error the chore ends with after that.
    """
    token = _urgent.set(urgent)
    try:
        yield
    except GaveWay:
        raise
    except Exception as error:
        if said := urgent():
            raise GaveWay(f"{said}: {error}") from error
        raise
    finally:
        _urgent.reset(token)


def more_urgent() -> str:
    """Returns what this chore is to give way to; an empty string when there is nothing, or this is no chore."""
    urgent = _urgent.get()
    return urgent() if urgent is not None else ""


def give_way() -> None:
    """Raises GaveWay when this is a chore and something more urgent has come up."""
    if said := more_urgent():
        raise GaveWay(said)
