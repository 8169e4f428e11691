"""The description of the API for programs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from proxyroute.web.api.common import Reader

router = APIRouter(prefix="/v1")


@router.get("/openapi.json", include_in_schema=False)
def description(request: Request, _: Reader) -> dict[str, Any]:
    """As OpenAPI."""
    told: dict[str, Any] = request.app.openapi()
    return told
