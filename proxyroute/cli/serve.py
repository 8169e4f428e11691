"""``proxyroute serve``: the daemon, in the foreground."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.cli.output import styled
from proxyroute.errors import ProxyRouteError
from proxyroute.jsonable import dump

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxyroute.config import ClusterConfig, Config
    from proxyroute.config_web import WebConfig
    from proxyroute.notify_message import Notice
    from proxyroute.outlet import Listener

_COMMANDS = 90.0
"""Seconds that a command from the web may take to its end when we are to stop."""


@click.command(short_help="Keep the clusters in order, in the foreground.")
@common_options
@pass_context
def serve(ctx: Context) -> None:
    """Keep the clusters in order, in the foreground: all that are configured, or the one that --cluster names.

    Heals what a crash has left open, reads servers and proxies all the time, and brings back proxies that are not as
    they are meant to be. Never moves a primary that lives; one that is gone is replaced if failover.mode is automatic.
    Each change is one line; with --json one object a line. Ends by
    SIGTERM or SIGINT: what has begun is brought to its end, but for what can be taken up later (rejoins, leftovers);
    everything stays as it is.

    \b
    Exit codes
      0  ended as it was told
      1  something that had begun did not come to its end; it is on record
      2  the configuration is wrong, or a cluster is served already
    """
    from proxyroute.daemon import Daemon  # what a mere --help need not wait for

    config = ctx.config
    clusters = {ctx.cluster.name: ctx.cluster} if ctx.cluster_option else dict(config.clusters)
    end, writing = threading.Event(), threading.Lock()

    def tell(notice: Notice) -> None:
        with writing:
            if ctx.as_json:
                click.echo(dump(notice, indent=None))
            else:
                clock = time.strftime("%F %T", time.localtime(notice.at))
                ctx.out.console.print(styled(f"{clock}  {_line(notice)}", notice.level), soft_wrap=True)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    web = config.web
    if not (Daemon(clusters, tell).run(end) if web is None else _with_web(config, web, clusters, tell, end)):
        raise ProxyRouteError("not everything that had begun came to its end; type 'proxyroute heal'")


def _with_web(
    config: Config, settings: WebConfig, clusters: Mapping[str, ClusterConfig], tell: Listener, end: threading.Event
) -> bool:
    """Serves with pages and API; commands that run are brought to their end, like everything else."""
    from proxyroute.daemon import Daemon
    from proxyroute.web.app import create_app
    from proxyroute.web.hub import Hub
    from proxyroute.web.server import served
    from proxyroute.web.tokens import Tokens

    hub = Hub(clusters, config.state_dir / "audit.jsonl")

    def both(notice: Notice) -> None:
        tell(notice)
        hub.notice(notice)

    daemon = Daemon(clusters, both, hub.show)
    tokens = Tokens(config.tokens_file)
    with served(create_app(hub, settings, tokens), settings):
        done = daemon.run(end)
    return hub.close(_COMMANDS) and done


def _line(notice: Notice) -> str:
    return notice.text if notice.kind == "state" else f"{notice.cluster}: {notice.text}"
