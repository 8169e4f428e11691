"""``proxyroute rejoin`` and ``proxyroute verify``: a server comes back, and its data are what they should be."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from proxyroute.binlog import Table
from proxyroute.cli.context import Context, common_options, on_terminal, pass_context
from proxyroute.cli.output import Output, styled, verdict_level
from proxyroute.cli.progress import Progress
from proxyroute.cli.switchover import NOT_PROVEN, end
from proxyroute.cli.telling import telling
from proxyroute.config_shape import parse_duration
from proxyroute.errors import Refused
from proxyroute.model import Deadline
from proxyroute.outcome import Verdict
from proxyroute.verify import Comparison
from proxyroute.words import seconds

_METHODS = ("follow", "flashback", "reseed", "empty")
_DOES = {
    "flashback": "undo on it what the primary lacks",
    "reseed": "replace all of its data",
    "empty": "make the primary count what it lacks as done, without what it did",
}


@click.command(short_help="Make a server follow the primary again.")
@click.argument("server")
@click.option(
    "--method", type=click.Choice(_METHODS), help="How, when it has what the primary lacks; else only follow."
)
@click.option("--yes", is_flag=True, help="Do not ask before --method flashback, reseed or empty.")
@common_options
@pass_context
def rejoin(ctx: Context, server: str, method: str | None, yes: bool) -> None:
    """Make a server follow the primary again.

    A server that has nothing the primary lacks simply follows. One that has is fenced, what it has is kept in
    an archive (raw and decoded) and shown, and nothing else happens until a method is named: flashback undoes
    those transactions, reseed builds the server anew. Only SERVER is changed. On MySQL, where nothing undoes
    transactions, empty makes an empty one for each on the primary. After a crash type it again.

    \b
    Exit codes
      0  it follows, and that is proven
      3  refused: the findings say why; the server is read-only and does not replicate
      5  not finished: type it again, or `proxyroute heal`
      6  another operation holds the cluster or the server
      7  done, but the proof has a gap: look at it
    """
    if method in _DOES and not yes:
        if ctx.as_json or not on_terminal():
            line = ctx.command_line("rejoin", server, "--method", method, "--yes")
            raise Refused(f"nobody is here to be asked; to go ahead without asking type\n  {line}")
        if not click.confirm(f"Make {server} follow the primary, and {_DOES[method]}? (it is archived first)"):
            raise Refused("not confirmed; nothing was touched")
    if ctx.url:
        from proxyroute.cli import afar  # what nobody needs who is on the engine's host

        afar.rejoin(ctx, server, method)
        return
    with (
        Progress(quiet=ctx.as_json) as progress,
        telling(ctx, progress) as listener,
        ctx.engine(listener) as engine,
    ):
        result = engine.rejoin(server, method)
    end(ctx, result)


@click.command(short_help="Compare the data of replicas with the primary.")
@click.option("--server", metavar="SERVER", help="This replica only; else all, one after the other.")
@click.option("--table", "tables", multiple=True, metavar="SCHEMA.TABLE", help="This table only; may be repeated.")
@click.option("--within", default="24h", show_default=True, help="Give up after this time.")
@common_options
@pass_context
def verify(ctx: Context, server: str | None, tables: Sequence[str], within: str) -> None:
    """Compare the data of replicas with the primary.

    Chunk by chunk, by checksums, both sides at the same position. The primary is not blocked; the applier of a
    replica stands still for a moment, again every two minutes.

    \b
    Exit codes
      0  everything is equal
      3  refused: there is no primary, or no such replica
      6  SERVER is rebuilt or compared already
      7  there are differences, or something could not be compared
    """
    try:
        deadline = Deadline.after(parse_duration(within))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--within") from error
    wanted = [_table(text) for text in tables] or None
    if ctx.url:
        from proxyroute.cli import afar  # what nobody needs who is on the engine's host

        afar.verify(ctx, server, tables, deadline.left)
        return
    shown = sys.stderr.isatty() and not ctx.as_json

    def watch(text: str) -> None:
        if shown:
            click.echo(f"\r\x1b[K  {text} …", nl=False, err=True)

    with ctx.engine() as engine:
        comparisons = engine.verify(server, wanted, deadline, watch)
    if shown:
        click.echo("\r\x1b[K", nl=False, err=True)
    if ctx.as_json:
        ctx.out.json({"comparisons": [{"comparison": c, "verdict": str(c.verdict)} for c in comparisons]})
    else:
        for comparison in comparisons:
            _show(ctx.out, comparison)
    raise SystemExit(0 if all(c.verdict is Verdict.PROVEN for c in comparisons) else NOT_PROVEN)


def _table(text: str) -> Table:
    schema, dot, name = text.partition(".")
    if not dot or not schema or not name:
        raise click.BadParameter(f"{text!r} is not SCHEMA.TABLE", param_hint="--table")
    return Table(schema, name)


def _show(out: Output, comparison: Comparison) -> None:
    out.heading(f"{comparison.replica} against {comparison.primary}")
    if comparison.differences:
        rows = [(d.table, _keys(d.after, d.upto), d.what) for d in comparison.differences]
        out.table(("Table", "Keys", "Difference"), rows, indent=1)
    for skipped in comparison.skipped:
        out.line(f"  not compared: {skipped}", "warn")
    word = {Verdict.PROVEN: "EQUAL", Verdict.NOT_PROVEN: "DIFFERENT", Verdict.UNKNOWN: "UNKNOWN"}[comparison.verdict]
    told = f"  {comparison.rows} rows of {comparison.tables} tables in {comparison.chunks} chunks"
    where = f", at {', '.join(comparison.positions)}" if comparison.positions else ""
    line = styled(word, verdict_level(str(comparison.verdict)))
    out.line(line.append(f"{told}, {seconds(comparison.seconds)}{where}", style="default"))


def _keys(after: str, upto: str) -> str:
    if not after and not upto:
        return "all"
    return f"above {after or 'nothing'}" + (f" up to {upto}" if upto else "")
