"""Where the notices of ``serve`` go: to its output, and to those who are to be told elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from proxyroute.assembly import build_notifier
from proxyroute.config_values import ClusterConfig
from proxyroute.model import Deadline
from proxyroute.notify import Delivery
from proxyroute.notify_choice import Choice
from proxyroute.notify_message import Notice

Listener = Callable[[Notice], None]
_ATTEMPTS = 8
"""To send a notice; with the pauses between them that is some two minutes."""


class Outlet:
    """Where the notices of one cluster go: all to the listener, and those that are worth a message to the receivers."""

    def __init__(self, config: ClusterConfig, listener: Listener) -> None:
        self._cluster = config.name
        self._listener = listener
        self._choice = Choice()
        self._notifier = build_notifier(config, self._ended, _ATTEMPTS)

    def __call__(self, notice: Notice) -> None:
        self._listener(notice)
        if self._choice.takes(notice):
            self._notifier.send(notice)

    def close(self, deadline: Deadline) -> None:
        self._notifier.close(deadline)

    def _ended(self, delivery: Delivery) -> None:
        if delivery.error:
            text = f"notice not sent: {delivery.receiver}: {delivery.error}"
            details = {"receiver": delivery.receiver, "notice": delivery.notice.id}
            self._listener(Notice(self._cluster, "unsent", text, "warn", time.time(), details))
