"""A small disk of its own, to be filled up."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.wait import until

SIZE = 256 * 1024
PAGE = 4096


class Disk:
    """A mounted disk, by default of ``SIZE`` bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, leave: int = 0) -> None:
        """Leaves so many bytes free, in whole pages."""
        with self._filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * PAGE)
        if leave:
            os.truncate(self._filler, max(0, self._filler.stat().st_size - leave))

    def read_only(self, so: bool = True) -> None:
        """From now on nothing can be written, as when a kernel has found an error; or with ``so=False`` it can."""
        mode = "ro" if so else "rw"
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.folder)], check=True, capture_output=True)

    def free(self) -> None:
        """Makes all of it free again, but for what others have written."""
        self._filler.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, size: int = SIZE) -> Iterator[Disk]:
    """Mounts a disk of ``size`` bytes at ``folder`` for a ``with`` block.

    Raises PermissionError where that may not be done.
    """
    argv = ["mount", "-t", "tmpfs", "-o", f"size={size}", "proxyroute-test", str(folder)]
    if os.getuid() != 0 or subprocess.run(argv, capture_output=True).returncode:
        raise PermissionError("a small disk can only be had as root: it is a tmpfs of its own")
    try:
        yield Disk(folder)
    finally:
        until(lambda: not subprocess.run(["umount", str(folder)], capture_output=True).returncode, "the disk to go")
