"""A file replaced whole: a reader sees the old content or the new one, and what was written outlives a power cut."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path


def put(file: Path, data: bytes, *, lasting: bool = True, last: Callable[[], object] | None = None) -> None:
    """Makes ``data`` the content of ``file``. Raises OSError; then the old content is untouched.

    Without ``lasting`` it does not wait for the disk: our death cannot undo it, a power cut can, or leave it damaged.
    ``last`` is called when only the rename is missing; what it raises prevents that. The file stays whose it was, see
    :func:`leave_to_owner`.
    """
    staged = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}.new")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            leave_to_owner(descriptor, file)
            stream.write(data)
            stream.flush()
            if lasting:
                os.fsync(stream.fileno())
        if last is not None:
            last()
        os.replace(staged, file)
    except BaseException:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise
    if lasting:
        sync_folder(file.parent)


def leave_to_owner(descriptor: int, file: Path) -> None:
    """Gives what root has opened to the owner of ``file``, or of its folder while there is none. Raises OSError.

    A person types as root what a service of another user must read and change afterwards.
    """
    if os.geteuid() != 0:
        return
    try:
        owner = file.stat()
    except FileNotFoundError:
        owner = file.parent.stat()
    with contextlib.suppress(PermissionError):  # on a network disk root may be nobody
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def sync_folder(folder: Path) -> None:
    """Makes what was renamed, made or removed in ``folder`` lasting. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
