"""``proxyroute render`` and ``proxyroute publish``: the proxies without a switchover."""

from __future__ import annotations

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.cli.output import styled
from proxyroute.cli.status import route_of
from proxyroute.cli.switchover import NOT_PROVEN
from proxyroute.config_yaml import suggest
from proxyroute.errors import ConfigError
from proxyroute.model import Observed, Receipt, ReceiptState

_LEVELS = {ReceiptState.DONE: "good", ReceiptState.FAILED: "bad", ReceiptState.UNKNOWN: "warn"}


@click.command(short_help="Print the files that would be written for the proxies.")
@click.option("--proxy", metavar="NAME", help="Only this one.")
@click.option(
    "--backends", "only_backends", is_flag=True, help="Only HAProxy's backends, for a configuration of yours."
)
@common_options
@pass_context
def render(ctx: Context, proxy: str | None, only_backends: bool) -> None:
    """Print the files that would be written for the proxies, routed to the current primary.

    With --backends only the backends, to be included in a configuration that is somebody else's: ProxyRoute does
    not follow up what becomes of them.

    Writes nothing but its output.
    """
    with ctx.engine() as engine:
        rendered = engine.render()
    if proxy is not None:
        if proxy not in rendered:
            raise ConfigError(f"no proxy {proxy!r} has files to render; {suggest(proxy, rendered)}")
        rendered = {proxy: rendered[proxy]}
    if only_backends:
        from proxyroute.haproxy.render import backends  # what a mere --help need not wait for

        rendered = {
            name: {file: backends(text) for file, text in files.items() if file.endswith(".cfg")}
            for name, files in rendered.items()
        }
    if ctx.as_json:
        ctx.out.json(rendered)
        return
    if not rendered:
        ctx.out.line("no proxy of this cluster has files to render")
    for name, files in rendered.items():
        for file, text in files.items():
            ctx.out.raw(f"# ---- {name}: {file}")
            ctx.out.raw(text.rstrip("\n"))


@click.command(short_help="Make the proxies follow the primary that is there now.")
@common_options
@pass_context
def publish(ctx: Context) -> None:
    """Make the proxies follow the primary that is there now.

    For the first set-up, and to take back a drift. The databases are not touched.

    \b
    Exit codes
      0  every proxy follows and has shown it
      1  a proxy could not be told
      7  told, but a proxy cannot show that it follows
    """
    with ctx.engine() as engine:
        receipts = engine.publish()
        observed = {o.proxy: o for o in engine.observe()}
    if ctx.as_json:
        ctx.out.json({"receipts": receipts, "proxies": list(observed.values())})
    elif not receipts:
        ctx.out.line("this cluster has no proxies")
    else:
        ctx.out.table(
            ("Proxy", "State", "Published", "Loaded", "Told"),
            [_row(receipt, observed.get(receipt.proxy)) for receipt in receipts],
        )
        for seen in observed.values():
            for difference in seen.drift:
                ctx.out.line(f"{seen.proxy}: {difference}", "warn")
    states = {r.state for r in receipts}
    if ReceiptState.FAILED in states:
        raise SystemExit(1)
    if states - {ReceiptState.DONE}:
        raise SystemExit(NOT_PROVEN)


def _row(receipt: Receipt, seen: Observed | None) -> tuple[object, ...]:
    """One proxy: what it answered, and what it was told and has loaded since, as it was read back."""
    published = str(seen.published) if seen is not None and seen.published is not None else "-"
    loaded = route_of(seen) if seen is not None and seen.reachable else "?"
    return receipt.proxy, styled(receipt.state, _LEVELS.get(receipt.state, "")), published, loaded, receipt.detail
