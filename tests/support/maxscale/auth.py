"""Who may do what at the REST API of a double: Basic, tokens with an end, users that only read."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import time
from typing import Any

from tests.support.maxscale.answers import Answer, Request
from tests.support.maxscale.machine import Machine

_LONGEST = 8 * 3600


class Auth:
    """Judges requests. A new one, as after a restart, knows none of the tokens given before."""

    def __init__(self, machine: Machine, *, readwrite_hosts: bool = True) -> None:
        self._m = machine
        self._key = secrets.token_bytes(32)
        self._readwrite_hosts = readwrite_hosts

    def refusal(self, request: Request) -> Answer | None:
        """Returns what a request that is not allowed is answered, None for one that is."""
        if not self._m.parameters["admin_auth"]:
            return None
        changes = request.method not in ("GET", "HEAD", "OPTIONS")
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        quiet = request.headers.get("X-Requested-With") == "XMLHttpRequest"
        if scheme == "Bearer":
            claims = self._claims(credentials)
            if claims is None:
                return _denied(quiet=True)
            if changes and claims["account"] != "admin":
                return Answer(403, {"errors": [{"detail": "Administrative access required"}]})
            return None
        kind = self._account(scheme, credentials)
        if kind is None or (changes and (kind != "admin" or not self._readwrite_hosts)):
            return _denied(quiet=quiet)
        return None

    def login(self, request: Request) -> Answer:
        """``GET /v1/auth``: a token for a password."""
        if self._m.parameters["admin_secure_gui"] and not request.encrypted:
            return Answer(401, {"errors": [{"detail": "Connection is not encrypted"}]})
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        kind = self._account(scheme, credentials)
        if kind is None:
            return _denied(quiet=True)
        age = request.options.get("max-age", "")
        user = base64.b64decode(credentials).decode().partition(":")[0]
        token = self._token(user, kind, int(age) if age.isdigit() else _LONGEST)
        if request.options.get("persist") == "yes":
            return Answer(204, headers={"Set-Cookie": f"token_sig={token}; Path=/; SameSite=Strict; HttpOnly"})
        return Answer(200, {"meta": {"token": token}}, {"Content-Type": "application/json"})

    def _account(self, scheme: str, credentials: str) -> str | None:
        with contextlib.suppress(ValueError):
            user, _, password = base64.b64decode(credentials).decode().partition(":")
            if scheme == "Basic" and user in self._m.users and self._m.users[user][0] == password:
                return self._m.users[user][1]
        return None

    def _token(self, user: str, kind: str, seconds: int) -> str:
        now = int(time.time())
        claims = {"account": kind, "aud": user, "exp": now + seconds, "iat": now, "iss": "maxscale", "sub": user}
        text = ".".join(_coded(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims))
        return f"{text}.{self._signature(text)}"

    def _signature(self, text: str) -> str:
        return _coded(hmac.digest(self._key, text.encode(), hashlib.sha256))

    def _claims(self, token: str) -> dict[str, Any] | None:
        text, _, signature = token.rpartition(".")
        if not text or not hmac.compare_digest(signature, self._signature(text)):
            return None
        middle = text.partition(".")[2]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return claims if claims["exp"] > time.time() else None


def _coded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _denied(*, quiet: bool) -> Answer:
    answer = Answer(401, {"errors": [{"detail": "Access denied"}]})
    if not quiet:
        answer.headers["WWW-Authenticate"] = 'Basic realm="maxscale"'
    return answer
