"""Keeps a page fresh: parts of it are made again as things change, and sent when they differ from what was sent.

Nothing has to be remembered for a browser that was cut off: when it comes again, it gets every part as it is then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import Send

from proxyroute.errors import ProxyRouteError
from proxyroute.web.auth import Principal, current
from proxyroute.web.pages.shell import hub_of
from proxyroute.web.problems import Problem
from proxyroute.web.stream import EventStream, Streams, block, either

Make = Callable[[], Mapping[str, str]]
"""Returns the parts of a page, by the ids of their places. May wait for a disk."""

_RETRY = 1000
"""Milliseconds after which a browser comes again."""
_PING = 5.0
"""Seconds of silence after which we say that we are still here."""
_SOON = 4
"""What has just happened is shown after a fourth of the time after which what moves all the time is."""


def live(request: Request, reader: Principal, make: Make, every: float) -> Response:
    """Returns the stream of a page: its parts as they change, looked at every so many seconds.

    Raises Problem when ``reader``, or all together, have too many streams.
    """
    streams: Streams = request.app.state.streams
    if streams.full(reader.name):
        raise Problem(503, "too many pages are open", cure="close some", headers={"Retry-After": "10"})
    return _Parts(request, streams, reader.name, make, every)


class _Parts(EventStream):
    """The response of such a stream."""

    def __init__(self, request: Request, streams: Streams, owner: str, make: Make, every: float) -> None:
        super().__init__(hub_of(request).events, streams, owner, "", lambda: current(request) is not None)
        self._make = make
        self._every = every

    async def _go_on(self, send: Send, end: asyncio.Event, wake: asyncio.Event) -> None:
        sent: dict[str, str] = {}
        quiet = 0.0
        await self._send(send, f"retry: {_RETRY}\n\n".encode())
        while not end.is_set():
            if not await run_in_threadpool(self._allowed):
                return await self._send(send, block("ended", {}))
            wake.clear()
            try:
                parts = await run_in_threadpool(self._make)
            except (Problem, ProxyRouteError):
                return None  # what it was about is gone, or cannot be read now; the browser comes again and is told
            fresh = {name: text for name, text in parts.items() if sent.get(name) != text}
            quiet = 0.0 if fresh else quiet + self._every
            if fresh:
                sent.update(fresh)
                await self._send(send, block("parts", fresh))
            elif quiet >= _PING:
                quiet = 0.0
                await self._send(send, block("ping", {}))
            await either(end, end, self._every / _SOON)
            await either(wake, end, self._every * (1 - 1 / _SOON))
        return None
