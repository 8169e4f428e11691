"""What the table in ``diagnosis`` is made of: one situation, the conditions that fit it, the sentences. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from proxyroute.decided import FailoverElection
from proxyroute.errors import Silence
from proxyroute.failover_election import FINDINGS as ELECTION_FINDINGS
from proxyroute.failover_election import elect_failover
from proxyroute.known import Known, primary_of, writers
from proxyroute.model import Observed, Source, Status
from proxyroute.policy import FailoverPolicy, Policy
from proxyroute.sight import Evidence, Sightings, Track, Witness, evidence

_CHATTER = re.compile(r" ?- retry-time: \d+\s+maximum-retries: \d+\s+message:")
FINDINGS = ("failover.majority", "failover.uncontained", "failover.unheard", *ELECTION_FINDINGS)
"""Codes of everything that can block a row."""


@dataclass(frozen=True)
class Case:
    """One situation; what follows from it is worked out once."""

    sightings: Sightings
    policy: FailoverPolicy
    now: float
    rules: Policy
    known: Known | None
    wall: float | None
    observed: tuple[Observed, ...]

    @cached_property
    def primary(self) -> str | None:
        return primary_of(self.sightings, self.known)

    @property
    def name(self) -> str:
        """The primary's name, in a row that has one."""
        return self.primary or "the primary"

    @property
    def track(self) -> Track | None:
        return self.sightings.tracks[self.primary] if self.primary else None

    @cached_property
    def top(self) -> Status | None:
        """The primary's reading, if it answers."""
        return self.track.status if self.track else None

    @property
    def kind(self) -> Silence | None:
        silent = self.track.silent if self.track else None
        return silent.kind if silent else None

    @property
    def since(self) -> float | None:
        return self.track.silent_since if self.track else None

    @cached_property
    def writing(self) -> tuple[str, ...]:
        return tuple(server.name for server in writers(self.sightings))

    @cached_property
    def testimony(self) -> dict[str, Evidence]:
        return evidence(self.sightings, self.primary, self.now, self.policy) if self.primary else {}

    @cached_property
    def channels(self) -> dict[str, Source]:
        """The channel to the primary of every replica that answers."""
        found = {}
        for server in self.sightings.view.seen:
            source = self.sightings.channel(server, self.primary) if self.primary else None
            if source is not None and server.name != self.primary:
                found[server.name] = source
        return found

    @cached_property
    def absent(self) -> tuple[str, ...]:
        """Replicas that do not answer: those remembered as such, else every other server that is silent."""
        silent = [n for n, t in self.sightings.tracks.items() if n != self.primary and t.status is None]
        remembered = self.known.replicas if self.known and self.known.primary == self.primary else None
        if remembered is None:
            return tuple(silent)
        return tuple(n for n in silent if n in remembered or self.sightings.tracks[n].good is None)

    @cached_property
    def election(self) -> FailoverElection:
        return elect_failover(self.sightings, self.name, self.rules, self.policy, self.known)

    def speaking(self, *witnesses: Witness) -> tuple[str, ...]:
        return tuple(n for n, e in self.testimony.items() if e.witness in witnesses)


def names(several: tuple[str, ...] | list[str]) -> str:
    """Returns ``db1, db2 and db3``."""
    return ", ".join(several[:-1]) + " and " + several[-1] if len(several) > 1 else "".join(several)


def verb(several: tuple[str, ...] | list[str], one: str, many: str) -> str:
    return f"{names(several)} {one if len(several) == 1 else many}"


def testimonies(case: Case, several: tuple[str, ...]) -> str:
    """Returns what the replicas tell; those that tell the same as an earlier one are only named."""
    same: dict[str, list[str]] = {}
    for name in several:
        # a receiver's error names the source again and again, and counts its tries
        same.setdefault(_CHATTER.sub("", case.testimony[name].text), []).append(name)
    told = []
    for text, (first, *others) in same.items():
        told.append(f"{first} {text}{f' (and so says {names(others)})' if others else ''}")
    return "; ".join(told)


def silence_of(case: Case) -> str:
    """How the primary is silent, since when, and how often that was seen."""
    track = case.track
    if track is None or track.silent is None:
        return ""
    for_seconds = f" for {max(0.0, case.now - track.silent_since):.1f} s" if track.silent_since is not None else ""
    looks = f"{track.silent_looks} look{'' if track.silent_looks == 1 else 's'}"
    return f"{case.name} has been silent{for_seconds}, in {looks} ({track.silent.kind}: {track.silent.reason})"


def reached(case: Case) -> list[str]:
    """Servers from whose host anything came back in the last look."""
    tracks = case.sightings.tracks
    return [n for n, t in tracks.items() if t.status or (t.silent and t.silent.kind.host_answers)]
