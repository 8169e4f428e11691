"""A proxy adapter written by somebody else: knows ``proxyroute.model`` and nothing more. Routes by a file."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxyroute.errors import TimedOut
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


@dataclass(frozen=True)
class ToySettings:
    file: Path
    write: str = ""


class ToyAdapter:
    Settings = ToySettings

    def __init__(self, name: str, cluster: str, servers: tuple[Endpoint, ...], settings: ToySettings) -> None:
        self.name = name
        self._settings = settings

    def check(self, deadline: Deadline) -> Sequence[Finding]:
        if self._settings.file.exists():
            return ()
        return (Finding("toy.gone", Severity.ERROR, self.name, "the file is gone", f"touch {self._settings.file}"),)

    def prepare(self, target: RouteTable, abort: RouteTable, deadline: Deadline) -> Receipt:
        return self._refused(target, deadline) or self._receipt(ReceiptState.PREPARED, target.epoch)

    def hold(self, operation: str, deadline: Deadline) -> Receipt:
        return self._set(self._epoch, hold=time.time() + deadline.left)

    def release(self, deadline: Deadline) -> Receipt:
        return self._set(self._epoch, hold=0)

    def apply(self, table: RouteTable, deadline: Deadline) -> Receipt:
        refused = self._refused(table, deadline)
        readers = [r.name for r in table.readers]
        return refused or self._set(table.epoch, primary=table.primary, epoch=str(table.epoch), readers=readers)

    def settle(self, table: RouteTable, deadline: Deadline) -> Receipt:
        return self.apply(table, deadline)

    def observe(self, deadline: Deadline) -> Observed:
        try:
            deadline.require("the file")
            state = self._state()
        except (OSError, TimedOut) as error:
            return Observed(self.name, reachable=False, detail=str(error))
        return Observed(
            self.name,
            reachable=True,
            epoch=Epoch.parse(state["epoch"]) if "epoch" in state else None,
            primary=state.get("primary"),
            readers=tuple(state.get("readers", ())),
            held=state.get("hold", 0) > time.time(),
            drift=("somebody was here",) if state.get("by_hand") else (),
        )

    def routes(self, kind: str) -> Sequence[Address]:
        return (Address.parse(self._settings.write),) if kind == "write" and self._settings.write else ()

    def close(self) -> None:
        pass

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self._settings.file.read_text() or "{}")
        return state

    @property
    def _epoch(self) -> Epoch:
        try:
            return Epoch.parse(self._state().get("epoch", str(NO_EPOCH)))
        except OSError:
            return NO_EPOCH

    def _refused(self, table: RouteTable, deadline: Deadline) -> Receipt | None:
        try:
            deadline.require("the file")
            state = self._state()
        except (OSError, TimedOut) as error:
            return self._receipt(ReceiptState.FAILED, table.epoch, str(error))
        if self._epoch > table.epoch:
            return self._receipt(ReceiptState.FAILED, table.epoch, f"superseded by {self._epoch}")
        if self._epoch == table.epoch and state.get("primary") not in (None, table.primary):
            return self._receipt(ReceiptState.FAILED, table.epoch, "conflict")
        return None

    def _set(self, told: Epoch, **values: Any) -> Receipt:
        try:
            self._settings.file.write_text(json.dumps({**self._state(), "by_hand": False, **values}))
        except OSError as error:
            return self._receipt(ReceiptState.FAILED, told, str(error))
        return self._receipt(ReceiptState.DONE, told)

    def _receipt(self, state: ReceiptState, epoch: Epoch, detail: str = "") -> Receipt:
        return Receipt(self.name, state, epoch, detail)
