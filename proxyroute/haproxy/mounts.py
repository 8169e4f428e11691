"""What kind of disk a folder is on, and where that is mounted."""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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

    A folder that is bound onto itself, as systemd does for ``ReadWritePaths``, is still on the mount that it lies in.
    Asks the kernel alone, never the disk: one that hangs does not keep it.
    """
    return _places.of(_mount_id(folder))


@contextlib.contextmanager
def on_mount(folder: Path, wanted: str) -> Iterator[str]:
    """For a ``with`` block, which reads: all of it came from the file system that is mounted at ``wanted``.

    Gives that place; where it is not told, whatever it is. Raises ShareError when the folder is on another one, before
    the block or after it: what lies under a mount that is absent is nobody's word.
    """
    point = _on(folder, wanted)
    yield point
    _on(folder, point)


class _Mount(NamedTuple):
    """A line of the kernel's table."""

    number: str
    device: str
    root: str
    """What of the file system is shown, as a path in it; NFS says ``/`` of everything, and the path in ``source``."""
    point: str
    source: str

    @classmethod
    def of(cls, line: bytes) -> _Mount:
        fields = line.split(b" ")
        source = fields[fields.index(b"-") + 2]
        return cls(os.fsdecode(fields[0]), os.fsdecode(fields[2]), *map(_place, (fields[3], fields[4], source)))

    def has(self, other: _Mount) -> bool:
        """Tells whether this one shows, where ``other`` is, the same as ``other``; each does so of itself."""
        above, at = self.point.rstrip("/"), other.point.rstrip("/")
        if self.device != other.device or not f"{at}/".startswith(f"{above}/"):
            return False
        root, source = (path.rstrip("/") + at[len(above) :] for path in (self.root, self.source))
        return root == other.root.rstrip("/") or (self.root, source) == (other.root, other.source.rstrip("/"))


class _Places:
    """Where the mounts are, by number. Told anew when the kernel's table has changed: numbers are given again."""

    def __init__(self) -> None:
        self._alone = threading.Lock()
        self._changes: select.poll | None = None
        self._known: dict[str, str] = {}

    def of(self, number: str) -> str:
        """Returns where the mount with that number is; empty when there is none."""
        with self._alone:
            if self._changes is None:
                self._changes = select.poll()
                self._changes.register(os.open(_TABLE, os.O_RDONLY | os.O_CLOEXEC), select.POLLPRI)
            if self._changes.poll(0):
                self._known.clear()
            if number not in self._known:
                with open(_TABLE, "rb") as lines:
                    mounts = [_Mount.of(line.rstrip(b"\n")) for line in lines]
                found = [m for m in mounts if m.number == number]
                self._known[number] = min((m.point for m in mounts for f in found if m.has(f)), key=len, default="")
            return self._known[number]


_places = _Places()


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
