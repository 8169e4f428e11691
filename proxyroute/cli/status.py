"""``proxyroute status``: one line of truth, then every server, every proxy, and what is still open."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from proxyroute import shown
from proxyroute.addresses import holders
from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.cli.output import Output, styled
from proxyroute.drift import differences
from proxyroute.history import fenced, fencing_text, waiting_for_heal
from proxyroute.jsonable import dump, jsonable
from proxyroute.model import Finding, Holding, Observed, Silent, Status, View
from proxyroute.standing import Standing
from proxyroute.truth import truth

if TYPE_CHECKING:
    from proxyroute.engine import Engine, Summary

_CLEAR = "\x1b[H\x1b[2J"
_LEAST, _MOST = 0.1, 86400


def _within_reason(_: click.Context, __: click.Parameter, seconds: float) -> float:
    if not _LEAST <= seconds <= _MOST:  # nor is what is no number at all
        raise click.BadParameter(f"{seconds:g} is not from {_LEAST:g} to {_MOST} seconds")
    return seconds


@click.command(short_help="Show who takes writes, who follows, and what the proxies do.")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C; with --json one line per reading.")
@click.option(
    "--interval",
    default=1.0,
    show_default=True,
    callback=_within_reason,
    help=f"Seconds between two readings of --watch, from {_LEAST:g} to {_MOST}.",
)
@common_options
@pass_context
def status(ctx: Context, watch: bool, interval: float) -> None:
    """Show who takes writes, who follows, and what the proxies do.

    The first line is the truth in short. Exit code 0 whatever it says; to act on the state of a cluster use
    --json, or `proxyroute check`.
    """
    if ctx.url:
        _from_afar(ctx, watch, interval)
        return
    with ctx.engine(reads=True) as engine:
        if not watch:
            _once(ctx, engine)
            return
        try:
            while True:
                if ctx.as_json:
                    click.echo(dump(_json(_read(ctx, engine)), indent=None))
                else:
                    reading = _read(ctx, engine)
                    if ctx.out.console.is_terminal:
                        click.echo(_CLEAR, nl=False)
                    _show(ctx.out, reading)
                time.sleep(interval)
        except KeyboardInterrupt:
            return


@dataclass(frozen=True)
class Reading:
    """Everything that is shown of one cluster at one moment."""

    view: View
    proxies: Sequence[Observed]
    unfinished: list[Summary]
    intended: str | None
    """The server that writes are meant to go to; None when that is not for ProxyRoute to say."""
    astray: str
    """Why not."""
    served_by: int | None
    """Pid of the process that serves the cluster on this host."""
    lease: Holding
    aside: tuple[Summary, ...] = ()
    """The last word on each server that could not rejoin."""
    blocks: tuple[Finding, ...] = ()
    """What would block a failover now."""
    failover: Summary | None = None
    """The last failover, if nothing has moved the primary since."""
    standing: Standing = field(default_factory=Standing)
    """What people have told us to heed."""
    addresses: tuple[Finding, ...] = ()
    """What is wrong with virtual addresses."""
    automatic: bool = False
    """It is ``serve`` that fails over."""

    def drift(self, proxy: Observed) -> tuple[str, ...]:
        """Returns, in words, where a proxy is not as it should be; its own drift only while nobody knows how."""
        return differences(self.intended, proxy) if self.intended is not None else proxy.drift


def _from_afar(ctx: Context, watch: bool, interval: float) -> None:
    from proxyroute.cli import afar  # what nobody needs who is on the engine's host

    afar.status(ctx)
    while watch:
        time.sleep(interval)
        if ctx.out.console.is_terminal and not ctx.as_json:
            click.echo(_CLEAR, nl=False)
        afar.status(ctx)


def _once(ctx: Context, engine: Engine) -> None:
    reading = _read(ctx, engine)
    if ctx.as_json:
        ctx.out.json(_json(reading))
    else:
        _show(ctx.out, reading)


def _read(ctx: Context, engine: Engine) -> Reading:
    from proxyroute.assembly import cluster_folder  # what a mere --help need not wait for
    from proxyroute.sentry import recall
    from proxyroute.serve_lock import server_of

    view, observed = engine.look(), engine.observe()
    intended, astray = engine.intended(view, observed)
    history = engine.history()
    aside = tuple(s for s in fenced(history) if not _back(view, s.candidate))
    known, _ = recall(cluster_folder(ctx.cluster) / "known.json")
    last = engine.last_move()
    return Reading(
        view, observed, waiting_for_heal(history), intended, astray, server_of(ctx.cluster), engine.lease(), aside,
        engine.failover_blocks(view, observed, known),
        last if last is not None and last.kind == "failover" and last.outcome == "done" else None,
        engine.standing,
        engine.address_findings(observed),
        ctx.cluster.failover.mode == "automatic",
    )  # fmt: skip


def _back(view: View, name: str) -> bool:
    """Tells whether a server replicates by now, or is the primary, whatever was said of it earlier."""
    status = view.status(name)
    return status is not None and (status.writable or any(source.running for source in status.sources))


def is_open(summary: Summary) -> bool:
    """Tells whether an operation still waits for ``proxyroute heal``."""
    return summary.outcome == "open"


def _show(out: Output, reading: Reading) -> None:
    view, proxies, unfinished = reading.view, reading.proxies, reading.unfinished
    text, level = truth(view, proxies, unfinished, reading.standing)
    out.line(text, level)
    if reading.astray and view.primary is not None:
        out.line(reading.astray, "bad")
    out.line()
    columns = ("Server", "Role", "Read-only", "Replication", "Lag>", "Semi-sync", "Position")
    out.table(columns, [_server_row(server, view) for server in view.servers.values()])
    for server in view.servers.values():
        if isinstance(server, Silent):
            out.line(f"{server.name} at {server.address}: {server.reason}", "bad")
        else:
            for source in server.sources:
                if source.error:
                    out.line(f"{server.name}: {source.error}", "bad")
    if proxies:
        out.line()
        out.table(
            ("Proxy", "Intended", "Published", "Loaded", "Reads from", "Sessions", "State"),
            [_proxy_row(proxy, reading) for proxy in proxies],
        )
        for proxy in proxies:
            for difference in reading.drift(proxy):
                out.line(f"{proxy.proxy}: {difference}", "warn")
        _show_addresses(out, reading)
    if orders := reading.standing.lines():
        out.heading("Standing orders")
        for line in orders:
            out.line(line, "warn")
    if reading.aside:
        out.heading("Not in the cluster")
        for summary in reading.aside:
            out.line(f"{summary.candidate}: {summary.told}", "warn")
            out.raw(
                f"    → proxyroute rejoin {summary.candidate} tells what is in the way, and by which --method it can"
            )
    if unfinished:
        out.heading("Left to do by proxyroute heal")
        for summary in unfinished:
            moved = f"{summary.kind} {summary.primary} → {summary.candidate}"
            out.line(f"{summary.operation}  {moved}: {'; '.join(summary.leftovers) or 'open'}", "warn")
    if reading.blocks:
        out.heading(f"Would block {'an automatic' if reading.automatic else 'a'} failover now")
        for finding in reading.blocks:
            out.line(f"{finding.subject}: {finding.text} ({finding.code})", "quiet")
            out.raw(f"    → {finding.cure}")
    out.line()
    if not view.writable:
        out.line("who could take writes, and what is against it: proxyroute plan --failover", "warn")
    if reading.failover is not None:
        _show_failover(out, view, reading.failover)
    lease = reading.lease
    if lease.trouble or lease.holder or lease.kind != "local":
        out.line(f"lease ({lease.kind}): {shown.lease_text(lease)}", "bad" if lease.trouble else "quiet")
    if reading.served_by is not None:
        out.line(f"proxyroute serve keeps it in order (process {reading.served_by})", "quiet")
    else:
        out.line("nobody keeps it in order all the time: proxyroute serve", "quiet")


def _show_addresses(out: Output, reading: Reading) -> None:
    for address, hosts in holders(reading.proxies).items():
        out.line(f"{address} is at {', '.join(hosts) or 'none of them'}", "quiet" if len(hosts) == 1 else "warn")
    for finding in reading.addresses:
        out.line(f"{finding.subject}: {finding.text} ({finding.code})", "warn")
        out.raw(f"    → {finding.cure}")


def _show_failover(out: Output, view: View, last: Summary) -> None:
    """Says honestly what keeps the old primary of the last failover away; a warning until it follows."""
    when = time.strftime("%F %T", time.localtime(last.started))
    back = _back(view, last.primary)
    kept = f"{last.primary} follows again" if back else fencing_text(last.primary, last.fencing, last.fenced_by)
    calm = back or last.fencing == "fenced"
    text = f"failover {last.primary} → {last.candidate} at {when}: {kept}"
    out.line(f"{text} (was {last.fencing})" if back and last.fencing else text, "quiet" if calm else "warn")


def _server_row(server: Status | Silent, view: View) -> tuple[object, ...]:
    if isinstance(server, Silent):
        return (server.name, styled("silent", "bad"), *[""] * 5)
    return (
        server.name,
        shown.role(server, view),
        styled(*shown.read_only(server, view)),
        styled(*shown.replication(server, view)),
        shown.lag(server),
        styled(*shown.semi_sync(server)),
        shown.position_text(server.executed),
    )


def _proxy_row(proxy: Observed, reading: Reading) -> tuple[object, ...]:
    intended = reading.intended or "?"
    published = str(proxy.published) if proxy.published is not None else "-"
    if not proxy.reachable:
        return proxy.proxy, intended, published, "?", "", "", styled(f"not reachable: {proxy.detail}", "bad")
    state = "holds newcomers" if proxy.held else "drifted" if reading.drift(proxy) else "ok"
    told = f"{state}; {' '.join(proxy.aside)} set aside there" if proxy.aside else state
    sessions = ", ".join(f"{name} {count}" for name, count in proxy.sessions.items() if count)
    return (
        proxy.proxy,
        intended,
        published,
        styled(shown.route_of(proxy), "" if proxy.primary == intended else "bad"),
        " ".join(proxy.readers) or "-",
        sessions or "-",
        styled(told, "" if told == "ok" else "warn"),
    )


def _json(reading: Reading) -> dict[str, Any]:
    view = reading.view
    text, level = truth(view, reading.proxies, reading.unfinished, reading.standing)
    return {
        "cluster": view.cluster,
        "truth": text,
        "level": level,
        "primary": view.primary.name if view.primary else None,
        "intended": reading.intended,
        "astray": reading.astray,
        "taken_at": view.taken_at,
        "servers": [_server_json(server) for server in view.servers.values()],
        "proxies": [_proxy_json(proxy, reading) for proxy in reading.proxies],
        "open_operations": reading.unfinished,
        "served_by": reading.served_by,
        "lease": reading.lease,
        "not_rejoined": list(reading.aside),
        "blocks_failover": list(reading.blocks),
        "last_failover": reading.failover,
        "standing": reading.standing,
        "addresses": holders(reading.proxies),
        "address_findings": list(reading.addresses),
    }


def _proxy_json(proxy: Observed, reading: Reading) -> dict[str, Any]:
    value: dict[str, Any] = jsonable(proxy)
    return {**value, "intended": reading.intended, "differences": list(reading.drift(proxy))}


def _server_json(server: Status | Silent) -> dict[str, Any]:
    value: dict[str, Any] = jsonable(server)
    return {**value, "reachable": isinstance(server, Status)}
