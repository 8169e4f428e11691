"""Looks until it is clear what is the matter, and says what a failover would do: for whoever wants one by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxyroute.config_values import ClusterConfig
from proxyroute.contingency import Contingency, foresee
from proxyroute.errors import Refused
from proxyroute.fenced import PACEMAKER, Confirmation, confirmation
from proxyroute.lease.pacemaker_cluster import PacemakerCluster
from proxyroute.model import Deadline, Finding
from proxyroute.sentry import Sentry

_PATIENCE = 15.0
"""Seconds until it must be clear what is the matter; as a rule it is much earlier."""
_ANSWER = 10.0
"""Seconds for the cluster manager to say whether a host is fenced."""


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
    """Returns what an engine's failover asks for. Raises Refused when a proxy is named that there is not.

    A cluster manager that is named as ``fenced_by`` is asked each time; without its confirmation nothing is fenced.
    """
    known = {p.name for p in config.proxies}
    unknown = [name for name in fenced_proxies if name not in known]
    if unknown:
        raise Refused(f"{config.name} has no proxy {', '.join(unknown)}; name one of: {', '.join(sorted(known))}")

    def look(more: tuple[Finding, ...]) -> Contingency:
        sightings, diagnosis = sentry.settled(Deadline.after(_PATIENCE))
        said = Confirmation(fenced_by)
        if fenced_by == PACEMAKER and diagnosis.primary is not None:
            known = sentry.known
            seen = known.at if known is not None and known.primary == diagnosis.primary else 0.0
            cluster = PacemakerCluster(config.lease.node)
            said = confirmation(config, diagnosis.primary, seen, cluster, Deadline.after(_ANSWER))
        return foresee(
            sightings,
            diagnosis,
            sentry.rules,
            config.failover,
            sentry.known,
            target=target,
            force=force,
            fenced_by=said.by,
            fenced_proxies=fenced_proxies,
            events=sentry.events,
            hosts=config.with_hosts,
            apply_dead_binlog=apply_dead_binlog,
            more=(*([said.finding] if said.finding is not None else []), *more),
        )

    return look
