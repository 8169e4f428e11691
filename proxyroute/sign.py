"""A file that is there while this process serves, and whose time is that of its last sign of life.

For whoever starts and watches it without a protocol of its own: the agent of a cluster manager. It belongs on a file
system in memory (``/run``), so that no disk can make a process that goes on look as if it did not.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from proxyroute.errors import ConfigError

_EVERY = 2.0


class Sign:
    """The file; with None there is none. Nothing here raises once it was there."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._at = float("-inf")

    def ready(self) -> None:
        """It serves. Raises ConfigError when the file cannot be written."""
        if self._file is None:
            return
        try:
            self._file.write_text(f"{os.getpid()}\n")
        except OSError as error:
            raise ConfigError(f"--ready-file {self._file}: {error.strerror}; its folder must be writable") from None
        self._at = time.monotonic()

    def alive(self) -> None:
        """A sign of life; some seconds may lie between two that are written."""
        if self._file is not None and time.monotonic() - self._at >= _EVERY:
            self._at = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self._file)

    def gone(self) -> None:
        """It does not serve any more."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.unlink()
