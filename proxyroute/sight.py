"""What has been seen of the servers lately, and what that tells about a primary. Pure.

A replica is a witness of its primary when bytes or heartbeats *advance*, never by the state of its threads: twelve
seconds after SIGSTOP of a primary both threads of a replica still read Yes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from proxyroute import topology
from proxyroute.model import CANNOT_CONNECT, Address, Receiver, Silent, Source, Status, View
from proxyroute.policy import FailoverPolicy

KEPT = 20
"""How many sightings of a server are kept."""
DEAF = 60.0
"""After how many seconds a replica without heartbeats notices by itself; the server's own default."""


@dataclass(frozen=True)
class Sighting:
    """One look at one server, in seconds of the monotonic clock."""

    began: float
    at: float
    """When it had ended."""
    seen: Status | Silent
    doubtful: bool = False
    """We ourselves were late: a time-out of such a look says nothing about the server."""


@dataclass(frozen=True)
class Heard:
    """When one channel of a replica last advanced."""

    began: float
    """Since when it has been watched."""
    not_before: float | None = None
    """It has got something between this look and ``at``; None when it has never advanced under our eyes."""
    at: float | None = None


@dataclass(frozen=True)
class Track:
    """Everything that is remembered of one server. A value: :meth:`add` returns the next."""

    name: str
    address: Address
    server_id: int | None = None
    """By which others know it; remembered while it is silent."""
    recent: tuple[Sighting, ...] = ()
    """Oldest first."""
    good: Sighting | None = None
    """The last in which it answered."""
    silent_since: float | None = None
    """When the first look began that it did not answer, since it last did; None while it answers."""
    silent_looks: int = 0
    """How many looks in a row it has not answered; those in which we were late ourselves do not count."""
    writable_at: float | None = None
    """When it was last seen to take writes."""
    heard: Mapping[str, Heard] = field(default_factory=dict)
    """By channel."""

    @property
    def last(self) -> Sighting | None:
        return self.recent[-1] if self.recent else None

    @property
    def status(self) -> Status | None:
        """Its reading if it answered the last look, else None."""
        seen = self.last.seen if self.last else None
        return seen if isinstance(seen, Status) else None

    @property
    def silent(self) -> Silent | None:
        seen = self.last.seen if self.last else None
        return seen if isinstance(seen, Silent) else None

    def good_since(self, moment: float) -> Status | None:
        """Returns its last good reading, if the look began after ``moment`` on the monotonic clock, else None."""
        good = self.good
        return good.seen if good is not None and good.began >= moment and isinstance(good.seen, Status) else None

    def add(self, sighting: Sighting) -> Track:
        """Returns the track with one more look."""
        recent = (*self.recent, sighting)[-KEPT:]
        if isinstance(sighting.seen, Silent):
            counts = not sighting.doubtful
            since = self.silent_since if self.silent_since is not None or not counts else sighting.began
            return replace(self, recent=recent, silent_since=since, silent_looks=self.silent_looks + counts)
        before = self.good.seen if self.good and isinstance(self.good.seen, Status) else None
        return replace(
            self,
            recent=recent,
            good=sighting,
            server_id=sighting.seen.server_id,
            silent_since=None,
            silent_looks=0,
            writable_at=sighting.at if sighting.seen.writable else self.writable_at,
            heard={s.channel: self._listen(before, s, sighting) for s in sighting.seen.sources},
        )

    def _listen(self, before: Status | None, source: Source, sighting: Sighting) -> Heard:
        earlier = next((s for s in before.sources if s.channel == source.channel), None) if before else None
        heard = self.heard.get(source.channel)
        if earlier is None or heard is None or self.good is None or not _same_source(earlier, source):
            return Heard(sighting.at)
        if advanced(earlier, source):
            return replace(heard, not_before=self.good.began, at=sighting.at)
        return heard


def _same_source(earlier: Source, later: Source) -> bool:
    known = None not in (earlier.source_id, later.source_id)
    return earlier.address == later.address and (not known or earlier.source_id == later.source_id)


def advanced(earlier: Source, later: Source) -> bool:
    """Tells whether the receiver has got anything from its source between two readings of one channel.

    Smaller numbers are those of a receiver that was started anew, which proves nothing.
    """
    return later.heartbeats > earlier.heartbeats or _place(later) > _place(earlier)


def _place(source: Source) -> tuple[int, str, int]:
    # file names end in a number that may get longer
    return len(source.read_file), source.read_file, source.read_offset


@dataclass(frozen=True)
class Sightings:
    """What has been seen of a whole cluster, in configuration order."""

    cluster: str
    tracks: Mapping[str, Track]

    @cached_property  # asked for a dozen times in each judgement
    def view(self) -> View:
        """The last reading of every server; one that was never looked at is silent."""
        return View(self.cluster, {n: t.last.seen if t.last else _never(t) for n, t in self.tracks.items()})

    @cached_property
    def roster(self) -> View:
        """The last good reading of every server, however old: to tell who is who, never how anybody is now."""
        return View(self.cluster, {n: t.good.seen if t.good else self.view.servers[n] for n, t in self.tracks.items()})

    def channel(self, server: Status, name: str) -> Source | None:
        """Returns the channel by which ``server`` follows member ``name`` directly, silent or not."""
        found = topology.channel(self.roster, server, name)
        wanted = self.tracks[name].server_id if name in self.tracks else None
        if found is None and wanted is not None:
            strays = (s for s in server.sources if topology.source_of(self.roster, s) is None)
            return next((s for s in strays if s.source_id == wanted), None)
        return found

    @property
    def complete(self) -> bool:
        """Every server has been looked at."""
        return all(track.recent for track in self.tracks.values())

    def add(self, sighting: Sighting) -> Sightings:
        """Returns them with one more look. Raises KeyError for a server that is no member."""
        name = sighting.seen.name
        return replace(self, tracks={**self.tracks, name: self.tracks[name].add(sighting)})

    @classmethod
    def of(cls, view: View, at: float, server_ids: Mapping[str, int] | None = None) -> Sightings:
        """Returns what one reading tells, taken at ``at`` on the monotonic clock."""
        sightings = cls.begin(view.cluster, {name: seen.address for name, seen in view.servers.items()}, server_ids)
        for seen in view.servers.values():
            sightings = sightings.add(Sighting(at, at, seen))
        return sightings

    @classmethod
    def begin(
        cls, cluster: str, members: Mapping[str, Address], server_ids: Mapping[str, int] | None = None
    ) -> Sightings:
        """Returns what is known before the first look; ``server_ids`` as far as they are remembered."""
        ids = server_ids or {}
        return cls(cluster, {name: Track(name, address, ids.get(name)) for name, address in members.items()})


def _never(track: Track) -> Silent:
    return Silent(track.name, track.address, "has not been looked at yet")


# -- Evidence -------------------------------------------------------------------------------------------------


class Witness(StrEnum):
    """What a replica tells about its primary."""

    FRESH = "fresh"
    """It has got something from it, and not long ago: the primary lives."""
    UNDECIDED = "undecided"
    """It has not been watched for long enough, or not since the primary fell silent."""
    STALE = "stale"
    """Its receiver believes to be connected, and nothing has come for longer than heartbeats take."""
    LOST = "lost"
    """Its receiver has lost the primary and does not reach it any more."""
    NONE = "none"
    """It cannot tell: it is silent, follows somebody else, or somebody has stopped its receiver."""

    @property
    def gone(self) -> bool:
        """It speaks for the death of the primary."""
        return self in (Witness.STALE, Witness.LOST)


@dataclass(frozen=True)
class Evidence:
    """What one replica tells about the primary."""

    replica: str
    witness: Witness
    seconds: float | None
    """Since it last got anything from the primary, at the most that long; None when it never did under our eyes."""
    heard_at: float | None
    """The same as a point on the monotonic clock."""
    heard_not_before: float | None
    """The earliest moment at which it can have got that; None when nobody can tell."""
    heard_since_silence: bool
    """It has certainly got something after the primary fell silent towards us."""
    text: str


def evidence(
    sightings: Sightings, primary: str, now: float, policy: FailoverPolicy | None = None
) -> dict[str, Evidence]:
    """Returns what every other server tells about ``primary``. ``now`` is a point on the monotonic clock."""
    policy = policy or FailoverPolicy()
    since = sightings.tracks[primary].silent_since if primary in sightings.tracks else None
    return {
        name: _testimony(sightings, track, primary, since, now, policy)
        for name, track in sightings.tracks.items()
        if name != primary
    }


def _testimony(
    sightings: Sightings, track: Track, primary: str, since: float | None, now: float, policy: FailoverPolicy
) -> Evidence:
    def tell(witness: Witness, text: str, heard: Heard | None = None) -> Evidence:
        at, earliest = (heard.at, heard.not_before) if heard else (None, None)
        certainly = since is not None and earliest is not None and earliest >= since
        return Evidence(track.name, witness, None if at is None else max(0.0, now - at), at, earliest, certainly, text)

    last, server = track.last, track.status
    if last is None or server is None:
        return tell(Witness.NONE, f"does not answer: {track.silent.reason}" if track.silent else "not looked at yet")
    source = sightings.channel(server, primary)
    if source is None:
        return tell(Witness.NONE, f"does not follow {primary} directly")
    heard = track.heard.get(source.channel, Heard(last.at))
    if source.receiver is not Receiver.RUNNING:
        return tell(*_disconnected(source, last, since), heard)
    if "relay log space" in source.receiver_state:
        return tell(Witness.NONE, f"its receiver takes nothing in: {source.receiver_state}", heard)
    bound = patience_of(server, source, policy)
    quiet = last.began - (heard.at if heard.at is not None else heard.began)
    if quiet >= bound:
        looked = since is None or last.began >= since
        text = f"has heard nothing for {quiet:.1f} s, although heartbeats are due every {source.heartbeat_seconds:g} s"
        return tell(Witness.STALE if looked else Witness.UNDECIDED, text, heard)
    if heard.at is None:
        return tell(Witness.UNDECIDED, f"watched for {max(0.0, quiet):.1f} of {bound:.1f} s, nothing came yet", heard)
    return tell(Witness.FRESH, f"got something {max(0.0, now - heard.at):.1f} s ago", heard)


def certainly_lives(sightings: Sightings, primary: str, now: float, policy: FailoverPolicy) -> bool:
    """Tells whether a replica still hears a silent ``primary`` for so long that looking on will not tell otherwise.

    What came just after it fell silent may have been its last word: it has to be later by a whole look.
    """
    since = sightings.tracks[primary].silent_since if primary in sightings.tracks else None
    if since is None:
        return False
    told = evidence(sightings, primary, now, policy).values()
    fresh = [e.heard_not_before for e in told if e.witness is Witness.FRESH and e.heard_not_before is not None]
    return any(heard >= since + policy.patience for heard in fresh)


def _disconnected(source: Source, last: Sighting, since: float | None) -> tuple[Witness, str]:
    error = f": {source.error}" if source.error else ""
    if source.receiver_errno and source.receiver_errno not in CANNOT_CONNECT:
        return Witness.NONE, f"its receiver has an error that is not about the connection{error}"
    if source.receiver is Receiver.STOPPED and not source.receiver_errno:
        return Witness.NONE, "its receiver was stopped by somebody"
    if since is not None and last.began < since:
        return Witness.UNDECIDED, "has not been looked at since"
    return Witness.LOST, f"has lost the connection{error}"


def patience_of(server: Status, source: Source, policy: FailoverPolicy) -> float:
    """Returns after how much silence a receiver that believes to be connected no longer counts as hearing.

    By its heartbeat; without one it notices by itself, after its own time-out.
    """
    if source.heartbeat_seconds > 0:
        return source.heartbeat_seconds * policy.heartbeats
    return server.net_timeout_seconds or DEAF
