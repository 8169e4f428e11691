"""The web side of ``proxyroute serve``: what was seen and is asked for, and the server that offers it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from proxyroute.config_values import ClusterConfig, Config
from proxyroute.config_web import WebConfig
from proxyroute.glance import Glance
from proxyroute.model import Deadline
from proxyroute.notify_message import Notice
from proxyroute.web.app import create_app
from proxyroute.web.hub import Hub
from proxyroute.web.server import served
from proxyroute.web.tokens import Tokens


class WebHost:
    """What the daemon puts in, and what ends with it."""

    def __init__(self, config: Config, settings: WebConfig, clusters: Mapping[str, ClusterConfig]) -> None:
        self._settings = settings
        self._hub = Hub(clusters, config.state_dir / "audit.jsonl")
        self._app = create_app(self._hub, settings, Tokens(config.tokens_file))

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """Listens for a ``with`` block. Raises ConfigError when it cannot."""
        with served(self._app, self._settings):
            yield

    def show(self, glance: Glance) -> None:
        self._hub.show(glance)

    def notice(self, notice: Notice) -> None:
        self._hub.notice(notice)

    def configure(self, clusters: Mapping[str, ClusterConfig]) -> None:
        """Has these clusters from now on."""
        self._hub.configure(clusters)

    def refuse_commands(self) -> None:
        """Takes no more commands; those that wait are refused, one that runs goes on. Returns at once."""
        self._hub.refuse_commands()

    def join(self, deadline: Deadline) -> bool:
        """Waits for the commands that run; tells whether all have come to their end."""
        return self._hub.close(deadline.left)
