"""Makes the application from a hub and the settings: API, health, metrics and pages are routers of their own."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from proxyroute import __version__
from proxyroute.config_web import WebConfig
from proxyroute.errors import ProxyRouteError
from proxyroute.web import api, health, metrics
from proxyroute.web.auth import Auth
from proxyroute.web.describe import describe
from proxyroute.web.guarding import Guarding, headers_of
from proxyroute.web.hub import Hub
from proxyroute.web.limits import Rate
from proxyroute.web.metrics import Metrics
from proxyroute.web.pages import add_pages
from proxyroute.web.pages.shell import error_page, wants_page
from proxyroute.web.problems import Problem, problem_of
from proxyroute.web.stream import Streams
from proxyroute.web.tokens import Tokens

_COMMANDS = 30
"""So many commands whoever asks may give at once, and then a minute."""


def create_app(hub: Hub, settings: WebConfig, tokens: Tokens) -> FastAPI:
    """Returns the application. ``app.state`` has ``hub``, ``auth`` and ``settings``."""
    app = FastAPI(
        title="ProxyRoute", version=__version__, docs_url=None, redoc_url=None, openapi_url=None,
        openapi_tags=api.TAGS,
    )  # fmt: skip
    app.state.hub = hub
    app.state.settings = settings
    app.state.auth = Auth(settings, tokens)
    app.state.streams = Streams()
    app.state.command_rate = Rate(_COMMANDS, _COMMANDS)
    app.add_middleware(Guarding, settings=settings)
    app.state.metrics = Metrics(app, hub)
    for router in (*api.ROUTERS, health.router, metrics.router):
        app.include_router(router)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    add_pages(app)
    _tell_problems(app)
    return app


def _tell_problems(app: FastAPI) -> None:
    """Every error is told in one form; to a person with a browser as a page."""

    def told(problem: Problem, request: Request) -> Response:
        return error_page(request, problem) if wants_page(request) else problem.response(request)

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> Response:
        return told(error, request)

    @app.exception_handler(ProxyRouteError)
    async def _ours(request: Request, error: ProxyRouteError) -> Response:
        return told(problem_of(error), request)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return told(Problem(422, str(first["msg"]), where=where, cure="see /v1/openapi.json"), request)

    @app.exception_handler(Exception)
    async def _mistake(request: Request, error: Exception) -> Response:
        text = f"a mistake of ours: {type(error).__name__}; the daemon's log has more; please report it"
        return told(Problem(500, text, headers=headers_of(app.state.settings)), request)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        return told(Problem(error.status_code, str(error.detail), headers=dict(error.headers or {})), request)
