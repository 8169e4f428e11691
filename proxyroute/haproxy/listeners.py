"""Who listens on a port of this host. HAProxy shares its ports: one that was forgotten takes clients unseen."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

_LISTENING = "0A"


def strangers(port: int, ours: Collection[int]) -> tuple[int, ...]:
    """Returns the pids of other processes than ``ours`` that listen on TCP ``port``.

    Sees those of other users only as root; without it, fewer are found.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) not in ours and _holds(process / "fd", sockets):
            found.append(int(process.name))
    return tuple(sorted(found))


def _listening(port: int) -> set[str]:
    """Returns the inodes of the sockets that listen on ``port``."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes


def _holds(folder: Path, sockets: set[str]) -> bool:
    with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
        for descriptor in folder.iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(descriptor) in sockets:
                    return True
    return False
