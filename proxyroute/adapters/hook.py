"""Anything else that routes: an argv sets the route, another one reads it back.

The programs are told by their environment:

=========================== ==========================================================================
PROXYROUTE_CLUSTER          name of the cluster
PROXYROUTE_PROXY            name of this proxy in the configuration
PROXYROUTE_PHASE            ``apply`` (inside the blackout: be quick), ``settle`` or ``read``
PROXYROUTE_EPOCH            ``term.serial``, growing with each route
PROXYROUTE_PRIMARY_NAME     the server that gets the writes; empty: nobody, the route is closed
PROXYROUTE_PRIMARY_HOST     its host
PROXYROUTE_PRIMARY_PORT     its port
PROXYROUTE_READERS          ``name=weight,…`` of those that get reads
PROXYROUTE_SERVERS          ``name=host:port,…`` of all servers
=========================== ==========================================================================

``read`` gets the first three. It prints whom the writes go to, as a name or ``host:port``, or ``closed``; if it knows
the epoch it was set with, that as a second word. No secret is ever passed.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxyroute.argv import run_argv
from proxyroute.errors import ScriptFailed
from proxyroute.faults import act
from proxyroute.model import (
    NO_EPOCH,
    Address,
    Deadline,
    Endpoint,
    Epoch,
    Finding,
    Observed,
    Receipt,
    ReceiptState,
    RouteTable,
    Severity,
)

_CLOSED = "closed"
_FIRST_LOOK = 1 / 3
"""The part of the time that a read-back gets before the route is set: one that hangs must leave enough to set it."""


@dataclass(frozen=True)
class HookSettings:
    """Programs of the site's owner, as argv lists: no shell."""

    set: tuple[str, ...]
    """Sets the route; run again with the same route it changes nothing."""
    reload: tuple[str, ...] = ()
    """Run after ``set``, if what it set only counts after a reload."""
    read: tuple[str, ...] = ()
    """Prints whom the writes go to; without it nothing can be proved and receipts are UNKNOWN."""
    timeout: float = 5.0
    """Seconds each program may take; then its process group is killed."""
    write_address: str = ""
    """Where clients reach the write route, for the proof; host:port."""
    read_address: str = ""

    def __post_init__(self) -> None:
        if not self.set or not self.set[0]:
            raise ValueError("set: is empty; write the program and its arguments as a list")
        if self.timeout <= 0:
            raise ValueError("timeout: must be more than 0 seconds")
        for field in ("write_address", "read_address"):
            if text := getattr(self, field):
                try:
                    Address.parse(text)
                except ValueError as error:
                    raise ValueError(f"{field}: {error}") from None


@dataclass(frozen=True)
class _Seen:
    """What the read-back said."""

    primary: str | None
    epoch: Epoch | None


class HookAdapter:
    """A proxy behind two or three programs. Remembers the highest epoch it has set; the programs may as well."""

    Settings = HookSettings

    def __init__(self, name: str, cluster: str, servers: tuple[Endpoint, ...], settings: HookSettings) -> None:
        self.name = name
        self._cluster = cluster
        self._servers = servers
        self._settings = settings
        self._set: RouteTable | None = None
        """What it was last told to route, whatever became of it."""
        self._done: RouteTable | None = None
        """The same, once the programs have ended well and the read-back agrees."""

    def check(self, deadline: Deadline) -> Sequence[Finding]:
        """Returns programs that cannot be run, a read-back that fails, and that there is none."""
        findings = []
        for field in ("set", "reload", "read"):
            argv = getattr(self._settings, field)
            if argv and shutil.which(argv[0]) is None:
                text = f"{argv[0]} ({field}) is not there or cannot be executed"
                findings.append(Finding("hook.program", Severity.ERROR, self.name, text, f"chmod +x {argv[0]}"))
        if not self._settings.read:
            text = "there is no read-back command: what this proxy does cannot be proved"
            cure = "read: [a program that prints the name of the server that gets the writes]"
            findings.append(Finding("hook.blind", Severity.WARNING, self.name, text, cure))
        elif not findings:
            try:
                self._read(deadline)
            except ScriptFailed as error:
                cure = f"run it by hand: {' '.join(self._settings.read)}"
                findings.append(Finding("hook.read", Severity.ERROR, self.name, str(error), cure))
        return findings

    def prepare(self, target: RouteTable, abort: RouteTable, deadline: Deadline) -> Receipt:
        """Makes sure that the programs are there and the read-back answers; nothing can be staged."""
        if refused := self._outdated(target, None):
            return refused
        failed = [f.text for f in self.check(deadline) if f.severity is Severity.ERROR]
        if failed:
            return self._receipt(ReceiptState.FAILED, target.epoch, "; ".join(failed))
        return self._receipt(ReceiptState.PREPARED, target.epoch)

    def hold(self, operation: str, deadline: Deadline) -> Receipt:
        """Does nothing and says so: a hook cannot make newcomers wait."""
        text = "cannot hold: newcomers go on to the old primary until the route is set"
        return self._receipt(ReceiptState.DONE, self._epoch, text, {"operation": operation, "hold": False})

    def release(self, deadline: Deadline) -> Receipt:
        """Does nothing: nobody waits."""
        return self._receipt(ReceiptState.DONE, self._epoch, "nobody is held", {"hold": False})

    def apply(self, table: RouteTable, deadline: Deadline) -> Receipt:
        """Runs ``set`` and ``reload``, and reads back."""
        return self._publish(table, "apply", deadline)

    def settle(self, table: RouteTable, deadline: Deadline) -> Receipt:
        """Sets the route where the read-back shows another one, or cannot show any."""
        return self._publish(table, "settle", deadline)

    def observe(self, deadline: Deadline) -> Observed:
        """Returns what the read-back says; without one nothing is known."""
        if not self._settings.read:
            return Observed(self.name, reachable=False, detail="there is no read-back command")
        try:
            seen = self._read(deadline)
        except ScriptFailed as error:
            return Observed(self.name, reachable=False, detail=str(error))
        drift: tuple[str, ...] = ()
        if self._set is not None and self._set.primary != seen.primary:
            drift = (f"writes go to {seen.primary or _CLOSED}, not to {self._set.primary or _CLOSED}",)
        epoch = seen.epoch or (self._set.epoch if self._set is not None and not drift else None)
        return Observed(self.name, reachable=True, epoch=epoch, primary=seen.primary, drift=drift)

    def routes(self, kind: str) -> Sequence[Address]:
        """Returns the configured address of the ``write`` or ``read`` route."""
        text = {"write": self._settings.write_address, "read": self._settings.read_address}.get(kind, "")
        return (Address.parse(text),) if text else ()

    def close(self) -> None:
        """Nothing is kept open."""

    @property
    def _epoch(self) -> Epoch:
        return self._set.epoch if self._set is not None else NO_EPOCH

    def _publish(self, table: RouteTable, phase: str, deadline: Deadline) -> Receipt:
        seen = None
        if self._settings.read:
            with contextlib.suppress(ScriptFailed):  # what counts is whether it answers afterwards
                seen = self._read(deadline.within(deadline.left * _FIRST_LOOK))
        if refused := self._outdated(table, seen):
            return refused
        same_epoch = seen is not None and seen.epoch in (None, table.epoch)
        if self._done == table and seen is not None and seen.primary == table.primary and same_epoch:
            return self._receipt(ReceiptState.DONE, table.epoch, evidence={"primary": seen.primary})
        trouble = ""
        self._set, self._done = table, None
        for argv in filter(None, (self._settings.set, self._settings.reload)):
            try:
                self._run(argv, self._environment(phase, table), deadline)
            except ScriptFailed as error:
                trouble = str(error)
                break
        return self._read_back(table, trouble, deadline)

    def _read_back(self, table: RouteTable, trouble: str, deadline: Deadline) -> Receipt:
        if not self._settings.read:
            if trouble:
                return self._receipt(ReceiptState.FAILED, table.epoch, trouble)
            told = "set, and there is no read-back to prove it"
            return self._receipt(ReceiptState.UNKNOWN, table.epoch, told, {"blind": True})
        try:
            seen = self._read(deadline)
        except ScriptFailed as error:
            return self._receipt(ReceiptState.UNKNOWN, table.epoch, "; ".join(filter(None, (trouble, str(error)))))
        evidence = {"primary": seen.primary}
        if trouble or seen.primary != table.primary:
            text = trouble or f"writes go to {seen.primary or _CLOSED}, not to {table.primary or _CLOSED}"
            return self._receipt(ReceiptState.FAILED, table.epoch, text, evidence)
        self._done = table
        return self._receipt(ReceiptState.DONE, table.epoch, evidence=evidence)

    def _outdated(self, table: RouteTable, seen: _Seen | None) -> Receipt | None:
        """Returns the refusal of a table with a lower epoch, or with another server under the same one."""
        known = [(self._set.primary, self._set.epoch)] if self._set is not None else []
        if seen is not None and seen.epoch is not None:
            known.append((seen.primary, seen.epoch))
        for primary, epoch in known:
            text = f"route {epoch} to {primary or 'nobody'} is published"
            if epoch > table.epoch:
                return self._receipt(ReceiptState.FAILED, table.epoch, f"superseded: {text}, {table.epoch} is older")
            if epoch == table.epoch and primary not in (None, table.primary):
                text = f"conflict: {text}, the same epoch cannot mean {table.primary}"
                return self._receipt(ReceiptState.FAILED, table.epoch, text)
        return None

    def _read(self, deadline: Deadline) -> _Seen:
        """Runs the read-back. Raises ScriptFailed when it fails, or says what nobody understands."""
        told = {"PROXYROUTE_CLUSTER": self._cluster, "PROXYROUTE_PROXY": self.name, "PROXYROUTE_PHASE": "read"}
        words = self._run(self._settings.read, told, deadline).split()
        if not words:
            raise ScriptFailed(f"{self._settings.read[0]} printed nothing; it prints a name, host:port or {_CLOSED}")
        epoch = None
        if len(words) > 1:
            try:
                epoch = Epoch.parse(words[1])
            except ValueError:
                raise ScriptFailed(f"{self._settings.read[0]} printed {words[1]!r}, which is no epoch") from None
        if words[0] == _CLOSED:
            return _Seen(None, epoch)
        for endpoint in self._servers:
            if words[0] in (endpoint.name, str(endpoint.address)):
                return _Seen(endpoint.name, epoch)
        known = ", ".join(e.name for e in self._servers)
        raise ScriptFailed(f"{self._settings.read[0]} printed {words[0]!r}; known are {known} and {_CLOSED}")

    def _run(self, argv: Sequence[str], environment: Mapping[str, str], deadline: Deadline) -> str:
        with act("hook.run"):
            return run_argv(argv, environment, deadline.within(self._settings.timeout))

    def _environment(self, phase: str, table: RouteTable) -> dict[str, str]:
        address = table.address(table.primary) if table.primary is not None else None
        return {
            "PROXYROUTE_CLUSTER": table.cluster,
            "PROXYROUTE_PROXY": self.name,
            "PROXYROUTE_PHASE": phase,
            "PROXYROUTE_EPOCH": str(table.epoch),
            "PROXYROUTE_PRIMARY_NAME": table.primary or "",
            "PROXYROUTE_PRIMARY_HOST": address.host if address else "",
            "PROXYROUTE_PRIMARY_PORT": str(address.port) if address else "",
            "PROXYROUTE_READERS": ",".join(f"{r.name}={r.weight}" for r in table.readers),
            "PROXYROUTE_SERVERS": ",".join(f"{e.name}={e.address}" for e in table.servers),
        }

    def _receipt(
        self, state: ReceiptState, epoch: Epoch, detail: str = "", evidence: Mapping[str, Any] | None = None
    ) -> Receipt:
        return Receipt(self.name, state, epoch, detail, dict(evidence or {}))
