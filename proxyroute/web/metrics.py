"""What Prometheus reads: ``/metrics``."""

from __future__ import annotations

import time

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from proxyroute.web.auth import require
from proxyroute.web.hub import Hub
from proxyroute.web.measures import Operations, Present
from proxyroute.web.tokens import Scope

_read = require(Scope.READ)


class Metrics:
    """A registry of its own, and what fills it."""

    def __init__(self, app: FastAPI, hub: Hub) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._hub = hub
        self._operations = Operations(self.registry, time.time())
        self.registry.register(Present(hub, lambda: app.state.streams.count))
        ProcessCollector(registry=self.registry)

    def write(self, accept: str) -> tuple[bytes, str]:
        """Returns everything as text, and its type, as ``accept`` asks for it."""
        self._operations.count(self._hub)
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind


async def allowed(request: Request) -> None:
    """A dependency: lets in who has a token, or everybody, as ``web.metrics`` says."""
    if request.app.state.settings.metrics != "open":
        await _read(request)


allowed.scope = Scope.READ  # type: ignore[attr-defined]  # unless it is declared open

router = APIRouter(dependencies=[Depends(allowed)])


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    """In the text format of Prometheus, or that of OpenMetrics if it is asked for."""
    kept: Metrics = request.app.state.metrics
    body, kind = kept.write(request.headers.get("accept", ""))
    return Response(body, media_type=kind)
