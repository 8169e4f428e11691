"""Files on this host, replaced whole: a reader sees the old text or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from proxyroute.atomic import sync_folder
from proxyroute.errors import AdapterError
from proxyroute.faults import act

_MODE = 0o644


def read(file: Path) -> str | None:
    """Returns the text of ``file``, None when there is none. Raises OSError when it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def replace(proxy: str, file: Path, text: str) -> bool:
    """Makes ``text`` the content of ``file``, lastingly; returns False when it was so already.

    Raises AdapterError when the file cannot be written; then the old one is untouched.
    """
    try:
        if read(file) == text:
            return False
        with act("haproxy.write_file"):
            staged = _staged(file, text)
            os.replace(staged, file)
            sync_folder(file.parent)
    except OSError as error:
        raise AdapterError(proxy, f"cannot write {file}: {error.strerror or error}") from None
    return True


def rehearse(proxy: str, file: Path, text: str) -> None:
    """Shows that ``text`` could be written in the place of ``file``: writes it beside it and takes it away.

    Raises AdapterError when it could not.
    """
    try:
        with act("haproxy.write_file"):
            _staged(file, text).unlink()
    except OSError as error:
        raise AdapterError(proxy, f"cannot write {file}: {error.strerror or error}") from None


def remove_leftovers(file: Path) -> None:
    """Removes what processes that were killed have left beside ``file``."""
    for left in file.parent.glob(f".{file.name}.*"):
        pid = left.name.split(".")[-2]
        if left.suffix in (".new", ".trial") and pid.isdigit() and not Path("/proc", pid).exists():
            with act("haproxy.write_file"):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)


def _staged(file: Path, text: str) -> Path:
    """Writes ``text`` beside ``file``, as it should be when it gets that name, and syncs it."""
    remove_leftovers(file)
    staged = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        owner = file.stat()
    except FileNotFoundError:
        owner = None
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            if owner is not None:
                os.fchmod(stream.fileno(), owner.st_mode & 0o7777)
                with contextlib.suppress(PermissionError):
                    os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(stream.fileno())
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return staged
