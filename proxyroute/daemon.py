"""``proxyroute serve``: what goes on all the time, so that nobody has to think of it.

One thread for each cluster, which does what its :class:`~proxyroute.keeper.Keeper` finds to do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping

from proxyroute import faults
from proxyroute.config_values import ClusterConfig
from proxyroute.engine import open_engine
from proxyroute.keeper import Keeper, Show
from proxyroute.model import Deadline
from proxyroute.notify_message import Notice
from proxyroute.outlet import Listener, Outlet
from proxyroute.sentry import Sentry
from proxyroute.serve_lock import lock

_BREATH = 0.02
"""Seconds between two steps when much is changing."""
_LAST_WORDS = 5.0
"""Seconds for notices that are not sent yet when we are to stop."""
_END = 90.0
"""Seconds that an act which has begun may take to its end when we are to stop: longer than each of its deadlines."""
_HEARKEN = 0.5
"""Seconds after which the main thread runs at the latest, for Python handles signals only there."""


class Daemon:
    """All clusters of a configuration, each in a thread of its own."""

    def __init__(self, clusters: Mapping[str, ClusterConfig], listener: Listener, show: Show | None = None) -> None:
        """``show`` is given what is seen of each cluster, from its own thread.

        Raises ConfigError when a secret cannot be read, or a cluster is served already with the same state_dir."""
        self._clusters = clusters
        self._show = show
        self._end = threading.Event()
        self._locks = [lock(config) for config in clusters.values()]
        self._engines = {name: open_engine(config) for name, config in clusters.items()}
        self._sentries = {name: Sentry(config) for name, config in clusters.items()}
        self._outlets = {name: Outlet(config, listener) for name, config in clusters.items()}
        self._threads: list[threading.Thread] = []

    def run(self, until: threading.Event) -> bool:
        """Keeps every cluster until ``until`` is set; returns True when all have come to a clean end."""
        faults.role = "serve"
        for config in self._clusters.values():
            thread = threading.Thread(target=self._keep, args=(config,), name=f"keep {config.name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        while not until.wait(_HEARKEN):
            pass  # a signal that another thread was given is handled by this one, and does not wake it
        self._end.set()
        ends = time.monotonic() + _END
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))
        for handle in self._locks:
            os.close(handle)
        soon = Deadline.after(_LAST_WORDS)
        for outlet in self._outlets.values():
            outlet.close(soon)
        return not any(thread.is_alive() for thread in self._threads)

    def _keep(self, config: ClusterConfig) -> None:
        tell = self._outlets[config.name]
        tell(Notice(config.name, "serving", "serving", "good", time.time(), {"pid": os.getpid()}))
        engine = self._engines[config.name]
        try:
            with self._sentries[config.name] as sentry:
                keeper = Keeper(config, engine, sentry, tell, self._end.is_set, self._show)
                while not self._end.is_set():
                    try:
                        keeper.step()
                    except Exception as error:  # noqa: BLE001 - a mistake of ours in one step must not end all keeping
                        text = f"{type(error).__name__}: {error}; please report this"
                        tell(Notice(config.name, "trouble", text, "bad", time.time()))
                        self._end.wait(config.serve.period)
                    if not sentry.wait_change(config.serve.period):
                        continue
                    self._end.wait(_BREATH)
        finally:
            engine.close()
            tell(Notice(config.name, "ended", "ended; nothing was changed by that", "", time.time()))
