"""Conditions and sentences of the table in ``diagnosis`` for a primary that is silent, doubled or unknown. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from proxyroute.conditions import seconds
from proxyroute.diagnosis_case import Case, names, reached, silence_of, testimonies, verb
from proxyroute.errors import Silence
from proxyroute.model import Finding, Receiver, Severity
from proxyroute.sight import Witness

# -- What we can see at all ---------------------------------------------------------------------------------------


def incomplete(case: Case) -> bool:
    return not case.sightings.complete


def tell_incomplete(case: Case) -> str:
    return f"not looked at yet: {names([n for n, t in case.sightings.tracks.items() if not t.recent])}"


def cut_off(case: Case) -> bool:
    return not reached(case)


def tell_cut_off(case: Case) -> str:
    count = len(case.sightings.tracks)
    return f"none of {count} hosts answers in any way: this engine is cut off, and knows nothing of the cluster"


def nobody(case: Case) -> bool:
    return case.primary is None and len(case.writing) < 2


def tell_nobody(case: Case) -> str:
    return "no server takes writes, the replicas do not agree whom they follow, and nothing is remembered"


# -- More than one ------------------------------------------------------------------------------------------------


def others_writing(case: Case) -> tuple[str, ...]:
    return tuple(name for name in case.writing if name != case.primary)


def two_writable(case: Case) -> bool:
    return len(case.writing) > 1


def old_returned(case: Case) -> bool:
    """The remembered primary writes, the others that do were primaries before, and the replicas do not prefer them."""
    former = case.known.former if case.known else ()
    if len(case.writing) < 2 or case.primary is None or not set(others_writing(case)) <= set(former):
        return False
    return bool(_receivers(case, case.primary)) or not any(_receivers(case, name) for name in others_writing(case))


def _receivers(case: Case, name: str) -> list[str]:
    """Returns the replicas that receive from ``name``, or try to."""
    found = []
    for server in case.sightings.view.seen:
        source = case.sightings.channel(server, name)
        if source is not None and source.receiver is not Receiver.STOPPED:
            found.append(server.name)
    return found


def tell_old_returned(case: Case) -> str:
    others = others_writing(case)
    return f"{case.name} is the primary; {verb(others, 'takes', 'take')} writes as well, as in former times"


def tell_two_writable(case: Case) -> str:
    return f"{names(case.writing)} take writes and follow nobody; decide whose data counts"


def stray_writable(case: Case) -> bool:
    return len(case.writing) == 1 and case.writing[0] != case.primary


def tell_stray(case: Case) -> str:
    followers = names(tuple(case.channels))
    return (
        f"{case.writing[0]} takes writes and nobody follows it, while {silence_of(case)}, whom {followers} "
        f"{'follows' if len(case.channels) == 1 else 'follow'}; decide which of the two is the primary"
    )


# -- The primary lives and does not let us in ---------------------------------------------------------------------


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


# -- The primary is silent, and may live --------------------------------------------------------------------------


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
    return f"{silence_of(case)}, but it lives: {testimonies(case, heard)}"


def unconfirmed(case: Case) -> bool:
    """Not long enough, or not often enough. A refused connection is as good as a time-out, but it may be a restart."""
    track = case.track
    if track is None or not silent(case):
        return False
    long_enough = track.silent_since is not None and case.now - track.silent_since >= case.policy.confirm
    return not long_enough or track.silent_looks < case.policy.looks


def tell_unconfirmed(case: Case) -> str:
    bounds = f"{seconds(case.policy.confirm)} and {case.policy.looks} looks in a row"
    return f"{silence_of(case)}; it counts as gone after {bounds}"


def undecided(case: Case) -> bool:
    return silent(case) and bool(case.speaking(Witness.FRESH, Witness.UNDECIDED))


def tell_undecided(case: Case) -> str:
    return f"{silence_of(case)}; {testimonies(case, case.speaking(Witness.FRESH, Witness.UNDECIDED))}"


# -- The primary is gone ------------------------------------------------------------------------------------------


def dead_alone(case: Case) -> bool:
    return silent(case) and not case.channels and not case.absent


def tell_dead_alone(case: Case) -> str:
    return f"{silence_of(case)}, and no replica of it is there or remembered: start it, or restore a backup"


def dead_all(case: Case) -> bool:
    return silent(case) and not case.channels


def tell_dead_all(case: Case) -> str:
    return f"{silence_of(case)}, and so {verb(case.absent, 'is', 'are')}: nobody is left to take over"


def _witnesses(case: Case) -> tuple[str, ...]:
    return tuple(n for n in case.speaking(Witness.STALE, Witness.LOST) if n not in case.rules.aside)


def unwitnessed(case: Case) -> bool:
    return silent(case) and not _witnesses(case)


def tell_unwitnessed(case: Case) -> str:
    told = [f"{n} {'is in maintenance' if n in case.rules.aside else case.testimony[n].text}" for n in case.channels]
    return f"{silence_of(case)}, and no replica could tell whether it lives: {'; '.join(told)}"


def hung(case: Case) -> bool:
    return case.kind is Silence.HUNG


def dead_some(case: Case) -> bool:
    return silent(case) and bool(case.absent)


def dead_sibling_ahead(case: Case) -> bool:
    return silent(case) and case.election.fetch_from is not None


def tell_dead(case: Case) -> str:
    parts = [silence_of(case), testimonies(case, _witnesses(case))]
    if case.track and case.track.good is None and not (case.known and case.known.primary == case.primary):
        parts.append(f"{case.name} is the primary because {verb(tuple(case.channels), 'follows', 'follow')} it")
    if case.absent:
        parts.append(f"{verb(case.absent, 'does', 'do')} not answer either")
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
    near, count = reached(case), len(case.sightings.tracks)
    if 2 * len(near) < count:
        yield Finding(
            "failover.majority",
            Severity.ERROR,
            case.sightings.cluster,
            f"only {len(near)} of {count} hosts answer from here ({names(near)}): we may be cut off with them",
            "look from another host; if the others are really gone: proxyroute failover --force",
            forceable=True,
        )
