"""One process on a host serves a cluster: whoever does holds a locked file with its process id in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path

from proxyroute.assembly import cluster_folder
from proxyroute.config_values import ClusterConfig
from proxyroute.errors import ConfigError


class Lock:
    """The lock of whoever serves a cluster on this host."""

    def __init__(self, config: ClusterConfig) -> None:
        """Takes it. Raises ConfigError when somebody has it, or ``state_dir`` cannot be used."""
        file = lock_file(config)
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror}; state_dir must be writable") from None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = os.pread(self._handle, 32, 0).decode(errors="replace").strip()
            os.close(self._handle)
            raise ConfigError(
                f"{config.name} is served already by process {held or '?'} with state_dir {config.state_dir}; "
                f"end that one first: kill {held or 'PID'}"
            ) from None
        with contextlib.suppress(OSError):  # a full disk: whose it is cannot be read then, and it is ours all the same
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Gives it back; once is enough."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def server_of(config: ClusterConfig) -> int | None:
    """Returns the pid of the process that serves ``config`` on this host, None when there is none."""
    try:
        handle = os.open(lock_file(config), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(handle, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(handle)
    return None


def lock_file(config: ClusterConfig) -> Path:
    """Returns the file that is locked by whoever serves ``config`` on this host: ``state_dir`` may be a shared disk."""
    return cluster_folder(config) / f"serve-{socket.gethostname()}.lock"
