"""Gives the standing orders of a cluster: what ``proxyroute maintenance``, ``pause``, ``prefer`` and ``never`` do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from proxyroute.caller import Caller
from proxyroute.errors import JournalError, Refused
from proxyroute.model import View
from proxyroute.standing import RANKS, Book, Kind, Order

_SAID = {
    "prefer": "is preferred as a candidate",
    "never": "never becomes primary",
    "neither": "is a candidate like the others, whatever the configuration says",
    "": "is a candidate as the configuration says",
}


class Orders:
    """What people may order. Every method returns what holds now, in words; each raises JournalError."""

    def __init__(
        self, cluster: str, servers: Sequence[str], book: Book, caller: Caller, look: Callable[[], View]
    ) -> None:
        self._cluster, self._servers, self._book, self._caller, self._look = cluster, servers, book, caller, look

    def maintenance(self, server: str, on: bool, why: str = "", seconds: float | None = None) -> str:
        """Puts a server into maintenance, for ``seconds`` or until it is ended; or ends it.

        Raises Refused for a server that is not configured, or that takes writes.
        """
        self._refuse_unknown(server)
        if on:
            primary = self._look().primary
            if primary is not None and primary.name == server:
                raise Refused(f"{server} is the primary; move that first: proxyroute switchover")
        what = f"{server} is in maintenance" if on else f"{server} is not in maintenance"
        return self._give("maintenance", server, what, why, seconds, on=on)

    def pause(self, why: str = "", seconds: float | None = None) -> str:
        """Lets ``serve`` do nothing by itself, for ``seconds`` or until :meth:`resume`."""
        return self._give("paused", "", "serve looks on, and does nothing by itself", why, seconds)

    def resume(self, why: str = "") -> str:
        """Lets ``serve`` act by itself again."""
        return self._give("paused", "", "serve acts by itself again", why, on=False)

    def rank(self, server: str, rank: str, why: str = "", seconds: float | None = None) -> str:
        """Says that a server is to ``prefer``, ``never`` to be taken, or ``neither``; empty: as configured.

        Raises Refused for a server that is not configured.
        """
        self._refuse_unknown(server)
        if rank not in ("", *RANKS):
            raise Refused(f"{rank!r} is none of {', '.join(RANKS)}")
        return self._give("ranks", server, f"{server} {_SAID[rank]}", why, seconds, rank=rank, on=bool(rank))

    def changes(self) -> tuple[Mapping[str, Any], ...]:
        """Returns the last changes, oldest first: ``at``, ``by``, ``why``, ``what``; none when they cannot be read."""
        try:
            return self._book.changes()
        except JournalError:
            return ()

    def reset(self) -> Path | None:
        """Drops all orders, when they cannot be read; returns the file that has what was there, if there was one."""
        return self._book.reset()

    def reset_in_words(self) -> str:
        """Does :meth:`reset`, and returns what came of it in words."""
        kept = self.reset()
        return f"no orders stand; what was there is in {kept}" if kept else "there were no orders"

    def _give(
        self,
        kind: Kind,
        server: str,
        what: str,
        why: str,
        seconds: float | None = None,
        *,
        rank: str = "",
        on: bool = True,
    ) -> str:
        now, by, why = time.time(), self._caller.by, why or self._caller.reason
        until = now + seconds if on and seconds else None
        what += time.strftime(", until %F %T", time.localtime(until)) if until is not None else ""
        order = Order(by, now, why, until, rank) if on else None
        self._book.give(kind, server, order, by=by, why=why, what=what)
        return what

    def _refuse_unknown(self, server: str) -> None:
        if server not in self._servers:
            raise Refused(f"{self._cluster} has no server {server!r}; name one of: {', '.join(self._servers)}")
