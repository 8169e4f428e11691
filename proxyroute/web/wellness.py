"""Whether a server or a cluster is what a load balancer asks for, by what was seen last and how long ago. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from proxyroute.config_values import ClusterConfig
from proxyroute.glance import Glance
from proxyroute.model import Silent, Status, View
from proxyroute.sight import Sightings, Track
from proxyroute.web.shown import follows, lag_of

OfServer = Literal[
    "primary", "replica", "read-only", "health", "liveness", "readiness", "master-status", "slave-status"
]
"""What may be asked of a server; the last two are names that replication-manager uses."""
OfCluster = Literal["primary", "health", "liveness", "readiness"]
"""What may be asked of a cluster."""
_ALIAS = {"master-status": "primary", "slave-status": "replica"}
_LEAST = 5.0
_PERIODS = 10


@dataclass(frozen=True)
class Answer:
    """Yes or no, and a word for people."""

    yes: bool
    word: str


class Health:
    """What is known of one cluster at one moment."""

    def __init__(self, config: ClusterConfig, glance: Glance | None, now: float, wall: float) -> None:
        """``now`` is a point on the monotonic clock, ``wall`` the same in Unix time."""
        self._config = config
        self._glance = glance
        self._now = now
        self._sightings = _sightings(glance, now, wall) if glance is not None else None
        self._view = self._fresh_view()

    def cluster(self, question: OfCluster) -> Answer:
        """Answers a question about the cluster."""
        if self._view is None or self._sightings is None:
            return Answer(False, "not looked at yet")
        if question == "liveness":
            stale = all(self._stale(track) for track in self._sightings.tracks.values())
            return Answer(not stale, "stale" if stale else "alive")
        if question == "readiness":
            return Answer(True, "ready")
        found = self._primary() is not None
        return Answer(found, "one primary" if found else "no primary")

    def server(self, name: str, question: OfServer, lag: float | None = None) -> Answer:
        """Answers a question about ``name``; a replica further behind than ``lag`` seconds is none.

        A server that was not seen for too long, is not what anybody asks for: no answer is better than an old one.
        """
        asked = _ALIAS.get(question, question)
        if self._view is None or self._sightings is None:
            return Answer(False, "not looked at yet")
        if self._stale(self._sightings.tracks[name]):
            return Answer(False, "stale")
        if asked == "liveness":
            return Answer(True, "looked at")
        status = self._view.status(name)
        if status is None:
            return Answer(False, "silent")
        if asked == "health":
            return Answer(True, "answers")
        primary = status is self._primary()
        if asked == "primary":
            return Answer(primary, "primary" if primary else "not the primary")
        if primary and asked in ("read-only", "readiness"):
            return Answer(True, "primary")
        return self._replica(status, lag)

    def _replica(self, server: Status, lag: float | None) -> Answer:
        assert self._view is not None
        if server.writable or not server.sources:
            return Answer(False, "not a replica")
        if self._glance is not None and server.name in self._glance.standing.maintenance:
            return Answer(False, "in maintenance")
        if not follows(self._view, server):
            return Answer(False, "does not follow the primary")
        behind = lag_of(server)
        if lag is not None and (behind is None or behind > lag):
            return Answer(False, "too far behind")
        return Answer(True, "replica")

    def _primary(self) -> Status | None:
        """The server that takes writes, if that is the one that is meant to."""
        primary = self._view.primary if self._view is not None else None
        intended = self._glance.intended if self._glance is not None else None
        return primary if primary is not None and intended in (None, primary.name) else None

    def _fresh_view(self) -> View | None:
        """The last reading of every server; what only failed because we ourselves were late does not count."""
        if self._sightings is None:
            return None
        seen: dict[str, Status | Silent] = {}
        for name, track in self._sightings.tracks.items():
            last = track.last
            if last is not None and last.doubtful and track.good is not None:
                last = track.good
            seen[name] = last.seen if last is not None else Silent(name, track.address, "has not been looked at yet")
        return View(self._sightings.cluster, seen)

    def _stale(self, track: Track) -> bool:
        last = track.last
        if last is not None and last.doubtful:
            last = track.good
        limit = max(_LEAST, _PERIODS * self._config.failover.probe_period)
        return last is None or self._now - last.at > limit


def _sightings(glance: Glance, now: float, wall: float) -> Sightings:
    if glance.live is not None:
        return glance.live()
    return Sightings.of(glance.view, now - max(0.0, wall - glance.at))
