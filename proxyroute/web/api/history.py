"""What was done, as the journals have it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from proxyroute.history import Summary
from proxyroute.journal import outcome
from proxyroute.jsonable import jsonable
from proxyroute.web.api.clusters import state_of
from proxyroute.web.api.common import ClusterName, OperationId, Reader, TheHub, problems
from proxyroute.web.api.shapes import PastShape, RecordsShape
from proxyroute.web.hub import Hub
from proxyroute.web.problems import Problem

router = APIRouter(prefix="/v1", tags=["history"])
_MISSING = problems(404)
_MOST = 1000


@router.get(
    "/clusters/{cluster}/history", summary="Every operation on record", response_model=list[PastShape],
    responses=_MISSING,
)  # fmt: skip
def history(
    cluster: ClusterName,
    hub: TheHub,
    _: Reader,
    limit: Annotated[int, Query(ge=1, le=_MOST, description="So many at most.")] = 100,
    before: Annotated[str, Query(description="Only those older than this operation.")] = "",
) -> Any:
    """The latest first, whoever began them: by command line, by API, or by itself."""
    found = [s for s in reversed(state_of(hub, cluster).history) if not before or s.operation < before]
    return [past_json(summary) for summary in found[:limit]]


@router.get("/clusters/{cluster}/history/{operation}", summary="The report of an operation", responses=_MISSING)
def report(cluster: ClusterName, operation: OperationId, hub: TheHub, _: Reader) -> dict[str, Any]:
    """How it ended, who asked for it and why, each step, the evidence, what is left to do."""
    _known(hub, cluster, operation)
    return hub.report(cluster, operation)


@router.get(
    "/clusters/{cluster}/history/{operation}/records", summary="Its journal, record by record",
    response_model=RecordsShape, responses=_MISSING,
)  # fmt: skip
def records(
    cluster: ClusterName,
    operation: OperationId,
    hub: TheHub,
    _: Reader,
    after: Annotated[int, Query(ge=0, description="Only records after this number.")] = 0,
) -> Any:
    """Ask again with `after` = `last` to follow an operation that is under way."""
    _known(hub, cluster, operation)
    everything = hub.records(cluster, operation)
    found = [record for record in everything if record["n"] > after]
    last = found[-1]["n"] if found else after
    return {"operation": operation, "records": found, "last": last, "over": outcome(list(everything)) is not None}


def _known(hub: Hub, cluster: str, operation: str) -> None:
    if operation not in {s.operation for s in state_of(hub, cluster).history}:
        raise Problem(404, f"{cluster} has no operation {operation!r} on record", where="path.operation",
                      cure=f"/v1/clusters/{cluster}/history lists them")  # fmt: skip


def past_json(summary: Summary) -> dict[str, Any]:
    """Returns an operation of the history as JSON values."""
    told: dict[str, Any] = jsonable(summary)
    return told
