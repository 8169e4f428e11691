"""The API of a running daemon, for the command line: asked with a token, answered with the errors of the local engine.

The token comes from ``$PROXYROUTE_TOKEN`` or a file, never from an argument: those can be read by everybody on a host.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from proxyroute.errors import (
    Aborted,
    Busy,
    ConfigError,
    JournalError,
    LeaseLost,
    ProxyRouteError,
    Refused,
    SplitBrain,
    Superseded,
    TimedOut,
    Unfinished,
)
from proxyroute.model import Finding, Severity
from proxyroute.trust import authorities

TOKEN_VARIABLE = "PROXYROUTE_TOKEN"
_CONNECT, _ANSWER = 5.0, 60.0
_KINDS: tuple[type[ProxyRouteError], ...] = (
    Refused, Busy, Aborted, Unfinished, Superseded, SplitBrain, LeaseLost, ConfigError, JournalError,
)  # fmt: skip
_BY_STATUS: dict[int, type[ProxyRouteError]] = {401: ConfigError, 403: ConfigError, 404: ConfigError, 422: ConfigError}


class NoAnswer(TimedOut):
    """The daemon could not be asked, or did not answer: what became of a command is not known."""


class Remote:
    """A running daemon at ``url``."""

    def __init__(self, url: str, token_file: Path | None = None, ca: Path | None = None) -> None:
        """Raises ConfigError when there is no token, or it would be sent in the clear."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--url: {url} is not a URL; write e.g. https://engine.example:8480")
        if parts.username or parts.password or parts.query:
            raise ConfigError(f"--url: only an address goes there, no secret; the token goes to ${TOKEN_VARIABLE}")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ConfigError(f"--url: the token would go to {parts.hostname} in the clear; use https")
        if ca is not None and not ca.is_file():
            raise ConfigError(f"--ca: {ca} is not a file; it must hold the certificate that signed the daemon's")
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a .netrc, or a proxy, is not meant for this
        self._session.auth = _Bearer(_token(token_file))
        self._session.verify = authorities(ca)

    def get(self, path: str, **parameters: Any) -> Any:
        """Returns what is at ``path``. Raises what the local engine would, and NoAnswer."""
        return self._ask("GET", path, params=parameters)

    def post(self, path: str, body: Mapping[str, Any], key: str, **parameters: Any) -> Any:
        """Asks for something to be done; the same ``key`` asks for it once, however often it is sent."""
        return self._ask("POST", path, json=dict(body), headers={"Idempotency-Key": key}, params=parameters)

    def cluster(self, name: str | None) -> str:
        """Returns the cluster that is meant: ``name``, or the only one. Raises ConfigError."""
        names = [told["cluster"] for told in self.get("/v1/clusters")]
        if name is None and len(names) == 1:
            return str(names[0])
        if name is None or name not in names:
            what = f"has no cluster {name!r}" if name else "has several clusters"
            raise ConfigError(f"{self.url} {what}; add --cluster NAME with one of: {', '.join(names)}")
        return name

    def close(self) -> None:
        self._session.close()

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        try:
            answer = self._session.request(
                method, self.url + path, timeout=(_CONNECT, _ANSWER), allow_redirects=False, **more
            )
        except requests.exceptions.SSLError as error:
            cure = "name the certificate that signed the daemon's: --ca FILE"
            raise ConfigError(f"{self.url} cannot be trusted: {error}; {cure}") from None
        except requests.RequestException as error:
            raise NoAnswer(f"{self.url} does not answer: {error}; does proxyroute serve run there?") from None
        if answer.ok and not answer.is_redirect:
            return _json(answer)
        raise _error(answer)


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def finding_of(told: Mapping[str, Any]) -> Finding:
    """Returns a finding from its JSON values."""
    return Finding(
        told["code"], Severity(told["severity"]), told["subject"], told["text"], told["cure"],
        forceable=bool(told.get("forceable")),
    )  # fmt: skip


def error_of(exit_code: int, text: str, findings: tuple[Finding, ...] = ()) -> ProxyRouteError:
    """Returns the error that the local engine would have raised."""
    kind = next((k for k in _KINDS if k.exit_code == exit_code), None)
    if kind is Refused or (kind is not None and issubclass(kind, Refused)):
        return kind(text, findings)
    return kind(text) if kind is not None else ProxyRouteError(text)


def _error(answer: requests.Response) -> ProxyRouteError:
    told = _json(answer)
    if not isinstance(told, Mapping) or "detail" not in told:
        return ProxyRouteError(f"{answer.url} answered {answer.status_code}; is that a proxyroute serve?")
    text = "; ".join(part for part in (str(told["detail"]), str(told.get("next", ""))) if part)
    findings = tuple(finding_of(f) for f in told.get("findings", ()))
    if told.get("exit_code") is not None:
        return error_of(int(told["exit_code"]), text, findings)
    if answer.status_code == 409:
        return Refused(text, findings)
    return _BY_STATUS.get(answer.status_code, ProxyRouteError)(text)


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _token(file: Path | None) -> str:
    if file is None:
        text = os.environ.get(TOKEN_VARIABLE, "")
        where = f"${TOKEN_VARIABLE}"
    else:
        where = f"--token-file {file}"
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where} cannot be read: {error}") from None
    if not text.strip():
        cure = "make one where proxyroute serve runs: proxyroute token create NAME --scope operate"
        raise ConfigError(f"{where} holds no token; {cure}")
    return text.strip()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
