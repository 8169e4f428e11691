"""The description of the API for programs (OpenAPI): how to log in, which scope a route needs, errors in one form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from proxyroute.web.auth import COOKIE
from proxyroute.web.tokens import Scope

_ABOUT = """Looks at clusters and moves their primary, by the same code as the command line.

Programs send `Authorization: Bearer TOKEN`; make one with `proxyroute token create NAME --scope read|operate|admin`.
Errors are `application/problem+json`: `detail` says what is wrong, `where` which field, `next` what to do.
Times are Unix time in seconds, durations seconds."""


def describe(app: FastAPI) -> dict[str, Any]:
    """Returns the description of everything below ``/v1``; made once."""
    if app.openapi_schema is None:
        routes = [route for path, route in routes_of(app) if path.startswith("/v1/")]
        told = get_openapi(
            title=app.title, version=app.version, description=_ABOUT, routes=routes, tags=app.openapi_tags
        )
        components = told.setdefault("components", {})
        components["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "Made by `proxyroute token create`."},
            "session": {
                "type": "apiKey", "in": "cookie", "name": COOKIE,
                "description": "Of the pages; where the address has a port, the name ends in `_PORT`. "
                "What changes something needs `X-CSRF-Token` as well.",
            },
        }  # fmt: skip
        for route in routes:
            if not route.include_in_schema:
                continue
            for method in route.methods or ():
                _tell(told["paths"][route.path][method.lower()], scope_of(route))
        app.openapi_schema = told
    return app.openapi_schema


def routes_of(app: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    """Yields every route of ours with its path, also those of included routers, which newer FastAPI keeps apart."""
    yield from _routes(app.routes, "")


def _routes(routes: Iterable[Any], prefix: str) -> Iterator[tuple[str, APIRoute]]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield prefix + route.path, route
        elif (router := getattr(route, "original_router", None)) is not None:
            yield from _routes(router.routes, prefix + route.include_context.prefix)


def _tell(operation: dict[str, Any], scope: Scope | None) -> None:
    for answer in operation["responses"].values():
        for content in list(answer.get("content", {}).values()):
            if str(content.get("schema", {}).get("$ref", "")).endswith("/ProblemShape"):
                answer["content"] = {"application/problem+json": content}
    if scope is None:
        operation["security"] = []
        return
    operation["security"] = [{"token": []}, {"session": []}]
    operation["x-scope"] = str(scope)


def scope_of(route: APIRoute) -> Scope | None:
    """Returns the scope that a route needs; None when it is open to everybody."""
    found = list(_scopes(route.dependant))
    return max(found) if found else None


def _scopes(dependant: Dependant) -> Iterator[Scope]:
    for part in dependant.dependencies:
        scope = getattr(part.call, "scope", None)
        if isinstance(scope, Scope):
            yield scope
        yield from _scopes(part)
