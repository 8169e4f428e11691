"""What every route of the API has: who asks, the hub, and the errors that it may answer with."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request
from pydantic import BaseModel, Field

from proxyroute.web.auth import Principal, require
from proxyroute.web.hub import Hub
from proxyroute.web.tokens import Scope

Reader = Annotated[Principal, Depends(require(Scope.READ))]
Operator = Annotated[Principal, Depends(require(Scope.OPERATE))]
Admin = Annotated[Principal, Depends(require(Scope.ADMIN))]


async def hub_of(request: Request) -> Hub:
    """A dependency: the hub. It needs no thread, so that health does not wait for one."""
    hub: Hub = request.app.state.hub
    return hub


TheHub = Annotated[Hub, Depends(hub_of)]
ClusterName = Annotated[str, Path(description="As it is called in the configuration.", examples=["shop"])]
ServerName = Annotated[str, Path(description="As it is called in the configuration.", examples=["db2"])]
OperationId = Annotated[
    str, Path(description="As `POST …/operations` returned it.", examples=["20261123T031500-4f2a9c"])
]


class ProblemShape(BaseModel):
    """An error, as `application/problem+json` (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(examples=["Refused"])
    status: int = Field(examples=[409])
    detail: str = Field(description="What is wrong.", examples=["shop: a switchover is refused; nothing was touched"])
    instance: str = Field("", description="The path that was asked for.")
    where: str = Field("", description="The field that is wrong.", examples=["body.target"])
    next: str = Field("", description="What to do, or type, next.")
    exit_code: int | None = Field(None, description="With which the command line would have ended.")
    findings: list[dict[str, Any]] = Field(default_factory=list, description="Everything that stands in the way.")


_MEANING = {
    400: "The body is not to be read.",
    401: "No token, or one that does not hold.",
    403: "The token's scope is not enough, or the request comes from another site's page.",
    404: "There is no such thing.",
    409: "Refused: nothing was touched.",
    413: "The body is too large.",
    422: "Something in the request is wrong; `where` says what.",
    429: "Too many requests; `Retry-After` says when to come again.",
    500: "Failed.",
    503: "Not possible now, e.g. the journal cannot be read.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the errors of a route for its description, beside those that every route has."""
    return {
        status: {"description": _MEANING[status], "model": ProblemShape}
        for status in sorted({401, 403, 422, 429, 500, 503, *statuses})
    }
