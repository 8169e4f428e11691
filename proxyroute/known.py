"""What was known of a cluster when it was last in order: who was primary, by which epoch, and who its members were.

It is kept on this host's disk, so that an engine that starts after everything has gone wrong knows what it was like.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from proxyroute.atomic import put
from proxyroute.errors import JournalError
from proxyroute.model import NO_EPOCH, Epoch, Peer, View

_FORMAT = 1


@dataclass(frozen=True)
class Known:
    """The last order that was seen, or made."""

    primary: str
    epoch: Epoch = NO_EPOCH
    """Under which its route was published last, as far as we know."""
    server_ids: Mapping[str, int] = field(default_factory=dict)
    """By server; the replicas' word for a dead primary is its server id."""
    replicas: tuple[str, ...] = ()
    """Who followed it, directly or not."""
    at: float = 0.0
    """Unix time at which it was seen."""

    def peer(self, view: View, name: str) -> Peer:
        """Returns how others refer to ``name``, by what is known where it cannot be read now."""
        peer = view.peer(name)
        return peer if peer.server_id is not None else Peer(name, peer.address, self.server_ids.get(name))


def of(view: View, epoch: Epoch) -> Known | None:
    """Returns what ``view`` tells when it shows a cluster in order: one primary. None otherwise."""
    primary = view.primary
    if primary is None:
        return None
    replicas = tuple(s.name for s in view.seen if s.sources)
    return Known(primary.name, epoch, {s.name: s.server_id for s in view.seen}, replicas, time.time())


def recall(file: Path) -> Known | None:
    """Returns what ``file`` keeps; None when there is nothing, or nothing that can be understood.

    It is a memory, not a record: whoever uses it looks at the world as well.
    """
    try:
        found = json.loads(file.read_bytes())
        if found["format"] != _FORMAT:
            return None
        return Known(
            str(found["primary"]),
            Epoch.parse(found["epoch"]),
            {str(k): int(v) for k, v in found["server_ids"].items()},
            tuple(found["replicas"]),
            float(found["at"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remember(file: Path, known: Known) -> None:
    """Keeps ``known`` in ``file``. Raises JournalError when that cannot be written."""
    values = {
        "format": _FORMAT,
        "primary": known.primary,
        "epoch": str(known.epoch),
        "server_ids": dict(known.server_ids),
        "replicas": list(known.replicas),
        "at": known.at,
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        put(file, json.dumps(values, indent=1).encode())
    except OSError as error:
        raise JournalError(f"{file}: {error.strerror}; state_dir must be writable") from error
