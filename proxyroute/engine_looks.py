"""The half of an engine that changes no server and no proxy: what is seen, and what would be in the way."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from proxyroute import dialect, journal
from proxyroute.addresses import address_findings
from proxyroute.assembly import build_lease, build_parts, cluster_folder, journal_folder, permit_of, standing_file
from proxyroute.caller import Caller, user
from proxyroute.config_values import ClusterConfig
from proxyroute.errors import JournalError, Refused
from proxyroute.failover_limits import Guarding, Past, limits, unfenced
from proxyroute.foretold import foretold, ways
from proxyroute.history import Ledger, Summary, rebuilt
from proxyroute.journal import Listener, Record
from proxyroute.known import Known
from proxyroute.model import Deadline, Finding, Holding, Observed, Severity, View
from proxyroute.moment import Moment
from proxyroute.orders import Orders
from proxyroute.outlook import blocks
from proxyroute.parts import LOOK
from proxyroute.policy import Policy
from proxyroute.prospect import Prospect, foresee
from proxyroute.rejoin import KIND as REJOIN
from proxyroute.rejoining import host_findings
from proxyroute.routing import route
from proxyroute.salvage_check import salvage_findings
from proxyroute.standing import Book, Standing
from proxyroute.upkeep import Upkeep

_TELL = 20.0


class EngineLooks:
    """One cluster as its engine sees it; :class:`~proxyroute.engine.Engine` is what acts."""

    def __init__(self, config: ClusterConfig, listener: Listener | None = None, caller: Caller | None = None) -> None:
        self._config = config
        self._caller = caller or Caller(user())
        self._listener = listener
        self._folder = journal_folder(config)
        self._book = Book(standing_file(config))
        self._lease = build_lease(config)
        self._parts = build_parts(config, continuous=True, permit=permit_of(self._lease))
        self.orders = Orders(config.name, self._parts.site.names, self._book, self._caller, self.look)
        self._ledger = Ledger(self._folder)
        self._acknowledged = cluster_folder(config) / "failovers-acknowledged"
        meant = cluster_folder(config) / "intent.json"
        self.upkeep = Upkeep(self._parts, self._lease, lambda: self._policy, meant, self._ledger.last_acted)

    @property
    def standing(self) -> Standing:
        """The standing orders that hold now."""
        return replace(self._book.read(), withheld=self.hands_off())

    def hands_off(self) -> str:
        """Returns why whoever keeps the lease wants nothing done by itself now; empty: it does not mind."""
        return self._lease.hands_off()

    @property
    def _policy(self) -> Policy:
        return self.standing.policy(self._config.policy, rebuilt(self.history()))

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
        """Returns everything that would keep a switchover from working: files, accounts, servers, proxies.

        Where ``serve`` is to fail over by itself, as warnings also what would keep it from that now.
        """
        found = list(self._config.findings())
        prospect = self.plan(None, force=False)
        found.extend(f for f in prospect.findings if f not in found)
        found.extend(self._parts.routes.check(Deadline.after(_TELL)))
        found.extend(host_findings(self._config, prospect.view))
        ids = {s.name: s.server_id for s in prospect.view.seen}
        found.extend(salvage_findings(self._config, ids, dialect.of(prospect.view.seen)))
        observed = self.observe()
        found.extend(self.address_findings(observed))
        if Moment.now() is None:
            found.append(_no_start(self._config.name))
        if self._config.failover.mode == "automatic":
            told = {(f.code, f.subject) for f in found}
            found.extend(
                replace(f, severity=Severity.WARNING)
                for f in self.failover_blocks(prospect.view, observed, None)
                if (f.code, f.subject) not in told
            )
        return tuple(found)

    def address_findings(self, observed: Sequence[Observed]) -> tuple[Finding, ...]:
        """Returns what is wrong with virtual addresses, by what the proxy hosts say."""
        vrrp = self._config.vrrp
        return address_findings(observed, vrrp.plain if vrrp is not None else ())

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
            past=[
                s.blackout_seconds for s in self.history() if s.blackout_seconds is not None and s.kind == "switchover"
            ],
            more=(
                *self._lease.findings(Deadline.after(LOOK)),
                *self._open_findings(),
                *self._order_findings(),
                *self._leftover_findings(),
                *self.damaged(),
                *self._disk_findings(sync_seconds),
                *self._parts.routes.outlook(Deadline.after(LOOK), armed=self._policy.arms),
            ),
        )

    def history(self) -> tuple[Summary, ...]:
        """Returns every operation on record, oldest first."""
        return self._ledger.summaries()

    def damaged(self) -> tuple[Finding, ...]:
        """Returns the journals that nobody can read: their operations are in no history, and may be open.

        Raises JournalError when nobody can tell which there are.
        """
        return tuple(
            Finding("journal.damaged", Severity.ERROR, self._config.name, text, cure)
            for text, cure in self._ledger.damaged()
        )

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

    def intended(self, view: View, observed: Sequence[Observed]) -> tuple[str | None, str]:
        """Returns the server that writes are meant to go to; None, and why, when it is not for us to say."""
        try:
            return self.upkeep.intended(view, observed), ""
        except Refused as error:
            return None, str(error)

    def last_move(self) -> Summary | None:
        """Returns the operation that said last who the primary is; None when there was none."""
        return self._ledger.last_acted()

    def failover_limits(self) -> tuple[Finding, ...]:
        """Returns what forbids an automatic failover now, whatever is the matter."""
        seen = _time_in(self._acknowledged)
        past = [
            Past(s.operation, s.started, s.automatic, s.outcome != "open", s.started <= seen)
            for s in self.history()
            # one that was undone has moved nobody; it is tried again, ever more seldom
            if s.kind == "failover" and s.outcome in ("done", "open")
        ]
        guarding = Guarding(
            self._lease.distributed,
            counts_servers=self._config.lease.type == "database",
            closes=self._closes,
            lets_go=self._config.lease.type != "pacemaker" or self._lease.automatic,
        )
        found = limits(
            self._config.name, self._config.failover, guarding, len(self._parts.site.names), past, time.time()
        )
        return (*self.standing.findings(self._config.name), *found)

    def failover_blocks(self, view: View, observed: Sequence[Observed], known: Known | None) -> tuple[Finding, ...]:
        """Returns what would block a failover if the primary died now: ``serve``, or, in manual mode, a person."""
        config = self._config
        return blocks(
            view, observed, self._policy, config.failover, known, tuple(self.failover_limits()),
            ways(config, self._parts, observed), fence=bool(self._parts.hooks.configured("fence")),
            now=time.monotonic(), wall=time.time(), more=self._open_findings(),
        )  # fmt: skip

    def foretold(self) -> tuple[Finding, ...]:
        """Returns everything that is known beforehand to stand in the way of a failover that a person asks for."""
        found = foretold(self._config, self._parts, self._lease, self._sync_seconds, Deadline.after(LOOK))
        return (*self.waiting(), *found)

    def waiting(self) -> tuple[Finding, ...]:
        """Returns what whoever wants a failover must know: what is open or unread, that nothing would be closed."""
        alone = () if self._closes else (unfenced(self._config.name, Severity.WARNING),)
        return (*self._open_findings(), *self._order_findings(), *alone)

    @property
    def _closes(self) -> bool:
        """Whether anything keeps clients away from a primary that is replaced."""
        return bool(self._parts.routes.required or self._parts.hooks.configured("fence"))

    def busy(self) -> bool:
        """Tells whether an operation that moves the primary is under way, or waits for heal."""
        return any(s.outcome in ("open", "begun") and s.kind != REJOIN for s in self.history())

    def _open_findings(self) -> tuple[Finding, ...]:
        return tuple(
            Finding(
                "operation.open",
                Severity.ERROR,
                self._config.name,
                f"{s.kind} {s.operation} from {s.primary} to {s.candidate} is not finished",
                f"proxyroute heal; when {s.primary} is gone for good: proxyroute heal --declare-lost {s.primary}"
                if s.kind == "switchover"
                else "proxyroute heal",
            )
            for s in self.history()
            if s.outcome == "open" and s.kind != REJOIN
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

    def _order_findings(self) -> tuple[Finding, ...]:
        """Orders that cannot be read may say that a server is to be left alone; a person may pass over that."""
        standing = self.standing
        return standing.findings(self._config.name) if standing.unreadable else ()

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
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)


def _no_start(cluster: str) -> Finding:
    text = "the kernel's name for this start of the host cannot be read: no failover could be shown to be lossless"
    cure = "of a service that systemd hardens: no ProcSubset=pid; cat /proc/sys/kernel/random/boot_id"
    return Finding("failover.no_start", Severity.WARNING, cluster, text, cure)


def _time_in(file: Path) -> float:
    try:
        return float(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0.0
