"""What would block a failover if the primary died now, to be mended in quiet times. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from proxyroute.diagnosis_case import Case, names, reached
from proxyroute.known import Known, remember
from proxyroute.model import Finding, Observed, Receiver, Severity, View
from proxyroute.policy import FailoverPolicy, Policy
from proxyroute.sight import Sightings

FINDINGS = ("failover.proxy",)
"""Codes of everything that comes from here alone."""

_OF_THE_DAY = ("failover.lost", "failover.unfetchable", "failover.history")
"""What a living primary is always a moment ahead in is lost only when it dies; then it is told."""
_CURES = {
    "haproxy-agents": "bring {0} back; or declare on_silence: close_writes in its agent's file, or a fence",
    "hook": "give {0} a read-back command that works; or configure scripts.fence",
    "maxscale": "bring the REST API of {0} back; or configure scripts.fence",
}
_CURE = "bring {0} back; or configure scripts.fence"


@dataclass(frozen=True)
class Way:
    """A proxy that must answer before another server opens."""

    kind: str
    """The type of its adapter, e.g. ``maxscale``."""
    silence: float | None = None
    """Within how many seconds it closes its writes by itself when it hears nothing; None for never."""


def blocks(
    view: View,
    observed: Sequence[Observed],
    rules: Policy,
    policy: FailoverPolicy,
    known: Known | None,
    limits: Sequence[Finding],
    ways: Mapping[str, Way],
    *,
    fence: bool,
    now: float,
    wall: float,
    more: Sequence[Finding] = (),
) -> tuple[Finding, ...]:
    """Returns every condition that blocks a failover, by one reading of all servers and proxies.

    In the mode ``automatic`` one that ``serve`` makes, with its ``limits``; in ``manual`` one that a person asks for.
    ``ways`` are the proxies that must answer; ``fence`` tells whether one is configured; ``more`` is what else is
    known to stand in the way. ``now`` is a point on the monotonic clock, ``wall`` the same in Unix time.
    """
    sightings = Sightings.of(view, now, known.server_ids if known is not None else None)
    known = remember(sightings, known, now, wall)
    case = Case(sightings, policy, now, rules, known, wall, tuple(observed))
    found = [*limits] if policy.mode == "automatic" else []
    found += [*more, *_witnesses(case)]
    if case.primary is not None:
        found += [f for f in case.election.findings if f.severity is Severity.ERROR and not _passing(f, case)]
    return (*found, *proxies_in_the_way(observed, ways, fence=fence))


def _passing(finding: Finding, case: Case) -> bool:
    return finding.code in _OF_THE_DAY and case.top is not None and case.top.writable


def _witnesses(case: Case) -> Iterator[Finding]:
    """Whether anybody could tell that the primary is gone, and that it is not us who are cut off."""
    cluster = case.sightings.cluster
    near, count = reached(case), len(case.sightings.tracks)
    if case.primary is None:
        text = "PrimaryUnknown: nobody takes writes, and nobody can tell who did"
        cure = "decide which server is meant, and open it there: SET GLOBAL read_only=0;"
        yield Finding("failover.diagnosis", Severity.ERROR, cluster, text, cure)
        return
    left = [n for n in near if n != case.primary] if case.top is not None else near
    if 2 * len(left) < count:
        when = f"if the host of {case.primary} went too, " if case.top is not None else ""
        text = f"{when}only {len(left)} of {count} hosts would answer from here{f' ({names(left)})' if left else ''}"
        cure = "bring the others back, or look from another host; if they are really gone: proxyroute failover --force"
        yield Finding("failover.majority", Severity.ERROR, cluster, text, cure, forceable=True)
    listening = [
        n for n, s in case.channels.items() if s.receiver is not Receiver.STOPPED and n not in case.rules.aside
    ]
    if case.channels and case.top is not None and not listening:
        told = [f"{n} {_why_deaf(n, case.rules)}" for n in case.channels]
        text = f"DeadPrimaryUnwitnessed: no replica could tell that {case.primary} is gone: {', '.join(told)}"
        cure = f"START SLAVE on {names(list(case.channels))}, or end the maintenance: proxyroute maintenance NAME off"
        yield Finding("failover.diagnosis", Severity.ERROR, case.primary, text, cure, forceable=True)


def _why_deaf(name: str, rules: Policy) -> str:
    if name in rules.rebuilt:
        return "is being rebuilt"
    return "is in maintenance" if name in rules.aside else "does not receive"


def proxies_in_the_way(
    observed: Sequence[Observed], ways: Mapping[str, Way], *, fence: bool, severity: Severity = Severity.ERROR
) -> Iterator[Finding]:
    """Yields each proxy that cannot be told, and so keeps every other server closed: nothing else makes sure."""
    for proxy in observed:
        way = ways.get(proxy.proxy)
        if not proxy.reachable and not fence and way is not None and way.silence is None:
            text = f"cannot be told that the old primary is closed: {proxy.detail}"
            cure = _CURES.get(way.kind, _CURE).format(proxy.proxy)
            if severity is not Severity.ERROR:
                cure = f"{cure}; when it is off: proxyroute failover --proxy-fenced {proxy.proxy}"
            yield Finding("failover.proxy", severity, proxy.proxy, text, cure)
