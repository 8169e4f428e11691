"""Talks to etcd by its JSON gateway: several members in turn, time-outs that hold, a token that is renewed.

``requests`` bounds each read, not the whole exchange, and name resolution not at all. So each exchange runs in a thread
that is left behind when its time is over.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import requests

from proxyroute.errors import ConfigError, TimedOut
from proxyroute.lease.etcd_kv import encode
from proxyroute.model import Deadline

FOLDER = "/proxyroute/"
"""Everything of ours lies below it."""
_TOKEN_IS_DEAD = re.compile(r"invalid auth token|auth store is old|invalid auth revision", re.IGNORECASE)
_UNAVAILABLE = (4, 14)
"""gRPC codes: deadline exceeded, unavailable. Another member may know better."""


class NoAnswer(TimedOut):
    """No member answered. Whether what was asked has happened is unknown."""


class _Silent(Exception):
    """One member did not answer, or could not."""


class _DeadToken(_Silent):
    """The token is not, or no longer, valid."""


class EtcdClient:
    """One etcd, by the addresses of its members. May be used by several threads."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        attempt: float,
        verify: str | bool = True,
        cert: tuple[str, str] | None = None,
        user: str = "",
        password: str = "",
    ) -> None:
        """``attempt`` is how many seconds one member gets. ``verify`` is a CA file, or whether to verify at all."""
        self.endpoints = tuple(endpoint.rstrip("/") for endpoint in endpoints)
        self.attempt = attempt
        self._verify = verify
        self._cert = cert
        self._user = user
        self._password = password
        self._token = ""
        self._first = 0
        self._idle: dict[str, list[requests.Session]] = {endpoint: [] for endpoint in self.endpoints}
        self._lock = threading.Lock()

    def call(self, path: str, body: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Returns the answer of the first member that gives one; the one that answered last is asked first.

        Raises NoAnswer when none does (the request may have been executed), ConfigError when we are not let in.
        """
        said: list[str] = []
        first = self._first
        for number in range(len(self.endpoints)):
            place = (first + number) % len(self.endpoints)
            endpoint = self.endpoints[place]
            if deadline.passed and said:
                break
            try:
                answer = self.ask(endpoint, path, body, deadline)
            except _Silent as error:
                said.append(f"{endpoint}: {error}")
                continue
            self._first = place
            return answer
        raise NoAnswer(f"etcd does not answer ({'; '.join(said)})")

    def member_trouble(self, endpoint: str, deadline: Deadline) -> str:
        """Returns why a member does not answer as it should, or nothing. Raises ConfigError."""
        try:
            self.ask(endpoint, "/v3/kv/range", {"key": encode(FOLDER)}, deadline)
        except _Silent as error:
            return str(error)
        return ""

    def ask(self, endpoint: str, path: str, body: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Asks one member. Raises _Silent, and ConfigError."""
        until = deadline.within(self.attempt)
        for last in (False, True):
            if self._user and not self._token:
                login = {"name": self._user, "password": self._password}
                self._token = str(self._post(endpoint, "/v3/auth/authenticate", login, "", until).get("token", ""))
            try:
                return self._post(endpoint, path, body, self._token, until)
            except _DeadToken as error:
                self._token = ""
                if last or not self._user:
                    raise _Silent(str(error)) from error
        raise AssertionError("unreachable")

    def _post(
        self, endpoint: str, path: str, body: Mapping[str, Any], token: str, deadline: Deadline
    ) -> dict[str, Any]:
        status, content = self._exchange(endpoint, path, body, token, deadline)
        try:
            answer = json.loads(content)
        except ValueError:
            if b"CommonName" in content:
                raise ConfigError(
                    f"{endpoint}: with accounts etcd takes no client certificate that has a common name at its JSON "
                    "gateway; make one for lease.cert without a CN in its subject"
                ) from None
            raise _Silent(f"answered {status}, and not as etcd does; is that the address of its clients?") from None
        if not isinstance(answer, dict):
            raise _Silent(f"answered {status}, and not as etcd does")
        if status == 200:
            return answer
        text = str(answer.get("message") or answer.get("error") or status)
        if _TOKEN_IS_DEAD.search(text):
            raise _DeadToken(text)
        if answer.get("code") in _UNAVAILABLE or status >= 500:
            raise _Silent(text)
        if "user name is empty" in text:
            raise ConfigError(f"{endpoint}: etcd wants a user; set lease.user and lease.password")
        if "authentication failed" in text or "permission denied" in text:
            raise ConfigError(
                f"{endpoint}: {text}; the user must exist and may read and write there: "
                f"etcdctl role grant-permission --prefix=true ROLE readwrite {FOLDER}"
            )
        raise _Silent(text)

    def _exchange(
        self, endpoint: str, path: str, body: Mapping[str, Any], token: str, deadline: Deadline
    ) -> tuple[int, bytes]:
        session = self._borrow(endpoint)
        done: list[tuple[int, bytes] | Exception] = []

        def run() -> None:
            try:
                answer = session.post(
                    endpoint + path,
                    data=json.dumps(body),
                    headers={"Authorization": token} if token else {},
                    timeout=max(deadline.left, 0.05),
                )
                done.append((answer.status_code, answer.content))
            except (requests.RequestException, OSError, ValueError) as error:
                done.append(error)

        thread = threading.Thread(target=run, name=f"etcd {endpoint}", daemon=True)
        thread.start()
        thread.join(deadline.left)
        if not done:
            raise _Silent("no answer in time")
        found = done[0]
        if isinstance(found, Exception):
            session.close()
            raise _Silent(_in_short(found)) from found
        with self._lock:
            self._idle[endpoint].append(session)
        return found

    def _borrow(self, endpoint: str) -> requests.Session:
        with self._lock:
            if self._idle[endpoint]:
                return self._idle[endpoint].pop()
        session = requests.Session()
        session.trust_env = False  # neither a web proxy nor ~/.netrc has a say in who holds the lease
        session.verify = self._verify
        session.cert = self._cert
        return session


def _in_short(error: Exception) -> str:
    """Returns what matters of the long text in which requests wraps an error."""
    if isinstance(error, requests.exceptions.SSLError):
        found = re.search(r"\((\d, )?'?(\[SSL[^)']*)", str(error))
        return f"TLS: {found[2].strip() if found else error}"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    return found[1].strip() if found else f"{type(error).__name__}: {error}"
