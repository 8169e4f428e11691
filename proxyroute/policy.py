"""What an operator sets: how an operation is to be done, when a primary counts as gone, and what may be done then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Policy:
    """How an operation is to be done. All durations in seconds."""

    prefer: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    """Servers in maintenance, by standing orders: they are never elected, get no reads, and are left alone."""
    rebuilt: tuple[str, ...] = ()
    """Those of ``aside`` whose data are being replaced or undone by a rejoin that is not over; nobody ordered that."""
    max_lag: float = 10.0
    """A candidate further behind than this is refused at once."""
    require_running: bool = True
    """Receiver and applier of every reachable replica must run."""
    allow_delayed: bool = False
    allow_filtered: bool = False
    long_transaction: float = 2.0
    """A writing transaction older than this is waited for, then refused."""
    long_wait: float = 10.0
    drain: float = 0.25
    """How long short client sessions may end by themselves while newcomers are held."""
    warm_up: float = 30.0
    """How long the candidate may take to catch up while writes still flow."""
    freeze_budget: float = 3.0
    """Writes are blocked no longer than this before everything is undone."""
    freeze: str = "flush_tables"
    """``flush_tables`` (FLUSH TABLES WITH READ LOCK) or ``backup_stage`` (BACKUP STAGE BLOCK_COMMIT)."""
    lock_attempt: float = 0.2
    """Length of one attempt to lock; while one is pending, writes stall."""
    lock_pause: float = 0.1
    max_connections: int = 1
    """What the connection limit is lowered to (the server clamps it); 0 leaves it alone."""
    offline_mode: bool = False
    """MySQL: who is cut off is turned away by ``offline_mode`` until all is over, instead of by a lowered limit."""
    order: str = "lock_early"
    """``lock_early`` (routes move, then kill) or ``read_only_first``; docs/decisions says why."""
    settle: float = 30.0
    """How long after the commit until everything must have converged."""
    prove: float = 8.0
    """How long the proof looks again while something is still on its way."""
    undo: float = 15.0
    monitor_users: tuple[str, ...] = ()
    """Accounts whose sessions are never killed."""
    max_replica_lag_reads: float = 30.0
    """A replica further behind than this gets no reads."""
    probe_schema: str = ""
    """Schema for the probe row of the proof; empty: no probe is written."""
    max_disk_seconds: float = 1.0

    @property
    def arms(self) -> bool:
        """Whether the old primary is made to hold writes until the routes have moved, whoever dies."""
        return self.order == "lock_early" and self.freeze != "backup_stage"  # only one session can hold a backup stage


@dataclass(frozen=True)
class FailoverPolicy:
    """When a primary counts as gone, and what may be done about it. All durations in seconds."""

    mode: str = "manual"
    """``manual`` (a person types ``proxyroute failover``) or ``automatic``."""
    profile: str = "default"
    """``default`` or ``aggressive``: which values probing and confirmation have when they are not given."""
    policy: str = "lossless"
    """``lossless`` (nothing acknowledged may be missing, else a person decides) or ``most_advanced``."""
    single_engine: bool = False
    """Declares that no other engine watches this cluster, so that a lease on this host is enough."""
    accept_unfenced: bool = False
    """Declares that an automatic failover may open a server although nothing keeps clients away from the old primary:
    no proxy that can be closed, and no fence."""
    quiet_period: float = 600.0
    """No automatic failover within this time of the last one."""
    per_day: int = 3
    """No more automatic failovers than this within 24 hours."""
    probe_period: float = 0.5
    patience: float = 1.0
    """A look at a server that takes longer than this has failed."""
    confirm: float = 1.0
    """The primary must have been silent for at least this long,"""
    looks: int = 2
    """and in at least so many looks in a row."""
    heartbeats: float = 2.5
    """A replica that has heard nothing for this many heartbeat periods no longer hears its source."""
    apply: float = 60.0
    """How long the elected replica may take to apply what it has received."""
    fetch: float = 30.0
    """How long it may take to fetch what another replica has received and it has not."""
    dead_binlog: str = "save"
    """What nobody had received, where the host of the dead primary can be reached: ``ignore``, ``save`` (kept in an
    archive once the new primary takes writes) or ``apply`` (kept, and applied before it does)."""
    dead_binlog_time: float = 30.0
    """How long reading it may take; with ``apply`` reading and applying, while writes wait."""

    def __post_init__(self) -> None:
        for name, choices in _FAILOVER_CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: must be {' or '.join(choices)}")
        if not 1 <= self.dead_binlog_time <= 3600:
            raise ValueError("dead_binlog_time: must be from 1s to 1h")
        for name in ("probe_period", "patience", "apply", "fetch"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be more than 0 seconds")
        if self.looks < 2:
            raise ValueError("looks: must be 2 or more; a single look proves nothing")
        if self.heartbeats <= 1:
            raise ValueError("heartbeats: must be more than 1, or a heartbeat that is a little late counts as silence")
        if self.per_day < 0:
            raise ValueError("per_day: must be 0 or more")


_FAILOVER_CHOICES = {
    "mode": ("manual", "automatic"),
    "profile": ("default", "aggressive"),
    "policy": ("lossless", "most_advanced"),
    "dead_binlog": ("ignore", "save", "apply"),
}


AGGRESSIVE: Mapping[str, Any] = {
    "probe_period": 0.2,
    "patience": 0.4,
    "confirm": 0.15,
    "looks": 3,
    "heartbeats": 1.5,
}
"""What the profile ``aggressive`` puts in place of the defaults of :class:`FailoverPolicy`."""
