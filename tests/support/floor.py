"""The barest switchover there can be: what the bench holds the product against.

Six statements and one runtime command over connections that are open already. It checks nothing, waits for nothing
of its own, would lose whatever can be lost, and leaves the replicas where they are until :meth:`Floor.repoint`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tests.support.accounts import ENGINE
from tests.support.mariadb import Connection, LocalCluster
from tests.support.wait import until


class Floor:
    """Switches ``cluster`` over, with a session to each server that was opened beforehand."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._sessions: dict[str, Connection] = {n.name: n.connect(ENGINE) for n in cluster}

    def _run(self, server: str, statement: str, args: tuple[Any, ...] = ()) -> Any:
        with self._sessions[server].cursor() as cursor:
            cursor.execute(statement, args or None)
            row = cursor.fetchone()
        return next(iter(row.values())) if row else None

    def switch(self, old: str, new: str, flip: Callable[[str], None]) -> tuple[float, float]:
        """Moves the primary; ``flip`` moves the write route to the server it is given.

        Returns when it began and ended, on the monotonic clock.
        """
        begun = time.monotonic()
        words = self._cluster[old].bare
        self._run(old, words.close)
        goal = self._run(old, words.position)
        self._run(new, words.wait, (goal,))
        self._run(new, words.detach)
        self._run(new, "SET GLOBAL read_only=0")
        flip(new)
        return begun, time.monotonic()

    def repoint(self, old: str, new: str) -> None:
        """Makes everybody follow ``new``; a moment later, when its time is not measured any more."""
        words = self._cluster[new].bare
        self._run(new, words.forget)
        if words.demote:
            self._run(old, words.demote)
        for node in self._cluster:
            if node.name != new:
                node.follow(self._cluster[new])
        until(lambda: all(n.replicates() for n in self._cluster if n.name != new), f"everybody to follow {new}")

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()

    def __enter__(self) -> Floor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
