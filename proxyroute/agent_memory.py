"""What an agent keeps on its own disk: the route it has accepted, and what it says about itself."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxyroute.atomic import put
from proxyroute.errors import ConfigError, ShareError, Torn
from proxyroute.faults import act
from proxyroute.haproxy.release import Memory, Release

_FORMAT = 1
_LASTING = "memory.json"
_QUICK = "memory.last.json"
"""What was accepted while writes waited: nobody waited for the disk then, so it may be damaged after a power cut."""
_MOUNT = "mount.json"
_MOUNT_FORMAT = 2
"""In the one before it a folder that systemd had bound onto itself was the place of a disk: that is learned anew."""
_STATUS = "status.json"
_PRIORITY = "priority"
_LOCK = "agent.lock"
_ROOM = 512
"""Bytes of the lock file, taken when there is room: something can still be said in them when the disk is full."""
_REHEARSAL = 8192


def is_locked(folder: Path) -> bool:
    """Tells whether an agent has the state folder open."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def mute(folder: Path) -> str:
    """Returns why the agent cannot write its status in the state folder; empty when it can, or nobody knows."""
    try:
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return os.strerror(errno.EROFS)
        return (folder / _LOCK).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


class Local:
    """The agent's state folder. One agent at a time has it open."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError when the folder cannot be used, or another agent uses it."""
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(folder / _LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._is_mute = True
            self._mute("")
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigError(f"another agent runs with state_dir {folder}; end it, or give this one another") from None
        except OSError as error:
            raise ConfigError(f"state_dir {folder}: {error.strerror}; it must be writable") from None

    def recall(self) -> tuple[Memory, Release] | None:
        """Returns the route that was accepted last, None before the first.

        Raises ShareError when what is there cannot be understood: then nobody knows how far we were.
        """
        file = self._folder / _LASTING
        try:
            known = _read(file)
        except (OSError, ValueError, KeyError, TypeError, Torn) as error:
            raise ShareError(
                f"{file} cannot be understood ({error}); remove it if what is published now is right: "
                f"rm -f {file} {file.with_name(_QUICK)}"
            ) from None
        try:
            last = _read(self._folder / _QUICK)
        except (OSError, ValueError, KeyError, TypeError, ShareError):
            last = None  # a power cut has damaged it; it was to be made lasting in the next moment
        if known is None or last is None:
            return known or last
        return max(known, last, key=lambda found: (found[0].epoch, found[0].sequence))

    def remember(self, memory: Memory, release: Release, *, lasting: bool = True) -> None:
        """Keeps ``release`` as the one behind which nothing leads back. Raises ShareError when it cannot.

        Without ``lasting`` that is safe from our death, not from a power cut: it is to be said again soon.
        """
        values = {"format": _FORMAT, "sequence": memory.sequence, "release": release.values()}
        file = self._folder / (_LASTING if lasting else _QUICK)
        try:
            with act("agent.remember"):
                put(file, json.dumps(values).encode(), lasting=lasting)
        except OSError as error:
            raise ShareError(f"cannot remember the route in {self._folder}: {error.strerror}") from None

    def template(self, release: Release) -> Path | None:
        """Returns the own template of ``release`` as a file on this host, None when it has none."""
        if not release.shape.template:
            return None
        file = self._folder / f"{release.name}.cfg.j2"
        try:
            if not file.exists():
                with act("agent.remember"):
                    put(file, release.shape.template.encode())
                for other in self._folder.glob("*.cfg.j2"):
                    if other != file:
                        with act("agent.remember"):
                            other.unlink()
        except OSError as error:
            raise ShareError(f"cannot write {file}: {error.strerror}") from None
        return file

    def mount_point(self, folder: Path) -> str:
        """Returns where the disk of ``folder`` was mounted when a route was read there first; empty before that."""
        try:
            known = json.loads((self._folder / _MOUNT).read_bytes())
            ours = (known["format"], known["folder"]) == (_MOUNT_FORMAT, str(folder))
            return str(known["point"]) if ours else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def remember_mount(self, folder: Path, point: str) -> None:
        """Keeps where the disk of ``folder`` is mounted. Raises ShareError when it cannot.

        Waits for no disk, for writes may wait: what a power cut takes away is found again.
        """
        data = json.dumps({"format": _MOUNT_FORMAT, "folder": str(folder), "point": point}).encode()
        try:
            with act("agent.remember"):
                put(self._folder / _MOUNT, data, lasting=False)
        except OSError as error:
            raise ShareError(f"cannot remember in {self._folder} where the disk is: {error.strerror}") from None

    def rehearse(self) -> None:
        """Shows that a route could be remembered. Raises ShareError when it could not."""
        try:
            with act("agent.remember"):
                put(self._folder / "rehearsal", b" " * _REHEARSAL)
                (self._folder / "rehearsal").unlink()
        except OSError as error:
            raise ShareError(f"could not remember a route in {self._folder}: {error.strerror}") from None

    def was_midway(self) -> bool:
        """Whether an operation had begun, and not ended, when an agent here last said something."""
        try:
            return bool(json.loads((self._folder / _STATUS).read_bytes())["midway"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def tell(self, status: Mapping[str, Any]) -> None:
        """Writes the status file, or where that says what is not true any more, why it cannot. Raises OSError then."""
        try:
            with act("agent.status"):
                put(self._folder / _STATUS, json.dumps(status, indent=1).encode(), lasting=False)
        except OSError as error:
            self._mute(f"{error.strerror}")
            raise
        self._mute("")

    def tell_priority(self, number: int) -> None:
        """Says to keepalived what is to be added to this host's priority. Raises OSError."""
        with act("agent.priority"):
            put(self._folder / _PRIORITY, f"{number}\n".encode(), lasting=False)

    def _mute(self, why: str) -> None:
        if not why and not self._is_mute:
            return
        self._is_mute = bool(why)
        with contextlib.suppress(OSError):  # the disk is read-only: whoever reads the status sees that
            descriptor = os.open(self._folder / _LOCK, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, why.encode().ljust(_ROOM)[:_ROOM], 0)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        os.close(self._lock)


def _read(file: Path) -> tuple[Memory, Release] | None:
    """Returns what was remembered, None for no file. Raises ShareError, OSError and whatever nonsense raises."""
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    if found["format"] != _FORMAT:
        raise ShareError(f"{file} has format {found['format']}, and this program reads {_FORMAT}")
    release = Release.of(found["release"])
    return Memory.of(release, int(found["sequence"])), release
