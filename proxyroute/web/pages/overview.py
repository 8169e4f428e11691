"""All clusters, each in one line, the problems first; and one cluster with everything that is seen of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from proxyroute.errors import Refused
from proxyroute.web.auth import Principal, require
from proxyroute.web.hub import Hub
from proxyroute.web.pages import facts, graph
from proxyroute.web.pages.live import live
from proxyroute.web.pages.shell import hub_of, page, render
from proxyroute.web.problems import Problem
from proxyroute.web.state import ClusterState
from proxyroute.web.tokens import Scope

router = APIRouter(include_in_schema=False)

Reader = Annotated[Principal, Depends(require(Scope.READ))]
TheHub = Annotated[Hub, Depends(hub_of)]

_RECENT = 5
_MANY = 50
"""From so many clusters on the overview is made less often."""


def named(hub: Hub, cluster: str) -> ClusterState:
    """Returns the state of a cluster. Raises Problem (404) when there is none of that name."""
    if cluster not in hub.names:
        raise Problem(404, f"there is no cluster {cluster!r}", cure="the overview shows those that there are")
    try:
        return hub.state(cluster)
    except Refused as error:
        raise Problem(404, str(error)) from None


class Lines:
    """The overview's lines as HTML; what has not changed is not made again, whoever looks."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[ClusterState, facts.Line, str]] = {}

    def parts(self, hub: Hub) -> Mapping[str, str]:
        """Returns the parts of the overview."""
        made = {}
        for state in hub.states():
            known = self._made.get(state.name)
            if known is None or known[0] is not state:
                line = facts.line(state)
                known = (state, line, render("line.html", line=line))
            made[state.name] = known
        self._made = made
        lines = [line for _, line, _ in made.values()]
        counts = {level: sum(1 for x in lines if x.level == level) for level in facts.LEVELS}
        ordered = facts.worst_first(lines)
        return {
            "summary": render("summary.html", counts=counts, total=len(lines)),
            **{f"line-{x.name}": made[x.name][2] for x in ordered},
            "order:lines": " ".join(f"line-{x.name}" for x in ordered),
        }


@router.get("/")
def overview(request: Request, hub: TheHub, principal: Reader) -> Response:
    """Every cluster in one line."""
    parts = lines_of(request).parts(hub)
    return page(request, "overview.html", principal=principal, parts=parts, live="/live/overview")


@router.get("/live/overview")
def live_overview(request: Request, hub: TheHub, principal: Reader) -> Response:
    """The overview as it changes."""
    lines = lines_of(request)
    return live(request, principal, lambda: lines.parts(hub), 1.0 if len(hub.names) < _MANY else 3.0)


def lines_of(request: Request) -> Lines:
    """Returns the lines that all who look share."""
    lines: Lines = request.app.state.lines
    return lines


# -- one cluster -----------------------------------------------------------------------------------------------


def cluster_parts(hub: Hub, cluster: str, may_operate: bool) -> Mapping[str, str]:
    """Returns the parts of a cluster's page."""
    state = named(hub, cluster)
    writes, lags = hub.curves(cluster)
    servers, proxies = facts.servers(state), facts.proxies(state)
    values = {
        "state": state,
        "line": facts.line(state),
        "servers": servers,
        "proxies": proxies,
        "addresses": facts.addresses(state),
        "may_operate": may_operate,
        "lags": lags,
        "writes": writes,
        "recent": sorted(state.history, key=lambda s: -s.started)[:_RECENT],
        "drawings": (graph.wide(servers, proxies), graph.narrow(servers)),
    }
    names = ("truth", "topology", "possible", "servers", "proxies", "recent")
    return {name: render(f"cluster/{name}.html", **values) for name in names}


@router.get("/clusters/{cluster}")
def cluster_page(request: Request, hub: TheHub, principal: Reader, cluster: str) -> Response:
    """Everything that is seen of one cluster."""
    parts = cluster_parts(hub, cluster, principal.may(Scope.OPERATE))
    return page(
        request, "cluster.html", principal=principal, cluster=cluster, parts=parts, live=f"/live/clusters/{cluster}"
    )


@router.get("/live/clusters/{cluster}")
def live_cluster(request: Request, hub: TheHub, principal: Reader, cluster: str) -> Response:
    """A cluster's page as it changes."""
    named(hub, cluster)
    may = principal.may(Scope.OPERATE)
    return live(request, principal, lambda: cluster_parts(hub, cluster, may), 1.0)
