"""Who was made primary last, and under which epoch that was published: kept on this host's disk.

It is what an engine means, as opposed to what it sees: a primary that somebody else has made is not routed to unasked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from proxyroute.atomic import put
from proxyroute.errors import JournalError
from proxyroute.model import NO_EPOCH, Epoch

_FORMAT = 1


@dataclass(frozen=True)
class Intent:
    """The primary that was meant last."""

    primary: str
    epoch: Epoch = NO_EPOCH
    """Under which its route was published last, as far as we know."""
    at: float = 0.0
    """Unix time at which it was made, or seen in order."""


def recall(file: Path) -> Intent | None:
    """Returns what ``file`` keeps; None when there is nothing, or nothing that can be understood.

    It is a memory, not a record: whoever uses it looks at the world as well.
    """
    try:
        found = json.loads(file.read_bytes())
        if found["format"] != _FORMAT:
            return None
        return Intent(str(found["primary"]), Epoch.parse(found["epoch"]), float(found["at"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remember(file: Path, intent: Intent) -> None:
    """Keeps ``intent`` in ``file``. Raises JournalError when that cannot be written."""
    values = {"format": _FORMAT, "primary": intent.primary, "epoch": str(intent.epoch), "at": intent.at}
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        put(file, json.dumps(values, indent=1).encode())
    except OSError as error:
        raise JournalError(f"{file}: {error.strerror}; state_dir must be writable") from error
