"""Server-sent events: a response that goes on until the client, the daemon or the client's right to it ends.

Nothing is kept for a client but the number of the last event it was sent: one that reads slowly, or was away for too
long, is told by ``reset`` that events are missing, and reads the state again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from proxyroute.web.ring import Event, Ring

_HEARTBEAT = 10.0
"""Seconds of silence after which something is sent, and after which the client's right is looked at again."""
_STUCK = 30.0
"""Seconds after which a client that takes nothing is given up."""
_AT_ONCE = 100
"""Events that are sent in one go."""
_RETRY = 2000
"""Milliseconds after which a browser comes again."""


@dataclass
class Streams:
    """All streams of the daemon: there are limits, and one end for all. Belongs to the event loop, but for ``end``."""

    most: int = 200
    each: int = 50
    """Of one token, with all sessions that it began: whoever forgets to close his leaves room for others."""
    heartbeat: float = _HEARTBEAT
    _ends: dict[asyncio.Event, str] = field(default_factory=dict)
    _closed: bool = False
    _loop: asyncio.AbstractEventLoop | None = None

    @property
    def count(self) -> int:
        return len(self._ends)

    def full(self, owner: str) -> bool:
        """Returns whether there is no room for another one of ``owner``, which is the name of a token."""
        taken = list(self._ends.values())
        return self._closed or len(taken) >= self.most or taken.count(owner) >= self.each

    def add(self, end: asyncio.Event, owner: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends[end] = owner
        if self._closed:
            end.set()

    def remove(self, end: asyncio.Event) -> None:
        self._ends.pop(end, None)

    def end(self) -> None:
        """Ends all of them, and takes no more. Any thread may call this."""
        self._closed = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended before us
                self._loop.call_soon_threadsafe(self._end_all)

    def _end_all(self) -> None:
        for end in self._ends:
            end.set()


@dataclass(frozen=True)
class Look:
    """What a stream shows beside the events: the present state of some clusters, whenever something new was seen."""

    clusters: Sequence[str]
    version: Callable[[str], int]
    shown: Callable[[str], Mapping[str, Any]]
    """Returns JSON values; may wait for a disk."""
    every: float = 1.0


class EventStream(Response):
    """The response of a stream."""

    media_type = "text/event-stream"

    def __init__(
        self,
        ring: Ring,
        streams: Streams,
        owner: str,
        after: str,
        allowed: Callable[[], bool],
        clusters: Sequence[str] = (),
        look: Look | None = None,
    ) -> None:
        """``owner`` is the name of the client's token, ``after`` the last event that it has; ``allowed`` tells whether
        it may go on, and may wait."""
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._ring = ring
        self._streams = streams
        self._owner = owner
        self._after = after
        self._allowed = allowed
        self._clusters = frozenset(clusters)
        self._look = look
        self._versions: dict[str, int] = {}
        self._more = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        end, wake = asyncio.Event(), asyncio.Event()
        self._streams.add(end, self._owner)
        loop = asyncio.get_running_loop()

        def woken() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon has ended
                loop.call_soon_threadsafe(wake.set)

        stop = self._ring.wake(woken)
        gone = asyncio.create_task(_gone(receive, end))
        try:
            await _within(send({"type": "http.response.start", "status": 200, "headers": self.raw_headers}))
            with contextlib.suppress(TimeoutError):
                await self._go_on(send, end, wake)
            await _within(send({"type": "http.response.body", "body": b"", "more_body": False}))
        except (TimeoutError, OSError):
            pass  # it takes nothing any more, or is gone
        finally:
            stop()
            gone.cancel()
            self._streams.remove(end)

    async def _go_on(self, send: Send, end: asyncio.Event, wake: asyncio.Event) -> None:
        await self._send(send, f"retry: {_RETRY}\n".encode() + self._begin())
        checked = time.monotonic()
        while not end.is_set():
            wake.clear()
            await self._send(send, *self._news(), *await self._looks())
            now = time.monotonic()
            if now - checked >= self._streams.heartbeat:
                if not await run_in_threadpool(self._allowed):
                    return await self._send(send, block("ended", {"detail": "your session or token has ended"}))
                checked = now
                await self._send(send, f"id: {self._after}\n: still here\n\n".encode())
            pause = min(self._look.every if self._look else _HEARTBEAT, self._streams.heartbeat)
            if not self._more:
                await either(wake, end, pause)
        return None

    def _begin(self) -> bytes:
        """The first block: from where on it is told; or that some is missing."""
        if not self._after:
            self._after = self._ring.last_id
            return block("ready", {"last_event_id": self._after}, self._after)
        _, whole = self._ring.after(self._after, 1)
        if whole:
            return block("ready", {"last_event_id": self._after}, self._after)
        return self._reset()

    def _reset(self) -> bytes:
        self._after = self._ring.last_id
        data = {"detail": "events are missing; read the state again", "last_event_id": self._after}
        return block("reset", data, self._after)

    def _news(self) -> list[bytes]:
        found, whole = self._ring.after(self._after, _AT_ONCE)
        if not whole:
            self._more = False
            return [self._reset()]
        if found:
            self._after = found[-1].id
        self._more = len(found) == _AT_ONCE
        return [event_block(e) for e in found if not self._clusters or e.cluster in self._clusters]

    async def _looks(self) -> list[bytes]:
        if self._look is None:
            return []
        fresh = [c for c in self._look.clusters if self._look.version(c) != self._versions.get(c)]
        blocks = []
        for cluster in fresh:
            self._versions[cluster] = self._look.version(cluster)
            blocks.append(block("view", await run_in_threadpool(self._look.shown, cluster)))
        return blocks

    async def _send(self, send: Send, *blocks: bytes) -> None:
        if blocks:
            await _within(send({"type": "http.response.body", "body": b"".join(blocks), "more_body": True}))


async def _within(sending: Awaitable[None]) -> None:
    async with asyncio.timeout(_STUCK):
        await sending


async def _gone(receive: Receive, end: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    end.set()


async def either(wake: asyncio.Event, end: asyncio.Event, seconds: float) -> None:
    """Waits for one of the two, ``seconds`` at the most."""
    tasks = [asyncio.create_task(event.wait()) for event in (wake, end)]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def event_block(event: Event) -> bytes:
    """Returns an event as it is sent."""
    return block(event.type, {"cluster": event.cluster, "at": event.at, **event.data}, event.id)


def block(type: str, data: Mapping[str, Any], id: str = "") -> bytes:
    """Returns one block of a stream. JSON has no line ends, so that nothing in ``data`` can forge another block."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return (f"id: {id}\n" if id else "").encode() + f"event: {type}\ndata: {text}\n\n".encode()
