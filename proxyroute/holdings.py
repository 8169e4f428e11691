"""What each server that is left holds of the history of a cluster whose primary is gone. Pure.

The election and the failover itself ask here, by the same rules: what one of them counts and the other does not would
be promised and not kept, or waited for in vain.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from proxyroute.gtid import Containment, Position
from proxyroute.model import Source, Status
from proxyroute.moment import Moment
from proxyroute.sight import Sightings


@dataclass(frozen=True)
class Holdings:
    """What the servers hold that answered, applied or not; worked out once for one look at them."""

    servers: Mapping[str, Status]
    """Those that answered, by name, without the primary."""
    channels: Mapping[str, Source]
    """By which each of them gets, or got, the primary's events; none for a server that replicates from nobody."""
    mixed: Collection[str]
    """Those that replicate from elsewhere as well: the history of another cluster is on them, and is not ours."""
    reference: Position | None
    """The best that is known of what the primary has executed."""
    members: Collection[int | str] = ()
    """By which positions name each server of the cluster, the primary among them, as far as anybody can tell."""

    @classmethod
    def of(cls, sightings: Sightings, primary: str, reference: Position | None) -> Holdings:
        """Returns what the last look tells; ``reference`` is the best that is known of ``primary``."""
        servers = {s.name: s for s in sightings.view.seen if s.name != primary}
        channels = {n: c for n, s in servers.items() if (c := sightings.channel(s, primary) or s.source) is not None}
        members = list(sightings.tracks)
        mixed = [
            name
            for name, server in servers.items()
            if any(source not in [sightings.channel(server, m) for m in members] for source in server.sources)
        ]
        seen = (t.good.seen for t in sightings.tracks.values() if t.good is not None)
        identities = {status.identity for status in seen if isinstance(status, Status)}
        # perhaps nobody has seen the primary itself: who follows it names it
        ours = (c for s in servers.values() for m in members if (c := sightings.channel(s, m)) is not None)
        identities.update(channel.source_uuid for channel in ours if channel.source_uuid)
        return cls(servers, channels, frozenset(mixed), reference, frozenset(identities))

    # -- What everybody has --

    def everything(self, server: Status) -> Position:
        """Everything of the cluster's history that is on this server, in its relay logs too."""
        return self.ours(server, self._raw(server))

    def received(self, server: Status) -> Position:
        """The same without what the server wrote itself and nobody knows: what may not be dropped."""
        everything = self.everything(server)
        own = self._own(server)
        return everything if own.empty or self.own_events(server) is Containment.YES else everything.minus(own)

    def ours(self, server: Status, position: Position) -> Position:
        """Returns what of ``position``, read on ``server``, can be the cluster's: what other sources gave it is not."""
        if server.name not in self.mixed or self._history is None:
            return position
        return position.alongside(self._history, self.members)

    def servable(self, server: Status) -> Position | None:
        """What another one can fetch from this server; None when it can serve nobody.

        What lies in its relay logs it serves once that is applied: not while nothing is applied there, or with a delay.
        One on which another cluster's history lies as well would give that too.
        """
        if not server.relays_updates or self.own_events(server) is not Containment.YES or self.foreign(server):
            return None
        source = self.channels.get(server.name)
        executed = self.ours(server, server.executed)
        return self.received(server) if source is not None and source.applies_now else executed

    def foreign(self, server: Status) -> bool:
        """Tells whether there is something on this server that other sources gave it."""
        return self.everything(server) != self._raw(server)

    def own_events(self, server: Status) -> Containment:
        """Tells whether what ``server`` wrote itself is part of the cluster's history."""
        own = self._own(server)
        if own.empty:
            return Containment.YES
        others = [self.everything(s) for s in self.servers.values() if s.name != server.name]
        if self.reference is not None:
            others.append(self.reference)
        if not others:
            if not own.ordered:
                return Containment.UNKNOWN
            # written when it was the primary itself, unless it is the latest that there is
            return Containment.YES if server.executed.minus(own).as_far_as(own) else Containment.NO
        return _merged(others).contains(own)

    def _own(self, server: Status) -> Position:
        return self.ours(server, server.executed.by(server.identity))

    def _raw(self, server: Status) -> Position:
        source = self.channels.get(server.name)
        return server.executed.merge(source.received) if source is not None else server.executed

    @cached_property
    def _history(self) -> Position | None:
        """A position that tells the cluster's history from another's; None when nobody can tell."""
        known = [self._raw(s) for s in self.servers.values() if s.name not in self.mixed]
        if self.reference is not None:
            return _merged([self.reference, *known])  # perhaps none at all: then all that is there is from elsewhere
        merged = _merged(known) if known else None
        return None if merged is None or merged.empty else merged


def _merged(positions: Iterable[Position]) -> Position:
    first, *others = positions
    for other in others:
        first = first.merge(other)
    return first


def by_order(reference: Position | None, server: Status, reached: Position, rest: Position) -> bool:
    """Tells whether ``server``, having reached that, has ``rest`` by the order, though its records do not say so.

    It is something that the primary had as well, from before the server's own records begin: it was seeded from a copy
    that had it already. ``reference`` is the best that is known of what the primary has executed.
    """
    known = reference is not None and reference.contains(rest) is Containment.YES
    return known and server.strict and reached.as_far_as(rest)


def forgotten(server: Status, primary: str, since: Moment | None) -> str:
    """Returns why ``server`` may have lost what it acknowledged to ``primary``, which was last seen well at ``since``.

    What a replica acknowledges lies in its relay logs. One that starts anew begins with empty ones, and gets what it
    had not applied from its source once more, if that is still there: so a start before that sight has cost nothing.
    Empty: it has run since.
    """
    ago = since.ago() if since is not None else None
    if ago is not None and server.uptime_seconds >= ago:
        return ""
    text = f"{server.name} has started anew since {primary} was last seen taking writes"
    if ago is None:
        text = f"nobody can tell whether {text}"
    return f"{text}: what it had acknowledged and not applied may be gone"
