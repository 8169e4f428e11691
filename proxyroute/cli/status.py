"""``proxyroute status``: one line of truth, then every server, every proxy, and what is still open."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from proxyroute import topology
from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.cli.jsonable import dump, jsonable
from proxyroute.cli.output import Output, styled
from proxyroute.gtid import MariaDBPosition, Position
from proxyroute.model import Observed, Receiver, Silent, Source, Status, View

if TYPE_CHECKING:
    from proxyroute.engine import Engine, Summary

_CLEAR = "\x1b[H\x1b[2J"


@click.command(short_help="Show who takes writes, who follows, and what the proxies do.")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C; with --json one line per reading.")
@click.option("--interval", default=1.0, show_default=True, help="Seconds between two readings of --watch.")
@common_options
@pass_context
def status(ctx: Context, watch: bool, interval: float) -> None:
    """Show who takes writes, who follows, and what the proxies do.

    The first line is the truth in short. Exit code 0 whatever it says; to act on the state of a cluster use
    --json, or `proxyroute check`.
    """
    with ctx.engine() as engine:
        if not watch:
            _once(ctx.out, engine)
            return
        try:
            while True:
                if ctx.as_json:
                    click.echo(dump(_json(*_read(engine)), indent=None))
                else:
                    reading = _read(engine)
                    if ctx.out.console.is_terminal:
                        click.echo(_CLEAR, nl=False)
                    _show(ctx.out, *reading)
                time.sleep(interval)
        except KeyboardInterrupt:
            return


def _once(out: Output, engine: Engine) -> None:
    reading = _read(engine)
    if out.as_json:
        out.json(_json(*reading))
    else:
        _show(out, *reading)


def _read(engine: Engine) -> tuple[View, Sequence[Observed], list[Summary]]:
    return engine.look(), engine.observe(), waiting_for_heal(engine.history())


def is_open(summary: Summary) -> bool:
    """Tells whether an operation still waits for ``proxyroute heal``."""
    return summary.outcome == "open"


def waiting_for_heal(history: Sequence[Summary]) -> list[Summary]:
    """Returns the operations that are open, and the last one if it has left something to do."""
    return [s for n, s in enumerate(history, start=1) if is_open(s) or (n == len(history) and s.leftovers)]


def truth(view: View, proxies: Sequence[Observed], unfinished: Sequence[object]) -> tuple[str, str]:
    """Returns the state of a cluster in one line, and how good it is: ``good``, ``warn`` or ``bad``."""
    primary = view.primary
    bad, warn = [], []
    if primary is None:
        names = ", ".join(s.name for s in view.writable)
        unread = f" ({', '.join(s.name for s in view.silent)} cannot be read)" if view.silent else ""
        bad.append(f"SEVERAL SERVERS TAKE WRITES: {names}" if names else f"no server takes writes{unread}")
    else:
        strays = [s.name for s in view.writable if s.name != primary.name]
        if strays:
            bad.append(f"{', '.join(strays)} takes writes although it is a replica")
    replicas = [s for s in view.seen if s is not primary]
    following = [s for s in replicas if primary is not None and _follows(view, s, primary)]
    expected = len(view.servers) - (1 if primary else 0)
    if len(following) < expected:
        warn.append(f"only {len(following)} of {expected} replicas follow")
    for proxy in proxies:
        if not proxy.reachable:
            warn.append(f"proxy {proxy.proxy} cannot be read")
        elif primary is not None and proxy.primary != primary.name:
            bad.append(f"proxy {proxy.proxy} sends writes to {proxy.primary or 'nobody'}")
        elif proxy.drift:
            warn.append(f"proxy {proxy.proxy} has drifted")
        elif proxy.held:
            warn.append(f"proxy {proxy.proxy} holds newcomers")
    if unfinished:
        warn.append("something is left to do, type 'proxyroute heal'")
    level = "bad" if bad else "warn" if warn else "good"
    start = f"{view.cluster}: {primary.name} takes writes" if primary else f"{view.cluster}"
    if level == "good":
        count = f"{len(following)} of {expected} replicas follow"
        routed = f", {len(proxies)} of {len(proxies)} proxies send writes there" if proxies else ""
        return f"{start}, {count}{routed}", level
    return f"{start}: {'; '.join(bad + warn)}", level


def _follows(view: View, server: Status, primary: Status) -> bool:
    """Tells whether events come from ``primary`` to ``server``, through other replicas or not."""
    way = topology.path(view, server.name)
    return way[-1] == primary.name and all(channel.running for channel in topology.channels(view, server.name))


def _show(out: Output, view: View, proxies: Sequence[Observed], unfinished: list[Summary]) -> None:
    text, level = truth(view, proxies, unfinished)
    out.line(text, level)
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
            ("Proxy", "Epoch", "Writes to", "Reads from", "Sessions", "State"),
            [_proxy_row(proxy, view) for proxy in proxies],
        )
        for proxy in proxies:
            for difference in proxy.drift:
                out.line(f"{proxy.proxy}: {difference}", "warn")
    if unfinished:
        out.heading("Left to do by proxyroute heal")
        for summary in unfinished:
            moved = f"{summary.kind} {summary.primary} → {summary.candidate}"
            out.line(f"{summary.operation}  {moved}: {'; '.join(summary.leftovers) or 'open'}", "warn")


def _server_row(server: Status | Silent, view: View) -> tuple[object, ...]:
    if isinstance(server, Silent):
        return (server.name, styled("silent", "bad"), *[""] * 5)
    primary = view.primary
    role = "primary" if server is primary else "replica" if server.sources else "alone"
    astray = server.writable and server is not primary
    return (
        server.name,
        role,
        styled("no", "bad" if astray else "") if server.writable else styled("yes", "" if server.sources else "warn"),
        _replication(server, view),
        _lag(server),
        _semi_sync(server),
        position_text(server.executed),
    )


def _lag(server: Status) -> str:
    lags = [s.lag_seconds for s in server.sources if s.lag_seconds is not None]
    return f"{max(lags):g} s" if lags else "-" if server.sources else ""


def _replication(server: Status, view: View) -> object:
    if not server.sources:
        return ""
    return styled(
        ", ".join(_channel(s, view) for s in server.sources),
        "" if all(s.running for s in server.sources) else "bad",
    )


def _channel(source: Source, view: View) -> str:
    """Returns one channel in a few words: from whom, and which of its two threads does not run."""
    name = topology.source_of(view, source) or source.address
    trouble = []
    if source.receiver is not Receiver.RUNNING:
        trouble.append(f"receiver {source.receiver}")
    if not source.applier:
        trouble.append("applier stopped")
    return f"from {name}{': ' if trouble else ''}{', '.join(trouble)}"


def _semi_sync(server: Status) -> object:
    semi = server.semi_sync
    if not semi.available or not (semi.primary_enabled or semi.replica_enabled):
        return styled("off", "quiet")
    if server.sources:
        return "on" if semi.replica_enabled else styled("off", "quiet")
    return f"{semi.clients} ack" if semi.primary_active else styled("degraded", "warn")


def position_text(position: Position) -> str:
    """Returns a position in short: of a MariaDB one, only the latest transaction of every domain."""
    shown = position.latest() if isinstance(position, MariaDBPosition) else position
    return str(shown) or "-"


def _proxy_row(proxy: Observed, view: View) -> tuple[object, ...]:
    if not proxy.reachable:
        return proxy.proxy, "", "", "", "", styled(f"not reachable: {proxy.detail}", "bad")
    primary = view.primary.name if view.primary else None
    state = "holds newcomers" if proxy.held else "drifted" if proxy.drift else "ok"
    sessions = ", ".join(f"{name} {count}" for name, count in proxy.sessions.items() if count)
    return (
        proxy.proxy,
        proxy.epoch or "-",
        styled(proxy.primary or "nobody", "" if proxy.primary == primary else "bad"),
        " ".join(proxy.readers) or "-",
        sessions or "-",
        styled(state, "" if state == "ok" else "warn"),
    )


def _json(view: View, proxies: Sequence[Observed], unfinished: list[Summary]) -> dict[str, Any]:
    text, level = truth(view, proxies, unfinished)
    return {
        "cluster": view.cluster,
        "truth": text,
        "level": level,
        "primary": view.primary.name if view.primary else None,
        "taken_at": view.taken_at,
        "servers": [_server_json(server) for server in view.servers.values()],
        "proxies": list(proxies),
        "open_operations": unfinished,
    }


def _server_json(server: Status | Silent) -> dict[str, Any]:
    value: dict[str, Any] = jsonable(server)
    return {**value, "reachable": isinstance(server, Status)}
