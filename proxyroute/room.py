"""Room on the disks of this host: asked for before something is kept there, and told apart once it has run out."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from proxyroute.errors import NoRoom, ScriptFailed

SPARE = 16 << 20
"""Bytes that stay free: the journals of operations are on that disk, and none may fail for what is kept beside them."""
_NOTHING = 1 << 16
"""With fewer bytes free, a program that has failed has failed for that."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def free(folder: Path) -> int:
    """Returns how many bytes are free where ``folder`` is, or will be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def lacks(folder: Path, size: int) -> str:
    """Returns in words that ``size`` bytes do not fit into ``folder``; nothing when they do."""
    there = free(folder)
    if there >= size + SPARE:
        return ""
    return f"{_mib(there)} MiB are free in {folder}, {_mib(size + SPARE - 1) + 1} are needed"


def require(folder: Path, size: int, what: str) -> None:
    """Raises NoRoom unless ``size`` bytes fit into ``folder`` and enough is left; ``what`` says what they are."""
    if said := lacks(folder, size):
        raise NoRoom(f"there is no room for {what}: {said}")


@contextlib.contextmanager
def told_apart(folder: Path) -> Iterator[None]:
    """Raises NoRoom for an error in the ``with`` block that is one of a full disk at ``folder``."""
    try:
        yield
    except (OSError, ScriptFailed) as error:
        full = error.errno in _FULL if isinstance(error, OSError) else free(folder) < _NOTHING
        if not full:
            raise
        raise NoRoom(f"the disk of {folder} became full: {error}; nothing was kept there") from error


def _mib(size: int) -> int:
    return size >> 20
