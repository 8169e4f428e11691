"""Whether a server or a cluster is what a load balancer asks for, by what was seen last and how long ago. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from proxyroute.config_values import ClusterConfig
from proxyroute.glance import Glance, good_for
from proxyroute.model import Silent, Status, View
from proxyroute.sight import Sightings
from proxyroute.web.shown import follows, lag_of

OfServer = Literal[
    "primary", "replica", "read-only", "health", "liveness", "readiness", "master-status", "slave-status"
]
"""What may be asked of a server; the last two are names that replication-manager uses."""
OfCluster = Literal["primary", "health", "liveness", "readiness"]
"""What may be asked of a cluster."""
_ALIAS = {"master-status": "primary", "slave-status": "replica"}


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
        self.view = self._last_view()
        """The last reading of every server, to be asked with :meth:`stale`; None before the first look."""

    def cluster(self, question: OfCluster) -> Answer:
        """Answers a question about the cluster."""
        if self.view is None or self._sightings is None:
            return Answer(False, "not looked at yet")
        if question == "liveness":
            stale = all(self.stale(name) for name in self._sightings.tracks)
            return Answer(not stale, "stale" if stale else "alive")
        if question == "readiness":
            return Answer(True, "ready")
        found = self._primary()
        if found is not None and self.stale(found.name):
            return Answer(False, "stale")
        return Answer(found is not None, "one primary" if found is not None else "no primary")

    def server(self, name: str, question: OfServer, lag: float | None = None) -> Answer:
        """Answers a question about ``name``; a replica further behind than ``lag`` seconds is none.

        A server that was not seen for too long, is not what anybody asks for: no answer is better than an old one.
        """
        asked = _ALIAS.get(question, question)
        if self.view is None or self._sightings is None:
            return Answer(False, "not looked at yet")
        if self.stale(name):
            return Answer(False, "stale")
        if asked == "liveness":
            return Answer(True, "looked at")
        status = self.view.status(name)
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
        assert self.view is not None
        if server.writable or not server.sources:
            return Answer(False, "not a replica")
        if self._glance is not None and server.name in self._glance.standing.maintenance:
            return Answer(False, "in maintenance")
        if not follows(self.view, server):
            return Answer(False, "does not follow the primary")
        behind = lag_of(server)
        if lag is not None and (behind is None or behind > lag):
            return Answer(False, "too far behind")
        return Answer(True, "replica")

    def _primary(self) -> Status | None:
        """The server that takes writes, if that is the one that is meant to."""
        primary = self.view.primary if self.view is not None else None
        intended = self._glance.intended if self._glance is not None else None
        return primary if primary is not None and intended in (None, primary.name) else None

    def _last_view(self) -> View | None:
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

    def stale(self, server: str) -> bool:
        """Tells whether the last look at ``server`` was too long ago to count, or there was none."""
        track = self._sightings.tracks.get(server) if self._sightings is not None else None
        if track is None:
            return True
        last = track.good if track.last is not None and track.last.doubtful else track.last
        return last is None or self._now - last.at > good_for(self._config)


def _sightings(glance: Glance, now: float, wall: float) -> Sightings:
    if glance.live is not None:
        return glance.live()
    return Sightings.of(glance.view, now - max(0.0, wall - glance.at))
