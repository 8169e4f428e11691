"""Tokens: who may do what over HTTP. The file holds hashes only; a token is shown once, when it is made."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from proxyroute.atomic import leave_to_owner, put
from proxyroute.errors import ConfigError, Refused

_FORMAT = 1
_PREFIX = "pr"
_PATIENCE = 5.0
_POLL = 0.02


class Scope(IntEnum):
    """What one may do; each includes those before it."""

    READ = 1
    """See everything but secrets, ask for plans."""
    OPERATE = 2
    """Ask for operations."""
    ADMIN = 3
    """What cannot be taken back by an operation: declare a server lost, read the audit, reload."""

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Reads what ``str()`` writes. Raises ValueError."""
        try:
            return cls[text.upper()]
        except KeyError:
            raise ValueError(f"there is no scope {text!r}; use one of: {', '.join(map(str, cls))}") from None


@dataclass(frozen=True)
class Token:
    """A token as the file knows it."""

    id: str
    name: str
    scope: Scope
    hash: str
    created: float
    expires: float | None = None

    @property
    def expired(self) -> bool:
        return self.expires is not None and time.time() >= self.expires


class Tokens:
    """The file of tokens. What another process changes in it counts from the next question on."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._known: dict[str, Token] = {}

    def create(self, name: str, scope: Scope, seconds: float | None = None) -> tuple[str, Token]:
        """Returns a new token, which nobody can show again, and what is kept of it. Raises Refused, ConfigError."""
        id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        expires = time.time() + seconds if seconds is not None else None
        token = Token(id, name, scope, _hash(secret), time.time(), expires)

        def add(tokens: list[Token]) -> list[Token]:
            if any(t.name == name for t in tokens):
                raise Refused(f"there is a token {name!r} already; revoke it first: proxyroute token revoke {name}")
            return [*tokens, token]

        self._alter(add)
        return f"{_PREFIX}_{id}_{secret}", token

    def revoke(self, name: str) -> None:
        """Ends the token with this name, or id. Raises Refused when there is none."""

        def remove(tokens: list[Token]) -> list[Token]:
            left = [t for t in tokens if name not in (t.name, t.id)]
            if len(left) == len(tokens):
                raise Refused(f"there is no token {name!r}; 'proxyroute token list' shows them")
            return left

        self._alter(remove)

    def all(self) -> tuple[Token, ...]:
        """Returns every token, oldest first. Raises ConfigError when the file cannot be read."""
        with self._lock:
            return tuple(self._load().values())

    def find(self, text: str) -> Token | None:
        """Returns the token that ``text`` is; None when it is none, or has expired. Raises ConfigError."""
        prefix, _, rest = text.partition("_")
        id, _, secret = rest.partition("_")
        with self._lock:
            token = self._load().get(id)
        same = hmac.compare_digest(_hash(secret), token.hash if token is not None else _hash(""))
        return token if same and prefix == _PREFIX and token is not None and not token.expired else None

    def by_id(self, id: str) -> Token | None:
        """Returns the token with this id, unless it was revoked or has expired. Raises ConfigError."""
        with self._lock:
            token = self._load().get(id)
        return token if token is not None and not token.expired else None

    def _load(self) -> dict[str, Token]:
        try:
            with self.file.open("rb") as file:
                stat = os.fstat(file.fileno())
                stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
                if stamp != self._stamp:
                    self._known, self._stamp = {t.id: t for t in _read(file.read(), self.file)}, stamp
        except FileNotFoundError:
            self._known, self._stamp = {}, None
        except OSError as error:
            raise ConfigError(f"{self.file}: {error.strerror}; it must be readable for proxyroute") from None
        return self._known

    def _alter(self, edit: Callable[[list[Token]], list[Token]]) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{self.file}: {error.strerror}; its folder must be writable") from None
        try:
            leave_to_owner(lock, self.file)
            _take(lock, self.file)
            with self._lock:
                tokens = edit(list(self._load().values()))
                rows = [{**vars(t), "scope": str(t.scope)} for t in tokens]
                put(self.file, json.dumps({"format": _FORMAT, "tokens": rows}, indent=1).encode() + b"\n")
                self._stamp = None
        except OSError as error:
            raise ConfigError(f"{self.file}: {error.strerror}; it must be writable") from None
        finally:
            os.close(lock)


def _take(lock: int, file: Path) -> None:
    """Waits a moment for whoever changes the file just now. Raises Refused when he does not end."""
    ends = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends:
                raise Refused(f"another process is changing {file} and does not end; try again") from None
            time.sleep(_POLL)


def _hash(secret: str) -> str:
    """A token is as long as a key, so that one round is enough: nobody can try them out."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _read(content: bytes, file: Path) -> list[Token]:
    try:
        found = json.loads(content)
        if found["format"] != _FORMAT:
            raise ConfigError(
                f"{file} was written by another version of ProxyRoute; "
                "remove it and make new tokens: proxyroute token create"
            )
        return [Token(**{**row, "scope": Scope.parse(row["scope"])}) for row in found["tokens"]]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{file} is damaged; remove it and make new tokens: proxyroute token create") from None
