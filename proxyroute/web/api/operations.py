"""Asking for something to be done, and following it to its end."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request, Response

from proxyroute.config_values import ClusterConfig
from proxyroute.history import Summary
from proxyroute.journal import Record, outcome
from proxyroute.web.api.clusters import one_of, state_of
from proxyroute.web.api.common import ClusterName, OperationId, Operator, Reader, TheHub, problems
from proxyroute.web.api.orders import Order
from proxyroute.web.api.shapes import OperationShape, RecordsShape
from proxyroute.web.auth import refuse_scope
from proxyroute.web.commands import Command, KeyReused, ticket_json
from proxyroute.web.hub import Hub
from proxyroute.web.limits import Rate
from proxyroute.web.problems import Problem, too_many

router = APIRouter(prefix="/v1", tags=["operations"])
_MOST = 1000
_SERVERS = ("target", "primary", "server", "declare_lost")
_EXAMPLES: dict[str, Any] = {
    "switchover": {
        "summary": "Move the primary",
        "value": {"kind": "switchover", "target": "db2", "reason": "kernel update of db1"},
    },
    "failover": {"summary": "The primary is gone", "value": {"kind": "failover", "reason": "db1 has burnt down"}},
    "heal": {"summary": "Finish or undo what is open", "value": {"kind": "heal"}},
    "rejoin": {"summary": "Bring a server back", "value": {"kind": "rejoin", "server": "db1"}},
    "publish": {"summary": "Tell the proxies", "value": {"kind": "publish"}},
    "acknowledge": {"summary": "Failovers were seen", "value": {"kind": "acknowledge"}},
    "maintenance": {
        "summary": "Take a server out for an hour",
        "value": {"kind": "maintenance", "server": "db3", "seconds": 3600, "reason": "new disk"},
    },
    "pause": {"summary": "Do nothing by itself", "value": {"kind": "pause", "reason": "network works"}},
    "resume": {"summary": "Act by itself again", "value": {"kind": "resume"}},
    "rank": {"summary": "Prefer a server", "value": {"kind": "rank", "server": "db2", "rank": "prefer"}},
    "reset_orders": {"summary": "Drop all standing orders", "value": {"kind": "reset_orders"}},
    "verify": {"summary": "Compare data", "value": {"kind": "verify", "server": "db2", "tables": ["shop.orders"]}},
}
Key = Annotated[
    str,
    Header(
        max_length=200, pattern=r"^[\x21-\x7e]*$",
        description="Chosen by you, new for each thing you want: asked again with the same key, after a lost answer or "
        "a restart of the daemon, nothing is done twice.",
    ),
]  # fmt: skip


@router.post(
    "/clusters/{cluster}/operations", summary="Ask for something to be done", status_code=202,
    response_model=OperationShape, responses=problems(400, 404, 409, 413),
)  # fmt: skip
def ask(
    cluster: ClusterName,
    order: Annotated[Order, Body(openapi_examples=_EXAMPLES)],
    request: Request,
    response: Response,
    hub: TheHub,
    principal: Operator,
    idempotency_key: Key = "",
) -> Any:
    """Answers at once, with where to ask how far it is (`Location`). The same code does it as on the command line.

    While one is under way another one is refused (409) by its name. The id is also that of the operation in the
    history, for a switchover or failover that was not refused.
    """
    if not principal.may(order.scope):
        refuse_scope(principal, order.scope)
    _check_names(order, state_of(hub, cluster).config)
    rate: Rate = request.app.state.command_rate
    if wait := rate.take(principal.name):
        raise too_many("too many commands", wait)
    command = Command(order.kind, cluster, principal.actor, order.reason, order.arguments, idempotency_key)
    try:
        ticket = hub.ask(command)
    except KeyReused as error:
        what, _, cure = str(error).partition("; ")
        raise Problem(422, what, where="header.Idempotency-Key", cure=cure) from error
    response.headers["Location"] = f"/v1/operations/{ticket.id}"
    if ticket.command is not command:
        response.headers["Idempotent-Replayed"] = "true"
    return ticket_json(ticket)


@router.get("/operations", summary="What was asked for", response_model=list[OperationShape], responses=problems(404))
def operations(
    hub: TheHub,
    _: Reader,
    cluster: Annotated[str | None, Query(description="Only of this cluster.")] = None,
    limit: Annotated[int, Query(ge=1, le=_MOST, description="So many at most.")] = 100,
) -> Any:
    """Over HTTP, the latest first. What was typed, or done by itself, is in the history."""
    names = hub.names if cluster is None else (state_of(hub, cluster).name,)
    found = sorted((t for name in names for t in hub.tickets(name)), key=lambda t: t.asked_at, reverse=True)
    return [ticket_json(ticket) for ticket in found[:limit]]


@router.get("/operations/{operation}", summary="How far it is", response_model=OperationShape, responses=problems(404))
def operation(operation: OperationId, hub: TheHub, _: Reader) -> Any:
    """The state, the step it is at, and once it is `over` the result: proof, measured blackout, what is left to do.

    Also of operations that were not asked for over HTTP.
    """
    ticket = hub.ticket(operation)
    if ticket is not None:
        return ticket_json(ticket)
    cluster, summary = _recorded(hub, operation)
    return _of_record(cluster, summary, hub.report(cluster, operation))


@router.post(
    "/operations/{operation}/call-off", summary="Call it off", status_code=202, response_model=OperationShape,
    responses=problems(404, 409),
)  # fmt: skip
def call_off(
    operation: OperationId,
    hub: TheHub,
    principal: Operator,
    reason: Annotated[str, Query(max_length=500, description="Why; it stands in the audit.")] = "",
) -> Any:
    """A switchover before its commit is undone; `rejoin`, `verify` and what `heal` has left to do end early.

    Answers at once: the state tells what became of it. Refused (409) when it is over or committed, for a failover,
    and for what was not asked for over HTTP.
    """
    if hub.ticket(operation) is None:
        _recorded(hub, operation)
    return ticket_json(hub.call_off(operation, principal.actor, reason))


@router.get(
    "/operations/{operation}/records", summary="What it does, record by record", response_model=RecordsShape,
    responses=problems(404),
)  # fmt: skip
def records(
    operation: OperationId,
    hub: TheHub,
    _: Reader,
    after: Annotated[int, Query(ge=0, description="Only so many records later.")] = 0,
) -> Any:
    """The records of all journals that it has written, numbered through. Ask again with `after` = `last`."""
    ticket = hub.ticket(operation)
    if ticket is None:
        cluster, _summary = _recorded(hub, operation)
        journals: tuple[str, ...] = (operation,)
    else:
        cluster, journals = ticket.command.cluster, ticket.journals
    everything: list[Record] = [r for name in journals for r in hub.records(cluster, name)]
    over = ticket.over if ticket is not None else outcome(everything) is not None
    return {"operation": operation, "records": everything[after:], "last": max(after, len(everything)), "over": over}


def _check_names(order: Order, config: ClusterConfig) -> None:
    """Raises Problem (422) when a server or proxy is named that there is not."""
    for field, known in (
        *((f, config.servers) for f in _SERVERS),
        ("fenced_proxies", [p.name for p in config.proxies]),
    ):
        given = order.arguments.get(field, ())
        for name in (given,) if isinstance(given, str) else given:
            if name not in known:
                what = "proxy" if field == "fenced_proxies" else "server"
                text = f"{config.name} has no {what} {name!r}"
                raise Problem(422, text, where=f"body.{field}", cure=one_of(tuple(known)))


def _recorded(hub: Hub, operation: str) -> tuple[str, Summary]:
    for cluster in hub.names:
        for summary in hub.history(cluster):
            if summary.operation == operation:
                return cluster, summary
    raise Problem(404, f"there is no operation {operation!r}", where="path.operation", cure="/v1/operations lists them")


def _of_record(cluster: str, summary: Summary, report: dict[str, Any]) -> dict[str, Any]:
    """Returns an operation that was not asked for here, in the same form."""
    over = summary.outcome not in ("open", "begun")
    return {
        "id": summary.operation,
        "kind": summary.kind,
        "cluster": cluster,
        "by": report["by"],
        "from": report["host"],
        "reason": report["reason"],
        "arguments": {"target": summary.candidate, "force": report["force"]},
        "state": summary.outcome if over else "running" if summary.outcome == "begun" else "unfinished",
        "over": over,
        "asked_at": summary.started,
        "began_at": summary.started,
        "ended_at": summary.started + summary.seconds if over else None,
        "journals": [summary.operation],
        "step": next((r["name"] for r in reversed(report["story"]) if r["kind"] == "stepped"), ""),
        "text": report["text"],
        "called_off": "",
        "findings": [],
        "results": [report],
    }
