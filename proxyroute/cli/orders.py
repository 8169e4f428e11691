"""``proxyroute maintenance``, ``pause``, ``resume``, ``prefer``, ``never`` and ``orders``: what people order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.config_shape import parse_duration
from proxyroute.errors import ConfigError

if TYPE_CHECKING:
    from proxyroute.orders import Orders

F = TypeVar("F", bound=Callable[..., Any])


def _ordering(function: F) -> F:
    function = click.option("--why", default="", metavar="TEXT", help="Why; it is shown with the order.")(function)
    return click.option("--for", "duration", metavar="TIME", help="It ends by itself after this time, e.g. 2h.")(
        function
    )


_ON = click.argument("state", type=click.Choice(["on", "off"]), default="on")


@click.command(short_help="Leave a server alone: no reads, never elected, not repointed.")
@click.argument("server")
@_ON
@_ordering
@common_options
@pass_context
def maintenance(ctx: Context, server: str, state: str, why: str, duration: str | None) -> None:
    """Put a server into maintenance, or end that.

    It is never elected, gets no reads where proxies are told who may read, is neither repointed nor let rejoin, and
    nobody is alarmed by its silence. The primary cannot be: move it first.
    """
    seconds = _seconds(duration)
    if _afar(ctx, "maintenance", why, server=server, on=state == "on", seconds=seconds):
        return
    _order(ctx, lambda orders: orders.maintenance(server, state == "on", why, seconds))


@click.command(short_help="Let `serve` look on, and do nothing by itself.")
@_ordering
@common_options
@pass_context
def pause(ctx: Context, why: str, duration: str | None) -> None:
    """Let `proxyroute serve` do nothing by itself, until `proxyroute resume`.

    No automatic failover, no rejoin, no leftovers, no routes told again, no former primary closed. It goes on to look
    and to tell, commands of people work, and an operation that has begun is brought to its end.
    """
    seconds = _seconds(duration)
    if _afar(ctx, "pause", why, seconds=seconds):
        return
    _order(ctx, lambda orders: orders.pause(why, seconds))


@click.command(short_help="Let `serve` act by itself again.")
@click.option("--why", default="", metavar="TEXT", help="Why; it is remembered.")
@common_options
@pass_context
def resume(ctx: Context, why: str) -> None:
    """Let `proxyroute serve` act by itself again."""
    if _afar(ctx, "resume", why):
        return
    _order(ctx, lambda orders: orders.resume(why))


@click.command(short_help="Take this server first when a primary is elected.")
@click.argument("server")
@_ON
@_ordering
@common_options
@pass_context
def prefer(ctx: Context, server: str, state: str, why: str, duration: str | None) -> None:
    """Take this server first when a primary is elected; off: as the configuration says."""
    seconds = _seconds(duration)
    rank = "prefer" if state == "on" else ""
    if _afar(ctx, "rank", why, server=server, rank=rank, seconds=seconds):
        return
    _order(ctx, lambda orders: orders.rank(server, rank, why, seconds))


@click.command(short_help="Never make this server the primary.")
@click.argument("server")
@click.argument("state", type=click.Choice(["on", "off", "allow"]), default="on")
@_ordering
@common_options
@pass_context
def never(ctx: Context, server: str, state: str, why: str, duration: str | None) -> None:
    """Never make this server the primary; off: as the configuration says; allow: whatever the configuration says."""
    seconds = _seconds(duration)
    rank = {"on": "never", "off": "", "allow": "neither"}[state]
    if _afar(ctx, "rank", why, server=server, rank=rank, seconds=seconds):
        return
    _order(ctx, lambda orders: orders.rank(server, rank, why, seconds))


@click.command(short_help="Show the standing orders, and who gave them.")
@click.option("--reset", is_flag=True, help="Drop all of them, also when they cannot be read; the file is kept.")
@common_options
@pass_context
def orders(ctx: Context, reset: bool) -> None:
    """Show the standing orders, and the last changes: who, when, why."""
    if ctx.url:
        from proxyroute.cli import afar  # what nobody needs who is on the engine's host

        if reset:
            afar.order(ctx, "reset_orders", "")
        else:
            _show(ctx, afar.orders(ctx))
        return
    with ctx.engine(reads=not reset) as engine:
        if reset:
            text = engine.orders.reset_in_words()
            ctx.out.json({"text": text}) if ctx.as_json else ctx.out.line(text)
            return
        standing, changes = engine.standing, engine.orders.changes()
    _show(ctx, {"standing": standing, "lines": standing.lines(), "changes": list(changes)})


def _show(ctx: Context, told: Mapping[str, Any]) -> None:
    if ctx.as_json:
        ctx.out.json(told)
        return
    for line in told["lines"] or ("no orders stand",):
        ctx.out.line(line)
    if told["changes"]:
        ctx.out.heading("Last changes")
        ctx.out.table(
            ("When", "Who", "What", "Why"),
            [
                (time.strftime("%F %T", time.localtime(c["at"])), c["by"], c["what"], c["why"])
                for c in told["changes"][-20:]
            ],
        )


def _afar(ctx: Context, kind: str, why: str, **arguments: Any) -> bool:
    """Gives the order by the API of a running daemon if one is named; tells whether that is so."""
    if not ctx.url:
        return False
    from proxyroute.cli import afar  # what nobody needs who is on the engine's host

    afar.order(ctx, kind, why, **arguments)
    return True


def _order(ctx: Context, give: Callable[[Orders], str]) -> None:
    with ctx.engine() as engine:
        text = give(engine.orders)
        standing = engine.standing
    if ctx.as_json:
        ctx.out.json({"text": text, "standing": standing})
    else:
        ctx.out.line(text)


def _seconds(duration: str | None) -> float | None:
    if duration is None:
        return None
    try:
        seconds = parse_duration(duration)
    except ValueError as error:
        raise ConfigError(f"--for: {error}") from None
    if seconds <= 0:
        raise ConfigError("--for: it would have ended already; leave it out for an order without end")
    return seconds
