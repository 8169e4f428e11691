"""What was last known of a cluster in order, kept on disk for an engine that starts after the primary died. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proxyroute import topology
from proxyroute.gtid import Containment, Position, from_json
from proxyroute.model import Receiver, SemiSync, Status
from proxyroute.moment import Moment
from proxyroute.sight import Sightings


@dataclass(frozen=True)
class SyncSight:
    """Semi-synchronous replication as the primary's last good reading showed it."""

    active: bool
    """The primary waited for acknowledgements then."""
    after_sync: bool
    """It showed a commit to others only after the acknowledgement."""
    wait_no_replica: bool
    timeout_seconds: float
    """After this long without an acknowledgement it goes on alone: how long the sight says anything."""
    clients: int
    """How many could acknowledge, as the primary counted them."""
    acknowledgers: tuple[str, ...]
    """Those members that could."""
    formerly: tuple[str, ...] = ()
    """Members that could before, and have what none of those is known to have: they may have acknowledged it."""
    waiting: int = 0
    """Sessions that waited for an acknowledgement then."""
    acknowledged: int = 0
    """Transactions that had been acknowledged, since the primary counts."""
    began: Moment | None = None
    """When it was about to be read."""
    since: Moment | None = None
    """Whoever waited then had not begun to before this: the first of them gives up a time-out later, and then it goes
    on alone, whatever the sight has shown. None: nobody can tell."""

    def same_order(self) -> SyncSight:
        """Returns it without what changes all the time."""
        return replace(self, waiting=0, acknowledged=0, began=None, since=None)

    def to_json(self) -> dict[str, Any]:
        """Returns what :meth:`from_json` reads."""
        moments = {name: vars(at) if (at := getattr(self, name)) else None for name in ("began", "since")}
        return {**vars(self), "acknowledgers": list(self.acknowledgers), "formerly": list(self.formerly), **moments}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SyncSight:
        """Reads what ``to_json`` wrote, or an earlier version did. Raises KeyError, TypeError, ValueError."""
        moments = {name: _moment(value.get(name)) for name in ("began", "since")}
        members = {name: tuple(value.get(name, ())) for name in ("acknowledgers", "formerly")}
        return cls(**{**value, **members, **moments})


def _moment(value: Mapping[str, Any] | None) -> Moment | None:
    return Moment(str(value["boot"]), float(value["seconds"])) if value else None


@dataclass(frozen=True)
class Known:
    """The last good sight of a primary that took writes."""

    primary: str
    at: float
    """Unix time."""
    replicas: tuple[str, ...] = ()
    """Who followed it directly."""
    server_ids: Mapping[str, int] = field(default_factory=dict)
    executed: Position | None = None
    """What the primary had executed: somebody may have been told of these."""
    semi_sync: SyncSight | None = None
    """None when it did not use it."""
    former: tuple[str, ...] = ()
    """Who was the primary before: one of these that comes back and takes writes is to be closed."""
    moment: Moment | None = None
    """The same as ``at``, on a clock that nobody sets; None where nobody kept it."""
    event_scheduler: bool = False
    """Its scheduled events ran."""

    def same_order(self, other: Known | None) -> bool:
        """Tells whether ``other`` differs in time and position only, so that it need not be saved at once."""
        if other is None:
            return False
        ours, theirs = (known.semi_sync.same_order() if known.semi_sync else None for known in (self, other))
        same = replace(self, at=other.at, moment=other.moment, executed=other.executed, semi_sync=theirs)
        return ours == theirs and same == replace(other, semi_sync=theirs)

    def to_json(self) -> dict[str, Any]:
        """Returns what :meth:`from_json` reads."""
        sync = self.semi_sync
        return {
            "primary": self.primary,
            "at": self.at,
            "moment": vars(self.moment) if self.moment else None,
            "replicas": list(self.replicas),
            "event_scheduler": self.event_scheduler,
            "server_ids": dict(self.server_ids),
            "executed": self.executed.to_json() if self.executed else None,
            "former": list(self.former),
            "semi_sync": sync.to_json() if sync else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Known:
        """Reads what ``to_json`` wrote. Raises ValueError for anything else."""
        try:
            sync = value["semi_sync"]
            return cls(
                str(value["primary"]),
                float(value["at"]),
                tuple(map(str, value["replicas"])),
                {str(name): int(number) for name, number in value["server_ids"].items()},
                from_json(value["executed"]) if value["executed"] else None,
                SyncSight.from_json(sync) if sync else None,
                tuple(map(str, value["former"])),
                _moment(value.get("moment")),
                event_scheduler=bool(value.get("event_scheduler", False)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{dict(value)!r} is no record of a known topology: {error}") from error


def writers(sightings: Sightings) -> tuple[Status, ...]:
    """Returns the servers that answered the last look, take writes, and follow no member."""
    return tuple(s for s in sightings.view.writable if not upstreams(sightings, s))


def upstreams(sightings: Sightings, server: Status) -> tuple[str, ...]:
    """Returns the members that ``server`` is configured to follow."""
    return tuple(n for n in sightings.tracks if n != server.name and sightings.channel(server, n) is not None)


def tops(sightings: Sightings) -> tuple[str, ...]:
    """Returns whom the replicas that answer follow, directly or through others, by their configured source."""
    found = []
    for server in sightings.view.seen:
        for above in upstreams(sightings, server)[:1]:
            top = topology.path(sightings.roster, above)[-1]
            if top not in found and top != server.name:
                found.append(top)
    return tuple(found)


def primary_of(sightings: Sightings, known: Known | None = None) -> str | None:
    """Returns who is, or was, the primary; None when nobody can tell.

    The one that takes writes; but not a stray one while every replica that answers follows another that is silent.
    Else whom the replicas are configured to follow; else the one that is remembered.
    """
    writing, above = [s.name for s in writers(sightings)], tops(sightings)
    if len(writing) == 1:
        stray = len(above) == 1 and above[0] != writing[0] and sightings.tracks[above[0]].status is None
        return above[0] if stray else writing[0]
    remembered = known.primary if known and known.primary in sightings.tracks else _last_writer(sightings)
    if writing:  # several: only what is on disk says which of them is meant
        return known.primary if known and known.primary in writing else None
    if len(above) == 1:
        return above[0]
    server = sightings.tracks[remembered].status if remembered else None
    if server is not None and upstreams(sightings, server):
        return None
    return remembered if not above or remembered in above else None


def _last_writer(sightings: Sightings) -> str | None:
    """Returns who was last seen to take writes, when nothing is on disk."""
    wrote = {name: track.writable_at for name, track in sightings.tracks.items() if track.writable_at is not None}
    return max(wrote, key=lambda name: wrote[name] or 0.0, default=None)


def remember(
    sightings: Sightings, known: Known | None, now: float, wall: float, moment: Moment | None = None
) -> Known | None:
    """Returns what is known after the last looks; ``known`` as it was unless one primary takes writes.

    ``now`` is a point on the monotonic clock, ``wall`` the same in Unix time, ``moment`` the same once more.
    """
    name = primary_of(sightings, known)
    track = sightings.tracks[name] if name else None
    server = track.status if track else None
    if server is None or not server.writable or track is None or track.last is None or len(writers(sightings)) != 1:
        return known
    below = [s for s in sightings.view.seen if sightings.channel(s, server.name)]
    ids = {n: t.server_id for n, t in sightings.tracks.items() if t.server_id is not None}
    remembered = known.replicas if known and known.primary == server.name else ()
    silent = [n for n in remembered if n in sightings.tracks and sightings.tracks[n].status is None]
    followers = [n for n in sightings.tracks if n in silent or n in {s.name for s in below}]
    return Known(
        server.name,
        wall - (now - track.last.at),
        tuple(followers),
        ids,
        server.executed,
        _sync_sight(
            sightings,
            server,
            below,
            known if known and known.primary == server.name else None,
            moment.after(track.last.began - now) if moment is not None else None,
        ),
        _former(server.name, known),
        moment.after(track.last.at - now) if moment is not None else None,
        event_scheduler=server.event_scheduler,
    )


def moved(known: Known | None, primary: str, at: float) -> Known | None:
    """Returns what is known once an operation has made ``primary`` the primary, at the Unix time ``at``.

    Without it, an old primary that comes back before the new one was ever looked at would pass for the one that is
    meant. ``known`` as it was when it says so already, or is of a later time.
    """
    if known is None or known.primary == primary or at < known.at:
        return known
    followers = tuple(n for n in dict.fromkeys((*known.replicas, known.primary)) if n != primary)
    former, events = _former(primary, known), known.event_scheduler
    return Known(primary, at, followers, known.server_ids, former=former, event_scheduler=events)


def lost_since(known: Known | None, server: Status | None) -> Position | None:
    """Returns what the primary had executed at its last sight, and lacks now that it is back; None when nothing."""
    if known is None or server is None or known.primary != server.name or known.executed is None:
        return None
    if known.executed.flavour != server.flavour:  # another server is there now
        return None
    return (
        None
        if server.executed.contains(known.executed) is not Containment.NO
        else known.executed.minus(server.executed)
    )


def _former(primary: str, known: Known | None) -> tuple[str, ...]:
    if known is None:
        return ()
    return tuple(n for n in dict.fromkeys((*known.former, known.primary)) if n != primary)


def _sync_sight(
    sightings: Sightings, server: Status, below: list[Status], known: Known | None, began: Moment | None
) -> SyncSight | None:
    sync = server.semi_sync
    if not sync.primary_enabled:
        return None
    able = set()
    for replica in below:
        source = sightings.channel(replica, server.name)
        if replica.semi_sync.replica_enabled and source and source.receiver is Receiver.RUNNING:
            able.add(replica.name)
    # one that does not answer us may go on acknowledging
    before = known.semi_sync if known else None
    remembered = before.acknowledgers if before else ()
    able |= {n for n in remembered if n in sightings.tracks and sightings.tracks[n].status is None}
    return SyncSight(
        active=sync.primary_active,
        after_sync=sync.wait_point.upper() == "AFTER_SYNC",
        wait_no_replica=sync.wait_no_replica,
        timeout_seconds=sync.timeout_seconds,
        clients=sync.clients,
        acknowledgers=tuple(n for n in sightings.tracks if n in able),
        formerly=_formerly(sightings, server, able, before) if before else (),
        waiting=sync.waiting,
        acknowledged=sync.acknowledged,
        began=began,
        since=_waiting_since(sync, began, before),
    )


def _formerly(sightings: Sightings, server: Status, able: set[str], before: SyncSight) -> tuple[str, ...]:
    """Returns those who could acknowledge before and cannot now, until somebody who can has all that they have.

    What they acknowledged last may be nowhere else: whoever is slow to receive need not have it.
    """

    def held(replica: Status) -> Position:
        source = sightings.channel(replica, server.name)
        has = replica.executed.merge(source.received) if source is not None else replica.executed
        return has.by(server.identity)

    others = [held(status) for n in able if (status := sightings.tracks[n].status) is not None]
    found = []
    for name in (n for n in sightings.tracks if n in (*before.acknowledgers, *before.formerly) and n not in able):
        status = sightings.tracks[name].status
        mine = held(status) if status is not None else None
        if mine is None or not (mine.empty or any(_covers(other, mine) for other in others)):
            found.append(name)
    return tuple(found)


def _covers(other: Position, mine: Position) -> bool:
    return other.flavour == mine.flavour and other.contains(mine) is Containment.YES


def _waiting_since(sync: SemiSync, began: Moment | None, before: SyncSight | None) -> Moment | None:
    """Returns before when surely none of those had begun to wait who wait now; None when nobody can tell.

    Acknowledgements come in the order of the binary log: when as many have come as sessions waited at the sight
    ``before``, all of those have gone on, and whoever waits now began later. When too few have come, the first of them
    may be about to give up: replicas that are cut off are counted, and the primary says that it waits, until it does.
    """
    if sync.waiting == 0:
        return began
    if before is None:
        return None
    return before.began if sync.acknowledged - before.acknowledged >= before.waiting else before.since
