"""The settings as they were loaded."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from proxyroute.jsonable import jsonable
from proxyroute.web.api.clusters import state_of
from proxyroute.web.api.common import ClusterName, Reader, TheHub, problems
from proxyroute.web.api.shapes import SettingShape
from proxyroute.web.loaded import settings_of, web_settings

router = APIRouter(prefix="/v1", tags=["settings"])


@router.get(
    "/clusters/{cluster}/settings", summary="Settings of a cluster", response_model=list[SettingShape],
    responses=problems(404),
)  # fmt: skip
def settings(cluster: ClusterName, hub: TheHub, _: Reader) -> Any:
    """As they were loaded, each with its origin: a line of the file, a default, or a profile. Never a secret."""
    return jsonable(settings_of(state_of(hub, cluster).config))


@router.get("/settings", summary="Settings of the web", response_model=list[SettingShape], responses=problems())
def web(request: Request, _: Reader) -> Any:
    """What the section `web` says, and the defaults."""
    return jsonable(web_settings(request.app.state.settings))
