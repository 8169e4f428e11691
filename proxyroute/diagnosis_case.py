"""What the table in ``diagnosis`` is made of: one situation, the conditions that fit it, the sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from proxyroute.conditions import seconds
from proxyroute.errors import Silence
from proxyroute.failover_election import FINDINGS as ELECTION_FINDINGS
from proxyroute.failover_election import elect_failover
from proxyroute.gtid import Containment
from proxyroute.known import Known, primary_of, writers
from proxyroute.model import (
    FailoverElection,
    FailoverPolicy,
    Finding,
    Observed,
    Policy,
    Receiver,
    Severity,
    Source,
    Status,
)
from proxyroute.sight import Evidence, Sightings, Track, Witness, evidence

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
    aside: frozenset[str]

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
        return elect_failover(self.sightings, self.name, self.rules, self.policy, self.known, aside=self.aside)

    def speaking(self, *witnesses: Witness) -> tuple[str, ...]:
        return tuple(n for n, e in self.testimony.items() if e.witness in witnesses)


def _names(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def _verb(names: tuple[str, ...] | list[str], one: str, many: str) -> str:
    return f"{_names(names)} {one if len(names) == 1 else many}"


def _testimonies(case: Case, names: tuple[str, ...]) -> str:
    return "; ".join(f"{name} {case.testimony[name].text}" for name in names)


def _silence(case: Case) -> str:
    """How the primary is silent, since when, and how often that was seen."""
    track = case.track
    if track is None or track.silent is None:
        return ""
    for_seconds = f" for {max(0.0, case.now - track.silent_since):.1f} s" if track.silent_since is not None else ""
    looks = f"{track.silent_looks} look{'' if track.silent_looks == 1 else 's'}"
    return f"{case.name} has been silent{for_seconds}, in {looks} ({track.silent.kind}: {track.silent.reason})"


# -- What we can see at all ----------------------------------------------------------------------------------


def incomplete(case: Case) -> bool:
    return not case.sightings.complete


def tell_incomplete(case: Case) -> str:
    return f"not looked at yet: {_names([n for n, t in case.sightings.tracks.items() if not t.recent])}"


def _reached(case: Case) -> list[str]:
    """Servers from whose host anything came back in the last look."""
    tracks = case.sightings.tracks
    return [n for n, t in tracks.items() if t.status or (t.silent and t.silent.kind.host_answers)]


def cut_off(case: Case) -> bool:
    return not _reached(case)


def tell_cut_off(case: Case) -> str:
    count = len(case.sightings.tracks)
    return f"none of {count} hosts answers in any way: this engine is cut off, and knows nothing of the cluster"


def nobody(case: Case) -> bool:
    return case.primary is None and len(case.writing) < 2


def tell_nobody(case: Case) -> str:
    return "no server takes writes, the replicas do not agree whom they follow, and nothing is remembered"


# -- More than one -------------------------------------------------------------------------------------------


def others_writing(case: Case) -> tuple[str, ...]:
    return tuple(name for name in case.writing if name != case.primary)


def two_writable(case: Case) -> bool:
    return len(case.writing) > 1


def old_returned(case: Case) -> bool:
    """The remembered primary writes, and nobody receives from the others that do."""
    if len(case.writing) < 2 or case.primary is None:
        return False
    for server in case.sightings.view.seen:
        for name in others_writing(case):
            source = case.sightings.channel(server, name)
            if source is not None and source.receiver is not Receiver.STOPPED:
                return False
    return True


def tell_old_returned(case: Case) -> str:
    others = others_writing(case)
    return f"{case.name} is the primary; {_verb(others, 'takes', 'take')} writes as well, and nobody follows there"


def tell_two_writable(case: Case) -> str:
    return f"{_names(case.writing)} take writes and follow nobody; decide whose data counts"


def stray_writable(case: Case) -> bool:
    return len(case.writing) == 1 and case.writing[0] != case.primary


def tell_stray(case: Case) -> str:
    followers = _names(tuple(case.channels))
    return (
        f"{case.writing[0]} takes writes and nobody follows it, while {_silence(case)}, whom {followers} "
        f"{'follows' if len(case.channels) == 1 else 'follow'}; decide which of the two is the primary"
    )


# -- The primary lives and does not let us in ----------------------------------------------------------------


def crowded(case: Case) -> bool:
    return case.kind is Silence.CROWDED


def tell_crowded(case: Case) -> str:
    return (
        f"{case.name} has too many connections and lets nobody in: it lives; raise max_connections there, "
        "or give it an extra_port"
    )


def login_refused(case: Case) -> bool:
    return case.kind is Silence.LOGIN


def tell_login_refused(case: Case) -> str:
    return f"{case.name} refuses our account: {_reason(case)}; it lives; proxyroute grants prints what is needed"


def answers_with_error(case: Case) -> bool:
    return case.kind is Silence.ANSWERED


def tell_answers_with_error(case: Case) -> str:
    return f"{case.name} answers with an error: {_reason(case)}; it lives"


def _reason(case: Case) -> str:
    silent = case.track.silent if case.track else None
    return silent.reason if silent else ""


# -- The primary is silent, and may live ---------------------------------------------------------------------


def silent(case: Case) -> bool:
    return case.kind is not None


def _heard(case: Case) -> tuple[str, ...]:
    """Replicas that certainly heard the primary after it fell silent towards us, and still do."""
    return tuple(n for n in case.speaking(Witness.FRESH) if case.testimony[n].heard_since_silence)


def unreachable(case: Case) -> bool:
    return silent(case) and bool(_heard(case))


def unreachable_lagging(case: Case) -> bool:
    lags = [s.lag_seconds for s in case.channels.values()]
    return unreachable(case) and all(lag is None or lag > case.rules.max_lag for lag in lags)


def tell_unreachable(case: Case) -> str:
    heard = _heard(case)
    return f"{_silence(case)}, but it lives: {_testimonies(case, heard)}"


def unconfirmed(case: Case) -> bool:
    """Not long enough, or not often enough. A refused connection is as good as a time-out, but it may be a restart."""
    track = case.track
    if track is None or not silent(case):
        return False
    long_enough = track.silent_since is not None and case.now - track.silent_since >= case.policy.confirm
    return not long_enough or track.silent_looks < case.policy.looks


def tell_unconfirmed(case: Case) -> str:
    return f"{_silence(case)}; it counts as gone after {seconds(case.policy.confirm)} and {case.policy.looks} looks in a row"


def undecided(case: Case) -> bool:
    return silent(case) and bool(case.speaking(Witness.FRESH, Witness.UNDECIDED))


def tell_undecided(case: Case) -> str:
    return f"{_silence(case)}; {_testimonies(case, case.speaking(Witness.FRESH, Witness.UNDECIDED))}"


# -- The primary is gone -------------------------------------------------------------------------------------


def dead_alone(case: Case) -> bool:
    return silent(case) and not case.channels and not case.absent


def tell_dead_alone(case: Case) -> str:
    return f"{_silence(case)}, and no replica of it is there or remembered: start it, or restore a backup"


def dead_all(case: Case) -> bool:
    return silent(case) and not case.channels


def tell_dead_all(case: Case) -> str:
    return f"{_silence(case)}, and so {_verb(case.absent, 'is', 'are')}: nobody is left to take over"


def _witnesses(case: Case) -> tuple[str, ...]:
    return tuple(n for n in case.speaking(Witness.STALE, Witness.LOST) if n not in case.aside)


def unwitnessed(case: Case) -> bool:
    return silent(case) and not _witnesses(case)


def tell_unwitnessed(case: Case) -> str:
    told = [f"{n} {'is in maintenance' if n in case.aside else case.testimony[n].text}" for n in case.channels]
    return f"{_silence(case)}, and no replica could tell whether it lives: {'; '.join(told)}"


def hung(case: Case) -> bool:
    return case.kind is Silence.HUNG


def dead_some(case: Case) -> bool:
    return silent(case) and bool(case.absent)


def dead_sibling_ahead(case: Case) -> bool:
    return silent(case) and case.election.fetch_from is not None


def tell_dead(case: Case) -> str:
    parts = [_silence(case), _testimonies(case, _witnesses(case))]
    if case.track and case.track.good is None and not (case.known and case.known.primary == case.primary):
        parts.append(f"{case.name} is the primary because {_verb(tuple(case.channels), 'follows', 'follow')} it")
    if case.absent:
        parts.append(f"{_verb(case.absent, 'does', 'do')} not answer either")
    if case.election.winner:
        parts.append(f"{case.election.winner} can take over")
    if case.election.fetch_from:
        parts.append(f"it must first fetch from {case.election.fetch_from}, which has received more")
    return "; ".join(parts)


def somebody_can(case: Case) -> Iterator[Finding]:
    """Whatever the election has against a failover."""
    yield from case.election.findings


def majority(case: Case) -> Iterator[Finding]:
    """With less than half of the hosts in reach it may be us who are cut off, together with the replicas we see."""
    reached, count = _reached(case), len(case.sightings.tracks)
    if 2 * len(reached) < count:
        yield Finding(
            "failover.majority",
            Severity.ERROR,
            case.sightings.cluster,
            f"only {len(reached)} of {count} hosts answer from here ({_names(reached)}): we may be cut off with them",
            "look from another host; if the others are really gone: proxyroute failover --force",
            forceable=True,
        )


# -- The primary answers and refuses writes ------------------------------------------------------------------


def read_only(case: Case) -> bool:
    return case.top is not None and not case.top.writable


def _has_restarted(case: Case) -> bool:
    """It runs for less long than since it was last seen to take writes."""
    track, top = case.track, case.top
    if track is None or top is None or track.last is None or top.writable:
        return False
    if track.writable_at is not None:
        return track.last.at - top.uptime_seconds > track.writable_at
    if case.known is None or case.known.primary != top.name or case.wall is None:
        return False
    seen = case.wall - (case.now - track.last.at)
    return seen - top.uptime_seconds > case.known.at


def _held(case: Case, name: str) -> Containment:
    """Tells whether the primary has executed everything that replica ``name`` has received, as last seen."""
    track = case.sightings.tracks[name]
    server = track.good.seen if track.good else None
    if not isinstance(server, Status) or case.top is None:
        return Containment.UNKNOWN
    source = case.sightings.channel(server, case.name)
    return case.top.executed.contains(server.executed.merge(source.received) if source else server.executed)


def _followers(case: Case) -> tuple[str, ...]:
    """Replicas that may have received from the primary: those that answer, and those that do not."""
    return (*case.channels, *case.absent)


def restarted(case: Case) -> bool:
    return _has_restarted(case)


def tell_restarted(case: Case) -> str:
    up = f"{case.top.uptime_seconds:g}" if case.top else "?"
    return f"{case.name} has restarted {up} s ago, refuses writes, and nothing received elsewhere is missing there"


def restarted_behind(case: Case) -> bool:
    return _has_restarted(case) and any(_held(case, name) is Containment.NO for name in case.channels)


def tell_restarted_behind(case: Case) -> str:
    more = [name for name in case.channels if _held(case, name) is Containment.NO]
    text = f"{case.name} has restarted without what {_verb(more, 'has', 'have')} received"
    return text + (f"; {case.election.winner} can take over" if case.election.winner else "")


def replicas_contained(case: Case) -> Iterator[Finding]:
    """Reopened only when nothing can be elsewhere; what nobody can tell blocks."""
    for name in _followers(case):
        if _held(case, name) is Containment.YES:
            continue
        server = case.sightings.tracks[name].good
        text = (
            f"nobody can tell whether {case.name} has everything that {name} has received"
            if server
            else f"{name} was never seen, and may have received what {case.name} lacks"
        )
        code = "failover.uncontained" if server else "failover.unheard"
        cure = f"start {name}, or on {case.name}: SET GLOBAL read_only=0;"
        yield Finding(code, Severity.ERROR, name, text, cure, forceable=True)


def tell_read_only(case: Case) -> str:
    return (
        f"{case.name} answers and refuses writes, and did not restart: somebody closed it, or an operation is open; "
        f"proxyroute heal finishes an operation; else on {case.name}: SET GLOBAL read_only=0;"
    )


# -- The primary takes writes --------------------------------------------------------------------------------


def locked_semi_sync(case: Case) -> bool:
    """Twice in a row, so that an ordinary wait does not count."""
    recent = case.track.recent[-2:] if case.track else ()
    return len(recent) == 2 and all(isinstance(s.seen, Status) and _locked(s.seen) for s in recent)


def _locked(server: Status) -> bool:
    sync = server.semi_sync
    return sync.primary_enabled and sync.waiting > 0 and sync.clients == 0


def tell_locked_semi_sync(case: Case) -> str:
    sync = case.top.semi_sync if case.top else None
    waiting, timeout = (sync.waiting, seconds(sync.timeout_seconds)) if sync else (0, "?")
    return (
        f"{waiting} commits on {case.name} wait for an acknowledgement and no replica can give one, for up to {timeout}; "
        f"start a semi-synchronous replica, or on {case.name}: SET GLOBAL rpl_semi_sync_master_enabled=0;"
    )


def _ahead(case: Case) -> tuple[str, ...]:
    """Replicas that had received, before the primary was last read, what that reading does not have."""
    last = case.track.last if case.track else None
    if case.top is None or last is None:
        return ()
    found = []
    for name in case.channels:
        for sighting in reversed(case.sightings.tracks[name].recent):
            if sighting.at <= last.began and isinstance(sighting.seen, Status):
                source = case.sightings.channel(sighting.seen, case.name)
                if source is not None and _lacks(case.top, sighting.seen, source):
                    found.append(name)
                break
    return tuple(found)


def _lacks(top: Status, server: Status, source: Source) -> bool:
    """Only what the primary wrote itself: what a replica wrote is another matter, and found by preflight."""
    theirs = server.executed.merge(source.received).by(top.server_id)
    return top.executed.contains(theirs) is Containment.NO


def lost_events(case: Case) -> bool:
    return bool(_ahead(case))


def tell_lost_events(case: Case) -> str:
    return (
        f"{_verb(_ahead(case), 'has', 'have')} received transactions of {case.name} that it does not have any more: "
        "it has lost them in a crash; decide whose data counts before the numbers are used again"
    )


def _elsewhere(case: Case) -> list[Observed]:
    return [o for o in case.observed if o.reachable and o.primary is not None and o.primary != case.primary]


def proxy_elsewhere(case: Case) -> bool:
    return case.top is not None and bool(_elsewhere(case))


def tell_proxy_elsewhere(case: Case) -> str:
    told = _names([f"{o.proxy} sends writes to {o.primary}" for o in _elsewhere(case)])
    return f"{told}; the primary is {case.name}"


def without_replicas(case: Case) -> bool:
    return not case.channels and not case.absent


def tell_without_replicas(case: Case) -> str:
    return f"{case.name} takes writes and has no replica: nobody could take over"


def _receiving(case: Case) -> tuple[str, ...]:
    return tuple(n for n, s in case.channels.items() if s.receiver is Receiver.RUNNING)


def single_dead(case: Case) -> bool:
    return not case.channels and len(case.absent) == 1


def single_not_receiving(case: Case) -> bool:
    return len(case.channels) == 1 and not case.absent and not _receiving(case)


def all_dead(case: Case) -> bool:
    return not case.channels


def none_receives(case: Case) -> bool:
    return not _receiving(case) and not case.absent


def none_receives_or_answers(case: Case) -> bool:
    return not _receiving(case)


def no_applier(case: Case) -> bool:
    return not any(s.applier for s in case.channels.values())


def some_troubled(case: Case) -> bool:
    return bool(case.absent) or not all(s.running for s in case.channels.values())


def tell_replicas(case: Case) -> str:
    """What is the matter with each replica that has something."""
    told = [f"{name} does not answer: {_why(case, name)}" for name in case.absent]
    for name, source in case.channels.items():
        error = f" ({source.error})" if source.error else ""
        if source.receiver is not Receiver.RUNNING:
            told.append(f"the receiver of {name} is {source.receiver}{error}")
        elif not source.applier:
            told.append(f"the applier of {name} is stopped{error}")
    return f"{case.name} takes writes; {'; '.join(told)}"


def _why(case: Case, name: str) -> str:
    silence = case.sightings.tracks[name].silent
    return silence.reason if silence else "not looked at"


def degraded(case: Case) -> bool:
    sync = case.top.semi_sync if case.top else None
    return sync is not None and sync.primary_enabled and not sync.primary_active


def tell_degraded(case: Case) -> str:
    clients = case.top.semi_sync.clients if case.top else 0
    return (
        f"{case.name} goes on without acknowledgements ({clients} replicas could give them): a crash now may lose data"
    )


def tell_fine(case: Case) -> str:
    followers = tuple(case.channels)
    return f"{case.name} takes writes, {_verb(followers, 'follows', 'follow')}" if followers else f"{case.name} is fine"
