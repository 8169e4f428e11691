"""``proxyroute check``: would everything work if it had to? Configuration, secrets, servers, accounts, proxies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.errors import Refused


@click.command(short_help="Look for everything that would stand in the way of a switchover.")
@common_options
@pass_context
def check(ctx: Context) -> None:
    """Look for everything that would stand in the way of a switchover.

    Reads the configuration, the secrets, every server, the account's privileges on a fresh connection, and
    every proxy. Changes nothing.

    \b
    Exit codes
      0  no errors (there may be warnings)
      2  the configuration is wrong: nothing else could be looked at
      3  there are errors
    """
    if ctx.url:
        from proxyroute.cli import afar  # what nobody needs who is on the engine's host

        _show(ctx, afar.check(ctx))
        return
    from proxyroute.checkup import checkup  # what a mere --help need not wait for

    _show(ctx, checkup(ctx.cluster, ctx.engine).to_json())


def _show(ctx: Context, told: Mapping[str, Any]) -> None:
    errors, warnings = told["errors"], told["warnings"]
    if ctx.as_json:
        ctx.out.json(told)
    else:
        level = "bad" if errors else "warn" if warnings else "good"
        ctx.out.line(f"{told['cluster']}: {_many(errors, 'error')}, {_many(warnings, 'warning')}", level)
        ctx.out.findings(told["findings"])
        if not told["servers_looked_at"]:
            ctx.out.line()
            ctx.out.line("Servers and proxies were not looked at: correct these first.", "warn")
    if errors:
        raise SystemExit(Refused.exit_code)


def _many(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
