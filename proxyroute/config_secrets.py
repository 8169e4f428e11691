"""Passwords by reference: a file, an environment variable or a systemd credential, read only when needed.

A :class:`Secret` is what the configuration holds, what a snapshot repeats and what a ``repr`` shows. The
password itself exists only as the return value of :meth:`Secret.reveal`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxyroute.errors import ConfigError
from proxyroute.model import Finding, Severity

KINDS = ("file", "env", "credential")
CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"
_CREDENTIALS = "/etc/proxyroute/credentials"
"""Where the units that we ship take them from."""
_SHORTEST = 4
"""A shorter secret is not looked for in texts: it would be found in half of all words."""
_TLS = ("ca", "cert", "key")
_SALT = os.urandom(16)
_revealed: set[str] = set()
"""What was read by this process, so that it can be kept out of what is written."""
_kept: dict[Secret, str] = {}


@dataclass(frozen=True)
class Secret:
    """Where a password is. ``kind`` is one of ``KINDS``; ``source`` a path or a name."""

    kind: str
    source: str

    def __str__(self) -> str:
        return {
            "file": f"the file {self.source}",
            "env": f"the environment variable {self.source}",
            "credential": f"the systemd credential {self.source}",
        }[self.kind]

    @property
    def reference(self) -> dict[str, str]:
        """The secret as it is written in the configuration."""
        return {self.kind: self.source}

    def reveal(self) -> str:
        """Returns the password, without the line end that editors put after it.

        Raises ConfigError, naming what cannot be read and what to type, never what has been read.
        """
        if self in _kept:
            return _kept[self]
        if self.kind == "env":
            text = os.environ.get(self.source)
            if text is None:
                raise ConfigError(
                    f"{self} is not set; set it where proxyroute is started, e.g.\n"
                    f"  read -rs {self.source} && export {self.source}"
                )
        else:
            text = self._read(self._path())
        text = text.rstrip("\r\n")
        if not text:
            raise ConfigError(f"{self} is empty; it must hold the password and nothing else")
        _revealed.add(text)
        return text

    def finding(self, subject: str) -> Finding | None:
        """Returns what is wrong with this secret, as a finding about ``subject``, or None. Never raises."""
        try:
            self.reveal()
        except ConfigError as error:
            what, _, cure = str(error).partition("; ")
            return Finding("config.secret", Severity.ERROR, subject, what, cure)
        if self.kind == "file" and os.stat(self.source).st_mode & stat.S_IROTH:
            return Finding(
                "config.secret-readable",
                Severity.WARNING,
                subject,
                f"everyone on this machine can read {self}",
                f"chmod o-rwx {self.source}",
            )
        return None

    def _path(self) -> Path:
        if self.kind == "file":
            return Path(self.source)
        directory = os.environ.get(CREDENTIALS_DIRECTORY)
        if not directory:
            raise ConfigError(
                f"{self} can only be read in a unit that systemd started; ask the daemon by --url, or add to the unit\n"
                f"  LoadCredential={self.source}:{_CREDENTIALS}/{self.source}\n"
                f"or, to try by hand as one who may read it, start with {CREDENTIALS_DIRECTORY}={_CREDENTIALS}"
            )
        return Path(directory, self.source)

    def _read(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ConfigError(
                f"{self} does not exist; write the password into it:\n"
                f"  install -m 600 /dev/null {path} && $EDITOR {path}"
            ) from None
        except UnicodeDecodeError:
            raise ConfigError(f"{self} is not UTF-8 text; it must hold the password and nothing else") from None
        except OSError as error:
            raise ConfigError(
                f"{self} cannot be read: {error.strerror}; make it readable for the user who runs proxyroute"
            ) from None


def without_secrets(text: str) -> str:
    """Returns ``text`` without any secret that this process has read."""
    for secret in tuple(_revealed):
        if len(secret) >= _SHORTEST and secret in text:
            text = text.replace(secret, "***")
    return text


def keep(config: object) -> None:
    """Reads every secret that ``config`` names, and reads it no more: credentials end with the unit, a guard does not.

    What cannot be read now is tried again when it is needed. Raises nothing.
    """
    for found in _named(config):
        if isinstance(found, Secret):
            with contextlib.suppress(ConfigError):
                _kept[found] = found.reveal()


def fingerprint(config: object) -> str:
    """Returns what changes when a secret or a certificate that ``config`` names does; it tells neither.

    What cannot be read counts as it is: unreadable. Raises nothing.
    """
    digest = hashlib.sha256(_SALT)
    for part in _parts(config):
        digest.update(f"{part}\0".encode())
    return digest.hexdigest()


def _parts(config: object) -> Iterator[str]:
    for found in _named(config):
        try:
            yield found.reveal() if isinstance(found, Secret) else _age(found)
        except ConfigError as error:
            yield str(error)


def _named(value: Any) -> Iterator[Secret | Path]:
    """Yields the secrets and the files of TLS that a configuration names."""
    if isinstance(value, Secret):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            if field.name in _TLS and isinstance(inner, Path):
                yield inner
            else:
                yield from _named(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _named(inner)
    elif isinstance(value, (tuple, list)):
        for inner in value:
            yield from _named(inner)


def _age(file: Path) -> str:
    try:
        found = file.stat()
    except OSError as error:
        return str(error)
    return f"{found.st_mtime_ns} {found.st_size} {found.st_ino}"
