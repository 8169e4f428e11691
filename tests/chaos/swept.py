"""Which fault points each sweep dies at. The sweeps hold to it when they run, and a quick test holds it to the list.

So a fault point that is new is in a sweep, or among those that are left out with a reason, before anybody has run the
sweeps of half an hour.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

_OPENING = ("lease.claim", "guard.start", "haproxy.runtime", "haproxy.write_file", "mariadb.write_probe")
_REPOINTING = (
    "mariadb.accept_writes",
    "mariadb.change_source",
    "mariadb.forget_source",
    "mariadb.start_replica",
    "mariadb.stop_replica",
)
_FREEZING = (
    "mariadb.arm",
    "mariadb.block_writes",
    "mariadb.bound_lock",
    "mariadb.end_holder",
    "mariadb.limit_connections",
    "mariadb.name_lock",
    "mariadb.refuse_writes",
    "mariadb.restore",
    "mariadb.unblock_writes",
)
_BUILT_ANEW = ("archive.fetch", "archive.write", "rejoin.end_older", "rejoin.own", "rejoin.stop_replication")
_HISTORY = (
    "rejoin.hold_writes",
    "rejoin.release_writes",
    "rejoin.reset",
    "rejoin.set_position",
    "rejoin.set_state",
    "mariadb.start_replica",
)
_COMPARED = ("verify.dead_man", "verify.pause", "verify.snapshot", "verify.resume")

SWEPT: Mapping[str, Collection[str]] = {
    "switchover": (*_OPENING, *_REPOINTING, *_FREEZING, "mariadb.kill_client"),
    "switchover with agents": ("share.ask", "share.claim", "share.publish", "share.release"),
    "switchover with what some sites have": (
        "mariadb.alter_event",
        "mariadb.event_scheduler",
        "mariadb.semi_sync",
        "script.run",
    ),
    "switchover by force": ("mariadb.lock_account", "mariadb.unlock_account"),
    "switchover with a hook": ("hook.run",),
    "switchover behind MaxScale": ("maxscale.object", "maxscale.state"),
    "failover": (*_OPENING, *_REPOINTING, "mariadb.semi_sync", "mariadb.stop_receiver"),
    "failover with agents": ("share.ask", "share.claim", "share.publish", "share.release"),
    "failover with what only the dead has": (
        "archive.fetch",
        "archive.replay",
        "archive.write",
        "salvage.own",
        "salvage.set_position",
    ),
    "failover with what only the dead has, on MySQL": (
        "archive.fetch",
        "archive.replay",
        "archive.write",
        "mariadb.refuse_writes",
        "salvage.give_way",
        "salvage.own",
    ),
    "failover behind MaxScale": ("maxscale.state",),
    "failover under a lease in etcd": ("lease.commit", "lease.take", "lease.release", "mariadb.mark_session"),
    "failover under a lease on the servers": ("lease.seat", "mariadb.mark_session"),
    "an engine that takes over": ("mariadb.end_other",),
    "rejoin by follow": ("mariadb.semi_sync", "mariadb.start_replica"),
    "rejoin by flashback": (
        *(*_BUILT_ANEW, *_HISTORY, *_COMPARED),
        *("rejoin.begin_undo", "rejoin.undo", "rejoin.prepare_undo", "rejoin.commit_undo"),
    ),
    "rejoin by empty": (
        *("archive.fetch", "archive.write", "rejoin.empty", "mariadb.start_replica", "verify.snapshot"),
    ),
    "rejoin by reseed": (*_BUILT_ANEW, *_HISTORY, *_COMPARED, "rejoin.drop_schema", "rejoin.load"),
    "rejoin by reseed with hosts": (
        *(*_BUILT_ANEW, *_HISTORY, *_COMPARED, "rejoin.own_host", "rejoin.copy", "rejoin.prepare_copy"),
        *("rejoin.stop_server", "rejoin.swap", "rejoin.start_server", "rejoin.discard"),
    ),
    "rejoin by reseed on MySQL": (
        *("archive.fetch", "archive.write", "rejoin.own", "rejoin.stop_replication", "rejoin.set_position"),
        *("rejoin.give_way", "rejoin.drop_schema", "rejoin.load", "mariadb.refuse_writes", "rejoin.reset"),
        *("mariadb.change_source", "mariadb.start_replica", "verify.snapshot"),
    ),
    "rejoin by reseed with hosts on MySQL": (
        *("archive.fetch", "archive.write", "rejoin.own", "rejoin.own_host", "rejoin.stop_replication"),
        *("rejoin.set_position", "rejoin.clone", "rejoin.start_server", "mariadb.refuse_writes"),
        *("mariadb.change_source", "mariadb.start_replica", "verify.snapshot"),
    ),
    "an agent": ("agent.remember", "agent.status", "haproxy.runtime", "haproxy.write_file", "share.receipt"),
    "notices": ("notice.email", "notice.log", "notice.script", "notice.webhook"),
    "a guard": ("guard.take_over", "guard.end_engine"),
}
"""By sweep, the fault points it certainly comes to; how often depends on the moment."""

LEFT_OUT: Mapping[str, str] = {
    "haproxy.master": (
        "a reload, which a move does not make: tests/contract/test_agents_sigkill.py kills the agent around one"
    ),
    "share.canary": "a file that an agent writes to learn about its own host; no route depends on it",
    "agent.priority": "a number for keepalived on the host's own disk, told anew by an agent that starts",
    "share.prune": "removes what nobody names any more, after the operation is over; what is left goes the next time",
    "maxscale.monitor": "one PUT before anything is touched; a monitor that is stopped already is not stopped again",
    "verify.advance": "tests/cluster/test_verify.py kills a comparison there: it is only come to under writes",
    "salvage.end_older": (
        "only heal comes to it, when a replay outlives the engine that was killed at archive.replay: that sweep has it"
    ),
    "mariadb.set_position": "only where a server follows for the first time: the rejoin sweeps set theirs another way",
    "mariadb.end_attempt": (
        "MySQL only, when an attempt on the lock fails: dying there leaves one that the server ends within a second"
    ),
    "mariadb.end_reader": (
        "MySQL only, when the lock waits for a reader: dying there leaves a lock that the server ends within a second, "
        "and what waits behind the reader is let go by whoever heals (tests/cluster/test_mysql_driver.py)"
    ),
    "mariadb.offline_mode": "MySQL only, where the site wants it: tests/cluster/test_mysql_offline.py dies around it",
    "mariadb.forget_persisted": (
        "MySQL only, where somebody has persisted a role: what closes that server does it again when it is healed"
    ),
    "mariadb.end_stuck": "ends our own statement that hangs; dying there is dying before its reply, which is unknown",
}
"""Fault points at which no sweep dies, and why that is no gap."""


def swept(sweep: str, points: Iterable[str]) -> None:
    """Asserts that ``points``, at all of which the full sweep dies, are those that it answers for, or more."""
    there = {point.partition("/")[2].split(":")[0] for point in points}
    assert set(SWEPT[sweep]) <= there, f"{sweep} does not come to {sorted(set(SWEPT[sweep]) - there)}"
