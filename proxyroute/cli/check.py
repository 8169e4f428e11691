"""``proxyroute check``: would everything work if it had to? Configuration, secrets, servers, accounts, proxies."""

from __future__ import annotations

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.errors import ConfigError, Refused
from proxyroute.model import Finding, Severity


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
    cluster = ctx.cluster
    try:
        with ctx.engine() as engine:
            findings = list(engine.check())
        looked = True
    except ConfigError:  # without its secrets the engine cannot start; its findings say the same with their cures
        findings = list(cluster.findings())
        looked = False
        if not any(f.severity is Severity.ERROR for f in findings):
            raise
    errors, warnings = (_count(findings, s) for s in (Severity.ERROR, Severity.WARNING))
    if ctx.as_json:
        ctx.out.json(
            {
                "cluster": cluster.name,
                "errors": errors,
                "warnings": warnings,
                "servers_looked_at": looked,
                "findings": findings,
            }
        )
    else:
        level = "bad" if errors else "warn" if warnings else "good"
        ctx.out.line(f"{cluster.name}: {_many(errors, 'error')}, {_many(warnings, 'warning')}", level)
        ctx.out.findings(findings)
        if not looked:
            ctx.out.line()
            ctx.out.line("Servers and proxies were not looked at: correct these first.", "warn")
    if errors:
        raise SystemExit(Refused.exit_code)


def _count(findings: list[Finding], severity: Severity) -> int:
    return sum(1 for f in findings if f.severity is severity)


def _many(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
