"""What happens, as it happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from proxyroute.errors import ProxyRouteError
from proxyroute.web import shown
from proxyroute.web.api.clusters import one_of
from proxyroute.web.api.common import Reader, TheHub, problems
from proxyroute.web.auth import Auth
from proxyroute.web.hub import Hub
from proxyroute.web.problems import Problem
from proxyroute.web.stream import EventStream, Look, Streams
from proxyroute.web.tokens import Scope

router = APIRouter(prefix="/v1", tags=["events"])
_SHOWN = 20
"""So many clusters may be shown in one stream: each look of each is sent."""

_EXAMPLE = (
    "id: 9f2c81d0-41\nevent: cluster\n"
    'data: {"cluster":"shop","at":1795881600.0,"truth":"shop: db2 takes writes, 2 of 2 replicas follow",…}\n\n'
)


@router.get(
    "/events",
    summary="What happens, as it happens",
    response_class=Response,
    responses=problems(404) | {
        200: {
            "description": "Server-sent events.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
        }
    },
)  # fmt: skip
async def events(
    request: Request,
    hub: TheHub,
    reader: Reader,
    last_event_id: Annotated[str, Header(description="The last event that you have; browsers send it.")] = "",
    after: Annotated[str, Query(description="The same, where no header can be sent.")] = "",
    cluster: Annotated[list[str], Query(description="Only of these clusters.")] = [],  # noqa: B006 - not altered
    view: Annotated[bool, Query(description="Also `view`: all that is seen of these clusters, each second.")] = False,
) -> Response:
    """Server-sent events. Each has an id; whoever comes again with the last one that he has misses nothing.

    * `ready`: the first one; what comes is complete from here on.
    * `reset`: events are missing (the daemon has started anew, or you were away for too long): read the state again.
    * `cluster`: the line of truth, or what blocks, has changed; as in `GET /v1/clusters`.
    * `command`: something that was asked for has begun or ended; as `GET /v1/operations/{id}`.
    * `record`: an operation has written a record in its journal.
    * `notice`: what the daemon tells.
    * `view`: see above; as `GET /v1/clusters/{cluster}`. It has no id.
    * `ended`: your session or token has ended, and so does the stream.

    Silence is no longer than some seconds: then a comment comes.
    """
    names = list(dict.fromkeys(cluster))
    streams: Streams = request.app.state.streams
    if streams.full(reader.name):
        raise Problem(503, "too many streams are open", cure="close some", headers={"Retry-After": "10"})
    if view and not 0 < len(names) <= _SHOWN:
        raise Problem(
            422, f"view needs cluster, {_SHOWN} times at most", where="query.cluster", cure="add ?cluster=NAME"
        )
    known = hub.names
    for name in names:
        if name not in known:
            raise Problem(404, f"there is no cluster {name!r}", where="query.cluster", cure=one_of(known))
    auth: Auth = request.app.state.auth

    def allowed() -> bool:
        principal = auth.principal(request)
        return principal is not None and principal.may(Scope.READ)

    look = Look(names, lambda name: _version(hub, name), lambda name: _shown(hub, name)) if view else None
    return EventStream(hub.events, streams, reader.name, last_event_id or after, allowed, names, look)


def _version(hub: Hub, name: str) -> int:
    return hub.version(name) if name in hub.names else -1


def _shown(hub: Hub, name: str) -> Mapping[str, Any]:
    try:
        return shown.cluster_json(hub.state(name), hub.version(name))
    except ProxyRouteError as error:  # it is gone from the configuration, or no record can be read now
        return {"cluster": name, "trouble": str(error)}
