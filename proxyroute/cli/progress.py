"""The steps of an operation, shown as they happen, without ever making the operation wait.

The engine tells its listener from the thread that does the work, part of it while writes are blocked. A terminal can
stand still for minutes (Ctrl-S, a dead ssh), so what is told only goes into a queue, and a thread of its own writes.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from types import TracebackType
from typing import Any

import click

from proxyroute.words import other_line, step_line


class Progress:
    """A listener for journal records. Use as a context manager: leaving it writes what is still to be written."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._quiet = quiet
        self._stream = sys.stdout
        self._tty = self._stream.isatty()
        self._open_line = False
        self._thread: threading.Thread | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Takes one journal record; returns at once."""
        if not self._quiet:
            self._events.put(event)

    def __enter__(self) -> Progress:
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more; the operation goes on
            while (event := self._events.get()) is not None:
                self._show(event)
            self._end_line()

    def _show(self, event: dict[str, Any]) -> None:
        kind = event.get("kind")
        if kind == "step" and self._tty:
            self._stream.write(f"  {event['name']} …")
            self._stream.flush()
            self._open_line = True
        elif kind == "stepped":
            self._end_line(erase=True)
            self._write(step_line(event), "red" if event.get("error") else None)
        elif kind in ("commit", "leftover", "note"):
            text = other_line(event)
            if text:
                self._end_line()
                self._write(text, "bold" if kind == "commit" else "yellow")

    def _write(self, text: str, colour: str | None) -> None:
        if self._tty and colour:
            text = click.style(text, bold=True) if colour == "bold" else click.style(text, fg=colour)
        self._stream.write(text + "\n")
        self._stream.flush()

    def _end_line(self, *, erase: bool = False) -> None:
        if self._open_line:
            self._stream.write("\r\x1b[K" if erase else "\n")
            self._open_line = False
