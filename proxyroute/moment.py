"""A point in time that no setting of a clock moves: it holds for one start of one host."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Moment:
    """Seconds since a start of a host, sleep included. Only within that start can two be compared."""

    boot: str
    """The kernel's name for that start; no other start of any host has it."""
    seconds: float

    @classmethod
    def now(cls) -> Moment | None:
        """Returns this moment; None where the kernel does not name its start."""
        boot = _this_boot()
        return cls(boot, time.clock_gettime(time.CLOCK_BOOTTIME)) if boot else None

    def after(self, seconds: float) -> Moment:
        """Returns the moment so many seconds later."""
        return replace(self, seconds=self.seconds + seconds)

    def ago(self) -> float | None:
        """Returns how many seconds have passed since, less than 0 when it is yet to come; None when nobody can tell."""
        now = Moment.now()
        return now.seconds - self.seconds if now is not None and now.boot == self.boot else None


@cache
def _this_boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
