"""What would block an automatic failover if the primary died now, to be mended in quiet times. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from proxyroute.failover_election import elect_failover
from proxyroute.known import Known, primary_of, remember
from proxyroute.model import FailoverPolicy, Finding, Observed, Policy, Severity, View
from proxyroute.sight import Sightings

FINDINGS = ("failover.proxy",)
"""Codes of everything that comes from here alone."""

_OF_THE_DAY = ("failover.lost", "failover.unfetchable", "failover.history")
"""What a living primary is always a moment ahead in is lost only when it dies; then it is told."""


def blocks(
    view: View,
    observed: Sequence[Observed],
    rules: Policy,
    policy: FailoverPolicy,
    known: Known | None,
    limits: Sequence[Finding],
    silences: Mapping[str, float | None],
    *,
    fence: bool,
    now: float,
    wall: float,
) -> tuple[Finding, ...]:
    """Returns every condition that blocks an automatic failover, by one reading of all servers and proxies.

    Empty when the mode is ``manual``: there a person is asked anyway. ``silences`` tells for every proxy that must
    answer within how many seconds it closes its writes by itself, None for never; ``fence`` that a fence is
    configured. ``now`` is a point on the monotonic clock, ``wall`` the same in Unix time.
    """
    if policy.mode != "automatic":
        return ()
    sightings = Sightings.of(view, now, known.server_ids if known is not None else None)
    known = remember(sightings, known, now, wall)
    primary = primary_of(sightings, known)
    found = list(limits)
    if primary is not None:
        election = elect_failover(sightings, primary, rules, policy, known)
        found += [f for f in election.findings if f.severity is Severity.ERROR and not _passing(f, view, primary)]
    return (*found, *_proxies(observed, silences, fence))


def _passing(finding: Finding, view: View, primary: str) -> bool:
    status = view.status(primary)
    return finding.code in _OF_THE_DAY and status is not None and status.writable


def _proxies(observed: Sequence[Observed], silences: Mapping[str, float | None], fence: bool) -> Iterator[Finding]:
    """A proxy that cannot be told keeps every other server closed, unless something else makes sure."""
    for proxy in observed:
        if not proxy.reachable and not fence and proxy.proxy in silences and silences[proxy.proxy] is None:
            text = f"cannot be told that the old primary is closed: {proxy.detail}"
            cure = f"bring {proxy.proxy} back; or declare on_silence: close_writes there, or a fence"
            yield Finding("failover.proxy", Severity.ERROR, proxy.proxy, text, cure)
