"""``proxyroute serve`` as a whole: keepers, pages and API, the service manager, a new configuration, and the end.

The main thread only waits, for Python handles signals there, and gives signs of life while every keeper gives them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from proxyroute.config import load
from proxyroute.config_values import ClusterConfig, Config
from proxyroute.daemon import Daemon
from proxyroute.errors import ConfigError
from proxyroute.model import Deadline
from proxyroute.notify_message import Notice
from proxyroute.outlet import Listener
from proxyroute.sdnotify import Manager
from proxyroute.sign import Sign

_HEARKEN = 0.5
"""Seconds after which the main thread runs at the latest: a signal that another thread was given does not wake it."""
END = 95.0
"""Seconds that what has begun may take to its end, commands from the web too: longer than each of its deadlines."""


class Service:
    """Everything that ``proxyroute serve`` does."""

    def __init__(
        self,
        config: Config,
        only: str | None,
        tell: Listener,
        manager: Manager | None = None,
        ready_file: Path | None = None,
    ) -> None:
        """``only`` is the one cluster that is to be served, by default all are. ``tell`` gets what is to be logged.

        ``ready_file`` is there while it serves; see :class:`proxyroute.sign.Sign`.

        Raises ConfigError when a secret cannot be read, or a cluster is served already.
        """
        self._config = config
        self._only = only
        self._log = tell
        self._manager = manager or Manager()
        self._sign = Sign(ready_file)
        self._end = threading.Event()
        self._again = threading.Event()
        self._reloading: threading.Thread | None = None
        self._web: WebHost | None = None
        clusters = chosen(config, only)
        if config.web is not None:
            from proxyroute.web.host import WebHost  # dear to import

            self._web = WebHost(config, config.web, clusters)
        self._daemon = Daemon(clusters, self._tell, self._web.show if self._web is not None else None)

    def ask_to_end(self) -> None:
        """May be called by a signal handler."""
        self._end.set()

    def ask_to_reload(self) -> None:
        """May be called by a signal handler."""
        self._again.set()

    def run(self) -> bool:
        """Serves until it is asked to end; tells whether everything that had begun came to its end.

        Raises ConfigError when it cannot listen where the configuration says.
        """
        with self._web.served() if self._web is not None else contextlib.nullcontext():
            self._daemon.start()
            self._manager.ready()
            self._sign.ready()
            while not self._end.wait(_HEARKEN):
                self._reload_if_asked()
                self._sign_of_life()
            return self._come_to_an_end()

    # -- the end --

    def _come_to_an_end(self) -> bool:
        """First nothing is begun any more; what has begun is brought to its end while those who wait for it can ask."""
        self._manager.stopping()
        self._sign.gone()
        web, deadline = self._web, Deadline.after(END)
        if web is not None:
            web.refuse_commands()
        self._daemon.ask_to_end()
        if self._reloading is not None:
            self._reloading.join(deadline.left)
        while not (over := self._ended(Deadline.after(_HEARKEN))) and not deadline.passed:
            self._manager.alive()
        return over

    def _ended(self, deadline: Deadline) -> bool:
        keepers = self._daemon.join(deadline)
        return (self._web is None or self._web.join(deadline)) and keepers

    # -- while it goes on --

    def _sign_of_life(self) -> None:
        stuck = self._daemon.stuck
        if not stuck:
            self._manager.alive()
            self._sign.alive()
        self._manager.status(f"{', '.join(stuck)}: does not go on" if stuck else self._daemon.line)

    def _reload_if_asked(self) -> None:
        """In a thread of its own: a disk that hangs must not look as if we did."""
        if not self._again.is_set() or (self._reloading is not None and self._reloading.is_alive()):
            return
        self._again.clear()
        self._reloading = threading.Thread(target=self._reload, name="reload", daemon=True)
        self._reloading.start()

    def _reload(self) -> None:
        self._manager.reloading()
        try:
            self._take(load(self._config.path))
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not be silence
            why = str(error) if isinstance(error, ConfigError) else f"a mistake of ours: {error!r}; please report it"
            text = f"the new configuration is refused, and the old one goes on: {why}"
            self._tell(Notice("", "reload", text, "bad", time.time()))
        finally:
            self._manager.ready()

    def _take(self, config: Config) -> None:
        """Puts a new configuration in force. Raises ConfigError when it cannot be, as a whole."""
        if config.state_dir != self._config.state_dir:
            raise ConfigError(
                f"{config.path}: state_dir: {config.state_dir} differs from {self._config.state_dir}, which is in use; "
                "what is on record there would be lost from sight: end proxyroute serve, move it, and start it again"
            )
        clusters = chosen(config, self._only)
        ready = self._daemon.prepare(clusters)
        if self._web is not None:
            self._web.configure(clusters)
        self._daemon.put_in_force(ready)
        text = f"the new configuration is in force: {ready.changes}"
        if waiting := self._needs_restart(config):
            text += f"; only a restart changes: {', '.join(waiting)}"
        self._tell(Notice("", "reload", text, "warn" if waiting else "good", time.time()))

    def _needs_restart(self, config: Config) -> list[str]:
        """What of a new configuration is not in force before the next start."""
        found = ["log"] if config.log != self._config.log else []
        old, new = self._config.web, config.web
        if old is None or new is None:
            return found + (["web"] if old is not new else [])
        return found + [f"web.{f.name}" for f in fields(old) if getattr(old, f.name) != getattr(new, f.name)]

    def _tell(self, notice: Notice) -> None:
        self._log(notice)
        if self._web is not None:
            self._web.notice(notice)


def chosen(config: Config, only: str | None) -> Mapping[str, ClusterConfig]:
    """Returns the clusters to serve. Raises ConfigError when ``only`` is none of them."""
    return {only: config.cluster(only)} if only else dict(config.clusters)
