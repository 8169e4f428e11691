"""What the command line and the daemon ask for about one server's data: that it rejoins, that it is compared."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from proxyroute import __version__, dialect, journal
from proxyroute.assembly import (
    archive_folder,
    build_claim,
    build_comparers,
    build_rebuilders,
    journal_folder,
    permit_of,
)
from proxyroute.binlog import Table
from proxyroute.config import snapshot
from proxyroute.config_values import ClusterConfig, ServerConfig
from proxyroute.decided import Plan
from proxyroute.errors import Busy, JournalError, ProxyRouteError, Refused, Unfinished
from proxyroute.history import result_of, summarize
from proxyroute.journal import Journal, Listener, Record
from proxyroute.model import Deadline, Finding, Severity, View
from proxyroute.operation import Operation, each, new_id, resume
from proxyroute.outcome import Result
from proxyroute.parts import LOOK, Parts
from proxyroute.ports import Lease
from proxyroute.rejoin import KIND, METHODS, go_on, rejoin
from proxyroute.rejoin_data import let_go
from proxyroute.rejoin_look import Means, find_primary
from proxyroute.topology import ONE_FLAVOUR, mixed, source_of, stranger
from proxyroute.verify import Comparison, compare

_LEASE = 0.5
_HOST = 10.0
_SAY = 2.0
"""Seconds beyond that for a command that hangs to be ended, and to say what it was."""
_TRY_HOST = 'test -d "$1" && test -r "$1"'
_DIED = "its process died before anything was changed"


def build_means(config: ClusterConfig, parts: Parts, view: View, lease: Lease, claim: Lease) -> Means:
    """Returns what a rejoin works with, for servers of the flavour that those in ``view`` are of.

    Raises ConfigError when a secret cannot be read.
    """
    flavour = dialect.of(view.seen)
    return Means(
        parts,
        build_rebuilders(config, flavour, permit_of(lease), permit_of(claim)),
        archive_folder(config),
        functools.partial(_compare, config, flavour, claim),
        claim,
        functools.partial(_refuse_if_open, config),
    )


def _compare(
    config: ClusterConfig,
    flavour: str,
    claim: Lease,
    primary: str,
    replica: str,
    tables: Sequence[Table] | None,
    deadline: Deadline,
    watch: Callable[[str], None] = lambda _: None,
) -> Comparison:
    sides = build_comparers(config, flavour, permit_of(claim))
    try:
        return compare(sides[primary], sides[replica], deadline, tables, watch)
    finally:
        for side in sides.values():
            side.close()


@contextlib.contextmanager
def _claimed(config: ClusterConfig, server: str, purpose: str, patience: float = _LEASE) -> Iterator[Lease]:
    """Nobody else rebuilds ``server`` or compares its data, on any host. Raises Busy, Refused."""
    claim = build_claim(config, server)
    try:
        claim.acquire(f"{purpose} {server}", Deadline.after(patience))
    except Busy as error:
        raise Busy(str(error).replace("the cluster is busy", f"{server} is worked on already", 1)) from error
    except JournalError as error:
        raise Refused(f"{error}; nothing was touched") from error
    try:
        yield claim
    finally:
        claim.release()


def run_rejoin(
    config: ClusterConfig,
    parts: Parts,
    lease: Lease,
    server: str,
    method: str | None = None,
    *,
    by: str,
    listener: Listener | None = None,
    if_alone: bool = False,
) -> Result:
    """Makes ``server`` follow the primary again; goes on with a rejoin of it that was interrupted.

    ``lease`` is that of the cluster, not held; it is taken, and let go while data are copied. Without a ``method`` only
    what loses nothing is done, so that anybody may call this at any time. With ``if_alone`` a server that takes writes
    or follows somebody, read once the lease is held, is left as it is: the result is ``unchanged``. Raises Refused with
    the findings (the server is left fenced), Busy, or Unfinished (call it again).
    """
    if server not in parts.site.names:
        raise Refused(f"{config.name} has no server {server!r}; name one of: {', '.join(parts.site.names)}")
    if method is not None and method not in METHODS:
        raise Refused(f"there is no method {method!r}; name one of: {', '.join(METHODS)}")
    with _claimed(config, server, "rejoin of") as claim:
        op: Operation | None = None
        try:
            lease.acquire(f"rejoin of {server}", Deadline.after(_LEASE))
            if lease.distributed:
                parts.site.end_others(Deadline.after(LOOK))
            _refuse_if_open(config)
            parts.site.close()  # privileges are as old as their connection
            view = parts.site.look(Deadline.after(LOOK))
            means = build_means(config, parts, view, lease, claim)
            if if_alone and not is_alone(view, server):
                text = f"{server} does not stand alone any more; nothing was changed"
                return Result("", KIND, "unchanged", text=text)
            if lease.distributed:
                means.rebuild[server].take_over(Deadline.after(_HOST))
            found = _open_rejoin(config, server, lease, by, listener)
            primary = find_primary(means, view, server)
            if found is not None:
                op = found
                if method in (None, op.kept("method")):
                    go_on(means, op, primary)
                    return result_of(op)
                _give_up(means, op, method)
                op.journal.close()
            op = _begin(config, lease, server, primary, by, listener)
            rejoin(means, op, method)
            return result_of(op)
        finally:
            if op is not None:
                op.journal.close()
            let_go(parts, lease)


def is_alone(view: View, server: str) -> bool:
    """Tells whether ``server`` answers, refuses writes and follows no member, as one that is back from the dead.

    One whose receiver gave the primary up, while that was away for longer than it tries, follows nobody either.
    """
    status = view.status(server)
    if status is None or status.writable:
        return False
    top = view.primary.name if view.primary is not None else None
    return all(stranger(view, c) or (c.gave_up and source_of(view, c) == top) for c in status.sources)


def heal_rejoin(
    config: ClusterConfig,
    parts: Parts,
    lease: Lease,
    file: Path,
    *,
    by: str,
    listener: Listener | None = None,
    patience: float = _LEASE,
) -> Result | None:
    """Goes on with the rejoin that ``file`` records; None when there is nothing to do, or somebody is at work on it.

    One of a server in maintenance is left as it is, too.

    ``lease`` is held. No data are copied here: that may take hours, and whoever heals has other things to look after;
    Unfinished then says what to type. ``config`` and ``parts`` are those the rejoin began with. ``patience`` is how
    many seconds the claim of an engine that has died may last.
    """
    server = str(journal.read(file)[0]["plan"]["candidate"])
    if server in (parts.aside() or ()):
        return None
    with contextlib.ExitStack() as stack:
        try:
            claim = stack.enter_context(_claimed(config, server, "heal of the rejoin of", patience))
        except Busy:
            return None
        op = resume(file, lease, by, open_journal=lambda f, term: Journal(f, listener, term=term))
        if op is None:
            return None
        stack.callback(op.journal.close)
        view = parts.site.look(Deadline.after(LOOK))
        if not op.committed or op.kept("method") is None:
            op.end("superseded", _DIED)  # no refusal: it may be tried again by itself
        elif view.primary is not None and view.primary.name == server:
            op.end("superseded", f"{server} was made the primary since")
        elif op.kept("method") == "reseed" and op.kept("loaded") is None:
            raise Unfinished(f"{server} is half built; to go on (it may take long) type: proxyroute rejoin {server}")
        else:
            means = build_means(config, parts, view, lease, claim)
            if lease.distributed:
                means.rebuild[server].take_over(Deadline.after(_HOST))
            go_on(means, op, find_primary(means, view, server), keep_lease=True)
        return result_of(op)


def run_verify(
    config: ClusterConfig,
    parts: Parts,
    server: str | None,
    tables: Sequence[Table] | None,
    deadline: Deadline,
    watch: Callable[[str], None],
) -> tuple[Comparison, ...]:
    """Compares the primary with ``server``, or with every replica that answers, one after the other.

    Raises Refused when there is not exactly one primary, ProxyRouteError when a comparison could not be made.
    """
    view = parts.site.look(Deadline.after(LOOK))
    if view.primary is None:
        raise Refused("there is not exactly one primary to compare with; look at 'proxyroute status'")
    primary = view.primary.name
    if server is not None and (server not in parts.site.names or server == primary):
        others = ", ".join(name for name in parts.site.names if name != primary)
        raise Refused(f"{server} is no replica of {config.name}; name one of: {others}")
    names = [server] if server else [s.name for s in view.seen if s.name != primary]
    if not names:
        raise Refused("no replica answers; look at 'proxyroute status'")
    done = []
    for name in names:
        try:
            if told := mixed({s.name: s.flavour for s in view.seen if s.name in (primary, name)}):
                raise Refused(f"{told}: {ONE_FLAVOUR}")
            with _claimed(config, name, "comparison of") as claim:
                done.append(_compare(config, view.primary.flavour, claim, primary, name, tables, deadline, watch))
        except ProxyRouteError as error:
            if server is not None:
                raise
            done.append(Comparison(primary, name, skipped=(str(error),)))
    return tuple(done)


def host_findings(config: ClusterConfig, view: View) -> tuple[Finding, ...]:
    """Returns the hosts on which commands cannot be run, or that do not show the data folder."""
    rebuilders = build_rebuilders(config, dialect.of(view.seen))

    def trial(server: ServerConfig) -> None:
        deadline = Deadline.after(_HOST)
        if server.host is not None:
            server.host.ask(_TRY_HOST, rebuilders[server.name].data_dir(deadline), deadline=deadline)

    hosts = [s for s in config.servers.values() if s.host is not None]
    found = []
    for name, outcome in each(hosts, trial, Deadline.after(_HOST + _SAY)).items():
        if isinstance(outcome.error, ProxyRouteError):
            host = config.servers[name].host
            shell = " ".join(host.shell) if host else ""
            cure = f"try it by hand: {shell} ls -d <data folder>; or correct servers.{name}.host"
            text = f"commands do not work on its host: {outcome.error}"
            found.append(Finding("host.command", Severity.WARNING, name, text, cure))
        else:
            outcome.get()
    return tuple(found)


# -- helpers --


def _begin(
    config: ClusterConfig, lease: Lease, server: str, primary: str, by: str, listener: Listener | None
) -> Operation:
    operation = new_id()
    try:
        return Operation.create(
            Journal(journal_folder(config) / f"{operation}.jsonl", listener),
            lease,
            operation,
            KIND,
            # no epoch is claimed: no route changes, and an operation that waits for heal must not look superseded
            lease.highest(),
            Plan(config.name, primary, server, (), policy=config.policy),
            config=snapshot(config),
            engine={"host": socket.gethostname(), "pid": os.getpid(), "version": __version__},
            by=by,
        )
    except JournalError as error:
        raise Refused(f"{error}; nothing was touched") from error


def _readable(config: ClusterConfig) -> Iterator[tuple[Path, list[Record]]]:
    for file in journal.journals(journal_folder(config)):
        try:
            records = journal.read(file)
        except JournalError:
            continue
        if records and records[0]["kind"] == "begin":
            yield file, records


def _refuse_if_open(config: ClusterConfig) -> None:
    for _, records in _readable(config):
        summary = summarize(records)
        if summary.kind != KIND and summary.outcome == "open":
            text = f"{summary.kind} {summary.operation} is not finished, so nobody can tell who the primary will be"
            finding = Finding("operation.open", Severity.ERROR, config.name, text, "proxyroute heal")
            raise Refused(text, (finding,))


def _open_rejoin(
    config: ClusterConfig, server: str, lease: Lease, by: str, listener: Listener | None
) -> Operation | None:
    """Returns the committed rejoin of ``server`` that is open; those that died before are closed."""
    for file, records in _readable(config):
        begin = records[0]
        ours = begin["operation_kind"] == KIND and begin["plan"]["candidate"] == server
        if not ours or journal.outcome(records) is not None:
            continue
        op = resume(file, lease, by, open_journal=lambda f, term: Journal(f, listener, term=term))
        if op is None:
            continue
        if op.committed and op.kept("method") is not None:
            return op
        op.end("refused", _DIED)
        op.journal.close()
    return None


def _give_up(means: Means, op: Operation, method: str | None) -> None:
    """Another way is asked for than the one that was begun. Only new data can stand on what is half done."""
    name, begun = op.plan.candidate, op.kept("method")
    if method != "reseed":
        raise Refused(f"a rejoin of {name} by {begun} is not finished; type: proxyroute rejoin {name}")
    if begun == "flashback" and means.rebuild[name].undo_pending(op.id, Deadline.after(_HOST)):
        means.rebuild[name].commit_undo(op.id, Deadline.after(_HOST))
    op.end("superseded", f"{name} is built anew instead")


__all__ = ["build_means", "heal_rejoin", "host_findings", "is_alone", "run_rejoin", "run_verify"]
