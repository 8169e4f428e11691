"""What kind of disk a folder is on, and where that is mounted."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from proxyroute.errors import ShareError

_TABLE = "/proc/self/mountinfo"
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def file_system(folder: Path) -> str:
    """Returns the type of the file system that ``folder`` is on. Raises OSError when that cannot be told."""
    best, kind = -1, "unknown"
    real = os.path.realpath(folder, strict=True)
    with open(_TABLE, "rb") as mounts:
        for line in mounts:
            fields = line.rstrip().split(b" ")
            point = _place(fields[4])
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= best:  # of two mounts in one place the later one is seen
                best, kind = len(point), os.fsdecode(fields[fields.index(b"-") + 1])
    return kind


def mount_point(folder: Path) -> str:
    """Returns where the file system that ``folder`` is on is mounted. Raises OSError when there is no such folder.

    Asks the kernel alone, never the disk: one that hangs does not keep it.
    """
    number = _mount_id(folder)
    known, point = _last[0]
    if number != known:
        with open(_TABLE, "rb") as mounts:
            fields = next((f for f in (line.split(b" ") for line in mounts) if f[0] == number.encode()), None)
        point = _place(fields[4]) if fields else ""
        _last[0] = (number, point)
    return point


@contextlib.contextmanager
def on_mount(folder: Path, wanted: str) -> Iterator[str]:
    """For a ``with`` block, which reads: all of it came from the file system that is mounted at ``wanted``.

    Gives that place; where it is not told, whatever it is. Raises ShareError when the folder is on another one, before
    the block or after it: what lies under a mount that is absent is nobody's word.
    """
    point = _on(folder, wanted)
    yield point
    _on(folder, point)


_last = [("", "")]
"""Number and place of the mount that was found last: it is looked up only when the number is another one."""


def _place(field: bytes) -> str:
    """Returns the path that a field of the kernel's table means: blanks and backslashes are told in octal there."""
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field))


def _on(folder: Path, wanted: str) -> str:
    found = mount_point(folder)
    if wanted and found != wanted:
        raise ShareError(f"{folder} is not mounted: it lies on {found or '?'}, and its disk belongs on {wanted}")
    return found


def _mount_id(folder: Path) -> str:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as told:
            return next((line.split()[1] for line in told if line.startswith("mnt_id:")), "")
    finally:
        os.close(descriptor)
