"""What every page has: the frame, the words and marks of templates, and errors in the same look."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import jinja2
from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from proxyroute import __version__
from proxyroute.errors import ProxyRouteError
from proxyroute.web.auth import Principal, current
from proxyroute.web.hub import Hub
from proxyroute.web.pages.facts import WORDS, grouped
from proxyroute.web.pages.spark import spark
from proxyroute.web.problems import Problem
from proxyroute.web.tokens import Scope
from proxyroute.words import roughly, seconds

HERE = Path(__file__).parent
STATIC = HERE / "static"

THEME = "proxyroute_theme"
"""The cookie that holds ``light`` or ``dark``; it is only about looks, so the switch of the page sets it."""


@functools.cache
def environment() -> jinja2.Environment:
    """Returns the templates; everything that is put in is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(seconds=seconds, clock=clock, ago=ago, segment=segment, short=short)
    made.globals.update(
        words=WORDS, grouped=grouped, static=static_url, product_version=__version__, spark=spark, Scope=Scope
    )
    return made


def clock(at: float) -> str:
    """Returns a moment (Unix time) as this host's clock shows it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def ago(at: float) -> str:
    """Returns how long ago a moment was, roughly."""
    past = time.time() - at
    return f"{roughly(past)} ago" if past >= 60 else "just now"


def short(text: str, most: int) -> str:
    """Returns ``text`` with at most ``most`` characters: names that are alike differ at their ends, so both stay."""
    if len(text) <= most:
        return text
    tail = most // 2
    return f"{text[: most - tail - 1]}…{text[-tail:]}"


def segment(text: str) -> str:
    """Returns a name as one part of an address."""
    return quote(text, safe="")


@functools.cache
def static_url(name: str) -> str:
    """Returns the address of a file of ours; it changes with the file, so browsers may keep it."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def render(template: str, **values: Any) -> str:
    """Returns a part of a page."""
    return environment().get_template(template).render(**values)


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Returns a whole page for whoever asks."""
    who: Principal | None = values.pop("principal", None)
    if who is None:
        with contextlib.suppress(ProxyRouteError):  # that tokens cannot be read is told on a page as well
            who = current(request)
    theme = request.cookies.get(THEME, "")
    text = render(
        template,
        principal=who,
        csrf=who.csrf if who is not None else "",
        may_operate=who is not None and who.may(Scope.OPERATE),
        may_admin=who is not None and who.may(Scope.ADMIN),
        theme=theme if theme in ("light", "dark") else "",
        here=request.url.path,
        **values,
    )
    return HTMLResponse(text, status)


def see(path: str) -> Response:
    """Returns the answer that sends a browser to another page."""
    return RedirectResponse(path, 303)


def hub_of(request: Request) -> Hub:
    """A dependency: the hub."""
    hub: Hub = request.app.state.hub
    return hub


# -- errors ----------------------------------------------------------------------------------------------------


def wants_page(request: Request) -> bool:
    """Tells whether a person with a browser asks, who is shown a page when something is wrong."""
    return not request.url.path.startswith("/v1/") and "text/html" in request.headers.get("accept", "")


def local(path: str) -> str:
    """Returns ``path`` if it leads to a page of ours, else the first page."""
    parts = urlsplit(path)
    fine = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return path if fine and path.isprintable() else "/"


def error_page(request: Request, problem: Problem) -> Response:
    """Returns the page for something that is wrong; who is not logged in is sent to the login page."""
    if problem.status == 401:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        known = {"next": target} if request.method == "GET" else {"ended": "1"}
        if target == "/":
            known = {}
        return see("/login" + (f"?{urlencode(known)}" if known else ""))
    cluster = str(request.path_params.get("cluster", ""))
    back = cluster if cluster in hub_of(request).names and request.url.path != f"/clusters/{segment(cluster)}" else ""
    title = _TITLES.get(problem.status, "Failed")
    answer = page(request, "error.html", problem.status, problem=problem, title=title, back=back)
    for name, value in problem.headers.items():
        answer.headers.setdefault(name, value)
    return answer


_TITLES = {
    403: "This is not allowed",
    404: "There is nothing here",
    405: "This is not a page",
    409: "Refused",
    413: "Too much at once",
    422: "Something in the request is wrong",
    421: "Under another name",
    429: "Too many requests",
    503: "Not possible now",
}
