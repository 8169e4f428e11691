"""The API, version 1."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from proxyroute.web.auth import Principal, require
from proxyroute.web.hub import Hub, summary_json
from proxyroute.web.tokens import Scope

router = APIRouter(prefix="/v1")

Reader = Annotated[Principal, Depends(require(Scope.READ))]


def hub_of(request: Request) -> Hub:
    """A dependency: the hub."""
    hub: Hub = request.app.state.hub
    return hub


TheHub = Annotated[Hub, Depends(hub_of)]


@router.get("/clusters")
def clusters(hub: TheHub, _: Reader) -> list[dict[str, Any]]:
    """Returns every cluster in short."""
    return [summary_json(state) for state in hub.states()]
