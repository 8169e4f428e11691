"""Claimed epochs as folders: a claim is a ``mkdir``, which succeeds once."""

from __future__ import annotations

import contextlib
from pathlib import Path

from proxyroute.errors import JournalError
from proxyroute.faults import act
from proxyroute.model import NO_EPOCH, Epoch

_KEPT = 50


class Claims:
    """The epochs claimed in ``folder``, each with the operation that owns it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def claim(self, term: int, above: Epoch, operation: str) -> Epoch:
        """Returns a fresh epoch for ``operation``, of ``term`` or later, higher than ``above`` and every claimed one.

        Raises JournalError when the folder cannot be written.
        """
        highest = max(above, self.highest())
        if highest.term > term:
            # a proxy or another engine has seen a later term than our counter: go above it
            term = highest.term + 1
        epoch = Epoch(term, highest.serial + 1 if highest.term == term else 1)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            while True:
                try:
                    with act("lease.claim"):
                        (self._folder / str(epoch)).mkdir(mode=0o700)
                    break
                except FileExistsError:
                    epoch = Epoch(epoch.term, epoch.serial + 1)
            # who claimed it is known before it is used: an epoch without an owner was never published
            (self._folder / str(epoch) / "owner").write_text(operation, encoding="utf-8")
            self._forget_old()
        except OSError as error:
            raise JournalError(f"{self._folder}: {error.strerror}; state_dir must be writable") from error
        return epoch

    def highest(self, besides: str = "") -> Epoch:
        """Returns the highest epoch claimed here; with ``besides`` only those that other operations own."""
        claimed = self._claimed()
        if besides:
            claimed = [e for e in claimed if self._owner(e) not in ("", besides)]
        return max(claimed, default=NO_EPOCH)

    def _claimed(self) -> list[Epoch]:
        epochs = []
        with contextlib.suppress(FileNotFoundError):
            for entry in self._folder.iterdir():
                with contextlib.suppress(ValueError):
                    epochs.append(Epoch.parse(entry.name))
        return epochs

    def _owner(self, epoch: Epoch) -> str:
        try:
            return (self._folder / str(epoch) / "owner").read_text(encoding="utf-8")
        except OSError:
            return ""

    def _forget_old(self) -> None:
        for epoch in sorted(self._claimed())[:-_KEPT]:
            with contextlib.suppress(OSError):  # a stray file there is no reason to refuse a new claim
                (self._folder / str(epoch) / "owner").unlink(missing_ok=True)
                (self._folder / str(epoch)).rmdir()
