"""What an engine does in the shared folder to announce something, and to hear the answer.

One access each for a Worker: values go in, values come out, and nothing here knows of the process that asks.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from proxyroute.errors import ShareError, Tampered, Torn
from proxyroute.haproxy.release import (
    Announcement,
    Answer,
    Memory,
    Phase,
    Question,
    Release,
    accept,
    refuse_outdated,
)
from proxyroute.haproxy.share import Share
from proxyroute.model import Deadline

_LOOK_PAUSE = 0.001
_LATER_PAUSE = 0.02
_LATER = 1.0


@dataclass(frozen=True)
class Draft:
    """An announcement that has no number yet."""

    writer: str
    phase: Phase
    route: Release | None = None
    """To be in force; None: what is in force stays."""
    staged: tuple[Release, ...] = ()
    """The target and what an abort goes back to."""
    operation: str = ""
    seconds: float = 0.0
    ours: Announcement | None = None
    """The last one of this writer."""
    in_force: Memory | None = None
    """What was in force after ``ours``; it counts while that is the current one."""
    ready: frozenset[str] = frozenset()
    """Releases that lie in the folder. With all this no more than one file is read and one written: writes may wait."""


def announce(share: Share, draft: Draft, deadline: Deadline) -> tuple[Announcement, Memory | None]:
    """Publishes one announcement above the current one; returns it, and what is in force then.

    Raises Outdated, Conflict and other ShareErrors, OSError, and TimedOut when it was too late and was not published.
    """
    quick = not draft.phase.lasting and draft.ours is not None
    if not quick:
        share.make_folders()
    current, known = _found(share, draft.ours if quick else None, draft.in_force)
    # By the clock as well: it goes on above what was there when current.json has been damaged.
    sequence = max(current.sequence + 1 if current else 1, time.time_ns() // 1_000_000)
    route, staged = draft.route, draft.staged
    for release in (route, *staged[:1]):
        if release is not None:
            accepted = accept(known, release, sequence)
            if not (quick and release.name in draft.ready):
                share.claim(release)
            known = accepted if release is route else known
    if len(staged) > 1:
        refuse_outdated(known, staged[1].table.epoch)
    for release in (*staged, *([route] if route else [])):
        if not (quick and release.name in draft.ready):
            share.stage(release)
    announced = Announcement(
        id=secrets.token_hex(8),
        sequence=sequence,
        cluster=share.cluster,
        phase=draft.phase,
        writer=draft.writer,
        operation=draft.operation,
        route=route.name if route else (current.route if current else None),
        target=staged[0].name if staged else None,
        abort=staged[1].name if len(staged) > 1 else None,
        seconds=draft.seconds,
    )
    share.publish(announced, deadline)
    return announced, known


def _found(
    share: Share, ours: Announcement | None, in_force: Memory | None
) -> tuple[Announcement | None, Memory | None]:
    """Returns what is announced, and the route by which the next is judged: ``in_force`` while ``ours`` is current.

    A damaged file is written anew: the agents have a memory of their own. One of another version is not (OtherFormat).
    """
    try:
        current = share.current()
        if current is not None and current == ours:
            return current, in_force
        if current is None or current.route is None:
            return current, None
        return current, Memory.of(share.release(current.route), current.sequence)
    except (Torn, Tampered):
        return None, None


@dataclass(frozen=True)
class Awaited:
    """The answer of ``host`` to an announcement, by its id, or to a question."""

    host: str
    answers: str = ""
    question: Question | None = None

    def fits(self, found: Answer) -> bool:
        if self.question is not None:
            return found.asked.get(self.question.writer) == self.question.id
        return found.answers == self.answers

    def look(self, share: Share, deadline: Deadline) -> Answer | str:
        """Returns the answer once it is there, or in words what was there instead when ``deadline`` has come."""
        seen, began, last = f"{self.host} has not answered", time.monotonic(), b""
        while not deadline.passed:
            try:
                data = share.receipt(self.host)
                if data != last:  # what is known already need not be read again: the host has work to do
                    last, found = data, share.believe(self.host, data)
                    if self.fits(found):
                        return found
                    seen = f"{self.host} has not answered yet; it last answered {found.phase or 'nothing'}"
            except (OSError, ShareError) as error:
                seen = str(error)
            time.sleep(_LOOK_PAUSE if time.monotonic() - began < _LATER else _LATER_PAUSE)
        return seen
