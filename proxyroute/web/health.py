"""Health for load balancers, as Patroni's: 200 or 503 and a word, by the last look. Nothing here waits for anything.

``/v1/health/CLUSTER/SERVER/primary`` and so on, the same without ``/v1``, and ``/liveness``, ``/readiness`` of the
daemon itself. Open to everybody unless ``web.health`` says otherwise: an ``option httpchk`` cannot keep a secret well.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse

from proxyroute.config_shape import parse_duration
from proxyroute.web.api.common import ClusterName, ServerName, TheHub, problems
from proxyroute.web.auth import require
from proxyroute.web.hub import Hub
from proxyroute.web.problems import Problem
from proxyroute.web.tokens import Scope
from proxyroute.web.wellness import Answer, Health, OfCluster, OfServer

_read = require(Scope.READ)


async def allowed(request: Request) -> None:
    """A dependency: lets everybody in, or who has a token, as ``web.health`` says."""
    if request.app.state.settings.health != "open":
        await _read(request)


router = APIRouter(tags=["health"], dependencies=[Depends(allowed)])

Lag = Annotated[
    str, Query(description="How far a replica may be behind: seconds, or with a unit.", examples=["5s", "500ms", "10"])
]
_WORD: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
_ANSWERS = {status: told for status, told in problems(404).items() if status != 503} | {
    200: {"description": "Yes.", **_WORD},
    503: {"description": "No, or it is not known: not seen for some seconds.", **_WORD},
}


async def of_server(
    cluster: ClusterName, server: ServerName, question: OfServer, hub: TheHub, lag: Lag = ""
) -> PlainTextResponse:
    """200 when the server is what is asked for, else 503.

    * `primary`, `master-status`: it takes writes, alone, and is meant to.
    * `replica`, `slave-status`: it refuses writes and follows the primary, not further behind than `lag`.
    * `read-only`: either of the two. `readiness`: the same.
    * `health`: it answers. `liveness`: it is looked at.
    """
    health = _health(hub, cluster)
    if server not in hub.config(cluster).servers:
        raise Problem(404, f"{cluster} has no server {server!r}", where="path.server")
    return _told(health.server(server, question, _seconds(lag)))


async def of_cluster(cluster: ClusterName, question: OfCluster, hub: TheHub) -> PlainTextResponse:
    """200 when it is so, else 503.

    * `health`, `primary`: exactly one server takes writes, and it is meant to.
    * `readiness`: every server was looked at. `liveness`: they are looked at now.
    """
    return _told(_health(hub, cluster).cluster(question))


async def alive() -> PlainTextResponse:
    """The daemon answers."""
    return _told(Answer(True, "alive"))


async def ready(hub: TheHub) -> PlainTextResponse:
    """The daemon has looked at every server of every cluster."""
    unread = [name for name in hub.names if not _health(hub, name).cluster("readiness").yes]
    return _told(Answer(not unread, "not everything was looked at yet" if unread else "ready"))


_ROUTES = (
    ("/health/{cluster}/{server}/{question}", of_server, "A server, for load balancers"),
    ("/health/{cluster}/{question}", of_cluster, "A cluster, for load balancers"),
)
for path, endpoint, summary in _ROUTES:
    for prefix in ("/v1", ""):
        router.add_api_route(
            prefix + path, endpoint, methods=["GET"], summary=summary, responses=_ANSWERS,
            response_class=PlainTextResponse,
        )  # fmt: skip
        router.add_api_route(prefix + path, endpoint, methods=["HEAD", "OPTIONS"], include_in_schema=False)
for path, plain in (("/liveness", alive), ("/readiness", ready), ("/health", ready)):
    router.add_api_route(path, plain, methods=["GET", "HEAD", "OPTIONS"], include_in_schema=False)


def _health(hub: Hub, cluster: str) -> Health:
    if cluster not in hub.names:
        raise Problem(404, f"there is no cluster {cluster!r}", where="path.cluster")
    return Health(hub.config(cluster), hub.glance(cluster), time.monotonic(), time.time())


def _told(answer: Answer) -> PlainTextResponse:
    return PlainTextResponse(f"{answer.word}\n", 200 if answer.yes else 503)


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        return parse_duration(float(text) if text.replace(".", "", 1).isdigit() else text)
    except ValueError as error:
        raise Problem(422, str(error), where="query.lag", cure="write ?lag=5s") from error
