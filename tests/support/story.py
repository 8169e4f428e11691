"""What was seen of a cluster over some seconds, told briefly: for tests of what is pure."""

from __future__ import annotations

from dataclasses import replace

from proxyroute.errors import Silence
from proxyroute.model import Receiver, Silent, Source, Status
from proxyroute.sight import Sighting, Sightings
from tests.support.builders import address, channel, replica, server, silent

STEP = 0.5
"""Seconds between two looks."""
TOOK = 0.01


def begin(count: int = 3) -> Sightings:
    return Sightings.begin("shop", {f"db{n}": address(n) for n in range(1, count + 1)})


def look(sightings: Sightings, at: float, *seen: Status | Silent, doubtful: bool = False) -> Sightings:
    """Returns ``sightings`` with one look at each of ``seen``, which began at ``at``."""
    for one in seen:
        sightings = sightings.add(Sighting(at, at + TOOK, one, doubtful))
    return sightings


def beating(seen: Status | Silent, beats: int) -> Status | Silent:
    """Returns a reading whose receivers have been sent ``beats`` heartbeats; those that do not run have stayed at 5."""
    if isinstance(seen, Silent):
        return seen
    channels = tuple(replace(s, heartbeats=beats if s.receiver is Receiver.RUNNING else 5) for s in seen.sources)
    return replace(seen, sources=channels)


def well(*seen: Status | Silent, seconds: float = 5.0, start: float = 0.0) -> Sightings:
    """Returns what is seen while heartbeats come all the time: until ``start + seconds``, every half second."""
    found = begin(len(seen))
    for n in range(int(seconds / STEP)):
        found = look(found, start + n * STEP, *(beating(s, 10 + n) for s in seen))
    return found


def lost(number: int, received: str = "0-1-100", executed: str = "0-1-100", **changes: object) -> Status:
    """A replica of db1 whose receiver tries in vain to reach it."""
    return replica(number, lost_channel(received), executed=executed, **changes)


def lost_channel(received: str = "0-1-100") -> Source:
    return channel(received=received, receiver=Receiver.CONNECTING, receiver_errno=2003, error="cannot connect")


def dead(
    *seen: Status | Silent, before: tuple[Status | Silent, ...] = (), seconds: float = 5.0, kind: Silence | None = None
) -> Sightings:
    """Returns what is seen when db1 dies after five good seconds: ``seen`` of the others for ``seconds`` afterwards.

    Without ``before`` the others were ordinary replicas. Nothing advances after the death.
    """
    others = before or tuple(replica(n) for n in range(2, len(seen) + 2))
    found = well(server(1), *others)
    for n in range(int(seconds / STEP) + 1):
        found = look(found, 5.0 + n * STEP, silent(1, kind or Silence.REFUSED), *(beating(s, 19) for s in seen))
    return found
