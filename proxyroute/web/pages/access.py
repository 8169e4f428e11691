"""Logging in by a token, and out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request, Response

from proxyroute.web.auth import Auth, Principal, current, require
from proxyroute.web.pages.shell import local, page, see
from proxyroute.web.problems import Problem
from proxyroute.web.tokens import Scope

router = APIRouter(include_in_schema=False)

_LONGEST = 64_000
"""Bytes of the longest form that is read."""

Form = dict[str, str]


async def form_of(request: Request) -> Form:
    """A dependency: the fields of the form that was sent. Raises Problem."""
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > _LONGEST:
        raise Problem(413, "this is longer than any form of ours")
    fields = parse_qs((await request.body()).decode(errors="replace"), keep_blank_values=True)
    return {name: values[-1].strip() for name, values in fields.items()}


TheForm = Annotated[Form, Depends(form_of)]


@router.get("/login")
def login_page(request: Request, next: str = "/", ended: str = "") -> Response:
    """The form for a token."""
    if current(request) is not None:
        return see(local(next))
    expired = bool(ended) or (next != "/" and bool(request.cookies))
    return page(request, "login.html", next=local(next), problem=None, expired=expired)


@router.post("/login")
def login(request: Request, form: TheForm) -> Response:
    """Makes a session from a token."""
    auth: Auth = request.app.state.auth
    target = local(form.get("next", "/"))
    answer = see(target)
    try:
        auth.login(request, answer, form.get("token", ""))
    except Problem as problem:
        shown = page(request, "login.html", problem.status, next=target, problem=problem, expired=False)
        shown.headers.update(problem.headers)
        return shown
    return answer


@router.post("/logout")
def logout(request: Request, _: Annotated[Principal, Depends(require(Scope.READ))]) -> Response:
    """Ends the session."""
    auth: Auth = request.app.state.auth
    answer = see("/login")
    auth.logout(request, answer)
    return answer
