"""``proxyroute history`` and ``proxyroute show``: what was done, read from the journals."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.cli.output import styled, verdict_level
from proxyroute.cli.status import is_open
from proxyroute.shown import ended_text, evidence_text, record_text
from proxyroute.words import seconds

if TYPE_CHECKING:
    from proxyroute.history import Summary
    from proxyroute.model import Finding


@click.command(short_help="List the operations of the cluster, the latest first.")
@click.option("--limit", default=20, show_default=True, help="How many; 0 for all.")
@common_options
@pass_context
def history(ctx: Context, limit: int) -> None:
    """List the operations of the cluster, the latest first."""
    unread: Sequence[Finding] = ()
    if ctx.url:
        from proxyroute.cli import afar  # what nobody needs who is on the engine's host

        found = afar.history(ctx, limit)
    else:
        with ctx.engine(reads=True) as engine:
            found = sorted(engine.history(), key=lambda s: s.started, reverse=True)
            unread = engine.damaged()
        found = found[:limit] if limit else found
    if ctx.as_json:
        ctx.out.json({"operations": found, "unread": unread})
        return
    if found:
        _table(ctx, found)
    elif not unread:
        ctx.out.line("no operation yet")
    ctx.out.findings(unread)


def _table(ctx: Context, found: Sequence[Summary]) -> None:
    rows = [
        (
            s.operation,
            s.kind,
            f"{s.primary} → {s.candidate}",
            seconds(s.seconds),
            {"seen": "≤ ", "begun": "≥ "}.get(s.blackout_from, "") + seconds(s.blackout_seconds),
            styled(
                ended_text(s.outcome, s.verdict, len(s.leftovers)),
                "warn" if is_open(s) or s.leftovers else verdict_level(s.verdict),
            ),
        )
        for s in found
    ]
    ctx.out.table(("Operation", "Kind", "Moved", "Took>", "Blackout>", "Ended"), rows)


@click.command(short_help="Show one operation, record by record.")
@click.argument("operation")
@common_options
@pass_context
def show(ctx: Context, operation: str) -> None:
    """Show one operation, record by record.

    OPERATION is an id as `proxyroute history` lists it. Times are seconds since the operation began.
    """
    records: Sequence[Mapping[str, Any]]
    if ctx.url:
        from proxyroute.cli import afar  # what nobody needs who is on the engine's host

        records = afar.records(ctx, operation)
    else:
        with ctx.engine(reads=True) as engine:
            records = engine.show(operation)
    if ctx.as_json:
        ctx.out.json({"operation": operation, "records": list(records)})
        return
    began = float(records[0]["t"]) if records else 0.0
    ctx.out.line(f"{operation}, begun {time.strftime('%Y-%m-%d %H:%M:%S %z', time.localtime(began))}")
    ctx.out.line()
    rows = [(f"{float(r['t']) - began:.3f}", r["kind"], _told(r)) for r in records]
    ctx.out.table(("Time>", "Record", "Told"), rows)


def _told(record: Mapping[str, Any]) -> object:
    """Returns a record in words; a proof with its evidence."""
    text, level = record_text(record)
    told = styled(text, level)
    for evidence in record.get("evidence", []) if record["kind"] == "proof" else []:
        told.append(f"\n{evidence_text(evidence)}", style="default")
    return told
