"""The engine of one cluster: what the command line and the daemon ask for, each by one call."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from proxyroute import __version__, faults, journal
from proxyroute.assembly import build_lease, build_parts, cluster_folder, journal_folder, permit_of
from proxyroute.config import from_snapshot, snapshot
from proxyroute.config_values import ClusterConfig
from proxyroute.errors import ConfigError, JournalError, Refused
from proxyroute.guard import Guard
from proxyroute.history import Ledger, Summary, result_of, untouched
from proxyroute.journal import Journal, Listener, Record
from proxyroute.model import (
    Deadline,
    Finding,
    Holding,
    Observed,
    Receipt,
    Result,
    Severity,
    View,
)
from proxyroute.operation import Operation, new_id, resume
from proxyroute.parts import LOOK
from proxyroute.preflight import blocking
from proxyroute.prospect import WAITED_FOR, Prospect, foresee
from proxyroute.recovery import recover
from proxyroute.routes import highest_epoch
from proxyroute.routing import route
from proxyroute.switchover import switchover
from proxyroute.upkeep import Corrected, Upkeep

_LEASE = 0.5
_HEAL_LEASE = 10.0
_TELL = 20.0


class Engine:
    """One cluster. Use :func:`open_engine`; close it when done."""

    def __init__(self, config: ClusterConfig, listener: Listener | None = None) -> None:
        self._config = config
        self._listener = listener
        self._policy = config.policy
        self._folder = journal_folder(config)
        self._lease = build_lease(config)
        self._parts = build_parts(config, continuous=True, permit=permit_of(self._lease))
        self._ledger = Ledger(self._folder)
        meant = cluster_folder(config) / "intent.json"
        self.upkeep = Upkeep(self._parts, self._lease, self._policy, meant, self._ledger.last_acted)

    # -- reading --

    def look(self) -> View:
        """Returns one reading of all servers."""
        return self._parts.site.look(Deadline.after(LOOK))

    def inspect(self, view: View) -> View:
        """Returns ``view`` with what is too dear for every second."""
        return self._parts.site.inspect(view, self._policy, Deadline.after(LOOK))

    def lease(self) -> Holding:
        """Returns who holds the cluster's lease now."""
        return self._lease.holding(Deadline.after(LOOK))

    def observe(self) -> tuple[Observed, ...]:
        """Returns what every proxy really does."""
        return self._parts.routes.observe(Deadline.after(LOOK))

    def check(self) -> tuple[Finding, ...]:
        """Returns everything that would keep a switchover from working: files, accounts, servers, proxies."""
        found = list(self._config.findings())
        prospect = self.plan(None, force=False)
        found.extend(f for f in prospect.findings if f not in found)
        found.extend(self._parts.routes.check(Deadline.after(_TELL)))
        return tuple(found)

    def plan(self, target: str | None, force: bool) -> Prospect:
        """Returns what a switchover would do. Touches nothing. Raises Refused for a server that is not configured."""
        if target is not None and target not in self._parts.site.names:
            names = ", ".join(self._parts.site.names)
            raise Refused(f"{self._config.name} has no server {target!r}; name one of: {names}")
        view = self.inspect(self.look())
        sync_seconds = self._sync_seconds()
        return foresee(
            view,
            self._policy,
            target,
            force=force,
            parts=self._parts,
            sync_seconds=sync_seconds,
            past=[s.blackout_seconds for s in self.history() if s.blackout_seconds is not None],
            more=(
                *self._lease.findings(Deadline.after(LOOK)),
                *self._open_findings(),
                *self._leftover_findings(),
                *self._damaged_findings(),
                *self._disk_findings(sync_seconds),
            ),
        )

    def history(self) -> tuple[Summary, ...]:
        """Returns every operation on record, oldest first."""
        return self._ledger.summaries()

    def show(self, operation: str) -> tuple[Record, ...]:
        """Returns the journal of ``operation``; an unambiguous beginning of its id will do. Raises Refused."""
        found = [f for f in journal.journals(self._folder) if f.stem.startswith(operation)]
        if len(found) != 1:
            text = "several operations begin" if found else "no operation begins"
            raise Refused(f"{text} with {operation!r}; 'proxyroute history' lists them")
        return tuple(journal.read(found[0]))

    def render(self) -> dict[str, dict[str, str]]:
        """Returns what would be written for each proxy that has files: proxy -> file name -> text."""
        view = self.look()
        primary = view.primary.name if view.primary else None
        observed = {o.proxy: o for o in self.observe()}
        rendered = {}
        for adapter in self._parts.routes.all:
            render = getattr(adapter, "render", None)
            if render is not None:
                epoch = observed[adapter.name].epoch or self._lease.highest()
                rendered[adapter.name] = dict(
                    render(route(view, primary, self._policy, epoch, self._parts.site.endpoints))
                )
        return rendered

    # -- acting --

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
        operation = new_id()
        self._take_lease(f"switchover {operation}", _LEASE)
        self._close_untouched()
        guard: Guard | None = None
        op: Operation | None = None
        try:
            # privileges are as old as their connection: what was granted meanwhile counts on new ones
            self._parts.site.close()
            # somebody may have acted while the question was on the screen
            prospect = self.plan(planned.candidate, force)
            self._refuse_no_go(prospect, force)
            plan = prospect.plan
            if plan is None or plan.primary != planned.primary:
                raise Refused(f"{planned.primary} is not the primary any more; look again: proxyroute plan")
            file = self._folder / f"{operation}.jsonl"
            guard = Guard(file, self._lease)
            epoch = self._lease.claim(highest_epoch(self.observe()), operation)
            op = Operation.create(
                Journal(file, self._listener),
                self._lease,
                operation,
                "switchover",
                epoch,
                plan,
                config=snapshot(self._config),
                engine={"host": socket.gethostname(), "pid": os.getpid(), "version": __version__},
                by=_user(),
                force=force,
            )
            switchover(replace(self._parts, guard=guard), op, force=force, kill_long=kill_long)
            return result_of(op)
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

    def heal(self, declare_lost: Sequence[str] = (), patience: float | None = None) -> tuple[Result, ...]:
        """Finishes or undoes every open operation, oldest first, and takes up what the last one left to do.

        ``declare_lost`` names servers that are gone for good; that is kept in the journal. ``patience`` is how many
        seconds the lease is waited for; by default long enough for that of a dead engine to end. Raises Busy when it is
        not to be had, Unfinished when an operation has to wait, SplitBrain when a person must decide.
        """
        unknown = [name for name in declare_lost if name not in self._parts.site.names]
        if unknown:
            raise Refused(f"{', '.join(unknown)} is not a server of {self._config.name}")
        faults.role = "heal"
        self._take_lease("heal", max(_HEAL_LEASE, 2 * self._config.lease.time) if patience is None else patience)
        try:
            results = [self._heal_one(file, declare_lost) for file in self._to_heal()]
            return tuple(r for r in results if r is not None)
        finally:
            self._give_lease_back()

    def _to_heal(self) -> list[Path]:
        """Open operations, oldest first; then the last one that acted, for what it may have left to do."""
        outcomes = {file: journal.outcome(records) for file, records in self._ledger.readable()}
        acted = [f for f, outcome in outcomes.items() if outcome in ("done", "aborted")]
        return [f for f, outcome in outcomes.items() if outcome is None] + acted[-1:]

    def _heal_one(self, file: Path, lost: Sequence[str]) -> Result | None:
        begin = journal.read(file)[0]
        op = resume(file, self._lease, _user(), open_journal=lambda f, term: Journal(f, self._listener, term=term))
        if op is None:
            return None
        try:
            parts = build_parts(from_snapshot(begin["config"]), permit=permit_of(self._lease))
        except ConfigError as error:
            op.journal.close()
            raise ConfigError(f"{op.id} cannot be healed with the configuration it began with: {error}") from error
        try:
            for name in lost:
                op.note(f"{_user()} declared {name} lost")
            recover(parts, op, frozenset(lost))
            return result_of(op)
        finally:
            op.journal.close()
            parts.site.close()
            parts.routes.close()

    def publish(self) -> tuple[Receipt, ...]:
        """Makes every proxy follow the server that is the primary now; for first set-up and after drift.

        Raises Refused when there is not exactly one primary, or an operation is open.
        """
        self._take_lease("publish", _LEASE)
        try:
            view = self.look()
            open_operations = self._open_findings()
            if open_operations:
                raise Refused(open_operations[0].text, open_operations)
            if view.primary is None:
                raise Refused("there is not exactly one primary to publish; look at 'proxyroute status'")
            return self.upkeep.publish(view, view.primary.name, self.observe())
        finally:
            self._give_lease_back()

    def keep_routes(self, view: View, observed: Sequence[Observed]) -> Corrected | None:
        """Tells proxies that are not as they are meant to be, by ``view`` and ``observed``; None when all are.

        Raises Refused when it is not for us to say where writes go (the text says why), Busy when somebody is at work.
        """
        if self.upkeep.needed(view, observed) is None:
            return None
        self._take_lease("keep routes", _LEASE)
        try:
            if self._open_findings():
                raise Refused("an operation is open; proxyroute heal")
            # what was seen before may have been an operation in its midst
            view, observed = self.look(), self.observe()
            needed = self.upkeep.needed(view, observed)
            return None if needed is None else self.upkeep.correct(*needed, observed)
        finally:
            self._give_lease_back()

    def intended(self, view: View, observed: Sequence[Observed]) -> tuple[str | None, str]:
        """Returns the server that writes are meant to go to; None, and why, when it is not for us to say."""
        try:
            return self.upkeep.intended(view, observed), ""
        except Refused as error:
            return None, str(error)

    def busy(self) -> bool:
        """Tells whether an operation is under way, or waits for heal."""
        return any(s.outcome in ("open", "begun") for s in self.history())

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

    def _damaged_findings(self) -> Iterator[Finding]:
        for file, text in self._ledger.damaged():
            cure = f"restore it; or, once you know that its operation is over: mv {file} {file}.damaged"
            yield Finding("journal.damaged", Severity.ERROR, self._config.name, text, cure)

    def _close_untouched(self) -> None:
        """Closes the records of processes that died before they touched anything; the lease must be held."""
        for file in journal.journals(self._folder):
            if file.stat().st_size == 0:  # died between making the file and its first record
                file.unlink()
        for file, records in self._ledger.readable():
            if untouched(records):
                op = resume(file, self._lease, _user())
                if op is not None:
                    op.end("refused", "its process died before anything was touched")
                    op.journal.close()

    def _open_findings(self) -> tuple[Finding, ...]:
        return tuple(
            Finding(
                "operation.open",
                Severity.ERROR,
                self._config.name,
                f"{s.kind} {s.operation} from {s.primary} to {s.candidate} is not finished",
                "proxyroute heal",
            )
            for s in self.history()
            if s.outcome == "open"
        )

    def _leftover_findings(self) -> Iterator[Finding]:
        """What the last operation that acted left to do; a replica that is away is no reason to wait."""
        acted = self._ledger.last_acted()
        if acted is None:
            return
        for left in acted.leftovers:
            severity = Severity.WARNING if left.startswith("follow ") else Severity.ERROR
            text = f"{acted.operation} left to do: {left}"
            yield Finding("operation.leftover", severity, self._config.name, text, "proxyroute heal", forceable=True)

    def _disk_findings(self, sync_seconds: float) -> tuple[Finding, ...]:
        limit = self._policy.max_disk_seconds
        if sync_seconds <= limit:
            return ()
        text = f"the disk of {self._folder} took {sync_seconds:.2f} s to keep one record, and {limit:g} s are allowed"
        cure = "put state_dir on a quicker disk, or raise switchover.max_disk_seconds"
        return (Finding("journal.slow", Severity.ERROR, self._config.name, text, cure),)

    def _sync_seconds(self) -> float:
        """Returns how long the disk of the journal takes to have a record. Raises JournalError."""
        probe = self._folder / f".probe-{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with probe.open("wb") as file:
                file.write(b"x")
                file.flush()
                started = time.monotonic()
                os.fsync(file.fileno())
                return time.monotonic() - started
        except OSError as error:
            raise JournalError(f"{self._folder}: {error.strerror}; state_dir must be writable") from error
        finally:
            probe.unlink(missing_ok=True)


def open_engine(config: ClusterConfig, listener: Listener | None = None) -> Engine:
    """Returns the engine of a cluster; ``listener`` gets each journal record as it is written."""
    return Engine(config, listener)


def _user() -> str:
    sudo = os.environ.get("SUDO_USER")
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{sudo} (as {name})" if sudo else name


__all__ = ["Corrected", "Engine", "Prospect", "Summary", "open_engine"]
