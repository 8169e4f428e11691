"""What whoever keeps a cluster has seen of it at one moment, for those who show it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from proxyroute.config_values import ClusterConfig
from proxyroute.decided import Diagnosis
from proxyroute.engine import Engine
from proxyroute.known import Known
from proxyroute.model import Finding, Observed, View
from proxyroute.sentry import Sentry
from proxyroute.sight import Sightings
from proxyroute.standing import Standing

_LEAST = 5.0
_PERIODS = 10


def good_for(config: ClusterConfig) -> float:
    """Returns for how many seconds a look at a server counts: after that, no answer is better than an old one."""
    return max(_LEAST, _PERIODS * config.failover.probe_period)


@dataclass(frozen=True)
class Glance:
    """Everything seen of one cluster at one moment."""

    cluster: str
    at: float
    """Unix time."""
    view: View
    observed: tuple[Observed, ...] = ()
    """What each proxy did when it was asked last."""
    diagnosis: Diagnosis | None = None
    """None while an operation is under way: it closes servers itself."""
    known: Known | None = None
    intended: str | None = None
    """The server that writes are meant to go to; None when that is not for ProxyRoute to say."""
    astray: str = ""
    """Why not."""
    blocks: tuple[Finding, ...] = ()
    """What would block an automatic failover now."""
    limits: tuple[Finding, ...] = ()
    """What forbids an automatic failover, whatever is the matter."""
    standing: Standing = field(default_factory=Standing)
    """The standing orders."""
    live: Callable[[], Sightings] | None = field(default=None, compare=False, repr=False)
    """Returns at once what has been seen by now: looking goes on while whoever keeps the cluster is at work on it."""


def glance(
    engine: Engine, sentry: Sentry, sightings: Sightings, observed: Sequence[Observed], diagnosis: Diagnosis | None
) -> Glance:
    """Returns what there is to show, by what has just been seen. Asks no server and no proxy."""
    view = sightings.view
    intended, astray = engine.intended(view, observed)
    return Glance(
        cluster=view.cluster,
        at=time.time(),
        view=view,
        observed=tuple(observed),
        diagnosis=diagnosis,
        known=sentry.known,
        intended=intended,
        astray=astray,
        blocks=engine.failover_blocks(view, observed, sentry.known),
        limits=engine.failover_limits(),
        standing=sentry.standing,
        live=sentry.sightings,
    )
