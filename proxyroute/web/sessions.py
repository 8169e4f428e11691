"""Sessions of pages: made from a token, ended by time, by logging out and with the token.

They outlive the daemon: whoever watches an operation while it is started anew goes on watching. The file holds a hash
of what the browser's cookie is, so it lets nobody in.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from proxyroute.atomic import put

_MOST = 1000
_EACH = 20
"""Of one token: whoever begins more ends his own, not those of others."""
_FORMAT = 1


@dataclass(frozen=True)
class Session:
    """Somebody who has logged in."""

    token: str
    """Id of the token that it was made from."""
    ends: float
    """Unix time."""
    csrf: str
    """What its forms must send; follows from what the cookie holds."""


@dataclass(frozen=True)
class _Kept:
    token: str
    ends: float


class Sessions:
    """All sessions. Any thread may ask. A file that cannot be read or written is done without: sessions end with us."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._sessions = _read(file)

    def begin(self, token: str, seconds: float) -> tuple[str, Session]:
        """Makes a session from the token with this id; returns what the cookie is to hold."""
        key = secrets.token_urlsafe(32)
        made = _Kept(token, time.time() + seconds)
        with self._lock:
            self._forget_old()
            own = [hash for hash, s in self._sessions.items() if s.token == token]
            for hash in own[: max(0, len(own) + 1 - _EACH)]:
                del self._sessions[hash]
            while len(self._sessions) >= _MOST:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[_hash(key)] = made
            self._write()
        return key, _session(key, made)

    def find(self, key: str) -> Session | None:
        """Returns the session whose cookie holds ``key``; None when there is none, or it has ended."""
        with self._lock:
            found = self._sessions.get(_hash(key))
        return _session(key, found) if found is not None and found.ends > time.time() else None

    def end(self, key: str) -> None:
        """Ends the session whose cookie holds ``key``."""
        with self._lock:
            if self._sessions.pop(_hash(key), None) is not None:
                self._write()

    def _forget_old(self) -> None:
        now = time.time()
        self._sessions = {hash: s for hash, s in self._sessions.items() if s.ends > now}

    def _write(self) -> None:
        values = {"format": _FORMAT, "sessions": {hash: asdict(s) for hash, s in self._sessions.items()}}
        with contextlib.suppress(OSError):
            put(self._file, json.dumps(values).encode(), lasting=False)


def _session(key: str, kept: _Kept) -> Session:
    csrf = hmac.new(key.encode(), b"csrf", hashlib.sha256).hexdigest()
    return Session(kept.token, kept.ends, csrf)


def _read(file: Path) -> dict[str, _Kept]:
    try:
        values = json.loads(file.read_bytes())
        return {hash: _Kept(**one) for hash, one in values["sessions"].items()} if values["format"] == _FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
