"""HAProxy on other hosts: routes are published in a shared folder, and an agent on each host answers there.

Each proxy of the configuration is one host; each waits for the receipt of its own host.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from proxyroute.adapters.publisher import COMMON, AgentsSettings, Publisher
from proxyroute.errors import (
    AdapterError,
    ConfigError,
    DiskFailed,
    OtherFormat,
    ProxyRouteError,
    ShareError,
    Tampered,
    TimedOut,
    Torn,
)
from proxyroute.haproxy.release import Announcement, Answer, Phase
from proxyroute.haproxy.render import render
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
    Severity,
)

_TO_SAY = 0.1
"""Seconds kept back, so that a host that is silent is told as such before whoever asks has gone."""
_HANGS = 10
"""A folder that takes so many times ``disk_limit`` is not waited for any longer."""


class SharedAdapter:
    """One proxy host: its agent is told by the shared folder and answers there."""

    Settings = AgentsSettings

    def __init__(self, name: str, cluster: str, servers: tuple[Endpoint, ...], settings: AgentsSettings) -> None:
        """Nothing is read or written yet."""
        self.name = name
        self._settings = settings
        self._publisher = Publisher.of(cluster, settings)
        self._asked = False
        self._closed = False
        self._answered: Answer | None = None
        """The last receipt of this host, as it was."""

    @property
    def closes_when_silent(self) -> float | None:
        """After how many seconds of hearing nothing the host, by its own word, closes its writes; None: never."""
        try:
            return self._publisher.latest(self.name, Deadline.after(self._settings.disk_limit)).closes_after or None
        except (ShareError, TimedOut):
            return None

    def closes_at(self, table: RouteTable) -> float | None:
        """Returns when the host has closed its writes by itself if it reads nothing since ``table`` is published."""
        told, seconds = self._publisher.told(table), self.closes_when_silent
        return told[1] + seconds if told is not None and seconds is not None else None

    def answer(self, table: RouteTable, deadline: Deadline) -> Receipt | None:
        """Waits for the receipt for ``table``. None: up to ``deadline`` nothing shows that the host has read of it."""
        unknown, told = Receipt(self.name, ReceiptState.UNKNOWN, table.epoch), self._publisher.told(table)
        if told is None:
            return replace(unknown, detail="nobody knows whether its route is published")
        announced, _ = told
        with contextlib.suppress(ShareError, TimedOut):
            return self._said(announced, self._publisher.receipt(self.name, announced, deadline))
        try:
            found = self._publisher.latest(self.name, Deadline.after(self._settings.disk_limit))
        except (ShareError, TimedOut) as error:
            return replace(unknown, detail=f"nobody knows whether it is silent: {error}")
        if found.answers == announced.id:
            return self._said(announced, found)
        if found.heard == announced.id:
            return replace(unknown, detail="it has read its route, and has not said yet what became of it")
        return None

    def check(self, deadline: Deadline) -> Sequence[Finding]:
        """Returns what the agent finds on its host, and whether folder, key and agent can be relied on."""
        if not self._publisher.alone:
            text = (
                f"hosts that share {self._settings.folder} are set up differently; they would undo each other's files"
            )
            return [self._error("agents.unlike", text, f"give them the same {', '.join(COMMON)}")]
        limit = self._settings.disk_limit
        try:
            self._asked = True
            self._publisher.worker.start(deadline)
            began = time.monotonic()
            try:
                question = self._publisher.ask(self.name, deadline.within(_HANGS * limit), check=True)
            except TimedOut as error:
                return [self._slow(f"{error}: no small file was written in {time.monotonic() - began:.1f} s")]
            took = time.monotonic() - began
            if took > limit:
                return [self._slow(f"{self._settings.folder} took {took:.2f} s to write a small file")]
            return self._publisher.reply(self.name, question, deadline).findings
        except ShareError as error:
            return [self._error("agents.folder", str(error), f"ls -l {self._settings.folder}")]
        except TimedOut as error:
            return [self._error("agents.silent", str(error), f"on {self.name}: proxyroute agent status")]

    def prepare(self, target: RouteTable, abort: RouteTable, deadline: Deadline) -> Receipt:
        """Has the host validate and stage both routes. A folder that is too slow is refused here, in good time."""
        limit, took = self._settings.disk_limit, 0.0

        def publish() -> Announcement:
            nonlocal took
            staged = [self._publisher.release(table, deadline) for table in (target, abort)]
            began = time.monotonic()
            found = self._publisher.publish(self.name, Phase.PREPARE, deadline.within(_HANGS * limit), staged=staged)
            took = time.monotonic() - began
            return found

        receipt = self._told(publish, target.epoch, deadline)
        if took > limit and receipt.state is ReceiptState.PREPARED:
            text = f"{self._settings.folder} took {took:.2f} s to be written to; at most {limit:g} s are good"
            return replace(receipt, state=ReceiptState.FAILED, detail=text)
        return receipt

    def hold(self, operation: str, deadline: Deadline) -> Receipt:
        """Has the host hold newcomers. It is told for how long, not until when: clocks differ."""
        seconds = deadline.left
        return self._told(
            lambda: self._publisher.publish(
                self.name, Phase.HOLD, deadline, operation=operation, seconds=round(seconds, 3)
            ),
            NO_EPOCH,
            deadline,
            operation,
        )

    def release(self, deadline: Deadline) -> Receipt:
        """Has the host let those go who wait, if it has not done so already when it took the route."""
        if self._answered is not None and self._publisher.was_released(self.name, self._answered):
            return Receipt(self.name, ReceiptState.DONE, self._answered.receipt.epoch, "with its route")
        receipt = self._told(lambda: self._publisher.publish(self.name, Phase.RELEASE, deadline), NO_EPOCH, deadline)
        if receipt.state is not ReceiptState.FAILED or "announcement" in receipt.evidence:
            return receipt
        # The folder could not be written, but the host has a clock of its own.
        text = f"{receipt.detail}; a hold ends by the host's own clock"
        return replace(receipt, state=ReceiptState.UNKNOWN, detail=text)

    def apply(self, table: RouteTable, deadline: Deadline) -> Receipt:
        """Moves the write route of the host and lets those go who wait: a rename here, two runtime commands there."""
        return self._route(Phase.APPLY, table, deadline)

    def settle(self, table: RouteTable, deadline: Deadline) -> Receipt:
        """Has the host make ``table`` lasting and prove it."""
        receipt = self._route(Phase.SETTLE, table, deadline)
        if receipt.state is ReceiptState.DONE:
            try:
                self._publisher.prune(deadline)
            except (ShareError, TimedOut) as error:
                return replace(receipt, detail=f"old releases could not be removed: {error}")
        return receipt

    def observe(self, deadline: Deadline) -> Observed:
        """Has the host look, and returns what it saw, beside what the folder says."""
        published: Published | None = None
        drift: tuple[str, ...] = ()
        deadline = Deadline(deadline.at - _TO_SAY)
        try:
            release = None
            try:
                release = self._publisher.in_force(deadline)
            except (Torn, Tampered, OtherFormat) as error:  # the host has a memory of its own: ask it all the same
                drift = (f"what is published cannot be believed: {error}",)
            if release is not None:
                published = Published(release.table.primary, release.table.epoch)
            self._asked = True
            question = self._publisher.ask(self.name, deadline)
            answer = self._publisher.reply(self.name, question, deadline)
        except ProxyRouteError as error:
            return Observed(self.name, reachable=False, detail=str(error), published=published)
        if answer.observed is None:
            text = f"{self.name} could not look"
            return Observed(self.name, reachable=False, detail=text, published=published)
        if release is not None and answer.release != release.name:
            why = f": {answer.receipt.detail}" if answer.receipt.detail else ""
            drift += (f"the folder says {release.name}, the host has taken {answer.release or 'nothing'}{why}",)
        seen = answer.observed
        return replace(seen, published=published, drift=(*drift, *seen.drift))

    def routes(self, kind: str) -> Sequence[Address]:
        """Returns where the host's ``write`` or ``read`` route is reached from here, if that is configured."""
        text = {"write": self._settings.write_address, "read": self._settings.read_address}.get(kind, "")
        return (Address.parse(text),) if text else ()

    def render(self, table: RouteTable) -> Mapping[str, str]:
        """Returns the files the host would get for ``table``. Raises ConfigError when a template is wrong."""
        rendered = render(table, self._settings.local(Path("/etc/haproxy")))
        return {"haproxy.cfg": rendered.config, "haproxy.route.map": rendered.map, "haproxy.hold.lua": rendered.lua}

    def close(self) -> None:
        """Takes back what was asked, as far as the disk answers at once."""
        if self._asked:
            self._asked = False
            with contextlib.suppress(ShareError, TimedOut):  # a publisher removes it when it is old
                self._publisher.withdraw(self.name, Deadline.after(self._settings.disk_limit))
        if not self._closed:
            self._closed = True
            self._publisher.leave()

    def _route(self, phase: Phase, table: RouteTable, deadline: Deadline) -> Receipt:
        def publish() -> Announcement:
            make = self._publisher.prepared if phase is Phase.APPLY else self._publisher.release
            return self._publisher.publish(self.name, phase, deadline, route=make(table, deadline))

        return self._told(publish, table.epoch, deadline)

    def _told(
        self, publish: Callable[[], Announcement], epoch: Epoch, deadline: Deadline, operation: str = ""
    ) -> Receipt:
        """Publishes and waits for this host's receipt."""
        self._answered = None
        try:
            announced = publish()
            answer = self._publisher.receipt(self.name, announced, deadline)
        except (TimedOut, DiskFailed) as error:
            return Receipt(self.name, ReceiptState.UNKNOWN, epoch, str(error))
        except (ShareError, ConfigError, AdapterError) as error:
            return Receipt(self.name, ReceiptState.FAILED, epoch, str(error))
        self._answered = answer
        if answer.operation != operation:
            text = f"answered for operation {answer.operation!r}, not {operation!r}"
            return Receipt(self.name, ReceiptState.FAILED, epoch, text)
        return self._said(announced, answer)

    def _said(self, announced: Announcement, answer: Answer) -> Receipt:
        evidence = {**answer.receipt.evidence, "announcement": announced.sequence, "release": answer.release}
        return replace(answer.receipt, proxy=self.name, evidence=evidence)

    def _slow(self, text: str) -> Finding:
        text = f"{text}; at most {self._settings.disk_limit:g} s are good"
        return self._error("agents.slow", text, "look at the load of the network disk, or raise disk_limit:")

    def _error(self, code: str, text: str, cure: str) -> Finding:
        return Finding(code, Severity.ERROR, self.name, text, cure)
