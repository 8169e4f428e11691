"""``proxyroute notices``: who is told of operations and of trouble, and whether that works."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.cli.output import styled
from proxyroute.errors import ProxyRouteError, Refused
from proxyroute.model import Deadline

if TYPE_CHECKING:
    from proxyroute.notify import Delivery

_MORE = 5.0
"""Seconds beyond the longest time-out of a receiver."""


@click.command(short_help="Show who is told of operations and trouble; try it.")
@click.option("--test", is_flag=True, help="Send each of them a test message, and say what became of it.")
@common_options
@pass_context
def notices(ctx: Context, test: bool) -> None:
    """Show who is told of operations and trouble; try it.

    \b
    Exit codes
      0  shown; with --test: every test message was sent
      1  a test message could not be sent
      3  nobody is configured to be told, so there is nothing to test
    """
    from proxyroute.assembly import notices_log

    cluster = ctx.cluster
    if test and not cluster.notices:
        raise Refused(
            f"{cluster.name} has no notices to test; add to {cluster.file}, e.g.\n"
            "  notices: [{type: script, run: [/usr/local/bin/tell]}]"
        )
    if test:
        ctx.refuse_foreign_state()  # what could not be sent is kept there
    sent = _send_test(ctx) if test else {}
    labels = [f"notices[{number}] {notice.type}" for number, notice in enumerate(cluster.notices)]
    if ctx.as_json:
        rows = [
            {"receiver": label, "on": notice.on} | ({"sent": not sent[label], "error": sent[label]} if test else {})
            for label, notice in zip(labels, cluster.notices, strict=True)
        ]
        ctx.out.json({"cluster": cluster.name, "receivers": rows, "log": notices_log(cluster)})
    elif not cluster.notices:
        ctx.out.line("nobody is told: no notices are configured")
    else:
        for label, notice in zip(labels, cluster.notices, strict=True):
            ended = styled("")
            if test:
                ended = styled(f"not sent: {sent[label]}", "bad") if sent[label] else styled("sent", "good")
            ctx.out.console.print(styled(f"{label:<20} {', '.join(notice.on):<20} ").append(ended), soft_wrap=True)
        log = notices_log(cluster)
        if log.exists():
            ctx.out.line(f"What could not be sent is kept in {log}", "quiet")
    if any(sent.values()):
        raise SystemExit(ProxyRouteError.exit_code)


def _send_test(ctx: Context) -> dict[str, str]:
    """Sends a test message to each receiver; returns the error by receiver, empty when it was sent."""
    from proxyroute.assembly import build_notifier
    from proxyroute.notify_choice import TEST
    from proxyroute.notify_message import Notice

    found: dict[str, str] = {}
    writing = threading.Lock()

    def ended(delivery: Delivery) -> None:
        with writing:
            found[delivery.receiver] = delivery.error

    notifier = build_notifier(ctx.cluster, ended, attempts=1)
    text = "this is a test: notices of ProxyRoute reach you"
    notifier.send(Notice(ctx.cluster.name, TEST, text, "good", time.time()))
    notifier.close(Deadline.after(max(notice.timeout for notice in ctx.cluster.notices) + _MORE))
    return found
