"""The REST API of one MaxScale: requests with deadlines, errors with words, and a token that is renewed.

Its habits, by recordings of three versions: a module command or a change that waits for the monitor holds up everybody;
errors stand in ``errors`` or in ``meta.errors``; ``If-Match`` on a change answers 412 *and* makes it, so it is never
sent; a request without a body ends its connection, so changes carry an empty object and keep theirs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import requests
from requests.auth import HTTPBasicAuth

from proxyroute.errors import AdapterError, TimedOut
from proxyroute.faults import act
from proxyroute.maxscale.settings import Settings
from proxyroute.model import Deadline
from proxyroute.trust import authorities

_CONNECT = 2.0


class Unconnected(AdapterError):
    """No connection: nothing was sent. ``kind`` says what stands in the way: ``certificate``, ``plain`` or ``down``."""

    def __init__(self, proxy: str, kind: str, text: str) -> None:
        super().__init__(proxy, text)
        self.kind = kind


class Answered(AdapterError):
    """MaxScale has refused. ``status`` is HTTP's; ``details`` are its own words."""

    def __init__(self, proxy: str, status: int, details: Sequence[str], what: str) -> None:
        told = "; ".join(details) or f"HTTP {status}"
        super().__init__(proxy, f"{what}: {told}" if told != what else told)
        self.status = status
        self.details = tuple(details)

    @property
    def out_of_sync(self) -> bool:
        """Whether it has yet to take over what another MaxScale has changed. Not recorded, so matched loosely."""
        told = str(self).lower()
        return "out of sync" in told or "configuration conflict" in told


class Rest:
    """One MaxScale. Used by one thread at a time; :meth:`another` makes one for another thread."""

    def __init__(self, proxy: str, settings: Settings) -> None:
        self._proxy = proxy
        self._settings = settings
        self._session: requests.Session | None = None
        self._token = ""
        self._lock = threading.Lock()

    def another(self) -> Rest:
        """Returns a client with connections of its own."""
        return Rest(self._proxy, self._settings)

    def get(self, path: str, deadline: Deadline, **query: str) -> Any:
        """Returns the document at ``path``.

        Raises Answered, Unconnected, AdapterError when there was no answer in time, and ConfigError when the password
        cannot be read.
        """
        params = {key.replace("__", "[", 1) + "]" if "__" in key else key: value for key, value in query.items()}
        try:
            answer = self._exchange("GET", path, deadline, params=params)
        except TimedOut as error:
            raise AdapterError(self._proxy, f"did not answer in time: {error}") from None
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise AdapterError(self._proxy, f"GET {path} was not answered with JSON; is that a MaxScale?") from None

    def data(self, path: str, deadline: Deadline, **query: str) -> Any:
        """Returns what ``get`` returns below ``data``."""
        document = self.get(path, deadline, **query)
        if not isinstance(document, Mapping) or "data" not in document:
            raise AdapterError(self._proxy, f"GET {path} was not answered with a document; is that a MaxScale?")
        return document["data"]

    def set_state(self, server: str, verb: str, bit: str, deadline: Deadline) -> None:
        """Sets or clears one bit. Raises Answered, Unconnected, and TimedOut when it is unknown whether it was done."""
        with act("maxscale.state"):
            self._exchange("PUT", f"servers/{server}/{verb}", deadline, params={"state": bit}, body={})

    def stop_monitor(self, name: str, deadline: Deadline) -> None:
        """Stops a monitor: the states stay as they are. Raises as ``set_state`` does."""
        with act("maxscale.monitor"):
            self._exchange("PUT", f"monitors/{name}/stop", deadline, body={})

    def create(self, kind: str, name: str, parameters: Mapping[str, Any], deadline: Deadline) -> None:
        """Makes an object; one of that name that is there already is fine. Raises as ``set_state`` does."""
        body = {"data": {"id": name, "type": kind, "attributes": {"parameters": dict(parameters)}}}
        with act("maxscale.object"):
            try:
                self._exchange("POST", kind, deadline, body=body)
            except Answered as error:
                if "already exists" not in str(error):
                    raise

    def delete(self, kind: str, name: str, deadline: Deadline) -> None:
        """Removes an object; one that is gone is fine. Raises as ``set_state`` does."""
        with act("maxscale.object"):
            try:
                self._exchange("DELETE", f"{kind}/{name}", deadline)
            except Answered as error:
                if error.status != 404:
                    raise

    def may_change(self, server: str, deadline: Deadline) -> None:
        """Raises Answered (401 or 403) when our account may not change anything.

        The request names no state, so that MaxScale must refuse it: who may change things is told so by a 400.
        """
        try:
            self._exchange("PUT", f"servers/{server}/set", deadline, body={})
        except Answered as error:
            if error.status != 400:
                raise

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    # -- one exchange --

    def _exchange(
        self, method: str, path: str, deadline: Deadline, params: Mapping[str, str] | None = None, body: Any = None
    ) -> requests.Response:
        """Sends one request, once more with a new token when ours has died; returns an answer below 300."""
        with self._lock:
            if self._settings.auth == "basic":
                answer = self._send(method, path, deadline, params, body, basic=True)
            else:
                known = bool(self._token)
                if not known:
                    self._login(deadline)
                answer = self._send(method, path, deadline, params, body)
                if answer.status_code == 401 and known:  # it was refused, so nothing was done
                    self._login(deadline)
                    answer = self._send(method, path, deadline, params, body)
        if answer.status_code >= 300:
            raise Answered(self._proxy, answer.status_code, list(_details(answer)), f"{method} {path}")
        return answer

    def _login(self, deadline: Deadline) -> None:
        answer = self._send("GET", "auth", deadline, {"max-age": "28800"}, None, basic=True)
        if answer.status_code != 200:
            self._token = ""
            raise Answered(self._proxy, answer.status_code, list(_details(answer)), "a token was refused")
        self._token = str(answer.json()["meta"]["token"])

    def _send(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        params: Mapping[str, str] | None,
        body: Any,
        *,
        basic: bool = False,
    ) -> requests.Response:
        left = deadline.require(f"{method} {path}")
        auth, headers = None, {"Authorization": f"Bearer {self._token}"}
        if basic:  # as bytes: a str would go as Latin-1, and MaxScale keeps UTF-8
            auth = HTTPBasicAuth(self._settings.user.encode(), self._settings.password.reveal().encode())
            headers = {}
        seconds = min(left, self._settings.patience)
        with self._told(f"{method} {path}"):
            return self._opened().request(
                method,
                f"{self._settings.base}/{path}",
                params=dict(params or {}),
                json=body,
                headers=headers,
                auth=auth,
                timeout=(min(seconds, _CONNECT), seconds),
                allow_redirects=False,
            )

    def _opened(self) -> requests.Session:
        if self._session is None:
            self._session = requests.Session()
            self._session.trust_env = False  # no proxy and no .netrc of the environment comes in between
            s = self._settings
            self._session.verify = authorities(s.ca) if s.verify else False
            if not s.verify:
                requests.packages.urllib3.disable_warnings()  # type: ignore[attr-defined]
        return self._session

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Tells the errors of requests apart: not connected, or sent and not answered."""
        try:
            yield
        except requests.exceptions.SSLError as error:
            kind = "plain" if "WRONG_VERSION_NUMBER" in str(error) or "record layer" in str(error) else "certificate"
            raise Unconnected(self._proxy, kind, f"no TLS with {self._settings.address}: {_short(error)}") from None
        except requests.exceptions.ConnectTimeout:
            raise Unconnected(self._proxy, "down", f"{self._settings.address} does not answer") from None
        except requests.exceptions.Timeout:
            raise TimedOut(f"{what} was sent to {self._proxy} and not answered in time") from None
        except requests.exceptions.ConnectionError as error:
            text = str(error)
            if "RemoteDisconnected" in text or "Connection aborted" in text or "Connection reset" in text:
                raise TimedOut(f"{what} was sent to {self._proxy}, which hung up without an answer") from None
            short = f"no connection to {self._settings.address}: {_short(error)}"
            raise Unconnected(self._proxy, "down", short) from None
        except (requests.exceptions.RequestException, OSError) as error:
            raise AdapterError(self._proxy, f"{what}: {error}") from None


def _details(answer: requests.Response) -> Iterator[str]:
    """Yields what MaxScale says is wrong: at the top, or in ``meta``."""
    try:
        document = answer.json()
    except ValueError:
        return
    if not isinstance(document, Mapping):
        return
    seen = set()
    for place in (document, document.get("meta")):
        errors = place.get("errors") if isinstance(place, Mapping) else None
        for error in errors if isinstance(errors, list) else ():
            text = str(error.get("detail", ""))
            if text and text not in seen:
                seen.add(text)
                yield text


def _short(error: Exception) -> str:
    """The last part of what urllib3 nests."""
    text = str(error)
    for mark in ("[Errno", "[SSL"):
        if mark in text:
            return text[text.rindex(mark) :].rstrip("')\"")
    return text
