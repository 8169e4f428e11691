"""MaxScale over its REST API, in one of two ways of working that the configuration names and ``check`` verifies.

*Driving*: no monitor owns the servers, and the states are set here. *Following*: MaxScale's monitor finds the primary
that the engine has moved; here it is made to look at once, and what it shows is verified. Neither way touches
maintenance or drain: they are the operator's. docs/decisions/0020-maxscale-keeps-the-epoch.md tells where an epoch is
kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from proxyroute.errors import AdapterError, ConfigError, TimedOut
from proxyroute.maxscale import services
from proxyroute.maxscale import settings as maxscale_settings
from proxyroute.maxscale.findings import Examination
from proxyroute.maxscale.keeping import keep
from proxyroute.maxscale.look import Look, look, obstacle, refuse_aside, refuse_unknown, states
from proxyroute.maxscale.marker import Marker, markers
from proxyroute.maxscale.render import render
from proxyroute.maxscale.rest import Answered, Rest
from proxyroute.maxscale.states import Known, Move, lasting, match, unmet, urgent
from proxyroute.model import (
    NO_EPOCH,
    Address,
    Deadline,
    Endpoint,
    Epoch,
    Finding,
    Observed,
    Published,
    Receipt,
    ReceiptState,
    RouteTable,
)

_AGAIN = 0.02
_POKE_SECONDS = 10.0
"""How long a monitor is made to look again and again after a route was applied; then its own interval must do."""
_READERS_SECONDS = 1.0
_SURELY = 3
"""After so many looks in a row at which it was down, a monitor will not show it soon."""


class MaxScaleAdapter:
    """One MaxScale. Remembers the highest epoch it was told; MaxScale keeps the settled one."""

    Settings = maxscale_settings.Settings

    def __init__(
        self, name: str, cluster: str, servers: tuple[Endpoint, ...], settings: maxscale_settings.Settings
    ) -> None:
        self.name = name
        self._cluster = cluster
        self._servers = servers
        self._settings = settings
        self._rest = Rest(name, settings)
        self._told: RouteTable | None = None
        self._fallback: RouteTable | None = None
        self._poked: threading.Thread | None = None
        self._queues: bool | None = None

    # Reading

    def check(self, deadline: Deadline) -> Sequence[Finding]:
        """Returns what would keep this MaxScale from following, and what its clients will see."""
        return tuple(self._examination().findings(deadline))

    def outlook(self, deadline: Deadline, *, armed: bool) -> Sequence[Finding]:
        """Returns what clients will see of a switchover, by service, with the setting that would make it better."""
        try:
            return tuple(self._examination().outlook(deadline, armed=armed))
        except (AdapterError, ConfigError, TimedOut):
            return ()

    def queues(self, deadline: Deadline) -> bool:
        """Whether writes wait in MaxScale while it has no Master, by the settings of all services that get writes.

        Known since ``prepare``; a process that did not prepare asks. Never raises: what cannot be told is no.
        """
        if not self._settings.driving:
            return False
        if self._queues is None:
            try:
                self._queues = services.queues(self._examination().serving(deadline))
            except (AdapterError, ConfigError, TimedOut):
                return False
        return self._queues

    def _examination(self) -> Examination:
        return Examination(self.name, self._cluster, self._servers, self._settings, self._rest)

    def observe(self, deadline: Deadline) -> Observed:
        """Returns what MaxScale does now.

        ``sessions`` stays empty: a session of readwritesplit is at several servers at once, and a list of all sessions
        would hold up a busy MaxScale. The engine ends sessions at the server, and counts them there.
        """
        try:
            seen = self._look(deadline)
        except (AdapterError, ConfigError, TimedOut) as error:
            return Observed(self.name, reachable=False, detail=str(error))
        masters, marker = seen.known.masters, seen.marker
        published = Published(marker.primary, marker.epoch) if marker else None
        epoch = max((k.epoch for k in self._claims(seen.markers)), default=None)
        following = not self._settings.driving
        return Observed(
            self.name,
            reachable=True,
            epoch=epoch,
            primary=masters[0] if len(masters) == 1 else None,
            readers=() if following else seen.known.readers,
            drift=tuple(self._drift(seen)),
            published=published,
            aside=seen.known.aside,
        )

    def routes(self, kind: str) -> Sequence[Address]:
        """Returns the configured address of the ``write`` or ``read`` route."""
        text = {"write": self._settings.write_address, "read": self._settings.read_address}.get(kind, "")
        return (Address.parse(text),) if text else ()

    def render(self, table: RouteTable) -> Mapping[str, str]:
        """Returns a complete configuration for this way of working, to be read and taken over by a person."""
        return {str(self._settings.config_file): render(table, self._settings)}

    # Changing

    def prepare(self, target: RouteTable, abort: RouteTable, deadline: Deadline) -> Receipt:
        """Makes sure that only the states are left to be set, or to be looked at by the monitor.

        A monitor that runs although we drive is stopped here if the configuration says so: the states stay as they are.
        """
        evidence: dict[str, Any] = {}
        detail = ""
        try:
            seen = self._look(deadline)
            self._refuse_outdated(target, seen.markers)
            refuse_unknown(self.name, target, seen.known)
            if trouble := obstacle(seen, self._settings):
                raise AdapterError(self.name, f"{trouble[0]}; {trouble[1]}")
            refuse_aside(self.name, target, seen.known)
            self._rest.may_change(next(iter(seen.known.by_name.values())).name, deadline)
            self._queues = None
            evidence["queues"] = self.queues(deadline)  # asked now: later it would be inside the blackout
            for monitor in seen.running if self._settings.driving else ():
                self._rest.stop_monitor(monitor.name, deadline)
                detail = f"monitor {monitor.name} was stopped, as stop_monitor says: its states stay as they were"
                evidence["stopped"] = monitor.name
            if detail and (still := self._look(deadline).running):
                raise AdapterError(
                    self.name, f"monitor {still[0].name} still runs; maxctrl stop monitor {still[0].name}"
                )
        except (AdapterError, ConfigError) as error:
            return self._receipt(ReceiptState.FAILED, target.epoch, str(error), evidence)
        except TimedOut as error:
            return self._receipt(ReceiptState.UNKNOWN, target.epoch, str(error), evidence)
        self._fallback = abort
        evidence["servers"] = {name: shown.name for name, shown in seen.known.by_name.items()}
        return self._receipt(ReceiptState.PREPARED, target.epoch, detail, evidence)

    def hold(self, operation: str, deadline: Deadline) -> Receipt:
        """Does nothing and says so: writes wait at the locked server, where they wait for milliseconds.

        Taking the Master bit away would make them wait in MaxScale, until its next full second.
        """
        text = "cannot hold: newcomers go on to the old primary, where their writes wait"
        return self._receipt(ReceiptState.DONE, self._epoch, text, {"operation": operation, "hold": False})

    def release(self, deadline: Deadline) -> Receipt:
        """Nobody is held. States that a restart has lost meanwhile are set again, to the route that counts."""
        table = self._told or self._fallback
        if table is not None and self._settings.driving:
            try:
                if match(self._servers, states(self._rest, deadline)).lost:
                    self._move(table, deadline, everything=True)
                    return self._receipt(ReceiptState.DONE, table.epoch, "it was restarted: its states were set again")
            except (AdapterError, ConfigError) as error:
                return self._receipt(ReceiptState.FAILED, table.epoch, str(error))
            except TimedOut as error:
                return self._receipt(ReceiptState.UNKNOWN, table.epoch, str(error))
        return self._receipt(ReceiptState.DONE, self._epoch, "nobody is held", {"hold": False})

    def apply(self, table: RouteTable, deadline: Deadline) -> Receipt:
        """Driving: moves the Master bit and reads it back. Following: makes the monitor look until it shows it.

        The monitor cannot see the new primary before the old one refuses writes, which is later in the usual order. So
        there it is UNKNOWN here, while the monitor is made to look on in the background; ``settle`` awaits it.
        """
        try:
            if self._settings.driving:
                known = self._move(table, deadline, everything=False)
            else:
                known = self._show(table, deadline.within(self._settings.apply_wait), deadline)
        except (AdapterError, ConfigError) as error:
            return self._receipt(ReceiptState.FAILED, table.epoch, str(error))
        except TimedOut as error:
            return self._receipt(ReceiptState.UNKNOWN, table.epoch, str(error))
        if wrong := unmet(table, known, reads=False):
            state = ReceiptState.FAILED if self._settings.driving else ReceiptState.UNKNOWN
            return self._receipt(state, table.epoch, "; ".join(wrong), self._states(known))
        return self._receipt(ReceiptState.DONE, table.epoch, evidence=self._states(known))

    def settle(self, table: RouteTable, deadline: Deadline) -> Receipt:
        """Makes ``table`` true and lasting: every bit of every server, or the monitor's word; then the epoch."""
        evidence: dict[str, Any] = {}
        try:
            if self._settings.driving:
                evidence |= self._stop_what_returned(deadline)
                known = self._move(table, deadline, everything=True)
            else:
                known = self._await_readers(table, self._show(table, deadline, deadline), deadline)
            evidence |= self._states(known)
            if wrong := unmet(table, known, reads=self._settings.driving):
                if self._awaits(table.primary, known):
                    self._keep(table, deadline)
                    evidence["awaits"] = table.primary
                return self._receipt(ReceiptState.FAILED, table.epoch, "; ".join(wrong), evidence)
            if unkept := self._keep(table, deadline):
                evidence["unkept"] = unkept
        except (AdapterError, ConfigError) as error:
            return self._receipt(ReceiptState.FAILED, table.epoch, str(error), evidence)
        except TimedOut as error:
            return self._receipt(ReceiptState.UNKNOWN, table.epoch, str(error), evidence)
        return self._receipt(ReceiptState.DONE, table.epoch, evidence=evidence)

    def close(self) -> None:
        self._rest.close()

    # Parts of the verbs; they raise AdapterError or ConfigError, and TimedOut when an outcome is unknown

    def _look(self, deadline: Deadline) -> Look:
        return look(self._rest, self._settings, self._cluster, self._servers, deadline)

    def _move(self, table: RouteTable, deadline: Deadline, *, everything: bool) -> Known:
        """Sets and clears what ``table`` needs and reads it back; what timed out is looked at and tried again."""
        deadline.require("MaxScale")
        while True:
            data = states(self._rest, deadline)
            known = match(self._servers, data)
            self._refuse_outdated(table, markers(self._cluster, self._servers, data))
            refuse_unknown(self.name, table, known)
            self._told = table
            moves = urgent(table, known) + (lasting(table, known) if everything else [])
            try:
                for move in moves:
                    self._rest.set_state(move.server, move.verb, move.bit, deadline)
            except TimedOut:
                deadline.require("MaxScale to answer")
                time.sleep(min(_AGAIN, deadline.left))
                continue
            except Answered as error:
                raise self._owned(error, moves, deadline) from None
            return match(self._servers, states(self._rest, deadline)) if moves else known

    def _owned(self, error: Answered, moves: Iterable[Move], deadline: Deadline) -> AdapterError:
        """Says who owns a state that could not be set."""
        if error.status == 400 and "monitored" in str(error) and (running := self._look(deadline).running):
            text = f"monitor {running[0].name} runs and owns the servers"
            return AdapterError(self.name, f"{text}: maxctrl stop monitor {running[0].name} ({error.details[0]})")
        return error

    def _stop_what_returned(self, deadline: Deadline) -> dict[str, Any]:
        """A monitor that was stopped runs again after a restart of MaxScale; it is stopped again if that is allowed."""
        if not self._settings.stop_monitor:
            return {}
        running = self._look(deadline).running
        for monitor in running:
            self._rest.stop_monitor(monitor.name, deadline)
        return {"stopped": running[0].name} if running else {}

    def _show(self, table: RouteTable, until: Deadline, deadline: Deadline) -> Known:
        """Returns what the monitor shows when it shows ``table``, or at ``until``; then it is made to look on."""
        deadline.require("MaxScale")
        data = states(self._rest, deadline)
        known = match(self._servers, data)
        self._refuse_outdated(table, markers(self._cluster, self._servers, data))
        refuse_unknown(self.name, table, known)
        self._told = table
        down = 0
        while wrong := unmet(table, known, reads=False):
            down = down + 1 if self._awaits(table.primary, known) else 0
            if until.passed:
                self._poke_on(table)
                break
            if down > _SURELY:
                break
            try:
                known = self._look_now(known, until)
            except (TimedOut, AdapterError):
                if deadline.passed:
                    raise TimedOut(f"{self.name}: {'; '.join(wrong)}") from None
                if not until.passed:
                    raise
        return known

    def _await_readers(self, table: RouteTable, known: Known, deadline: Deadline) -> Known:
        """Makes the monitor look until it shows the readers as well, for a while: who may read is its own judgement."""
        until = deadline.within(_READERS_SECONDS)
        wanted = {r.name for r in table.readers} - {table.primary} - set(known.aside)
        while wanted - set(known.readers) and not until.passed:
            try:
                known = self._look_now(known, deadline)
            except (AdapterError, TimedOut):
                time.sleep(min(_AGAIN, until.left))
        return known

    def _look_now(self, known: Known, deadline: Deadline) -> Known:
        """Makes the monitor look now and returns what it shows then, also where the answer to the first was lost."""
        try:
            self._poke(self._rest, known, deadline)
        except TimedOut:
            time.sleep(min(_AGAIN, deadline.left))
        return match(self._servers, states(self._rest, deadline))

    def _poke(self, rest: Rest, known: Known, deadline: Deadline) -> None:
        """Makes the monitor look now: clearing a drain that is not there does nothing else, and waits for that look."""
        for shown in known.by_name.values():
            if not shown.aside:
                rest.set_state(shown.name, "clear", "drain", deadline)
                return
        time.sleep(min(_AGAIN, deadline.left))  # everybody is set aside: its own interval must do

    def _poke_on(self, table: RouteTable) -> None:
        """Makes the monitor look in the background, for as long as it does not show ``table``."""
        if self._poked is not None and self._poked.is_alive():
            return

        def look_on() -> None:
            rest, deadline = self._rest.another(), Deadline.after(_POKE_SECONDS)
            try:
                while not deadline.passed and self._told == table:
                    try:
                        known = match(self._servers, states(rest, deadline))
                        if not unmet(table, known, reads=False):
                            return
                        self._poke(rest, known, deadline)
                    except (AdapterError, TimedOut):
                        time.sleep(min(_AGAIN, deadline.left))
            finally:
                rest.close()

        self._poked = threading.Thread(target=look_on, name=f"{self.name}: look", daemon=True)
        self._poked.start()

    def _keep(self, table: RouteTable, deadline: Deadline) -> str:
        return keep(self._rest, self.name, self._cluster, self._servers, table, deadline)

    # What must not be

    def _claims(self, found: Sequence[Marker]) -> list[Marker]:
        claims = list(found)
        if self._told is not None:
            claims.append(Marker("", self._told.epoch, self._told.primary))
        return claims

    @property
    def _epoch(self) -> Epoch:
        return self._told.epoch if self._told is not None else NO_EPOCH

    def _refuse_outdated(self, table: RouteTable, found: Sequence[Marker]) -> None:
        for known in self._claims(found):
            text = f"route {known.epoch} to {known.primary or 'nobody'} is published"
            if known.epoch > table.epoch:
                raise AdapterError(self.name, f"superseded: {text}, {table.epoch} is older")
            if known.epoch == table.epoch and known.primary not in (None, table.primary):
                raise AdapterError(self.name, f"conflict: {text}, the same epoch cannot mean {table.primary}")

    def _drift(self, seen: Look) -> Iterable[str]:
        if trouble := obstacle(seen, self._settings):
            yield trouble[0]
        elif self._settings.driving and seen.running:
            yield f"monitor {seen.running[0].name} runs, which is to be stopped (stop_monitor)"
        if len(seen.known.masters) > 1:
            yield f"writes may go to {' and '.join(seen.known.masters)}"
        claims = self._claims(seen.markers)
        latest = max(claims, key=lambda m: (m.epoch, m.primary is not None)) if claims else None
        if self._settings.driving and seen.known.lost:
            yield "no server runs: it was restarted and has lost its states"
        elif latest is not None and self._awaits(latest.primary, seen.known):
            return  # the monitor shows it as soon as it is up
        elif latest is not None and seen.known.masters != ((latest.primary,) if latest.primary else ()):
            shown = " and ".join(seen.known.masters) or "nobody"
            yield f"writes go to {shown}, {latest.epoch} says {latest.primary or 'nobody'}"

    def _awaits(self, primary: str | None, known: Known) -> bool:
        """Following: whether writes go to nobody because the monitor finds ``primary`` down."""
        shown = known.by_name.get(primary) if primary else None
        return not self._settings.driving and shown is not None and not shown.running and not known.masters

    @staticmethod
    def _states(known: Known) -> dict[str, Any]:
        return {"states": {name: shown.text for name, shown in known.by_name.items()}}

    def _receipt(
        self, state: ReceiptState, epoch: Epoch, detail: str = "", evidence: Mapping[str, Any] | None = None
    ) -> Receipt:
        return Receipt(self.name, state, epoch, detail, dict(evidence or {}))
