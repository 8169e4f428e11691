"""Conditions and sentences of the table in ``diagnosis`` for a primary that answers. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from proxyroute import topology
from proxyroute.conditions import seconds
from proxyroute.diagnosis_case import Case, names, verb
from proxyroute.gtid import Containment
from proxyroute.known import lost_since
from proxyroute.model import Finding, Observed, Receiver, SemiSync, Severity, Source, Status

_COUNTED = 0.1
"""Seconds after which MySQL has counted a commit that a replica may have had before; see ``topology.uncounted``."""

# -- The primary answers and refuses writes -----------------------------------------------------------------------


def read_only(case: Case) -> bool:
    return case.top is not None and not case.top.writable


def _has_restarted(case: Case) -> bool:
    """It runs for less long than since it was last seen to take writes."""
    track, top, began = case.track, case.top, _began(case)
    if track is None or top is None or top.writable:
        return False
    if track.writable_at is not None:
        return began > track.writable_at
    if case.known is None or case.known.primary != top.name or case.wall is None:
        return False
    return case.wall - (case.now - began) > case.known.at


def _began(case: Case) -> float:
    """When the process began that answers for the primary, on the monotonic clock; never, while none does."""
    last = case.track.last if case.track else None
    return last.at - case.top.uptime_seconds if last is not None and case.top is not None else math.inf


def _held(case: Case, name: str) -> Containment:
    """Tells whether the primary has executed everything that replica ``name`` has received, as last seen.

    Nobody can tell of one that is silent, unless it was seen since the primary came back: it may be silent to us alone,
    and have received until the primary went.
    """
    track, began = case.sightings.tracks[name], _began(case)
    server = track.good.seen if track.good else None
    if not isinstance(server, Status) or case.top is None:
        return Containment.UNKNOWN
    if track.status is None and not track.good_since(began):
        return Containment.UNKNOWN
    if server.flavour != case.top.flavour:
        return Containment.UNKNOWN
    source = case.sightings.channel(server, case.name)
    return case.top.executed.contains(server.executed.merge(source.received) if source else server.executed)


def _uncontained(case: Case) -> list[str]:
    """Replicas that may have received what the primary lacks: those that answer, and those that do not.

    One that does not answer and is in maintenance does not count: somebody has said that it is to be left alone.
    """
    silent = [name for name in case.absent if name not in case.rules.aside]
    return [name for name in (*case.channels, *silent) if _held(case, name) is not Containment.YES]


def restarted(case: Case) -> bool:
    return _has_restarted(case)


def tell_restarted(case: Case) -> str:
    up = f"{case.top.uptime_seconds:g}" if case.top else "?"
    known = "nobody can tell whether something" if _uncontained(case) else "nothing"
    text = f"{case.name} has restarted {up} s ago, refuses writes, and {known} received elsewhere is missing there"
    lost = lost_since(case.known, case.top)
    where = "nobody who answers has received" if _uncontained(case) else "nobody has received"
    return f"{text}; it has lost {lost}, which {where}, and will use these numbers again" if lost else text


def restarted_behind(case: Case) -> bool:
    return _has_restarted(case) and any(_held(case, name) is Containment.NO for name in case.channels)


def tell_restarted_behind(case: Case) -> str:
    more = [name for name in case.channels if _held(case, name) is Containment.NO]
    text = f"{case.name} has restarted without what {verb(more, 'has', 'have')} received"
    return text + (f"; {case.election.winner} can take over" if case.election.winner else "")


def replicas_contained(case: Case) -> Iterator[Finding]:
    """Reopened only when nothing can be elsewhere; what nobody can tell blocks."""
    for name in _uncontained(case):
        cure = f"start {name}, or on {case.name}: SET GLOBAL read_only=0;"
        if case.sightings.tracks[name].good:
            text = f"nobody can tell whether {case.name} has everything that {name} has received"
            if name in case.absent:
                text = f"{name} does not answer, and {text}"
                cure = f"bring {name} back; if it can have nothing that counts: proxyroute maintenance {name} on"
            yield Finding("failover.uncontained", Severity.ERROR, name, text, cure, forceable=True)
        else:
            text = f"{name} was never seen, and may have received what {case.name} lacks"
            yield Finding("failover.unheard", Severity.ERROR, name, text, cure, forceable=True)


def tell_read_only(case: Case) -> str:
    return (
        f"{case.name} answers and refuses writes, and did not restart: somebody closed it, or an operation is open; "
        f"proxyroute heal finishes an operation; else on {case.name}: SET GLOBAL read_only=0;"
    )


# -- The primary takes writes -------------------------------------------------------------------------------------


def locked_semi_sync(case: Case) -> bool:
    """Twice in a row, so that an ordinary wait does not count."""
    recent = case.track.recent[-2:] if case.track else ()
    return len(recent) == 2 and all(isinstance(s.seen, Status) and _locked(s.seen) for s in recent)


def _locked(server: Status) -> bool:
    """With fewer than it wants nothing is acknowledged either."""
    sync = server.semi_sync
    return sync.primary_enabled and sync.waiting > 0 and sync.clients < max(1, sync.wanted)


def tell_locked_semi_sync(case: Case) -> str:
    sync = case.top.semi_sync if case.top else SemiSync()
    wait = "wait for an acknowledgement and no replica can give one"
    if sync.wanted > 1:
        wait = f"wait for {sync.wanted} acknowledgements and replicas can give {sync.clients or 'none'}"
    return (
        f"commits on {case.name} {wait} "
        f"(waiting: {sync.waiting}, for up to {seconds(sync.timeout_seconds)}); "
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
            counted = sighting.at + (_COUNTED if case.top.flavour == "mysql" else 0.0)
            if counted <= last.began and isinstance(sighting.seen, Status):
                source = case.sightings.channel(sighting.seen, case.name)
                if source is not None and _lacks(case.top, sighting.seen, source):
                    found.append(name)
                break
    return tuple(found)


def _lacks(top: Status, server: Status, source: Source) -> bool:
    """Only what the primary wrote itself: what a replica wrote is another matter, and found by preflight."""
    if top.flavour != server.flavour:
        return False
    theirs = server.executed.merge(source.received).by(top.identity)
    if top.executed.contains(theirs) is not Containment.NO:
        return False
    return not topology.on_its_way(top, server, theirs.minus(top.executed))


def lost_events(case: Case) -> bool:
    """Not while commits of MySQL hang: what waits is not counted there, and who has it may have lost contact since."""
    hanging = case.top is not None and case.top.flavour == "mysql" and _locked(case.top)
    return not hanging and bool(_ahead(case))


def tell_lost_events(case: Case) -> str:
    return (
        f"{verb(_ahead(case), 'has', 'have')} received transactions of {case.name} that it does not have any more: "
        "it has lost them in a crash; decide whose data counts before the numbers are used again"
    )


def _elsewhere(case: Case) -> list[Observed]:
    return [o for o in case.observed if o.reachable and o.primary is not None and o.primary != case.primary]


def proxy_elsewhere(case: Case) -> bool:
    return case.top is not None and bool(_elsewhere(case))


def tell_proxy_elsewhere(case: Case) -> str:
    told = names([f"{o.proxy} sends writes to {o.primary}" for o in _elsewhere(case)])
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
    return f"{case.name} takes writes, {verb(followers, 'follows', 'follow')}" if followers else f"{case.name} is fine"
