"""``proxyroute failover`` and ``proxyroute plan --failover``: the primary is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from proxyroute.cli.context import Context, common_options, on_terminal, pass_context
from proxyroute.cli.output import Output, styled
from proxyroute.cli.progress import Progress
from proxyroute.cli.switchover import end
from proxyroute.cli.telling import telling
from proxyroute.errors import Refused
from proxyroute.planned import contingency_json

if TYPE_CHECKING:
    from proxyroute.contingency import Contingency
    from proxyroute.sentry import Sentry


@click.command(short_help="Replace a primary that is gone, and move the traffic.")
@click.option("--to", "target", metavar="SERVER", help="The server that takes over; else one is elected.")
@click.option(
    "--fenced-by",
    default="",
    metavar="NAME",
    help="Who has made sure that the old primary takes no writes; `pacemaker` is asked.",
)
@click.option(
    "--proxy-fenced",
    "fenced_proxies",
    multiple=True,
    metavar="PROXY",
    help="This proxy is off, or cannot reach the old primary; may be repeated.",
)
@click.option(
    "--apply-dead-binlog",
    is_flag=True,
    help="Apply what only the old primary has, read from its host, before the new one takes writes.",
)
@click.option(
    "--acknowledge",
    is_flag=True,
    help="Say that every failover so far was looked at: none counts for the limits any more.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Go on in spite of the findings that say --force; what is lost is told.")
@common_options
@pass_context
def failover(
    ctx: Context,
    target: str | None,
    fenced_by: str,
    fenced_proxies: Sequence[str],
    apply_dead_binlog: bool,
    acknowledge: bool,
    yes: bool,
    force: bool,
) -> None:
    """Replace a primary that is gone, and move the traffic.

    Looks until it is clear what is the matter, shows it with what speaks against acting, asks, closes every way to the
    old primary, applies everything that any replica has received, and only then opens another server. A primary that
    a replica still hears is never failed over.

    \b
    Exit codes
      0  done and proven
      3  refused: nothing was touched
      4  everything was undone; the routes go to the old primary as before
      5  not finished: type `proxyroute heal`
      6  another operation holds the cluster
      7  done; something is left to do, or what the old primary had last may be lost
    """
    if acknowledge and ctx.url:
        from proxyroute.cli import afar  # what nobody needs who is on the engine's host

        afar.order(ctx, "acknowledge", "")
        return
    if acknowledge:
        with ctx.engine() as engine:
            engine.acknowledge_failovers()
        ctx.out.line("acknowledged: no failover so far counts for quiet_period and per_day any more")
        return
    if not yes and (ctx.as_json or not on_terminal()):
        words = ["failover", "--yes", *(["--to", target] if target else [])]
        words += ["--fenced-by", fenced_by] if fenced_by else []
        words += [word for name in fenced_proxies for word in ("--proxy-fenced", name)]
        words += ["--apply-dead-binlog"] if apply_dead_binlog else []
        words += ["--force"] if force else []
        raise Refused(f"nobody is here to be asked; to go ahead without asking type\n  {ctx.command_line(*words)}")

    if ctx.url:
        from proxyroute.cli import afar  # what nobody needs who is on the engine's host

        question = "Put {candidate} of {cluster} in the place of {primary}?"
        afar.move(
            ctx, "failover", question, yes=yes, target=target, force=force, fenced_by=fenced_by,
            fenced_proxies=list(fenced_proxies), apply_dead_binlog=apply_dead_binlog,
        )  # fmt: skip
        return

    from proxyroute.lookout import foreseer  # what a mere --help need not wait for

    shown: Contingency | None = None

    def confirm(prospect: Contingency) -> bool:
        nonlocal shown
        shown = prospect
        if not ctx.as_json:
            show_contingency(ctx.out, prospect)
            ctx.out.line()
        plan = prospect.plan
        assert plan is not None
        return yes or click.confirm(f"Put {plan.candidate} of {plan.cluster} in the place of {plan.primary}?")

    with (
        Progress(quiet=ctx.as_json) as progress,
        telling(ctx, progress) as listener,
        ctx.engine(listener) as engine,
        _sentry(ctx) as sentry,
    ):
        foresee = foreseer(
            ctx.cluster,
            sentry,
            target,
            force=force,
            fenced_by=fenced_by,
            fenced_proxies=fenced_proxies,
            apply_dead_binlog=apply_dead_binlog,
        )
        result = engine.failover(foresee, force=force, automatic=False, confirm=confirm)
    end(ctx, result, plan=contingency_json(shown) if shown else None)


def show_plan(ctx: Context, target: str | None, force: bool) -> None:
    """Writes what a failover would do now. Ends with 3 when it would be refused."""
    from proxyroute.lookout import foreseer

    with ctx.engine() as engine, _sentry(ctx) as sentry:
        prospect = foreseer(ctx.cluster, sentry, target, force=force)(engine.foretold())
        prospect = replace(prospect, limits=engine.failover_limits())
    if ctx.as_json:
        ctx.out.json(contingency_json(prospect))
    else:
        show_contingency(ctx.out, prospect)
    if not prospect.go:
        raise SystemExit(Refused.exit_code)


def _sentry(ctx: Context) -> Sentry:
    from proxyroute.sentry import Sentry

    return Sentry(ctx.cluster)


def show_contingency(out: Output, prospect: Contingency) -> None:
    """Writes what is the matter, what a failover would do, and what speaks against it."""
    diagnosis, plan, election = prospect.diagnosis, prospect.plan, prospect.election
    moved = f"{plan.cluster}: {plan.primary} → {plan.candidate}" if plan else prospect.view.cluster
    out.line(styled(f"{'GO' if prospect.go else 'NO-GO'}  failover {moved}", "good" if prospect.go else "bad"))
    out.line(f"{diagnosis.name}: {diagnosis.text}")
    out.findings(prospect.findings)
    if election is not None and election.ranking:
        out.heading("Who could take over")
        rows = [
            (r.name, styled("qualifies", "good") if r.qualified else styled("rejected", "bad"), "\n".join(r.reasons))
            for r in election.ranking
        ]
        out.table(("Server", "", "Why"), rows, indent=1)
    if election is not None and election.fetch_from:
        out.line(f"  what only {election.fetch_from} has received is fetched from it first")
    if prospect.go:
        out.heading("What may be lost")
        for text in prospect.may_be_missing or ("nothing that was acknowledged",):
            out.line(f"  {text}")
        out.line(f"  {prospect.dead_binlog}")
    if prospect.limits:
        out.heading("proxyroute serve would not do it by itself")
        for finding in prospect.limits:
            out.line(f"{finding.subject}: {finding.text} ({finding.code})", "quiet")
            out.raw(f"    → {finding.cure}")
