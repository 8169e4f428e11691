"""``proxyroute plan``: what a switchover would do, who could take over, how long writes would stand still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.cli.output import Output, styled
from proxyroute.errors import Refused
from proxyroute.inspection import Transaction
from proxyroute.model import Severity
from proxyroute.planned import offenders, prospect_json
from proxyroute.words import seconds

if TYPE_CHECKING:
    from proxyroute.engine import Prospect


@click.command(short_help="Show what a switchover would do; touches nothing.")
@click.option("--to", "target", metavar="SERVER", help="The server that would take over; else one is elected.")
@click.option("--force", is_flag=True, help="Judge as `switchover --force` would.")
@click.option("--failover", "gone", is_flag=True, help="What a failover would do, and all that blocks one now.")
@common_options
@pass_context
def plan(ctx: Context, target: str | None, force: bool, gone: bool) -> None:
    """Show what a switchover would do; touches nothing.

    Shows every step with its SQL and commands, who could take over and why the others could not, the
    transactions that would be in the way, and the predicted blackout.

    Exit code 0 when the switchover could go ahead or there is nothing to do, 3 when it would be refused.
    """
    if ctx.url:
        from proxyroute.cli import afar  # what nobody needs who is on the engine's host

        afar.plan(ctx, target, force=force, gone=gone)
        return
    if gone:
        from proxyroute.cli.failover import show_plan  # it shows what this module shows

        show_plan(ctx, target, force)
        return
    with ctx.engine() as engine:
        prospect = engine.plan(target, force)
    if ctx.as_json:
        ctx.out.json(prospect_json(prospect))
    else:
        show_prospect(ctx.out, prospect)
        if prospect.go and not prospect.unchanged:
            words = ["switchover", *(["--to", target] if target else []), *(["--force"] if force else [])]
            ctx.out.line()
            ctx.out.raw(f"To do it: {ctx.command_line(*words)}")
    if not prospect.go and not prospect.unchanged:
        raise SystemExit(Refused.exit_code)


def show_prospect(out: Output, prospect: Prospect) -> None:
    """Writes a plan, the verdict first."""
    out.line(_verdict(prospect))
    if prospect.unchanged:
        return
    if prospect.plan is not None:
        predicted = seconds(prospect.predicted_seconds) if prospect.predicted_seconds is not None else "not known"
        out.line(f"Predicted write blackout: {predicted} ({prospect.prediction_basis})")
    out.findings(prospect.findings)
    if prospect.election is not None and prospect.election.ranking:
        out.heading("Who could take over")
        out.table(
            ("Server", "", "Why"),
            [
                (
                    r.name,
                    styled("qualifies", "good") if r.qualified else styled("rejected", "bad"),
                    "\n".join(r.reasons),
                )
                for r in prospect.election.ranking
            ],
            indent=1,
        )
    _show_offenders(out, offenders(prospect))
    if prospect.steps:
        out.heading("Steps")
        for number, step in enumerate(prospect.steps, start=1):
            out.line(styled(f"{number:3}. {step.name}: ", "bold").append(step.what, style="not bold"))
            for act in step.acts:
                out.raw(f"       {act}")


def _verdict(prospect: Prospect) -> Any:
    plan, cluster = prospect.plan, prospect.view.cluster
    if prospect.unchanged:
        primary = prospect.view.primary
        return styled(f"{cluster}: {primary.name if primary else 'it'} is the primary already; nothing to do", "good")
    errors = sum(1 for f in prospect.findings if f.severity is Severity.ERROR)
    if plan is None:
        return styled(f"NO-GO  {cluster}: nobody can take over", "bad")
    moved = f"{cluster}: {plan.primary} → {plan.candidate}"
    if prospect.go:
        return styled(f"GO  {moved}", "good")
    return styled(f"NO-GO  {moved}: {errors} reason{'s' if errors != 1 else ''} below", "bad")


def _show_offenders(out: Output, transactions: tuple[Transaction, ...]) -> None:
    if not transactions:
        return
    out.heading("Writing on the primary now")
    rows = [
        (t.session, f"{t.user}@{t.host}", seconds(t.age_seconds), t.rows_modified, t.kind, t.statement or "(idle)")
        for t in transactions
    ]
    out.table(("Session>", "Who", "Age>", "Rows>", "Kind", "Statement"), rows, indent=1)
