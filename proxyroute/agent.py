"""The agent on a proxy host: follows the shared folder, drives the HAProxy beside it, and answers.

It imports neither a database driver nor the engine. Whatever happens to the shared folder, the last good route keeps
serving; what cannot be said there is said in a status file on this host (``proxyroute agent status``).
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxyroute import faults
from proxyroute.agent_addresses import Addresses
from proxyroute.agent_doubt import Doubt
from proxyroute.agent_folder import Folder
from proxyroute.agent_haproxy import SealedHAProxy
from proxyroute.agent_memory import Local
from proxyroute.agent_route import AcceptedRoute
from proxyroute.agent_said import Said
from proxyroute.agent_silence import Silence
from proxyroute.agent_watch import Watch
from proxyroute.config_agent import DEFAULT_PATH, AgentConfig, load_agent
from proxyroute.errors import (
    AdapterError,
    ConfigError,
    Conflict,
    OtherFormat,
    Outdated,
    ProxyRouteError,
    ShareError,
    Tampered,
    TimedOut,
    Torn,
)
from proxyroute.haproxy.release import Announcement, Phase, Release, epoch_of
from proxyroute.model import NO_EPOCH, Deadline, Finding, Observed, Receipt, ReceiptState, Severity
from proxyroute.sdnotify import Manager

_FAST = 0.005
_CLOSE = 0.02
"""During an operation events are not relied on alone: one in a thousand came a quarter of a second late."""
_IDLE = 0.25
_ANNOUNCED = 60.0
"""Seconds for which an operation is followed closely after its last word."""
_SECONDS = {Phase.PREPARE: 20.0, Phase.APPLY: 5.0, Phase.SETTLE: 30.0, Phase.RELEASE: 5.0}
_LOOK = 5.0
_CONFIRM = 0.1
"""Seconds between two looks whether HAProxy has been started anew."""
_GLANCE = 1.0
"""Seconds for such a look: meanwhile the folder is not looked at."""


class Agent:
    """One proxy host. ``step`` does what there is to do now and never raises for what the world does."""

    def __init__(self, config: AgentConfig) -> None:
        """Raises ConfigError when the state folder cannot be used, ShareError when what it holds is damaged."""
        self._config = config
        self._local = Local(config.state_dir)
        self._silence = Silence(config.closes_after)
        self._folder = Folder(config, self._local, self._silence.within)
        self._route = AcceptedRoute(self._local, self._folder)
        self._doubt = Doubt(self._local.was_midway())
        self.watch = Watch()
        self._addresses = Addresses(config.virtual_addresses)
        self._said = Said(config, self._folder)
        self._handled = ""
        self._announced = -_ANNOUNCED
        self._hold_ends = 0.0
        self._shut = False
        self._sealed = self._unasked = False
        """HAProxy may have been started by a map file that was left open, and nobody has asked the folder yet."""
        self._confirmed = 0
        self._confirm_again = 0.0
        self._begun = self._watched = False
        self._trouble = {"folder": "", "receipt": "", "haproxy": "", "started": "", "map": "", "memory": ""}
        self._told: dict[str, Any] = {}
        self._priority: int | None = None

    @property
    def pause(self) -> float:
        """Seconds until the next look, if no event comes before."""
        if time.monotonic() >= self._announced + _ANNOUNCED:
            return _IDLE
        return _CLOSE if self.watch.delivers else _FAST

    def step(self) -> None:
        """Looks at the shared folder and at HAProxy once, and does what follows."""
        self._seal()
        self._silence.begin()
        heard = False
        try:
            announcement = self._folder.current()
            gone = self._route.memory is not None and announcement is None
            heard = not gone
            text = f"nothing is published in {self._config.folder} any more: is it mounted?"
            self._trouble["folder"] = text if gone else ""
        except (Torn, Tampered, OtherFormat) as error:
            self._trouble["folder"] = str(error)
            announcement = None  # not followed; who asks is answered all the same
        except (ShareError, TimedOut) as error:
            self._trouble["folder"] = str(error)
            self._watched = False  # what comes back may be another mount
            self._obeyed_by_clock()
            self._tell()
            return
        self._begin()
        if heard and self._said.shows(announcement):
            self._silence.heard()
            self._shut = self._unasked = False
        self._obeyed_by_clock()
        if announcement is not None and announcement.id != self._handled:
            self._handle(announcement)
        elif announcement is not None:
            self._confirm(announcement)
        self._answer_questions()
        self._said.put()
        self._make_lasting()
        self._tell()

    @property
    def line(self) -> str:
        """What there is to say of this host, in one line."""
        trouble = [text for text in self._trouble.values() if text]
        memory = self._route.memory
        route = f"writes go to {memory.primary or 'nobody'}, epoch {memory.epoch}" if memory else "no route yet"
        return "; ".join([f"{self._config.cluster}: {route}", *trouble])

    def close(self) -> None:
        """Ends the watch; HAProxy goes on as it is."""
        self._make_lasting(at_once=True)
        self.watch.end()
        self._local.close()

    # Reading the folder

    def _begin(self) -> None:
        """After the folder has come into reach: what we said last, and how we learn of changes."""
        if not self._begun:
            self._begun = True
            with contextlib.suppress(ShareError, TimedOut):
                self._said.recall()
                said = self._said.answer
                if said.phase and not Phase(said.phase).routes:
                    self._handled = said.answers  # a hold that was answered is not begun again
        if not self._watched:
            try:
                folder, kind = self._folder.kind()
                self.watch.begin(folder, self._config.host, kind)
                self._watched = True
            except (OSError, ShareError, TimedOut) as error:
                self.watch.how = f"looks again: {error}"

    # Obeying

    def _seal(self) -> None:
        """Closes the map file that we may have left open: it lies on this host, whatever becomes of the folder."""
        if self._sealed or self._route.release is None:
            return
        try:
            self._unasked, self._sealed = self._haproxy().seal(), True
            self._trouble["map"] = ""
        except (AdapterError, ConfigError, ShareError) as error:
            self._trouble["map"] = f"a HAProxy that starts now may be open without being asked: {error}"

    def _handle(self, announcement: Announcement) -> None:
        over = announcement.phase in (Phase.SETTLE, Phase.RELEASE)
        self._announced = -_ANNOUNCED if over else time.monotonic()
        self._doubt.told(announcement.phase)
        final = True
        try:
            receipt = self._obey(announcement)
        except (Outdated, Conflict, Tampered, OtherFormat, ConfigError, AdapterError) as error:
            receipt = self._failed(announcement, error)
        except ShareError as error:
            receipt, final = self._failed(announcement, error), False
        except TimedOut as error:
            receipt, final = replace(self._failed(announcement, error), state=ReceiptState.UNKNOWN), False
        if final:
            self._handled = announcement.id
        self._said.answer = replace(
            self._said.answer,
            answers=announcement.id,
            phase=str(announcement.phase),
            operation=announcement.operation,
            release=self._route.memory.release if self._route.memory else "",
            receipt=receipt,
            watch=self.watch.how,
        )
        self._trouble["haproxy"] = "" if receipt.state in (ReceiptState.DONE, ReceiptState.PREPARED) else receipt.detail
        self._said.put()

    def _obey(self, announcement: Announcement) -> Receipt:
        """Does what is announced. Raises ShareError when it may not, or what it names cannot be believed."""
        phase = announcement.phase
        if phase.routes:
            if announcement.route is None:
                raise Torn(f"{phase} names no release")
            release = self._route.accept(announcement, announcement.route)
            if phase is Phase.SETTLE:
                self._route.forget_staged()
                return self._settle(release)
            receipt = self._haproxy().apply(release.table, self._silence.within(_SECONDS[phase]))
            if receipt.state is ReceiptState.DONE:
                self._hold_ends = 0.0  # those who waited have gone there
            return receipt
        if announcement.route is not None and not self._route.knows(announcement):  # we were away when it was published
            self._settle(self._route.accept(announcement, announcement.route))
        if phase is Phase.PREPARE:
            target, back = self._route.stage(announcement)
            return self._haproxy(target).prepare(target.table, back, self._silence.within(_SECONDS[Phase.PREPARE]))
        if phase is Phase.HOLD:
            self._hold_ends = time.monotonic() + announcement.seconds
            return self._haproxy().hold(announcement.operation, Deadline.after(announcement.seconds))
        self._hold_ends = 0.0
        return self._haproxy().release(self._silence.within(_SECONDS[phase]))

    def _settle(self, release: Release) -> Receipt:
        receipt = self._haproxy().settle(release.table, self._silence.within(_SECONDS[Phase.SETTLE]))
        if receipt.state is ReceiptState.DONE:
            self._confirmed = receipt.evidence.get("pid", self._confirmed)
        return receipt

    def _confirm(self, announcement: Announcement) -> None:
        """Gives a HAProxy that has been started our route, when the folder says that it still counts."""
        if self._route.memory is None or self._route.release is None:
            return
        if time.monotonic() < self._confirm_again:
            return
        self._confirm_again = time.monotonic() + _CONFIRM
        try:
            haproxy = self._haproxy()
            pid = haproxy.pid(self._silence.within(_GLANCE))
            if haproxy.follows(self._silence.within(_GLANCE)):
                self._confirmed = pid
            elif pid != self._confirmed and announcement.route == self._route.memory.release:
                receipt = self._settle(self._route.release)
                self._trouble["haproxy"] = "" if receipt.state is ReceiptState.DONE else receipt.detail
                if announcement.phase.routes:  # what was said before is about a process that is gone
                    self._said.answer = replace(self._said.answer, receipt=receipt)
            self._trouble["started"] = ""
        except (AdapterError, TimedOut, ConfigError, ShareError) as error:
            self._trouble["started"] = str(error)

    def _obeyed_by_clock(self) -> None:
        """Ends a hold whose time is over, and closes writes after the declared silence, whatever else can be heard.

        A HAProxy that nobody has let open is closed at once.
        """
        if (self._silence.over or self._unasked) and not self._shut and self._route.memory is not None:
            with contextlib.suppress(ProxyRouteError):
                self._haproxy().shut(self._route.memory.epoch, Deadline.after(_LOOK))
                self._shut, self._confirmed = True, 0  # it opens again when the folder confirms the route
        if self._hold_ends and time.monotonic() >= self._hold_ends:
            with contextlib.suppress(ProxyRouteError):
                if self._haproxy().release(Deadline.after(_LOOK)).state is ReceiptState.DONE:
                    self._hold_ends = 0.0

    # Looking and answering

    def _answer_questions(self) -> None:
        try:
            questions = self._folder.questions()
        except (ShareError, TimedOut):
            return  # told when the folder is looked at again
        asked = {q.writer: q.id for q in questions}
        answered = self._said.answer.asked
        if all(answered.get(writer) == known for writer, known in asked.items()):
            return
        seen, findings = self._look(check=any(q.check for q in questions))
        seen = replace(seen, addresses=self._addresses.look())
        self._said.answer = replace(
            self._said.answer, asked=asked, observed=seen, findings=findings, watch=self.watch.how
        )

    def _look(self, *, check: bool) -> tuple[Observed, tuple[Finding, ...]]:
        host = self._config.host
        if self._route.release is None:
            text = "nothing has been published for this host yet"
            unset = Finding("agents.unpublished", Severity.WARNING, host, text, "proxyroute publish")
            return Observed(host, reachable=False, detail=text), (unset,)
        try:
            haproxy = self._haproxy()
            seen = haproxy.observe(self._silence.within(_LOOK))
            return seen, tuple(haproxy.check(self._silence.within(_LOOK))) if check else ()
        except (AdapterError, ConfigError, ShareError, TimedOut) as error:
            wrong = Finding("agents.host", Severity.ERROR, host, str(error), f"on {host}: proxyroute agent status")
            return Observed(host, reachable=False, detail=str(error)), (wrong,)

    def _make_lasting(self, *, at_once: bool = False) -> None:
        try:
            if self._route.make_lasting(at_once=at_once):
                self._trouble["memory"] = ""
        except ShareError as error:
            self._trouble["memory"] = str(error)

    def _tell(self) -> None:
        """Says on this host's disk how things are, when they have changed."""
        said = self._said.answer
        addresses = self._addresses.lately()
        closed = self._route.memory is not None and self._route.memory.primary is None
        doubt = self._doubt.since(silent=bool(self._trouble["folder"]), closed=closed)
        text = "an operation had begun when the folder fell silent: another host may know how it ended"
        self._trouble["doubt"] = text if doubt is not None else ""
        priority = self._doubt.steps_back(addresses.values())
        if priority != self._priority:
            with contextlib.suppress(OSError):  # tried again with the next look
                self._local.tell_priority(priority)
                self._priority = priority
        self._trouble["addresses"], self._trouble["mount"] = self._addresses.trouble, self._folder.trouble
        self._trouble["receipt"] = self._said.trouble
        status = {
            "host": self._config.host,
            "cluster": self._config.cluster,
            "folder": str(self._config.folder),
            "watch": self.watch.how,
            "trouble": [text for text in self._trouble.values() if text],
            "release": self._route.memory.release if self._route.memory else None,
            "epoch": str(self._route.memory.epoch) if self._route.memory else None,
            "primary": self._route.memory.primary if self._route.memory else None,
            "phase": said.phase,
            "operation": said.operation,
            "state": str(said.receipt.state),
            "detail": said.receipt.detail,
            "acknowledged": self._said.written,
            "confirmed_pid": self._confirmed,
            "closed_by_silence": self._shut,
            "midway": self._doubt.midway,
            "doubt": doubt,
            "addresses": dict(addresses),
        }
        if status != self._told:
            with contextlib.suppress(OSError):  # this disk is full as well: there is nowhere left to say it
                self._local.tell({**status, "since": time.time()})
                self._told = status

    def _haproxy(self, release: Release | None = None) -> SealedHAProxy:
        """Returns the HAProxy as ``release`` sets it up, by default the one in force. Raises ShareError."""
        release = release or self._route.release
        c = self._config
        if release is None:
            raise ShareError("nothing has been published for this host yet")
        try:
            settings = c.local(release.shape, self._local.template(release))
        except ValueError as error:
            raise ConfigError(f"release {release.name}: {error}") from None
        in_force = self._route.release.table if self._route.release else None
        return SealedHAProxy(c.host, c.cluster, release.table.servers, settings, in_force)

    def _failed(self, announcement: Announcement, error: Exception) -> Receipt:
        named = announcement.target or announcement.route
        epoch = epoch_of(named) if named else NO_EPOCH
        return Receipt(self._config.host, ReceiptState.FAILED, epoch, str(error))


def run(config: AgentConfig) -> None:
    """Follows the shared folder until SIGTERM or SIGINT. Raises ConfigError and ShareError when it cannot begin."""
    faults.role = "agent"
    manager = Manager()
    agent = Agent(config)
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True
        agent.watch.wake()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        agent.step()
        manager.ready()
        while not ended:
            manager.alive()
            manager.status(agent.line)
            agent.watch.wait(agent.pause)
            if not ended:
                agent.step()
    finally:
        manager.stopping()
        agent.close()


def main(arguments: list[str]) -> int:
    """Runs the agent with the configuration file that is named; returns the exit code."""
    try:
        run(load_agent(Path(arguments[0]) if arguments else DEFAULT_PATH))
    except ProxyRouteError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
