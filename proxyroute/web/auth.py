"""Who asks, and whether he may: tokens for programs, sessions for pages. Used as dependencies of routes.

A route says ``principal: Annotated[Principal, Depends(require(Scope.READ))]``. A program sends its token as
``Authorization: Bearer …``. A page has a session: a cookie that scripts cannot read, made by :meth:`Auth.login` from a
token, ended by :meth:`Auth.logout`, by time, and with its token. What changes something needs besides the cookie the
session's CSRF token (header ``X-CSRF-Token``, or field ``csrf`` of a form) and an Origin that is ours.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import parse_qs, urlsplit

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from proxyroute.config_web import WebConfig
from proxyroute.errors import JournalError
from proxyroute.web.audit import Actor
from proxyroute.web.limits import Rate
from proxyroute.web.problems import Problem, too_many
from proxyroute.web.sessions import Sessions
from proxyroute.web.tokens import Scope, Token, Tokens

COOKIE = "proxyroute_session"
_log = logging.getLogger("proxyroute.web")
_SAFE = ("GET", "HEAD", "OPTIONS")
_FAILURES = 10
"""So many tokens that are none may come from an address at once, and then a minute."""
_LOGINS = 10
"""So many sessions may be begun with a token at once, and then a minute: each is put in the audit, on a disk."""
_FAILURES_ON_RECORD = 60
"""So many of all addresses are put in the audit: it is on a disk, and anybody can send nonsense."""


@dataclass(frozen=True)
class Principal:
    """Whoever asks."""

    name: str
    scope: Scope
    address: str
    how: str
    """``token`` or ``session``."""
    csrf: str = ""
    """Of a session: what its forms must send as ``csrf``."""

    @property
    def actor(self) -> Actor:
        return Actor(self.name, self.address, str(self.scope), self.how)

    def may(self, scope: Scope) -> bool:
        return self.scope >= scope


class Auth:
    """All tokens and sessions. ``app.state.auth`` of the application."""

    def __init__(self, settings: WebConfig, tokens: Tokens) -> None:
        self.settings = settings
        self.tokens = tokens
        self._sessions = Sessions(tokens.file.with_name("sessions.json"))
        self._logins = Rate(_LOGINS, _LOGINS)
        self._failures = Rate(_FAILURES, _FAILURES)
        self._all_failures = Rate(_FAILURES_ON_RECORD, _FAILURES_ON_RECORD)

    def login(self, request: Request, response: Response, text: str) -> Principal:
        """Makes a session from a token and sets its cookie. It is in the audit, or in the log if that has no room.

        Raises Problem: 401 when it is none of ours, 429 when that comes too often from this address, or logins do with
        this token.
        """
        check_origin(request, self.settings)
        token = self.tokens.find(text.strip())
        if token is None:
            self.failed(request, "login.failed")
            raise Problem(
                401, "that is not a valid token", cure="make one: proxyroute token create NAME --scope operate"
            )
        if wait := self._logins.take(token.name):
            raise too_many(f"too many logins with the token of {token.name}", wait)
        try:
            self._audit(request, token.name, "login", str(token.scope))
        except JournalError as error:  # whoever sees nothing cannot free the disk; what he asks for is refused anyhow
            _log.warning("%s from %s logged in, and it is not in the audit: %s", token.name, address_of(request), error)
        key, session = self._sessions.begin(token.id, self.settings.session)
        response.set_cookie(
            cookie_of(request), key, max_age=int(self.settings.session), path="/", httponly=True, samesite="strict",
            secure=self._secure(request),
        )  # fmt: skip
        return _principal(token, request, "session", session.csrf)

    def logout(self, request: Request, response: Response) -> None:
        """Ends the session of the request and takes its cookie away."""
        principal = self.principal(request)
        if principal is not None and principal.how == "session":
            with contextlib.suppress(JournalError):  # a full disk must not keep anybody logged in
                self._audit(request, principal.name, "logout", str(principal.scope))
        name = cookie_of(request)
        self._sessions.end(request.cookies.get(name, ""))
        response.delete_cookie(name, path="/", httponly=True, samesite="strict", secure=self._secure(request))

    def principal(self, request: Request) -> Principal | None:
        """Returns who asks; None when nobody says so, or what he says does not hold."""
        header = request.headers.get("authorization", "")
        if header:
            kind, _, text = header.partition(" ")
            token = self.tokens.find(text.strip()) if kind.lower() == "bearer" else None
            return _principal(token, request, "token") if token is not None else None
        session = self._sessions.find(request.cookies.get(cookie_of(request), ""))
        if session is None:
            return None
        token = self.tokens.by_id(session.token)
        return _principal(token, request, "session", session.csrf) if token is not None else None

    def failed(self, request: Request, what: str) -> None:
        """Counts a token that is none of ours, and has it in the audit. Raises Problem (429) when there are too many.

        A valid one always gets in: nobody can lock out others by failing in their place.
        """
        address = address_of(request)
        if wait := self._failures.take(_network(address)):
            raise too_many("too many tokens that are none", wait)
        if not self._all_failures.take(""):
            with contextlib.suppress(JournalError):
                self._audit(request, "", what, "")

    def _audit(self, request: Request, name: str, what: str, scope: str) -> None:
        hub = request.app.state.hub
        hub.audit.write(Actor(name, address_of(request), scope, "session"), what)

    def _secure(self, request: Request) -> bool:
        return self.settings.plain or request.url.scheme == "https"


def _principal(token: Token, request: Request, how: str, csrf: str = "") -> Principal:
    return Principal(token.name, token.scope, address_of(request), how, csrf)


def cookie_of(request: Request) -> str:
    """Returns the name of the session's cookie, with the port in it where the address that was asked for has one.

    A browser has one cookie of a name for all ports of a host: engines reached by ``ssh -L`` would log each other out.
    """
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"{COOKIE}_{port}" if port.isdecimal() else COOKIE


def address_of(request: Request) -> str:
    """Returns from where a request comes; by the word of a trusted proxy if it came through one."""
    return request.client.host if request.client is not None else "?"


def _network(address: str) -> str:
    """Whoever has one address of IPv6 has all of its network."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


def current(request: Request) -> Principal | None:
    """Returns who asks, for pages that send people to the login page instead of refusing them."""
    auth: Auth = request.app.state.auth
    return auth.principal(request)


def require(scope: Scope) -> Callable[[Request], Awaitable[Principal]]:
    """Returns a dependency that lets in who has ``scope``, and hands over who that is. Raises Problem: 401, 403."""

    async def dependency(request: Request) -> Principal:
        principal = await run_in_threadpool(current, request)  # the file of tokens is on a disk
        if principal is None:
            if request.headers.get("authorization"):
                await run_in_threadpool(request.app.state.auth.failed, request, "token.failed")
            raise Problem(
                401, "no valid token", cure="send 'Authorization: Bearer TOKEN'; make one: proxyroute token create NAME"
            )
        if not principal.may(scope):
            refuse_scope(principal, scope)
        if principal.how == "session" and request.method not in _SAFE:
            check_origin(request, request.app.state.auth.settings)
            await _check_csrf(request, principal)
        return principal

    dependency.scope = scope  # type: ignore[attr-defined]  # a test derives the table of routes and scopes from it
    return dependency


def refuse_scope(principal: Principal, scope: Scope) -> NoReturn:
    """Raises Problem (403): whoever asks needs another token."""
    text = f"{principal.name} has the scope {principal.scope}, and this needs {scope}"
    raise Problem(403, text, cure=f"proxyroute token create NAME --scope {scope}")


def check_origin(request: Request, settings: WebConfig) -> None:
    """Raises Problem (403) when a browser says that the request comes from another site's page."""
    origin = request.headers.get("origin")
    if origin is None:
        site = request.headers.get("sec-fetch-site", "none")
        referer = request.headers.get("referer")
        if site not in ("same-origin", "none"):
            raise Problem(403, "this was sent by a page of another site")
        if referer is None:
            return
        parts = urlsplit(referer)
        origin = f"{parts.scheme}://{parts.netloc}"
    ours = {f"{request.url.scheme}://{request.headers.get('host', '')}", *settings.origins}
    if origin not in ours:
        raise Problem(
            403, "this was sent by a page of another site", cure=f"if {origin} is ours, add it to web.origins"
        )


async def _check_csrf(request: Request, principal: Principal) -> None:
    given = request.headers.get("x-csrf-token", "")
    if not given and request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        given = parse_qs((await request.body()).decode(errors="replace")).get("csrf", [""])[0]
    if not hmac.compare_digest(given.encode(), principal.csrf.encode()):
        raise Problem(403, "the form is out of date", cure="load the page again and send it once more")
