"""Tells the receivers of notices what became of an operation that a command ran, after it, and never in its way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from proxyroute.cli.context import Context
from proxyroute.cli.output import styled
from proxyroute.errors import ProxyRouteError, Refused
from proxyroute.model import Deadline

if TYPE_CHECKING:
    from proxyroute.engine import Engine
    from proxyroute.notify import Delivery, Notifier

_ATTEMPTS = 3
_PATIENCE = 15.0
"""Seconds that a command waits in the end for notices that are not sent yet."""

Record = dict[str, Any]
Listener = Callable[[Record], None]


@contextlib.contextmanager
def telling(ctx: Context, listener: Listener) -> Iterator[Listener]:
    """For the ``with`` block that runs an operation with the listener it gets: tells how it ended, if it had begun."""
    records: list[Record] = []

    def both(record: Record) -> None:
        if record["kind"] == "begin":
            records.clear()  # what came before closed the record of an older one
        records.append(record)
        listener(record)

    try:
        yield both
    except (Exception, KeyboardInterrupt) as error:
        tell(ctx, "operation", records, str(error) or "interrupted")
        raise
    tell(ctx, "operation", records)


@contextlib.contextmanager
def telling_unhealed(ctx: Context, engine: Engine) -> Iterator[None]:
    """For the ``with`` block that heals: tells what is still open when that fails."""
    try:
        yield
    except Refused:
        raise  # nothing was tried
    except ProxyRouteError as error:
        if ctx.cluster.notices:
            with contextlib.suppress(ProxyRouteError):
                waits = next((s for s in engine.history() if s.outcome == "open"), None)
                if waits is not None:
                    tell(ctx, "healed", engine.show(waits.operation), str(error))
        raise


def tell(ctx: Context, kind: str, records: Sequence[Record], error: str = "") -> None:
    """Sends the report of the operation with these records, if there is one and somebody is to be told.

    Returns at once; the command waits for it when it has shown everything, and says what was not sent.
    """
    if not ctx.cluster.notices or not records or records[0]["kind"] != "begin":
        return
    from proxyroute.assembly import build_notifier  # what a mere --help need not wait for
    from proxyroute.history import report_from
    from proxyroute.notify_message import Notice
    from proxyroute.report import headline, level

    def ended(delivery: Delivery) -> None:
        if delivery.error:
            text = f"notice not sent: {delivery.receiver}: {delivery.error}"
            ctx.out.errors.print(styled(text, "warn"), soft_wrap=True)

    told = report_from(records, error)
    notifier = build_notifier(ctx.cluster, ended, _ATTEMPTS)
    notifier.send(Notice(ctx.cluster.name, kind, headline(told), level(told), time.time(), {"report": told}))
    ctx.ends.callback(_wait_for, notifier)


def _wait_for(notifier: Notifier) -> None:
    """Waits for what is not sent yet. Ctrl-C ends that, and changes nothing about how the command ended."""
    try:
        notifier.close(Deadline.after(_PATIENCE))
    except KeyboardInterrupt:
        notifier.close(Deadline.after(0.0))
