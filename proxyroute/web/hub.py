"""What the daemon offers to the web, without HTTP: what was seen of each cluster, what is on record, and commands.

Keepers put in what they see (:meth:`Hub.show`, from their own threads, which never wait here: they have a primary to
look after); pages and the API read, and ask for commands,
which are done one at a time for each cluster. Everything is safe to be called from any thread, and returns at once
unless it says otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proxyroute import journal, logs
from proxyroute.assembly import journal_folder, standing_file
from proxyroute.caller import Caller
from proxyroute.checkup import Checkup, checkup
from proxyroute.config_values import ClusterConfig
from proxyroute.contingency import Contingency
from proxyroute.engine import open_engine
from proxyroute.errors import JournalError, Refused
from proxyroute.glance import Glance
from proxyroute.history import Ledger, Summary, report_from
from proxyroute.journal import Listener, Record
from proxyroute.lookout import foreseer
from proxyroute.model import Deadline
from proxyroute.notify_message import Notice, payload
from proxyroute.outcome import Result
from proxyroute.prospect import Prospect
from proxyroute.sentry import Sentry
from proxyroute.standing import Book, Standing
from proxyroute.web import earlier
from proxyroute.web.audit import Actor, Audit
from proxyroute.web.commands import Command, Desk, Perform, Ticket, ticket_json
from proxyroute.web.performing import perform
from proxyroute.web.ring import Ring
from proxyroute.web.samples import Curve, Samples
from proxyroute.web.shown import summary_json
from proxyroute.web.state import ClusterState, aged, outdated, state_of, unread

_log = logging.getLogger("proxyroute.web")
_AGES_EVERY = 1.0
"""Seconds after which what nobody shows anew is looked at again: it gets old by itself."""
_HIDDEN = ("config",)
"""What of a record is not told to everybody: the configuration, which has pages of its own."""


@dataclass
class _Cluster:
    config: ClusterConfig
    ledger: Ledger
    desk: Desk
    glance: Glance | None = None
    version: int = 0
    state: ClusterState | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    samples: Samples = field(default_factory=Samples)


class Hub:
    """All clusters of a daemon, for those who show and command them."""

    def __init__(self, clusters: Mapping[str, ClusterConfig], audit_file: Path, perform: Perform | None = None) -> None:
        """``perform`` does a command; by default an engine of its own does, as that of the command line."""
        self.events = Ring()
        self.audit = Audit(audit_file)
        self._own_perform = perform
        self._lock = threading.Lock()
        self._ledgers = threading.Lock()
        """A ledger is for one thread at a time, and its disk may be slow: never wait for this while holding _lock."""
        self._clusters: dict[str, _Cluster] = {}
        self._earlier = earlier.tickets_of(self.audit.backwards(earlier.LONGEST))
        self._removed: dict[str, Desk] = {}
        """Of clusters that are configured no more: what they had begun comes to its end, and they may come back."""
        self._ending = ""
        self.configure(clusters)
        self._shown: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._publish, name="hub", daemon=True).start()

    # -- what the daemon puts in --

    def configure(self, clusters: Mapping[str, ClusterConfig]) -> None:
        """Has these clusters from now on; one that has the same name goes on, also after it had been taken out."""
        with self._lock:
            before = self._clusters
            self._clusters = {}
            for name, config in clusters.items():
                known = before.get(name)
                if known is None or known.config != config:
                    desk = known.desk if known is not None else self._desk(name)
                    known = _Cluster(config, Ledger(journal_folder(config)), desk)
                self._clusters[name] = known
            removed = {name: of.desk for name, of in before.items() if name not in clusters}
            self._removed |= removed
        for desk in removed.values():
            desk.refuse("this cluster is not configured any more")

    def show(self, glance: Glance) -> None:
        """Takes what a keeper has seen."""
        with self._lock:
            cluster = self._clusters.get(glance.cluster)
            if cluster is None:
                return
            cluster.glance, cluster.state = glance, None
            cluster.version += 1
            cluster.samples.take(glance.view, glance.at)
        self._shown.put(glance.cluster)

    def notice(self, notice: Notice) -> None:
        """Takes what the daemon tells."""
        self.events.publish("notice", notice.cluster, payload(notice))

    def refuse_commands(self) -> None:
        """Takes no more commands. Those that wait are refused; one that runs goes on, or gives way if it can wait.

        Returns at once."""
        self._ending = "serve is to stop"
        for desk in self._desks():
            desk.refuse()

    def close(self, seconds: float) -> bool:
        """Takes no more commands; waits for those that run. Tells whether all came to their end. May be repeated."""
        if not self._ending:
            self.refuse_commands()
        self._shown.put(None)
        deadline = Deadline.after(seconds)
        return all(desk.close(deadline.left) for desk in self._desks())

    def _desks(self) -> list[Desk]:
        with self._lock:
            return [*(c.desk for c in self._clusters.values()), *self._removed.values()]

    # -- reading --

    @property
    def names(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._clusters)

    def config(self, cluster: str) -> ClusterConfig:
        """Returns the configuration of a cluster. Raises Refused when there is no such cluster."""
        return self._of(cluster).config

    def glance(self, cluster: str) -> Glance | None:
        """Returns what was seen of a cluster, without what is on record: no disk is waited for. Raises Refused."""
        return self._of(cluster).glance

    def version(self, cluster: str) -> int:
        """Returns a number that grows whenever something new was seen of the cluster, or that is shown as old."""
        return self._of(cluster).version

    def state(self, cluster: str) -> ClusterState:
        """Returns everything that is shown of a cluster at this moment. Raises Refused, JournalError."""
        return aged(self._as_seen(cluster), time.time())

    def _as_seen(self, cluster: str) -> ClusterState:
        of = self._of(cluster)
        history = self._history(of)
        with self._lock:
            state, glance = of.state, of.glance
        if state is not None and state.history == history:
            return state
        made = state_of(of.config, glance, history)
        with self._lock:
            if of.glance is not glance:
                return made  # something newer was seen meanwhile: this one would be shown until the next look
            if of.state is None or of.state.history != history:  # else another thread was quicker
                of.state = made
            return of.state

    def states(self) -> tuple[ClusterState, ...]:
        """Returns all clusters, in the order of the configuration; one whose records cannot be read says so, for it
        must not hide the others."""
        found = []
        for name in self.names:
            with contextlib.suppress(Refused):  # it has gone from the configuration meanwhile
                found.append(self._state_or_why(name))
        return tuple(found)

    def _state_or_why(self, cluster: str) -> ClusterState:
        try:
            return self.state(cluster)
        except JournalError as error:
            of = self._of(cluster)
            return aged(unread(of.config, of.glance, str(error)), time.time())

    def curves(self, cluster: str) -> tuple[Curve, Mapping[str, Curve]]:
        """Returns how much was written in the last minutes, and how far each server was behind."""
        of = self._of(cluster)
        with self._lock:
            return of.samples.writes(), {name: of.samples.lag(name) for name in of.config.servers}

    def history(self, cluster: str) -> tuple[Summary, ...]:
        """Returns every operation on record, oldest first."""
        return self._history(self._of(cluster))

    def records(self, cluster: str, operation: str, after: int = 0) -> tuple[Record, ...]:
        """Returns the records of an operation from number ``after`` + 1 on. Raises Refused when there is none."""
        folder = journal_folder(self._of(cluster).config)
        if operation not in {f.stem for f in journal.journals(folder)}:
            raise Refused(f"{cluster} has no operation {operation!r} on record")
        found = journal.read(folder / f"{operation}.jsonl")
        return tuple({k: v for k, v in r.items() if k not in _HIDDEN} for r in found if r["n"] > after)

    def report(self, cluster: str, operation: str) -> dict[str, Any]:
        """Returns the report of an operation as JSON values; see ``history.report_from``. Raises Refused."""
        return report_from(self.records(cluster, operation))

    def tickets(self, cluster: str) -> tuple[Ticket, ...]:
        """Returns the commands that are remembered, those of former runs of the daemon as well, oldest first."""
        history = self.history(cluster)
        return tuple(earlier.settled(t, history) for t in self._of(cluster).desk.tickets())

    def ticket(self, id: str) -> Ticket | None:
        """Returns the command with this id, of whatever cluster; one of a former run by what its journals tell."""
        found = next((t for t in (desk.ticket(id) for desk in self._desks()) if t is not None), None)
        if found is None:
            return None
        cluster = found.command.cluster
        if found.state == "interrupted":
            found = earlier.settled(found, self.history(cluster))
        return earlier.with_results(found, lambda operation: self.records(cluster, operation))

    # -- plans: these ask the servers, and take a moment --

    def plan_switchover(self, cluster: str, target: str | None = None, force: bool = False) -> Prospect:
        """Returns what a switchover would do. Takes up to some seconds. Raises Refused, ConfigError, JournalError."""
        engine = open_engine(self._of(cluster).config)
        try:
            return engine.plan(target, force)
        finally:
            engine.close()

    def plan_failover(self, cluster: str, target: str | None = None, force: bool = False) -> Contingency:
        """Returns what a failover would do. Takes up to some seconds. Raises Refused, ConfigError."""
        config = self._of(cluster).config
        engine = open_engine(config)
        try:
            with Sentry(config) as sentry:
                prospect = foreseer(config, sentry, target, force=force)(engine.foretold())
                return replace(prospect, limits=engine.failover_limits())
        finally:
            engine.close()

    def check(self, cluster: str) -> Checkup:
        """Returns everything that would stand in the way. Takes up to some seconds. Raises Refused, ConfigError."""
        config = self._of(cluster).config
        return checkup(config, lambda: contextlib.closing(open_engine(config)))

    def orders(self, cluster: str) -> tuple[Standing, tuple[Mapping[str, Any], ...]]:
        """Returns the standing orders, and the last changes, oldest first. Raises Refused."""
        book = Book(standing_file(self._of(cluster).config))
        try:
            return book.read(), book.changes()
        except JournalError:  # the orders say why they cannot be read
            return book.read(), ()

    # -- commands --

    def ask(self, command: Command) -> Ticket:
        """Takes a command and returns at once; it is in the audit before.

        Raises Refused (naming the one that is under way), KeyReused, JournalError.
        """
        desk = self._of(command.cluster).desk

        def record(ticket: Ticket) -> None:
            self._note(ticket, command.kind, earlier.asked(ticket))

        try:
            return desk.ask(command, record)
        except Refused as error:
            self.audit.write(
                command.actor, f"{command.kind}.refused", cluster=command.cluster, why=command.why,
                arguments=dict(command.arguments), text=str(error),
            )  # fmt: skip
            raise

    def call_off(self, id: str, actor: Actor, why: str = "") -> Ticket:
        """Asks that a command ends early; returns at once. It stands in the audit. Raises Refused when it cannot."""
        desk = next((d for d in self._desks() if d.ticket(id) is not None), None)
        ticket = desk.ticket(id) if desk is not None else None
        if desk is None or ticket is None:
            raise Refused(f"{id} was not asked for here; whoever has typed it interrupts it there, by Ctrl-C")
        if too_late := ticket.stays:
            raise Refused(too_late)
        command = ticket.command
        self.audit.write(actor, f"{command.kind}.call_off", cluster=command.cluster, why=why, operation=id)
        return desk.call_off(id, f"called off by {actor}{f': {why}' if why else ''}")

    # -- helpers --

    def _of(self, cluster: str) -> _Cluster:
        with self._lock:
            found = self._clusters.get(cluster)
            names = ", ".join(self._clusters)
        if found is None:
            raise Refused(f"there is no cluster {cluster!r}; there are: {names}")
        return found

    def _history(self, of: _Cluster) -> tuple[Summary, ...]:
        with self._ledgers:
            return of.ledger.summaries()

    def _perform(self, command: Command, caller: Caller, listener: Listener) -> tuple[Result, ...]:
        if self._own_perform is not None:
            return self._own_perform(command, caller, listener)
        return perform(self.config(command.cluster), command, caller, listener, lambda: self._ending)

    def _told(self, ticket: Ticket, record: Record | None) -> None:
        cluster = ticket.command.cluster
        if record is not None:
            told = {k: v for k, v in record.items() if k not in _HIDDEN}
            logs.tell_record(cluster, told)
            self.events.publish("record", cluster, {"command": ticket.id, "record": told})
            return
        if ticket.over:
            with contextlib.suppress(JournalError):  # it is done, and its journal tells
                self._note(ticket, f"{ticket.command.kind}.ended", earlier.ended(ticket))
        self.events.publish("command", cluster, ticket_json(ticket))

    def _note(self, ticket: Ticket, what: str, details: Mapping[str, Any]) -> None:
        command = ticket.command
        self.audit.write(command.actor, what, cluster=command.cluster, why=command.why, operation=ticket.id, **details)

    def _desk(self, cluster: str) -> Desk:
        """Returns the desk of a cluster that is new, or has come back: its keys count, and what it is at."""
        desk = self._removed.pop(cluster, None)
        if desk is None:
            return Desk(self._perform, self._told, self._earlier.get(cluster, ()))
        if not self._ending:
            desk.reopen()
        return desk

    def _publish(self) -> None:
        again = time.monotonic() + _AGES_EVERY
        while True:
            with contextlib.suppress(queue.Empty):
                cluster = self._shown.get(timeout=_AGES_EVERY)
                if cluster is None:
                    return
                self._tell_changes(cluster)
            if time.monotonic() >= again:
                for name in self._outdated():
                    self._tell_changes(name)
                again = time.monotonic() + _AGES_EVERY

    def _outdated(self) -> list[str]:
        now = time.time()
        with self._lock:
            return [name for name, of in self._clusters.items() if outdated(of.config, of.glance, now)]

    def _tell_changes(self, cluster: str) -> None:
        try:
            self._publish_changes(cluster)
        except (JournalError, Refused):
            pass  # no record can be read now; the cluster is gone
        except Exception:  # noqa: BLE001 - one cluster must not end what is told of all
            _log.exception("what is new of %s could not be told", cluster)

    def _publish_changes(self, cluster: str) -> None:
        """An event when the line of truth or what blocks has changed; numbers that move all the time are none."""
        of = self._of(cluster)
        state = self.state(cluster)
        told = summary_json(state)
        if told != of.told:
            of.told = told
            if state.old:
                with self._lock:
                    of.version += 1
            self.events.publish("cluster", cluster, told)


__all__ = ["Actor", "Command", "Hub", "Ticket", "summary_json"]
