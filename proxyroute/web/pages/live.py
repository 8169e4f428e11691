"""Keeps a page fresh: parts of it are made again as things change, and sent when they differ from what was sent.

Nothing has to be remembered for a browser that was cut off: when it comes again, it gets every part as it is then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from proxyroute.web.auth import current
from proxyroute.web.pages.shell import hub_of

Make = Callable[[], Mapping[str, str]]
"""Returns the parts of a page, by the ids of their places. May wait for a disk."""

_RETRY = 1000
"""Milliseconds after which a browser comes again."""
_PING = 5.0
"""Seconds of silence after which we say that we are still here."""


def live(request: Request, make: Make, every: float) -> StreamingResponse:
    """Returns the stream of a page: its parts as they change, ``every`` so many seconds at the most."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(_parts(request, make, every), media_type="text/event-stream", headers=headers)


async def _parts(request: Request, make: Make, every: float) -> AsyncIterator[bytes]:
    loop, wake = asyncio.get_running_loop(), asyncio.Event()

    def woken() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon has ended
            loop.call_soon_threadsafe(wake.set)

    stop = hub_of(request).events.wake(woken)
    sent: dict[str, str] = {}
    quiet = 0.0
    try:
        yield f"retry: {_RETRY}\n\n".encode()
        while await run_in_threadpool(current, request) is not None:
            wake.clear()
            parts = await run_in_threadpool(make)
            fresh = {name: text for name, text in parts.items() if sent.get(name) != text}
            if fresh:
                sent.update(fresh)
                yield block("parts", fresh)
                quiet = 0.0
            elif quiet >= _PING:
                yield block("ping", {})
                quiet = 0.0
            # what has just happened is shown at once, what moves all the time now and then, and nothing too often
            await asyncio.sleep(every / 4)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), every * 3 / 4)
            quiet += every
        yield block("ended", {})
    finally:
        stop()


def block(kind: str, data: Mapping[str, str]) -> bytes:
    """Returns one event; JSON has no line ends, so nothing in ``data`` can forge another."""
    return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
