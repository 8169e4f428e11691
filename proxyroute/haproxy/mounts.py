"""What kind of disk a folder is on."""

from __future__ import annotations

import os
from pathlib import Path


def file_system(folder: Path) -> str:
    """Returns the type of the file system that ``folder`` is on. Raises OSError when that cannot be told."""
    best, kind = -1, "unknown"
    real = os.path.realpath(folder, strict=True)
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for line in mounts:
            fields = line.split()
            point = fields[4].encode().decode("unicode_escape")
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= best:  # of two mounts in one place the later one is seen
                best, kind = len(point), fields[fields.index("-") + 1]
    return kind
