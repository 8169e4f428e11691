"""How a host learns that the shared folder has changed: by events where they are delivered, else by looking again.

A network file system delivers events for what this host does, not for what others do: there a canary written here
would lie, so the type of the file system is asked first.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from proxyroute.atomic import put
from proxyroute.faults import act

_LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "ramfs", "zfs", "f2fs", "jfs", "overlay"})
_CANARY_SECONDS = 1.0


class Watch(FileSystemEventHandler):
    """Wakes whoever waits when the folder changes, if this host is told."""

    def __init__(self) -> None:
        self._changed = threading.Event()
        self._canary = ".canary"
        self._sung = threading.Event()
        self._observer: BaseObserver | None = None
        self.how = "looks again: not begun"
        """In words, for people."""

    @property
    def delivers(self) -> bool:
        """Whether changes are told by events."""
        return self._observer is not None

    def begin(self, folder: Path, host: str, kind: str) -> None:
        """Finds out how ``folder``, on a file system of ``kind``, is to be watched.

        Only a local one is touched: those do not hang. Raises OSError when it cannot be read or written.
        """
        self.end()
        if kind not in _LOCAL:
            self.how = f"looks again: {kind} does not tell what other hosts do"
            return
        observer = Observer()
        try:
            for each in (folder, folder / "asks", folder / "acks"):
                observer.schedule(self, str(each))
            observer.start()
        except OSError as error:
            self.how = f"looks again: events cannot be had ({error.strerror})"
            return
        self._canary, heard = f".canary-{host}", False
        self._sung.clear()
        try:
            with act("share.canary"):
                put(folder / "acks" / self._canary, b"")
            heard = self._sung.wait(_CANARY_SECONDS)
        finally:
            with contextlib.suppress(OSError), act("share.canary"):
                (folder / "acks" / self._canary).unlink()
            if not heard:
                observer.stop()
                observer.join()
        if heard:
            self._observer, self.how = observer, f"events of {kind}"
        else:
            self.how = f"looks again: {kind} delivered no event for a file written here"

    def wait(self, seconds: float) -> bool:
        """Returns when something has changed, at the latest after ``seconds``; tells whether it has."""
        changed = self._changed.wait(seconds)
        self._changed.clear()
        return changed

    def wake(self) -> None:
        """Ends a wait."""
        self._changed.set()

    def end(self) -> None:
        """Watches no longer."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join()

    def on_any_event(self, event: FileSystemEvent) -> None:
        path = Path(os.fsdecode(event.dest_path or event.src_path))
        name = path.name
        if name == self._canary:
            self._sung.set()
        elif path.parent.name == "acks":
            return  # receipts, ours among them
        elif event.event_type in ("moved", "created") and name.endswith(".json") and not name.startswith("."):
            self._changed.set()
