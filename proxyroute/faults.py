"""Every act that changes something outside this process, in one list, so that tests can die around each.

``with act("mariadb.refuse_writes"): …`` does nothing but run its body, unless the environment variable
``PROXYROUTE_FAULT`` names the point. It is a list, separated by commas, of ``role/point:when``, optionally with ``:N``
for the N-th time: ``engine/mariadb.refuse_writes:before`` makes the engine end itself by SIGKILL right before that act,
``engine/journal:7`` after the seventh journal record, ``guard/guard.take_over:before`` the guard when it would start to
heal. Roles are ``engine``, ``guard``, ``heal``, ``agent`` and ``serve``. ``PROXYROUTE_FAULT_TRACE`` names a file to
which each point that is passed is appended, which is how a sweep learns what there is. Another signal than SIGKILL
follows an ``@``: ``engine/mariadb.block_writes:after@STOP``.

A test reads the sources and fails when an act uses a name that is not listed here, when a listed name has no act,
and when a driver changes something outside an ``act``.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

POINTS: dict[str, str] = {
    # database servers: one per statement that changes something. They have their names from the flavour that came
    # first, and MySQL's statements have the same: it is the same act
    "mariadb.block_writes": "FLUSH TABLES WITH READ LOCK / BACKUP STAGE BLOCK_COMMIT",
    "mariadb.mark_session": "GET_LOCK that marks a session that may change something",
    "mariadb.end_other": "KILL of a session of the engine that had the lease before",
    "mariadb.bound_lock": "SET SESSION wait_timeout, after which the server ends a lock that nobody speaks for",
    "mariadb.name_lock": "GET_LOCK that names a session that holds writes back",
    "mariadb.arm": "the statement that holds writes back and then refuses them by itself",
    "mariadb.unblock_writes": "UNLOCK TABLES / BACKUP STAGE END",
    "mariadb.end_holder": "KILL of another holder's lock session",
    "mariadb.limit_connections": "SET GLOBAL max_connections",
    "mariadb.offline_mode": "SET GLOBAL offline_mode (MySQL)",
    "mariadb.kill_client": "KILL CONNECTION of a client, or of all of them",
    "mariadb.end_attempt": "KILL QUERY of an attempt to take the write lock, where the server does not end it (MySQL)",
    "mariadb.end_reader": "KILL of a session that reads from a table, where the lock waits for it (MySQL)",
    "mariadb.forget_persisted": "RESET PERSIST of what would open a server again that restarts (MySQL)",
    "mariadb.refuse_writes": "SET GLOBAL read_only=1, or super_read_only=1",
    "mariadb.accept_writes": "SET GLOBAL read_only=0",
    "mariadb.lock_account": "ALTER USER … ACCOUNT LOCK",
    "mariadb.unlock_account": "ALTER USER … ACCOUNT UNLOCK",
    "mariadb.stop_replica": "STOP SLAVE",
    "mariadb.stop_receiver": "STOP SLAVE IO_THREAD",
    "mariadb.start_replica": "START SLAVE",
    "mariadb.change_source": "CHANGE MASTER TO …",
    "mariadb.forget_source": "RESET SLAVE ALL",
    "mariadb.set_position": "SET GLOBAL gtid_slave_pos",
    "mariadb.semi_sync": "SET GLOBAL rpl_semi_sync_master_enabled",
    "mariadb.event_scheduler": "SET GLOBAL event_scheduler",
    "mariadb.alter_event": "ALTER EVENT …",
    "mariadb.write_probe": "INSERT of the probe row, and the question which server took it",
    "mariadb.restore": "SET GLOBAL of a setting that was lowered",
    # a server that rejoins
    "rejoin.own": "GET_LOCK that makes a session the one that works on a server, and its settings",
    "rejoin.own_host": "a file beside the data of a server that says whose work on them it is",
    "rejoin.end_older": "KILL of a session that an earlier rejoin has left",
    "rejoin.begin_undo": "XA START, and what goes before it",
    "rejoin.undo": "one BINLOG statement that undoes rows",
    "rejoin.prepare_undo": "XA END / XA PREPARE of the undo",
    "rejoin.commit_undo": "XA COMMIT of the undo",
    "rejoin.stop_replication": "STOP ALL SLAVES / RESET SLAVE",
    "rejoin.hold_writes": "FLUSH TABLES WITH READ LOCK, while what goes for good is read once more",
    "rejoin.release_writes": "UNLOCK TABLES after that",
    "rejoin.reset": "RESET MASTER",
    "rejoin.set_state": "SET GLOBAL gtid_binlog_state",
    "rejoin.set_position": "SET GLOBAL gtid_slave_pos",
    "rejoin.drop_schema": "DROP SCHEMA before a dump is loaded",
    "rejoin.empty": "a statement of an empty transaction on the primary, asked for by name (MySQL)",
    "rejoin.give_way": "SET GLOBAL of what would stop a load: super_read_only, with read_only as it was (MySQL)",
    "rejoin.clone": "CLONE INSTANCE, and what it needs: the plugin, the name of the source (MySQL)",
    "rejoin.load": "a dump of another server, loaded",
    "rejoin.copy": "mariabackup at the source, unpacked beside the data of the target",
    "rejoin.prepare_copy": "mariabackup --prepare of the copy",
    "rejoin.stop_server": "stop of the server's service",
    "rejoin.swap": "rename of the copy to where the data were",
    "rejoin.start_server": "start of the server's service",
    "rejoin.discard": "removal of a copy, or of the old data",
    "archive.fetch": "copy of a file of the binary log into the archive",
    "archive.write": "rename of a whole archive into place",
    "archive.replay": "transactions of an archive, applied to a server that lacks them",
    "salvage.own": "GET_LOCK of the session that owns a replay",
    "salvage.end_older": "KILL of a session by which an earlier replay may go on",
    "salvage.give_way": "SET GLOBAL super_read_only=0 where a dead primary's are applied; read_only stays (MySQL)",
    "salvage.set_position": "SET GLOBAL gtid_slave_pos after what a dead primary had was applied",
    # the comparison of data
    "verify.dead_man": "the statement that starts the applier again by itself, or the time after which the server does",
    "verify.pause": "STOP SLAVE SQL_THREAD, or the GTID that the applier waits for",
    "verify.advance": "START SLAVE SQL_THREAD UNTIL, or the next such GTID",
    "verify.resume": "START SLAVE SQL_THREAD, or that GTID is given back",
    "verify.snapshot": "START TRANSACTION WITH CONSISTENT SNAPSHOT",
    "mariadb.end_stuck": "KILL of our own statement whose reply did not come in time",
    # HAProxy on this host
    "haproxy.runtime": "a command to the runtime socket that changes something",
    "haproxy.master": "a command to the master socket (reload)",
    "haproxy.write_file": "rename of a rendered file into place",
    # the folder shared with the agents on the proxy hosts
    "share.release": "rename of a release into place",
    "share.claim": "rename that claims what an epoch means",
    "share.publish": "rename of current.json",
    "share.ask": "a question to the agents, written, measured or taken back",
    "share.receipt": "rename of an agent's receipt",
    "share.canary": "a file an agent writes to learn whether its host delivers events",
    "share.prune": "removal of an old release, claim or question",
    "agent.remember": "rename of what an agent must never forget, on its own disk",
    "agent.status": "rename of what an agent says about itself, on its own disk",
    "agent.priority": "rename of what an agent says to keepalived, on its own disk",
    # MaxScale, over its REST API
    "maxscale.state": "PUT that sets or clears one state of one server, or makes a monitor look",
    "maxscale.monitor": "PUT that stops a monitor",
    "maxscale.object": "POST or DELETE of the server object that keeps an epoch",
    # anything else
    "hook.run": "an argv of a hook adapter",
    "script.run": "a script of the site's owner",
    "lease.take": "the transaction that takes the lease in etcd",
    "lease.seat": "GET_LOCK of the lease on one server, and the time after which the server ends its session",
    "lease.claim": "mkdir or transaction that claims an epoch",
    "lease.commit": "the transaction that puts a decision on record while the lease is ours",
    "lease.release": "the lease in etcd is given back",
    "notice.webhook": "POST of a notice",
    "notice.email": "a notice handed to a mail server",
    "notice.script": "a notice given to a script of the site's owner",
    "notice.log": "a line about a notice that was not sent",
    "guard.start": "start of the guard process",
    "guard.take_over": "the guard goes on with an operation whose engine is gone",
    "guard.end_engine": "SIGKILL of an engine that hangs while writes are blocked",
}

_numbers: dict[str, Iterator[int]] = {}
"""Servers are told side by side, and each passing has a number of its own: a step of ``count`` is not divisible."""
role = "engine"
"""Set once by the guard, by heal and by an agent."""
owner: int | None = None
"""The process for which this one acts and which is ended in its place; None: it acts for itself."""


def _pass(point: str) -> None:
    number = next(_numbers.setdefault(point, itertools.count(1)))
    trace = os.environ.get("PROXYROUTE_FAULT_TRACE")
    if trace:
        with open(trace, "a", encoding="utf-8") as file:
            file.write(f"{role}/{point}:{number}\n")
    for wanted in os.environ.get("PROXYROUTE_FAULT", "").split(","):
        where, _, name = wanted.partition("@")
        if where in (f"{role}/{point}", f"{role}/{point}:{number}"):
            ends = signal.Signals[f"SIG{name or 'KILL'}"]
            if owner is not None:
                os.kill(owner, ends)
            if owner is None or ends is signal.SIGKILL:  # a helper does not act for the dead
                # to this very thread: one that is sent to the process may wait until another thread has a turn
                signal.pthread_kill(threading.get_ident(), ends)


@contextmanager
def act(point: str) -> Iterator[None]:
    """Marks the body as the external act ``point``. Raises KeyError for a name that is not in ``POINTS``."""
    if point not in POINTS:
        raise KeyError(f"{point} is not listed in faults.POINTS")
    _pass(f"{point}:before")
    yield
    _pass(f"{point}:after")


def recorded() -> None:
    """Marks that one journal record has been written."""
    _pass("journal")
