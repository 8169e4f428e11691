"""What an engine knows beforehand to stand in the way of a failover, besides the servers themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxyroute.config_values import ClusterConfig
from proxyroute.errors import JournalError
from proxyroute.model import Deadline, Finding, Observed, Severity
from proxyroute.outlook import Way, proxies_in_the_way
from proxyroute.parts import Parts
from proxyroute.ports import Lease


def ways(config: ClusterConfig, parts: Parts, observed: Sequence[Observed]) -> dict[str, Way]:
    """Returns the proxies of ``observed`` that must answer before another server opens."""
    kinds = {p.name: p.type for p in config.proxies}
    return {
        o.proxy: Way(kinds.get(o.proxy, ""), parts.routes.silence(o.proxy))
        for o in observed
        if parts.routes.is_required(o.proxy)
    }


def foretold(
    config: ClusterConfig,
    parts: Parts,
    lease: Lease,
    writable: Callable[[], object],
    deadline: Deadline,
) -> tuple[Finding, ...]:
    """Returns what would refuse a failover before its first act, or have it undone.

    That is a lease that cannot be had, a journal that cannot be written (``writable`` raises JournalError), and, as
    warnings, proxies that may not answer: by the time that they are told they may.
    """
    found = [f for f in lease.findings(deadline) if f.severity is Severity.ERROR]
    try:
        writable()
    except JournalError as error:
        found.append(Finding("journal.unwritable", Severity.ERROR, config.name, str(error), "make state_dir writable"))
    observed = parts.routes.observe(deadline)
    fence = bool(parts.hooks.configured("fence"))
    told = proxies_in_the_way(observed, ways(config, parts, observed), fence=fence, severity=Severity.WARNING)
    return (*found, *told)
