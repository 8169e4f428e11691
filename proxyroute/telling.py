"""What ``proxyroute serve`` tells of one cluster: each change once, as a :class:`Notice`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from proxyroute.addresses import holders, settled
from proxyroute.decided import Diagnosis
from proxyroute.errors import ProxyRouteError
from proxyroute.history import Summary, report_from
from proxyroute.journal import Record
from proxyroute.model import Finding, Observed, View
from proxyroute.notify_message import Notice
from proxyroute.outcome import Result
from proxyroute.outlet import Listener
from proxyroute.standing import Standing
from proxyroute.truth import truth

_ALWAYS = ("healed", "corrected", "orders")
"""Kinds of notices that are events: the same may happen again."""


class Telling:
    """Remembers what was told of each kind, and passes on what is new."""

    def __init__(self, cluster: str, listener: Listener, show: Callable[[str], Sequence[Record]]) -> None:
        """``show`` returns the journal of an operation, for the report that goes with a notice."""
        self._cluster = cluster
        self._listener = listener
        self._show = show
        self._told: dict[str, str] = {}
        self._troubled = False
        self._stray: tuple[Finding, ...] = ()

    def say(self, kind: str, text: str, level: str, details: Mapping[str, Any] | None = None) -> None:
        """Tells it once; the same again only after something else of its kind."""
        if self._told.get(kind) != text or kind in _ALWAYS:
            self._told[kind] = text
            self._listener(Notice(self._cluster, kind, text, level, time.time(), details or {}))

    def over(self, kind: str) -> None:
        """What was told of ``kind`` is over: the same is news again."""
        self._told.pop(kind, None)

    def stands(self, kind: str) -> bool:
        """Tells whether something was told of ``kind`` that is not over."""
        return kind in self._told

    def diagnosis(self, diagnosis: Diagnosis) -> None:
        """Told when the name changes: the sentence has seconds in it."""
        if self._told.get("diagnosis") == diagnosis.name:
            return
        fine = diagnosis.name in ("NoProblem", "JustStarted")
        details = {"name": diagnosis.name, "action": str(diagnosis.action), "primary": diagnosis.primary}
        self._told["diagnosis"] = diagnosis.name
        self.over("blocked")
        if not (fine and not self._troubled):
            text = f"{diagnosis.name}: {diagnosis.text}"
            self._listener(Notice(self._cluster, "diagnosis", text, "good" if fine else "warn", time.time(), details))
        self._troubled = not fine

    def blockers(self, diagnosis: Diagnosis) -> None:
        """What would be done by the diagnosis alone, and what is against it, which a person must know at once."""
        if diagnosis.wanted not in (None, diagnosis.action) and diagnosis.blockers:
            self.say("blocked", f"{diagnosis.wanted} is not possible now: {listed(diagnosis.blockers)}", "bad")

    def done(self, text: str, level: str, operation: str = "") -> None:
        """Something was done, by ``operation`` if it has a journal."""
        self.over("acted")
        self.say("acted", text, level, self._report(operation))

    def undone(self, text: str, operation: str) -> None:
        """What was begun by ``operation`` came to nothing, or waits; without one, nothing was begun."""
        self.say("blocked", text, "bad", self._report(operation))

    def healed(self, result: Result) -> None:
        left = f"; left to do: {'; '.join(result.leftovers)}" if result.leftovers else ""
        level = "warn" if left else "good"
        self.say("healed", f"healed {result.operation}: {result.text}{left}", level, self._report(result.operation))

    def addresses(self, stray: tuple[Finding, ...], observed: Sequence[Observed]) -> None:
        """What is seen twice: an address that moves is at nobody's, or at two hosts, for a moment."""
        before, self._stray = self._stray, stray
        if lasting := [finding for finding in self._stray if finding in before]:
            self.say("address", listed(lasting), "warn", {"codes": sorted({f.code for f in lasting})})
        elif self.stands("address") and not self._stray and settled(observed):
            there = [f"{address} is at {', '.join(hosts)}" for address, hosts in holders(observed).items()]
            self.say("address", "; ".join(there), "good")
            self.over("address")

    def state(self, view: View, observed: Sequence[Observed], left: Sequence[Summary], standing: Standing) -> None:
        """How things are, in one line; ``left`` are the operations that wait for heal."""
        text, level = truth(view, observed, left, standing)
        drift = {o.proxy: list(o.drift) for o in observed if o.drift}
        self.say("state", text, level, {"drift": drift})

    def _report(self, operation: str) -> dict[str, Any]:
        """Returns the report of ``operation`` as details of a notice; nothing when there is none to be had."""
        if operation:
            with contextlib.suppress(ProxyRouteError):
                return {"report": report_from(self._show(operation))}
        return {}


def listed(findings: Sequence[Finding]) -> str:
    """Returns findings in one line, each with its cure."""
    return "; ".join(f"{f.subject}: {f.text} ({f.cure})" for f in findings)
