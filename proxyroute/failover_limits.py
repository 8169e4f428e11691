"""What forbids an *automatic* failover, whatever the diagnosis says. Pure. A person may still fail over by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proxyroute.conditions import seconds
from proxyroute.model import Finding, Severity
from proxyroute.policy import FailoverPolicy

DAY = 86400.0
FINDINGS = (
    "failover.manual",
    "failover.lease",
    "failover.two_servers",
    "failover.no_fencing",
    "failover.unfenced",
    "failover.quiet",
    "failover.per_day",
    "failover.unfinished",
)
"""Codes of everything that comes from here."""


@dataclass(frozen=True)
class Past:
    """One failover that was begun."""

    operation: str
    at: float
    """Unix time of its beginning."""
    automatic: bool
    finished: bool = True
    """It has come to an end, whatever that was."""
    acknowledged: bool = False
    """A person has seen it: it does not count for the limits any more."""


@dataclass(frozen=True)
class Guarding:
    """What keeps two engines from acting at once."""

    distributed: bool
    """The lease is one that other engines see."""
    counts_servers: bool = False
    """It needs a majority of the database servers themselves."""
    lets_go: bool = True
    """An engine that is cut off from all others loses it for sure."""
    closes: bool = True
    """Something keeps clients away from a primary that is replaced: a proxy that must answer, or a fence."""


def unfenced(cluster: str, severity: Severity) -> Finding:
    """Returns the finding that nothing keeps clients away from a primary that is replaced."""
    text = (
        "there is no proxy to close and no fence: clients could go on writing to a primary that is only cut off from us"
    )
    cure = "configure scripts.fence or the proxies; or declare failover.accept_unfenced: true"
    if severity is not Severity.ERROR:
        cure = "make sure that nothing reaches it, and say so: --fenced-by NAME; for the next time: scripts.fence"
    return Finding("failover.unfenced", severity, cluster, text, cure)


def limits(
    cluster: str, policy: FailoverPolicy, guarding: Guarding, servers: int, past: Sequence[Past], wall: float
) -> tuple[Finding, ...]:
    """Returns everything that now forbids an automatic failover of ``cluster``, each with its cure.

    ``servers`` is how many there are; ``wall`` is the present in Unix time. Failovers of the future (the clock was
    set back) count as those of now.
    """
    return tuple(_limits(cluster, policy, guarding, servers, past, wall))


def _limits(
    cluster: str, policy: FailoverPolicy, guarding: Guarding, servers: int, past: Sequence[Past], wall: float
) -> Iterator[Finding]:
    def _error(code: str, text: str, cure: str) -> Finding:
        return Finding(code, Severity.ERROR, cluster, text, cure)

    if policy.mode == "manual":
        yield _error("failover.manual", "a person decides here", "proxyroute failover; or failover.mode: automatic")
    if not guarding.distributed and not policy.single_engine:
        text = "the lease is on this host only: another engine might act at the same time"
        yield _error(
            "failover.lease", text, "configure a lease that is shared, or declare failover.single_engine: true"
        )
    if guarding.counts_servers and servers <= 2:
        text = f"the lease needs a majority of {servers} servers, and there is none when one is gone"
        yield _error("failover.two_servers", text, "use etcd for the lease, or add a third server")
    if not guarding.lets_go and not policy.single_engine:
        text = "the cluster manager fences nobody, or does not say: an engine on a node that is cut off may still act"
        cure = "configure fencing (stonith-enabled=true), or declare failover.single_engine: true"
        yield _error("failover.no_fencing", text, cure)
    if not guarding.closes and not policy.accept_unfenced:
        yield unfenced(cluster, Severity.ERROR)
    counted = [p for p in past if p.automatic and not p.acknowledged]
    ages = {p.operation: max(0.0, wall - p.at) for p in counted}
    recent = [p for p in counted if ages[p.operation] < policy.quiet_period]
    if recent:
        last = min(recent, key=lambda p: ages[p.operation])
        left = policy.quiet_period - ages[last.operation]
        text = f"the last automatic failover, {last.operation}, was {seconds(round(ages[last.operation]))} ago"
        cure = f"wait for {seconds(round(left))}, or after a look at it: proxyroute failover --acknowledge"
        yield _error("failover.quiet", text, cure)
    today = [p for p in counted if ages[p.operation] < DAY]
    if len(today) >= policy.per_day:
        text = f"{len(today)} automatic failovers within 24 hours, {policy.per_day} are allowed"
        yield _error("failover.per_day", text, "find out why; then: proxyroute failover --acknowledge")
    for p in past:
        if not p.finished:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(p.at))
            yield _error("failover.unfinished", f"{p.operation}, begun {when} UTC, has not ended", "proxyroute heal")
