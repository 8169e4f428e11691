"""Errors as problem+json (RFC 9457): what is wrong, where, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from proxyroute.errors import Busy, ConfigError, JournalError, ProxyRouteError, Refused
from proxyroute.jsonable import jsonable
from proxyroute.model import Finding

_TITLES = {
    400: "Bad request",
    401: "Not logged in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Refused",
    413: "Too large",
    421: "Wrong host",
    422: "Bad request",
    429: "Too many requests",
    500: "Failed",
    503: "Not possible now",
}


class Problem(Exception):
    """Ends a request with an error that says what is wrong, where and what to do next."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        where: str = "",
        cure: str = "",
        findings: Sequence[Finding] = (),
        headers: Mapping[str, str] | None = None,
        exit_code: int | None = None,
    ) -> None:
        """``exit_code`` is with which the command line would have ended on the engine's host."""
        super().__init__(detail)
        self.exit_code = exit_code
        self.status = status
        self.detail = detail
        self.where = where
        self.cure = cure
        self.findings = tuple(findings)
        self.headers = dict(headers or {})
        if status == 401:
            self.headers.setdefault("WWW-Authenticate", "Bearer")

    def body(self, instance: str = "") -> dict[str, Any]:
        """Returns the problem as JSON values."""
        told: dict[str, Any] = {
            "type": "about:blank",
            "title": _TITLES.get(self.status, "Failed"),
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
        }
        if self.where:
            told["where"] = self.where
        if self.cure:
            told["next"] = self.cure
        if self.exit_code is not None:
            told["exit_code"] = self.exit_code
        if self.findings:
            told["findings"] = jsonable(self.findings)
        return told

    def response(self, request: Request) -> JSONResponse:
        return JSONResponse(
            self.body(request.url.path), self.status, self.headers, media_type="application/problem+json"
        )


def too_many(detail: str, wait: float) -> Problem:
    """Returns the problem of who asks too often, and may come again after ``wait`` seconds."""
    seconds = max(1, math.ceil(wait))
    return Problem(429, detail, cure=f"ask again in {seconds} s", headers={"Retry-After": str(seconds)})


def problem_of(error: ProxyRouteError) -> Problem:
    """Returns what an error of ours is over HTTP: its last words are what to do next."""
    what, _, cure = str(error).partition("; ")
    findings = error.findings if isinstance(error, Refused) else ()
    status = 409 if isinstance(error, Refused | Busy) else 503 if isinstance(error, JournalError | ConfigError) else 500
    return Problem(status, what, cure=cure, findings=findings, exit_code=error.exit_code)
