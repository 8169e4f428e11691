"""Servers that could not rejoin, and what only they had."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from proxyroute.assembly import archive_folder
from proxyroute.web.api.clusters import state_of
from proxyroute.web.api.common import ClusterName, Reader, TheHub, problems
from proxyroute.web.api.shapes import ArchiveShape, AsideShape

router = APIRouter(prefix="/v1", tags=["clusters"])
_MOST = 100
_LONGEST = 4_000_000
_SHOWN = 200
"""So many transactions of an archive are told; its folder has all of them."""


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
def archives(cluster: ClusterName, hub: TheHub, _: Reader) -> Any:
    """Errant transactions that were kept before a server rejoined or was left aside, the latest first."""
    return list(_archives(archive_folder(state_of(hub, cluster).config)))


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # somebody has removed it just now
        return 0.0


def _archives(folder: Path) -> Iterator[dict[str, Any]]:
    found = [f for f in folder.glob("*/summary.json") if not f.parent.name.startswith(".")]
    for file in sorted(found, key=_written, reverse=True)[:_MOST]:
        try:
            if file.stat().st_size > _LONGEST:
                raise ValueError("it is too long to be told here")
            kept = json.loads(file.read_bytes())
            transactions = list(kept["transactions"])
            yield {
                "name": file.parent.name, "folder": str(file.parent), "server": kept["server"], "told": kept["told"],
                "executed": kept["executed"], "missing": kept["missing"], "rows": kept["rows"],
                "count": len(transactions), "transactions": transactions[:_SHOWN], "trouble": "",
            }  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield {
                "name": file.parent.name, "folder": str(file.parent), "server": "", "told": "", "executed": "",
                "missing": "", "rows": {}, "count": 0, "transactions": [], "trouble": f"it cannot be read: {error}",
            }  # fmt: skip
