"""The audit: who asked for what."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from proxyroute.jsonable import jsonable
from proxyroute.web.api.common import Admin, TheHub, problems
from proxyroute.web.api.shapes import EntryShape

router = APIRouter(prefix="/v1", tags=["audit"])
_MOST = 1000


@router.get("/audit", summary="Who asked for what", response_model=list[EntryShape], responses=problems())
def audit(
    hub: TheHub,
    _: Admin,
    limit: Annotated[int, Query(ge=1, le=_MOST, description="So many at most.")] = 100,
    cluster: Annotated[str | None, Query(description="Only of this cluster.")] = None,
    before: Annotated[float | None, Query(description="Only what is older than this Unix time.")] = None,
) -> Any:
    """The latest first: commands, logins, and logins that failed; with address and reason. Needs the scope admin.

    Ask again with `before` = `at` of the last one for those before it. Within the last 16 MiB of the file.
    """
    return [jsonable(entry) for entry in hub.audit.last(limit, cluster, before)]
