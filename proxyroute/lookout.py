"""Looks until it is clear what is the matter, and says what a failover would do: for whoever wants one by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxyroute.config_values import ClusterConfig
from proxyroute.contingency import Contingency, foresee
from proxyroute.errors import Refused
from proxyroute.model import Deadline, Finding
from proxyroute.sentry import Sentry

_PATIENCE = 15.0
"""Seconds until it must be clear what is the matter; as a rule it is much earlier."""


def foreseer(
    config: ClusterConfig,
    sentry: Sentry,
    target: str | None,
    *,
    force: bool,
    fenced_by: str = "",
    fenced_proxies: Sequence[str] = (),
    apply_dead_binlog: bool = False,
) -> Callable[[tuple[Finding, ...]], Contingency]:
    """Returns what an engine's failover asks for. Raises Refused when a proxy is named that there is not."""
    known = {p.name for p in config.proxies}
    unknown = [name for name in fenced_proxies if name not in known]
    if unknown:
        raise Refused(f"{config.name} has no proxy {', '.join(unknown)}; name one of: {', '.join(sorted(known))}")

    def look(more: tuple[Finding, ...]) -> Contingency:
        sightings, diagnosis = sentry.settled(Deadline.after(_PATIENCE))
        return foresee(
            sightings,
            diagnosis,
            sentry.rules,
            config.failover,
            sentry.known,
            target=target,
            force=force,
            fenced_by=fenced_by,
            fenced_proxies=fenced_proxies,
            events=sentry.events,
            hosts=config.with_hosts,
            apply_dead_binlog=apply_dead_binlog,
            more=more,
        )

    return look
