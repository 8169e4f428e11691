"""A connection of the web, with an end for whoever holds it and asks nothing: descriptors are what the engine lives on.

uvicorn waits for ever for a request that has begun, and for one that never does. Here a request has come whole in some
seconds, an answer is taken within some, and there are only so many connections: when there is no room, the one that has
asked nothing for the longest time makes it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 20.0
"""Seconds in which a request has to come whole."""
STUCK = 30.0
"""Seconds after which a client that takes nothing of its answer is given up."""
MOST = 500
"""Connections at a time; streams of events are among them."""
_AWAITED = (h11.IDLE, h11.SEND_BODY)
"""States of a client whose request is not there, or not whole."""


class Connection(H11Protocol):
    """One connection. Belongs to the event loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.silent_since = 0.0
        self._late: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None

    @property
    def awaited(self) -> bool:
        """Whether a request of it is still to come, or to come whole."""
        return self._late is not None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST:
            self._make_room()
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(STUCK, self.give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._not_stuck()

    def timeout_keep_alive_handler(self) -> None:
        """Besides closing: what a client does not take of its last answer is not kept for ever."""
        super().timeout_keep_alive_handler()
        if self._stuck is None:
            self._stuck = self.loop.call_later(STUCK, self.give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._not_awaited()
        self._not_stuck()

    def give_up(self) -> None:
        """Ends it at once, whatever was not sent or taken yet."""
        self._not_awaited()
        self.transport.abort()

    def _look(self) -> None:
        """Begins, or ends, to wait for a request."""
        awaited = self.conn.their_state in _AWAITED and not self.transport.is_closing()
        if awaited and self._late is None:
            self.silent_since = self.loop.time()
            self._late = self.loop.call_later(PATIENCE, self.give_up)
        elif not awaited:
            self._not_awaited()

    def _make_room(self) -> None:
        others = [c for c in self.connections if isinstance(c, Connection) and c is not self and c.awaited]
        min(others, key=lambda c: c.silent_since, default=self).give_up()

    def _not_awaited(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _not_stuck(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
