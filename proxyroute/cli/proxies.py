"""``proxyroute render`` and ``proxyroute publish``: the proxies without a switchover."""

from __future__ import annotations

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.cli.output import styled
from proxyroute.cli.switchover import NOT_PROVEN
from proxyroute.config_yaml import suggest
from proxyroute.errors import ConfigError
from proxyroute.model import Observed, Receipt, ReceiptState
from proxyroute.shown import route_of

_LEVELS = {ReceiptState.DONE: "good", ReceiptState.FAILED: "bad", ReceiptState.UNKNOWN: "warn"}


@click.group(invoke_without_command=True, short_help="Print the files that would be written for the proxies.")
@click.option("--proxy", metavar="NAME", help="Only this one.")
@click.option(
    "--backends", "only_backends", is_flag=True, help="Only HAProxy's backends, for a configuration of yours."
)
@common_options
@click.pass_context
def render(click_context: click.Context, proxy: str | None, only_backends: bool) -> None:
    """Print the files that would be written for the proxies, routed to the current primary.

    With --backends only the backends, to be included in a configuration that is somebody else's: ProxyRoute does
    not follow up what becomes of them.

    Writes nothing but its output. `render keepalived` prints what keepalived needs on the hosts of `vrrp`.
    """
    if click_context.invoked_subcommand is None:
        _render_proxies(click_context.ensure_object(Context), proxy, only_backends)
    elif proxy is not None or only_backends:
        raise ConfigError(
            f"--proxy and --backends are not for render {click_context.invoked_subcommand}; leave them out"
        )


@render.command(short_help="Print the configuration of keepalived for each host of `vrrp`.")
@click.option("--host", metavar="NAME", help="Only this one, without a heading: > /etc/keepalived/keepalived.conf")
@common_options
@pass_context
def keepalived(ctx: Context, host: str | None) -> None:
    """Print the configuration of keepalived for each host that `vrrp` names.

    Writes nothing but its output, and asks nobody. docs/guide/vrrp.md says what becomes of it.
    """
    from proxyroute import vrrp  # what a mere --help need not wait for

    cluster = ctx.cluster
    if cluster.vrrp is None:
        raise ConfigError(f"{cluster.name} has no vrrp in {ctx.config_file}; docs/guide/vrrp.md shows one")
    names = list(cluster.vrrp.hosts)
    if host is not None and host not in names:
        raise ConfigError(f"there is no host {host!r} in vrrp; {suggest(host, names)}")
    texts = {n: vrrp.keepalived(cluster.name, cluster.vrrp, n) for n in names if host in (None, n)}
    if ctx.as_json:
        ctx.out.json({name: {vrrp.FILE: text} for name, text in texts.items()})
        return
    for name, text in texts.items():
        if host is None:
            ctx.out.raw(f"# ---- {name}: {vrrp.FILE}")
        ctx.out.raw(text.rstrip("\n"))


def _render_proxies(ctx: Context, proxy: str | None, only_backends: bool) -> None:
    with ctx.engine(reads=True) as engine:
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
    if ctx.url:
        from proxyroute.cli import afar  # what nobody needs who is on the engine's host

        afar.publish(ctx)
        return
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
