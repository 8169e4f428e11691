"""Servers that could not rejoin, and what only they had."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from proxyroute.assembly import archive_folder
from proxyroute.web.api.clusters import state_of
from proxyroute.web.api.common import ClusterName, Operator, Reader, TheHub, problems
from proxyroute.web.api.shapes import ArchiveShape, AsideShape
from proxyroute.web.archives import archives_of

router = APIRouter(prefix="/v1", tags=["clusters"])


@router.get(
    "/clusters/{cluster}/aside", summary="Who could not rejoin", response_model=list[AsideShape],
    responses=problems(404),
)  # fmt: skip
def aside(cluster: ClusterName, hub: TheHub, _: Reader) -> Any:
    """Servers with transactions that nobody else has: a person must choose a method, see `kind: rejoin`."""
    return [
        {"server": s.candidate, "operation": s.operation, "since": s.started, "told": s.told}
        for s in state_of(hub, cluster).aside
    ]


@router.get(
    "/clusters/{cluster}/archives", summary="What only one server had", response_model=list[ArchiveShape],
    responses=problems(404),
)  # fmt: skip
def archives(cluster: ClusterName, hub: TheHub, _: Operator) -> Any:
    """Errant transactions that were kept before a server rejoined or was left aside, the latest first.

    Rows of the applications may be read from them: they need the scope operate.
    """
    return archives_of(archive_folder(state_of(hub, cluster).config))
