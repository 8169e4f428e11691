"""Operations: all on record, and each with its steps, its proof, its journal and what it has left; and the audit."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from proxyroute import shown
from proxyroute.assembly import archive_folder
from proxyroute.errors import JournalError, Refused
from proxyroute.history import Summary
from proxyroute.journal import Record
from proxyroute.web.archives import archives_of
from proxyroute.web.auth import Principal, require
from proxyroute.web.hub import Hub, Ticket
from proxyroute.web.pages.live import live
from proxyroute.web.pages.overview import Reader, TheHub, named
from proxyroute.web.pages.shell import page, render
from proxyroute.web.pages.waterfall import Waterfall, waterfall
from proxyroute.web.problems import Problem
from proxyroute.web.tokens import Scope

router = APIRouter(include_in_schema=False)

Operator = Annotated[Principal, Depends(require(Scope.OPERATE))]

_SHOWN = 100
"""Operations, and lines of the audit, on one page."""
_PATIENCE = 60.0
"""Seconds for which a step without news is drawn as going on."""
_DECODED = 40_000
"""Characters of decoded transactions that are shown."""


@dataclass(frozen=True)
class Story:
    """One operation with its records."""

    id: str
    records: tuple[Record, ...]
    report: Mapping[str, Any]
    drawing: Waterfall

    @property
    def began(self) -> float:
        return float(self.records[0]["t"])

    def told(self) -> Sequence[tuple[float, str, str, str]]:
        """Returns every record: seconds since the beginning, kind, words, level."""
        return [(r["t"] - self.began, r["kind"], *shown.record_text(r)) for r in self.records]


def story_of(hub: Hub, cluster: str, operation: str) -> Story | None:
    """Returns what is on record of an operation; None when there is nothing."""
    try:
        records = hub.records(cluster, operation)
    except (Refused, JournalError):
        return None
    if not records or records[0]["kind"] != "begin":
        return None
    report = hub.report(cluster, operation)
    # one whose process has died goes on for ever otherwise
    now = min(time.time(), records[-1]["t"] + _PATIENCE) if report["outcome"] == "unfinished" else None
    return Story(operation, records, report, waterfall(records, now))


def level_of(summary: Summary) -> str:
    """Returns how good the end of an operation is."""
    if summary.outcome in ("open", "begun") or summary.leftovers:
        return "warn"
    return shown.verdict_level(summary.verdict) or ("quiet" if summary.outcome != "done" else "warn")


# -- lists -----------------------------------------------------------------------------------------------------


@router.get("/operations")
def operations(request: Request, hub: TheHub, principal: Reader) -> Response:
    """The last operations of all clusters."""
    found = [(name, s) for name in hub.names for s in hub.history(name)]
    return _list(request, principal, "", found)


@router.get("/clusters/{cluster}/operations")
def operations_of(request: Request, hub: TheHub, principal: Reader, cluster: str) -> Response:
    """The operations of one cluster."""
    named(hub, cluster)
    return _list(request, principal, cluster, [(cluster, s) for s in hub.history(cluster)])


def _list(request: Request, principal: Principal, cluster: str, found: Sequence[tuple[str, Summary]]) -> Response:
    ordered = sorted(found, key=lambda item: -item[1].started)
    rows = [(name, s, level_of(s), shown.ended_text(s.outcome, s.verdict, len(s.leftovers))) for name, s in ordered]
    return page(request, "operations.html", principal=principal, cluster=cluster, rows=rows[:_SHOWN], total=len(rows))


# -- one operation ---------------------------------------------------------------------------------------------


@router.get("/clusters/{cluster}/operations/{operation}")
def operation_page(request: Request, hub: TheHub, principal: Reader, cluster: str, operation: str) -> Response:
    """A command that was asked for here, or an operation on record."""
    named(hub, cluster)
    parts = operation_parts(hub, cluster, operation, principal)
    going_on = '<div data-over="no"' in parts["operation"]
    address = f"/live/clusters/{cluster}/operations/{operation}" if going_on else ""
    return page(
        request, "operation.html", principal=principal, cluster=cluster, operation=operation, parts=parts, live=address
    )


@router.get("/live/clusters/{cluster}/operations/{operation}")
def live_operation(request: Request, hub: TheHub, principal: Reader, cluster: str, operation: str) -> Response:
    """An operation as it goes on."""
    named(hub, cluster)
    operation_parts(hub, cluster, operation, principal)
    return live(request, principal, lambda: operation_parts(hub, cluster, operation, principal), 0.4)


def operation_parts(hub: Hub, cluster: str, operation: str, principal: Principal) -> Mapping[str, str]:
    """Returns the parts of the page of an operation. Raises Problem (404)."""
    ticket = hub.ticket(operation)
    if ticket is not None and ticket.command.cluster != cluster:
        ticket = None
    ids = _journals(hub, cluster, ticket, operation)
    stories = [story for id in ids if (story := story_of(hub, cluster, id)) is not None]
    if ticket is None and not stories:
        raise Problem(
            404, f"{cluster} has no operation {operation!r} on record", cure="the list of operations shows all"
        )
    over = ticket.over if ticket is not None else all(s.report["outcome"] != "unfinished" for s in stories)
    unfinished = {s.operation for s in named(hub, cluster).unfinished}
    text = render(
        "story.html",
        cluster=cluster,
        ticket=ticket,
        stories=stories,
        over=over,
        unfinished=unfinished,
        may_operate=principal.may(Scope.OPERATE),
        csrf=principal.csrf,
        errant=[_errant(hub, cluster, s) if principal.may(Scope.OPERATE) else None for s in stories],
        levels=shown.verdict_level,
    )
    return {"operation": text}


def _journals(hub: Hub, cluster: str, ticket: Ticket | None, operation: str) -> Sequence[str]:
    if ticket is None:
        return (operation,)
    found = dict.fromkeys([*ticket.journals, *(r.operation for r in ticket.results if r.operation)])
    if ticket.command.kind == "heal" and not ticket.over:
        found |= dict.fromkeys(s.operation for s in named(hub, cluster).unfinished)
    return tuple(found)


# -- what a server has that the primary lacks ------------------------------------------------------------------


@dataclass(frozen=True)
class Errant:
    """The archive of errant transactions, readable."""

    path: str
    told: str
    transactions: Sequence[Mapping[str, Any]]
    rows: Mapping[str, Mapping[str, int]]
    decoded: str
    cut: bool


def _errant(hub: Hub, cluster: str, story: Story) -> Errant | None:
    kept = next((r["value"] for r in reversed(story.records) if r["kind"] == "keep" and r["name"] == "archive"), None)
    folder = archive_folder(hub.config(cluster)).resolve()
    if kept is None or not (path := Path(kept["path"]).resolve()).is_relative_to(folder):
        return None
    try:
        summary = json.loads((path / "summary.json").read_text())
    except (OSError, ValueError):
        return Errant(str(path), f"{kept['told']}; the archive cannot be read here", (), {}, "", False)
    text = ""
    try:
        with (path / "decoded.sql").open(errors="replace") as file:
            text = file.read(_DECODED + 1)
    except OSError:
        pass  # the summary says enough
    transactions = summary.get("transactions", ())
    told = str(summary.get("told", ""))
    cut = len(text) > _DECODED
    return Errant(str(path), told, transactions[:_SHOWN], summary.get("rows", {}), text[:_DECODED], cut)


@router.get("/clusters/{cluster}/archives")
def archives(request: Request, hub: TheHub, principal: Operator, cluster: str) -> Response:
    """All that only one server had, and was kept."""
    named(hub, cluster)
    found = archives_of(archive_folder(hub.config(cluster)))
    return page(request, "archives.html", principal=principal, cluster=cluster, archives=found)


# -- the audit -------------------------------------------------------------------------------------------------


@router.get("/audit")
def audit(request: Request, hub: TheHub, principal: Annotated[Principal, Depends(require(Scope.ADMIN))]) -> Response:
    """Who asked for what."""
    return page(request, "audit.html", principal=principal, entries=hub.audit.last(_SHOWN))
