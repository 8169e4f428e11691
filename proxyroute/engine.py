"""The engine of one cluster: what the command line and the daemon ask for, each by one call."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxyroute import __version__, faults, journal
from proxyroute.assembly import build_parts, permit_of
from proxyroute.atomic import put
from proxyroute.binlog import Table
from proxyroute.caller import Caller
from proxyroute.config import from_snapshot, snapshot
from proxyroute.config_values import ClusterConfig
from proxyroute.contingency import Contingency
from proxyroute.deadline import Urgent, give_way, giving_way
from proxyroute.decided import Plan
from proxyroute.engine_looks import EngineLooks
from proxyroute.errors import ConfigError, GaveWay, JournalError, Refused, Unfinished
from proxyroute.failover import failover
from proxyroute.guard import Guard
from proxyroute.history import Summary, result_of, untouched
from proxyroute.journal import Journal, Listener, Record
from proxyroute.model import Deadline, Finding, Observed, Receipt, View
from proxyroute.operation import Operation, new_id, resume
from proxyroute.outcome import Result
from proxyroute.parts import LOOK, Parts
from proxyroute.preflight import blocking
from proxyroute.prospect import WAITED_FOR, Prospect
from proxyroute.recovery import recover
from proxyroute.rejoin import KIND as REJOIN
from proxyroute.rejoining import heal_rejoin, run_rejoin, run_verify
from proxyroute.routes import highest_epoch
from proxyroute.sight import Sightings
from proxyroute.switchover import switchover
from proxyroute.upkeep import Corrected
from proxyroute.verify import Comparison

_LEASE = 0.5
_HEAL_LEASE = 10.0
_PERSON = 40.0
"""Seconds for which the failover of a person waits until an automatic one, which gets no further, has been undone."""
_DIED = "its process died before anything was touched"


class Engine(EngineLooks):
    """One cluster. Use :func:`open_engine`; close it when done."""

    def switchover(
        self, target: str | None, *, force: bool, kill_long: bool, confirm: Callable[[Prospect], bool]
    ) -> Result:
        """Moves the primary to ``target``, or to whom an election finds, once ``confirm`` says yes to the prospect.

        Raises Refused (nothing was touched), Busy, Aborted (everything undone) or Unfinished (heal goes on).
        """
        try:
            prospect = self.plan(target, force)
        except JournalError as error:
            raise Refused(f"{error}; nothing was touched") from error
        if prospect.unchanged:
            text = f"{target} is the primary already; nothing was changed"
            return Result("", "switchover", "unchanged", target or "", text=text)
        self._refuse_busy(prospect)
        self._refuse_no_go(prospect, force)
        if not confirm(prospect):
            raise Refused("not confirmed; nothing was touched")
        planned = prospect.plan
        assert planned is not None

        def again() -> Plan:
            # somebody may have acted while the question was on the screen
            prospect = self.plan(planned.candidate, force)
            self._refuse_no_go(prospect, force)
            return prospect.plan_of(planned.primary)

        with self._operation("switchover", again, force=force) as (op, parts):
            switchover(parts, op, force=force, kill_long=kill_long)
            return result_of(op)

    def failover(
        self,
        foresee: Callable[[tuple[Finding, ...]], Contingency],
        *,
        force: bool,
        automatic: bool,
        confirm: Callable[[Contingency], bool],
    ) -> Result:
        """Puts another server in the place of a primary that is gone, once ``confirm`` says yes to the prospect.

        ``foresee`` returns what is seen now, given what else stands in the way. Raises Refused, Busy, Aborted (the
        routes go to the old primary again, nobody takes writes) or Unfinished (heal goes on).
        """
        more = self._open_findings if automatic else self.waiting  # an automatic one asks for the limits itself
        first = foresee(more())
        self._refuse_failover(first, force)
        if not confirm(first):
            raise Refused("not confirmed; nothing was touched")
        seen = [first]

        def again() -> Plan:
            seen[0] = foresee(more())
            self._refuse_failover(seen[0], force)
            assert first.plan is not None
            return seen[0].plan_of(first.plan.primary)

        diagnosis = {"name": first.diagnosis.name, "text": first.diagnosis.text, "automatic": automatic}
        patience = _LEASE if automatic else _PERSON
        with self._operation("failover", again, patience, force=force, diagnosis=diagnosis) as (op, parts):
            alone = not automatic or self._config.failover.accept_unfenced
            failover(parts, op, replace(seen[0].orders, accept_unfenced=alone))
            return result_of(op)

    def _refuse_failover(self, prospect: Contingency, force: bool) -> None:
        if not prospect.go:
            found = tuple(blocking(prospect.findings, force))
            raise Refused(f"{self._config.name}: a failover is refused; nothing was touched", found)

    @contextlib.contextmanager
    def _operation(
        self, kind: str, plan: Callable[[], Plan], patience: float = _LEASE, *, force: bool, **more: Any
    ) -> Iterator[tuple[Operation, Parts]]:
        """An operation under the lease, with its journal and its guard. ``plan`` is asked once the lease is ours."""
        operation = self._caller.operation or new_id()
        try:
            self._take_lease(f"{kind} {operation}", patience)
        except JournalError as error:  # the lease of this host is a file beside the journal
            raise Refused(f"{error}; nothing was touched") from error
        guard: Guard | None = None
        op: Operation | None = None
        try:
            self._close_untouched()
            # privileges are as old as their connection: what was granted meanwhile counts on new ones
            self._parts.site.close()
            planned = plan()
            file = self._folder / f"{operation}.jsonl"
            guard = Guard(file, self._lease)
            # operations are told apart by their epochs, and another kind of lease may count from elsewhere
            epoch = self._lease.claim(max(highest_epoch(self.observe()), self._ledger.highest()), operation)
            op = Operation.create(
                Journal(file, self._listener),
                self._lease,
                operation,
                kind,
                epoch,
                planned,
                config=snapshot(self._config),
                engine={"host": socket.gethostname(), "pid": os.getpid(), "version": __version__},
                by=self._caller.by,
                reason=self._caller.reason,
                force=force,
                **more,
            )
            op.called_off = self._caller.called_off
            yield op, replace(self._parts, guard=guard)
        except JournalError as error:
            if op is None:
                raise Refused(f"{error}; nothing was touched") from error
            raise
        finally:
            if op is not None:
                op.journal.close()
            # before the guard: when the record is open, it takes the lease and goes on
            self._give_lease_back()
            if guard is not None and (op is None or op.outcome is not None):
                guard.dismiss()
            elif guard is not None:
                guard.leave()  # now, not when this process ends: it may have more to say before that

    def rejoin(self, server: str, method: str | None = None, *, if_alone: bool = False) -> Result:
        """Makes ``server`` follow the primary again. Raises Refused, Busy or Unfinished; see ``run_rejoin``."""
        return run_rejoin(
            self._config, self._parts, self._lease, server, method,
            by=self._caller.by, listener=self._listener, if_alone=if_alone,
        )  # fmt: skip

    def verify(
        self,
        server: str | None,
        tables: Sequence[Table] | None,
        deadline: Deadline,
        watch: Callable[[str], None] = lambda _: None,
    ) -> tuple[Comparison, ...]:
        """Compares the data of the primary with ``server`` or with every replica; see ``run_verify``."""
        return run_verify(self._config, self._parts, server, tables, deadline, watch)

    def heal(
        self, declare_lost: Sequence[str] = (), patience: float | None = None, urgent: Urgent | None = None
    ) -> tuple[Result, ...]:
        """Finishes or undoes every open operation, oldest first, and takes up what the last one left to do.

        Once ``urgent`` says something, what is committed and can wait is left for later: leftovers, and rejoins.
        ``declare_lost`` names servers that are gone for good; that is kept in the journal. ``patience`` is how many
        seconds the lease is waited for; by default long enough for that of a dead engine to end. Raises Busy when it is
        not to be had, Unfinished when an operation has to wait, SplitBrain when a person must decide.
        """
        unknown = [name for name in declare_lost if name not in self._parts.site.names]
        if unknown:
            names = ", ".join(self._parts.site.names)
            raise Refused(f"{self._config.name} has no server {', '.join(unknown)}; name one of: {names}")
        self._take_lease("heal", max(_HEAL_LEASE, 2 * self._config.lease.time) if patience is None else patience)
        faults.role = "heal"  # only now: beside it another thread may be at work that is not healing
        try:
            try:
                moves, chores = self._to_heal()
            except JournalError as error:
                raise Unfinished(f"nobody can tell what is open: {error}") from error
            # the claim of an engine that has just died may outlive its lease a little; only a person has the time
            claim = self._config.lease.time if patience is None and self._lease.distributed else _LEASE
            results = [self._heal_one(file, declare_lost) for file in moves]
            with contextlib.suppress(GaveWay), giving_way(urgent) if urgent is not None else contextlib.nullcontext():
                for file in chores:
                    give_way()
                    results.append(self._heal_one(file, declare_lost, claim))
            return tuple(r for r in results if r is not None)
        finally:
            self._give_lease_back()

    def _to_heal(self) -> tuple[list[Path], list[Path]]:
        """Open operations, oldest first; then what can wait.

        That is the last one that acted, for what it may have left to do, and the rejoins that are open; then that last
        one again, if it has left something at a server that had to rejoin first.
        """
        found = self._ledger.summaries()
        acted = [s for s in found if s.outcome in ("done", "aborted") and s.kind != REJOIN][-1:]
        # who the primary is must be settled before anybody rejoins
        moves, rejoins = (
            [s for s in found if s.outcome in ("begun", "open") and (s.kind == REJOIN) is back]
            for back in (False, True)
        )
        again = [s for s in acted if s.left_at & {r.candidate for r in rejoins}]
        return [self._ledger.file(s) for s in moves], [self._ledger.file(s) for s in (*acted, *rejoins, *again)]

    def _heal_one(self, file: Path, lost: Sequence[str], claim: float = _LEASE) -> Result | None:
        records = journal.read(file)
        begin = records[0]
        if begin["operation_kind"] == REJOIN:
            return self._heal_rejoin(file, begin, claim)
        op = resume(
            file, self._lease, self._caller.by, open_journal=lambda f, term: Journal(f, self._listener, term=term)
        )
        if op is None:
            return None
        if untouched(records):
            op.end("refused", _DIED)
            op.journal.close()
            return result_of(op)
        try:
            parts = build_parts(from_snapshot(begin["config"]), permit=permit_of(self._lease))
        except ConfigError as error:
            op.journal.close()
            raise ConfigError(f"{op.id} cannot be healed with the configuration it began with: {error}") from error
        try:
            for name in lost:
                op.note(f"{self._caller.by} declared {name} lost")
            recover(parts, op, frozenset(lost))
            return result_of(op)
        finally:
            op.journal.close()
            parts.site.close()
            parts.routes.close()

    def _heal_rejoin(self, file: Path, begin: Record, claim: float) -> Result | None:
        config = from_snapshot(begin["config"])
        parts = build_parts(config, permit=permit_of(self._lease))
        try:
            return heal_rejoin(
                config, parts, self._lease, file, by=self._caller.by, listener=self._listener, patience=claim
            )
        finally:
            parts.site.close()
            parts.routes.close()

    def publish(self) -> tuple[Receipt, ...]:
        """Makes every proxy follow the server that is the primary now; for first set-up and after drift.

        Raises Refused when there is not exactly one primary, or an operation is open.
        """
        with self._held("publish"):
            view = self.look()
            if view.primary is None:
                raise Refused("there is not exactly one primary to publish; look at 'proxyroute status'")
            return self.upkeep.publish(view, view.primary.name, self.observe())

    def keep_routes(self, view: View, observed: Sequence[Observed]) -> Corrected | None:
        """Tells proxies that are not as they are meant to be, by ``view`` and ``observed``; None when all are.

        Raises Refused when it is not for us to say where writes go (the text says why), Busy when somebody is at work.
        """
        if self.upkeep.needed(view, observed) is None:
            return None
        with self._held("keep routes"):
            # what was seen before may have been an operation in its midst
            view, observed = self.look(), self.observe()
            needed = self.upkeep.needed(view, observed)
            return None if needed is None else self.upkeep.correct(*needed, observed)

    def reopen(self, primary: str, *, semi_sync: bool, last: Sightings | None = None) -> str:
        """Lets a primary that has restarted take writes again; returns what was done. Raises Refused, Busy.

        ``last`` is what the caller has itself seen of servers that may be silent by now.
        """
        with self._held("reopen"):
            return self.upkeep.reopen(primary, semi_sync=semi_sync, last=last)

    def close_strays(self, names: Sequence[str]) -> str:
        """Makes former primaries refuse writes and cuts their clients; returns what was done. Raises Refused, Busy."""
        with self._held("close strays"):
            return self.upkeep.close_strays(names)

    @contextlib.contextmanager
    def _held(self, purpose: str) -> Iterator[None]:
        """Holds the lease for something short, that no open operation is in the way of. Raises Refused, Busy."""
        self._take_lease(purpose, _LEASE)
        try:
            open_operations = self._open_findings()
            if open_operations:
                raise Refused(open_operations[0].text, open_operations)
            yield
        finally:
            self._give_lease_back()

    def acknowledge_failovers(self) -> None:
        """Says that a person has seen every failover so far: none limits the next one. Raises JournalError."""
        try:
            self._acknowledged.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            put(self._acknowledged, f"{time.time()}\n".encode())
        except OSError as error:
            raise JournalError(f"{self._acknowledged}: {error.strerror}; state_dir must be writable") from error

    def close(self) -> None:
        self._lease.release()
        self._parts.site.close()
        self._parts.routes.close()

    # -- helpers --

    def _take_lease(self, purpose: str, patience: float) -> None:
        """Gets the lease, and ends what the one who had it before may still try. Raises Busy, Refused."""
        self._lease.acquire(purpose, Deadline.after(patience))
        if not self._lease.distributed:
            return
        try:
            self._parts.site.end_others(Deadline.after(LOOK))
        except BaseException:
            self._give_lease_back()
            raise

    def _give_lease_back(self) -> None:
        """Connections that were permitted under this lease must not be there under a later one."""
        if self._lease.distributed:
            self._parts.site.close()
        self._lease.release()

    def _refuse_busy(self, prospect: Prospect) -> None:
        """An open operation that somebody is at work on is no case for heal. Raises Busy, naming who that is."""
        if any(f.code == "operation.open" for f in prospect.findings):
            self._lease.acquire("a look", Deadline.after(_LEASE))
            self._lease.release()

    def _refuse_no_go(self, prospect: Prospect, force: bool) -> None:
        if prospect.go:
            return
        found = tuple(f for f in blocking(prospect.findings, force) if f.code != WAITED_FOR)
        raise Refused(f"{self._config.name}: a switchover is refused; nothing was touched", found)

    def _close_untouched(self) -> None:
        """Closes the records of processes that died before they touched anything; the lease must be held.

        A rejoin lets the lease go while it only reads: whether its process is dead is told by its claim, see ``heal``.
        """
        for file in journal.journals(self._folder):
            if file.stat().st_size == 0:  # died between making the file and its first record
                file.unlink()
        for file, records in self._ledger.readable():
            if untouched(records) and records[0]["operation_kind"] != REJOIN:
                op = resume(file, self._lease, self._caller.by)
                if op is not None:
                    op.end("refused", _DIED)
                    op.journal.close()


def open_engine(config: ClusterConfig, listener: Listener | None = None, caller: Caller | None = None) -> Engine:
    """Returns the engine of a cluster; ``listener`` gets each journal record as it is written.

    ``caller`` is who asks, for the records; by default the user of this process.
    """
    return Engine(config, listener, caller)


__all__ = ["Corrected", "Engine", "Prospect", "Summary", "open_engine"]
