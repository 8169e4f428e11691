"""``proxyroute switchover`` and ``proxyroute heal``: the two commands that change the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from proxyroute.cli.context import Context, common_options, on_terminal, pass_context
from proxyroute.cli.output import Output, styled, verdict_level
from proxyroute.cli.plan import show_prospect
from proxyroute.cli.progress import Progress
from proxyroute.cli.telling import tell, telling, telling_unhealed
from proxyroute.errors import Refused, Unfinished
from proxyroute.outcome import Proof, Result, Verdict
from proxyroute.planned import offenders, prospect_json
from proxyroute.words import stood_still

if TYPE_CHECKING:
    from proxyroute.engine import Prospect

NOT_PROVEN = 7


@click.command(short_help="Move the primary, and the traffic with it.")
@click.option("--to", "target", metavar="SERVER", help="The server that takes over; else one is elected.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Go on in spite of the findings that say --force.")
@click.option("--kill-long", is_flag=True, help="End transactions that are still writing when the wait is over.")
@common_options
@pass_context
def switchover(ctx: Context, target: str | None, yes: bool, force: bool, kill_long: bool) -> None:
    """Move the primary, and the traffic with it.

    Shows the plan, asks, shows each step with its duration as it happens, and proves the result. A named
    target that does not qualify is refused, never replaced by another server.

    \b
    Exit codes
      0  done and proven, or nothing to do
      3  refused: nothing was touched
      4  everything was undone; the old primary takes writes
      5  not finished: type `proxyroute heal`
      6  another operation holds the cluster
      7  done, but something is left to do, or the proof has a gap
    """
    if not yes and (ctx.as_json or not on_terminal()):
        words = ["switchover", "--yes"]
        words += ["--to", target] if target else []
        words += ["--force"] if force else []
        words += ["--kill-long"] if kill_long else []
        raise Refused(f"nobody is here to be asked; to go ahead without asking type\n  {ctx.command_line(*words)}")

    if ctx.url:
        from proxyroute.cli import afar  # what nobody needs who is on the engine's host

        question = "Move the primary of {cluster} from {primary} to {candidate}?"
        afar.move(ctx, "switchover", question, yes=yes, target=target, force=force, kill_long=kill_long)
        return

    shown: Prospect | None = None

    def confirm(prospect: Prospect) -> bool:
        nonlocal shown
        shown = prospect
        if not ctx.as_json:
            show_prospect(ctx.out, prospect)
            ctx.out.line()
        return yes or click.confirm(_question(prospect, kill_long))

    with (
        Progress(quiet=ctx.as_json) as progress,
        telling(ctx, progress) as listener,
        ctx.engine(listener) as engine,
    ):
        result = engine.switchover(target, force=force, kill_long=kill_long, confirm=confirm)
    end(ctx, result, plan=prospect_json(shown) if shown else None)


@click.command(short_help="Finish or undo what was interrupted.")
@click.option(
    "--declare-lost",
    "lost",
    multiple=True,
    metavar="SERVER",
    help="This server is gone for good and takes no writes; may be repeated. Kept in the journal.",
)
@common_options
@pass_context
def heal(ctx: Context, lost: Sequence[str]) -> None:
    """Finish or undo what was interrupted.

    Takes up every open operation of the cluster, with the configuration that it was begun with: before its
    commit it is undone, after it it is finished. May be repeated at any time.

    \b
    Exit codes
      0  nothing was open, or all of it is closed and proven
      5  something is still open: the message says what it waits for
      6  another operation holds the cluster
      7  finished, but something is left to do, or the proof has a gap
    """
    if ctx.url:
        from proxyroute.cli import afar  # what nobody needs who is on the engine's host

        afar.heal(ctx, lost)
        return
    with Progress(quiet=ctx.as_json) as progress, ctx.engine(progress) as engine:
        with telling_unhealed(ctx, engine):
            results = engine.heal(lost)
        for healed in results if ctx.cluster.notices else ():
            tell(ctx, "healed", engine.show(healed.operation))
        unread = engine.damaged()
    code = Unfinished.exit_code if unread else max((result_code(r) for r in results), default=0)
    with ctx.out.ended(code):
        if ctx.as_json:
            told = [{"result": r, "verdict": verdict_of(r)} for r in results]
            ctx.out.json({"results": told, "unread": unread})
        else:
            for result in results:
                show_result(ctx.out, result)
            if unread:
                ctx.out.line("what follows cannot be read, so its operation may be open", "bad")
                ctx.out.findings(unread)
            elif not results:
                ctx.out.line("nothing is open", "good")


def end(ctx: Context, result: Result, **more: Any) -> None:
    """Shows how an act has ended, in JSON with ``more``; ends with its exit code, whether it could be shown or not."""
    with ctx.out.ended(result_code(result)):
        if ctx.as_json:
            ctx.out.json({**more, "result": result, "verdict": verdict_of(result)})
        else:
            show_result(ctx.out, result)


def result_code(result: Result) -> int:
    """Returns the exit code for an operation that ended without an exception."""
    if result.outcome == "open":
        return Unfinished.exit_code
    if result.outcome == "done":
        proven = result.proof is not None and result.proof.verdict is Verdict.PROVEN
        return 0 if proven and not result.leftovers else NOT_PROVEN
    return 0


def show_result(out: Output, result: Result) -> None:
    """Writes how an operation ended: the evidence first, the one line that counts last."""
    if result.findings:
        out.findings(result.findings)
    if result.proof is not None:
        _show_proof(out, result.proof)
    for leftover in result.leftovers:
        out.line(f"left to do: {leftover}; proxyroute heal takes it up", "warn")
    text = result.text or f"{result.kind} {result.outcome}"
    if result.proof is None:
        out.line(text, "good" if result.outcome in ("done", "unchanged") else "warn")
        return
    out.line()
    verdict = str(result.proof.verdict)
    line = styled(verdict, verdict_level(verdict)).append(f"  {text}", style="default")
    if result.proof.blackout_seconds is not None:
        told = stood_still(result.proof.blackout_seconds, result.proof.blackout_from)
        line.append(f"; {told}", style="default")
    out.line(line)
    if result.operation:
        out.line(f"The whole story: proxyroute show {result.operation}", "quiet")


def _show_proof(out: Output, proof: Proof) -> None:
    out.heading("Proof")
    rows = [(styled(e.verdict, verdict_level(str(e.verdict))), e.subject, e.claim, e.seen) for e in proof.evidence]
    out.table(("Verdict", "About", "Claim", "Seen"), rows, indent=1)


def _question(prospect: Prospect, kill_long: bool) -> str:
    plan = prospect.plan
    assert plan is not None, "the engine asks only about a plan"
    writing = len(offenders(prospect))
    killed = f", ending up to {writing} transactions that write" if kill_long and writing else ""
    locked = f", locking {', '.join(plan.lock_accounts)} meanwhile" if plan.lock_accounts else ""
    return f"Move the primary of {plan.cluster} from {plan.primary} to {plan.candidate}{killed}{locked}?"


def verdict_of(result: Result) -> str | None:
    return str(result.proof.verdict) if result.proof else None
