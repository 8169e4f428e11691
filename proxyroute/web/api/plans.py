"""What a switchover or a failover would do, and what would stand in the way. All are asked, nothing is touched."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from proxyroute.jsonable import jsonable
from proxyroute.planned import contingency_json, prospect_json
from proxyroute.web.api.clusters import state_of
from proxyroute.web.api.common import ClusterName, Reader, TheHub, problems
from proxyroute.web.api.shapes import CheckShape
from proxyroute.web.tokens import Scope
from proxyroute.web.turns import turn

router = APIRouter(prefix="/v1", tags=["plans"])

Target = Annotated[str | None, Query(alias="to", description="The server that would take over; else one is elected.")]
Force = Annotated[bool, Query(description="Judge as `force` would.")]


@router.get("/clusters/{cluster}/plan/switchover", summary="What a switchover would do", responses=problems(404, 409))
def switchover(
    cluster: ClusterName, hub: TheHub, reader: Reader, target: Target = None, force: Force = False
) -> dict[str, Any]:
    """Who would take over and why not another, each step with its SQL, who is in the way, the predicted blackout.

    As `proxyroute plan --json`. `go` tells whether it could be done. What clients are executing (`statement` of
    `offenders`) is null for whoever has not the scope operate: it has values of the application in it.
    """
    state_of(hub, cluster)
    with turn(reader):
        told: dict[str, Any] = jsonable(prospect_json(hub.plan_switchover(cluster, target, force)))
    if not reader.may(Scope.OPERATE):
        _hide_statements(told)
    return told


def _hide_statements(told: dict[str, Any]) -> None:
    for offender in told["offenders"]:
        for finding in told["findings"]:  # transaction.long says it as well
            finding["text"] = finding["text"].removesuffix(f": {offender['statement']}")
        offender["statement"] = None


@router.get("/clusters/{cluster}/plan/failover", summary="What a failover would do", responses=problems(404, 409))
def failover(
    cluster: ClusterName, hub: TheHub, reader: Reader, target: Target = None, force: Force = False
) -> dict[str, Any]:
    """What is the matter, who would take over, what may be missing, and all that blocks it.

    As `proxyroute plan --failover --json`. Takes some seconds: it looks until it is clear what is the matter.
    """
    state_of(hub, cluster)
    with turn(reader):
        told: dict[str, Any] = jsonable(contingency_json(hub.plan_failover(cluster, target, force)))
    return told


@router.get(
    "/clusters/{cluster}/check", summary="Would everything work", response_model=CheckShape, responses=problems(404)
)
def check(cluster: ClusterName, hub: TheHub, reader: Reader) -> dict[str, Any]:
    """Everything that would stand in the way: configuration, secrets, servers, privileges, proxies.

    As `proxyroute check --json`. Changes nothing.
    """
    state_of(hub, cluster)
    with turn(reader):
        told: dict[str, Any] = jsonable(hub.check(cluster).to_json())
    return told
