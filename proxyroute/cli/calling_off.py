"""``proxyroute call-off``: what a running daemon does for somebody is not wanted any more."""

from __future__ import annotations

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.errors import ConfigError


@click.command("call-off", short_help="Call off what a daemon is doing (--url).")
@click.argument("operation", required=False)
@click.option("--why", default="", metavar="TEXT", help="Why; it stands in the audit.")
@common_options
@pass_context
def call_off(ctx: Context, operation: str | None, why: str) -> None:
    """Call off what a daemon is doing: OPERATION, or what goes on.

    A switchover is undone, unless it is committed: then it is finished. A comparison ends. A rejoin, and what a
    heal has left to do, end early, and are taken up again later. A failover is not called off. What was typed
    without --url is interrupted where it was typed, by Ctrl-C.

    \b
    Exit codes
      0  it has ended early
      3  it could not be called off, or that was too late
    """
    if not ctx.url:
        cure = "what was typed is interrupted where it was, by Ctrl-C; what a daemon does is called off by --url URL"
        raise ConfigError(f"nobody is named who could be told; {cure}")
    from proxyroute.cli import afar  # what nobody needs who is on the engine's host

    afar.call_off(ctx, operation, why)
