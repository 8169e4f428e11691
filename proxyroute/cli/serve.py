"""``proxyroute serve``: the daemon, in the foreground."""

from __future__ import annotations

import faulthandler
import signal
import sys
from pathlib import Path

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.errors import ProxyRouteError


@click.command(short_help="Keep the clusters in order, in the foreground.")
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Make FILE once it serves, and touch it while all goes round.",
)
@common_options
@pass_context
def serve(ctx: Context, ready_file: Path | None) -> None:
    """Keep the clusters in order, in the foreground: all that are configured, or the one that --cluster names.

    Heals what a crash has left open, reads servers and proxies all the time, and brings back proxies that are not as
    they are meant to be. Never moves a primary that lives; one that is gone is replaced if failover.mode is automatic.
    Each change is one line of the log: for people on a terminal, else (or with --json) one object a line. SIGHUP reads
    the configuration again; one with mistakes is refused, and the old one goes on. Ends by SIGTERM or SIGINT: what has
    begun is brought to its end, but for what can be taken up later (rejoins, leftovers); everything stays as it is.

    \b
    Exit codes
      0  ended as it was told
      1  something that had begun did not come to its end; it is on record
      2  the configuration is wrong, or a cluster is served already
    """
    from proxyroute import logs  # what a mere --help need not wait for
    from proxyroute.service import Service

    config = ctx.config
    ctx.refuse_foreign_state()
    faulthandler.enable()  # a watchdog that ends us learns where each thread stood
    style = "json" if ctx.as_json else logs.style_of(config.log)
    with logs.logging_to(sys.stdout, style):
        service = Service(config, ctx.cluster_option, logs.tell, ready_file=ready_file)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.ask_to_end())
        signal.signal(signal.SIGHUP, lambda *_: service.ask_to_reload())
        done = service.run()
    if not done:
        raise ProxyRouteError("not everything that had begun came to its end; type 'proxyroute heal'")
