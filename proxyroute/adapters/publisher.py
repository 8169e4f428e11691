"""What the adapter for proxy hosts publishes in the shared folder, and how it hears their answers.

Hosts with the same folder and the same set-up share one publisher, so that a route is published once for all of them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from proxyroute.errors import ConfigError, TimedOut
from proxyroute.haproxy import settings as haproxy_settings
from proxyroute.haproxy.announce import Awaited, Draft, announce
from proxyroute.haproxy.process import try_out
from proxyroute.haproxy.release import (
    RELEASED,
    Announcement,
    Answer,
    Memory,
    Phase,
    Question,
    Release,
    Shape,
)
from proxyroute.haproxy.render import render
from proxyroute.haproxy.share import Share, read_key
from proxyroute.haproxy.worker import Worker
from proxyroute.model import Address, Deadline, ReceiptState, RouteTable

_TO_TELL = 0.02
"""Seconds before a deadline at which a wait ends by itself, to say what was found instead."""


@dataclass(frozen=True)
class AgentsSettings:
    """One proxy host whose agent follows a shared folder. What all hosts have in common must be the same for each."""

    folder: Path
    """The shared folder; it must exist. The cluster gets a folder of its own in it."""
    key_file: Path
    """The key with which everything in the folder is signed; the same on every host."""
    write: str
    """Where clients reach the primary, on each host: host:port, ``*`` for every address."""
    read: str = ""
    """Where clients reach the replicas; empty: no read route."""
    stats: str = ""
    """Where the statistics page is served; empty: not at all."""
    template: Path | None = None
    """An own template in place of ours, which it may extend; one file, it is published with the route."""
    hard_stop_after: float = 30.0
    """Seconds after a reload until an old process ends its last sessions."""
    write_address: str = ""
    """Where the write route of this host is reached from here, for the proof; host:port."""
    read_address: str = ""
    disk_limit: float = 1.0
    """A folder that takes longer to write a small file, in seconds, is a finding that refuses an operation."""
    try_with: str = ""
    """A HAProxy binary here that tries a configuration out before it is published; empty: only the hosts do."""

    def __post_init__(self) -> None:
        for field in ("write_address", "read_address"):
            if text := getattr(self, field):
                try:
                    Address.parse(text)
                except ValueError as error:
                    raise ValueError(f"{field}: {error}") from None
        if self.disk_limit <= 0:
            raise ValueError("disk_limit: must be more than 0 seconds")
        self.local(Path("/nonexistent"))

    def local(self, folder: Path) -> haproxy_settings.Settings:
        """Returns how a HAProxy in ``folder`` would be set up. Raises ValueError, naming the field."""
        return haproxy_settings.Settings(
            config_file=folder / "haproxy.cfg",
            write=self.write,
            read=self.read,
            stats=self.stats,
            runtime_socket=folder / "admin.sock",
            binary=self.try_with or "haproxy",
            template=self.template,
            hard_stop_after=self.hard_stop_after,
        )


class Publisher:
    """Writes the shared folder of one cluster; one for all hosts of a process. Never blocks beyond a deadline."""

    _all: ClassVar[dict[tuple[Path, str, str], Publisher]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, folder: Path, cluster: str, settings: AgentsSettings) -> None:
        self.folder = folder
        self.settings = settings
        self.writer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.worker = Worker(f"the shared folder {folder}")
        self._cluster = cluster
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._last: Announcement | None = None
        self._joined: set[str] = set()
        self._told: tuple[RouteTable, Announcement, float] | None = None
        """The route of our last announcement, while that is known to be published, and since when it is."""
        self._in_force: Memory | None = None
        """The route in force after our last announcement; it is still that while nobody else has announced anything."""
        self._staged: dict[str, Release] = {}
        """What the last ``prepare`` has claimed and put into the folder, by name, while that is known to be so."""
        self._prepared: Release | None = None
        """Its target, as it was rendered then."""
        self._tried: set[str] = set()
        self._users = 0

    @classmethod
    def of(cls, cluster: str, settings: AgentsSettings) -> Publisher:
        """Returns the publisher that all hosts with this folder and this set-up share."""
        key = (settings.folder, cluster, _alike(settings))
        with cls._guard:
            found = cls._all.get(key)
            if found is None:
                found = cls._all[key] = cls(settings.folder, cluster, settings)
            found._users += 1
            return found

    def leave(self) -> None:
        """One adapter less; after the last one it is forgotten."""
        with self._guard:
            self._users -= 1
            if self._users == 0:
                del self._all[self.folder, self._cluster, _alike(self.settings)]

    @property
    def alone(self) -> bool:
        """Whether no other set-up of the same folder is open in this process."""
        with self._guard:
            return sum(key[:2] == (self.folder, self._cluster) for key in self._all) == 1

    @property
    def share(self) -> Share:
        """The folder, with the key as it is now. Raises ShareError when that cannot be used."""
        return Share(self.folder, self._cluster, read_key(self.settings.key_file))

    def release(self, table: RouteTable, deadline: Deadline) -> Release:
        """Returns what is to be published for ``table``, rendered and, if asked for, tried out before.

        Raises ConfigError when a template is wrong, AdapterError when HAProxy rejects it.
        """
        with self._making:  # for all hosts one after the other: side by side each waits for the others anyway
            s = self.settings
            text = ""
            structure = render(table, s.local(Path("/nonexistent"))).structure
            if s.template is not None:
                try:
                    text = s.template.read_text(encoding="utf-8")
                except OSError as error:
                    raise ConfigError(f"{s.template}: {error.strerror}") from None
            if s.try_with and structure not in self._tried:
                folder = Path(tempfile.mkdtemp(prefix="proxyroute-trial-"))
                try:
                    try_out("the configuration to publish", table, s.local(folder), deadline)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                self._tried.add(structure)
            return Release(table, Shape(s.write, s.read, s.stats, s.hard_stop_after, text))

    def prepared(self, table: RouteTable, deadline: Deadline) -> Release:
        """Returns the release that was prepared for ``table``, without rendering it again; else a new one."""
        found = self._prepared
        return found if found is not None and found.table == table else self.release(table, deadline)

    def publish(
        self,
        host: str,
        phase: Phase,
        deadline: Deadline,
        *,
        route: Release | None = None,
        staged: Sequence[Release] = (),
        operation: str = "",
        seconds: float = 0.0,
    ) -> Announcement:
        """Publishes for all hosts at once: whoever asks for the same right afterwards gets the same announcement.

        Raises Outdated, Conflict and other ShareErrors when it was not published, TimedOut when that is unknown.
        """
        with self._lock:
            names = (route.name if route else None, *(r.name for r in staged))
            last = self._last
            wanted = (phase, operation, *names)
            if (
                last is not None
                and host not in self._joined
                and wanted == (last.phase, last.operation, last.route if route else None, *_staged(last))
            ):
                self._joined.add(host)
                return last

            ours, in_force, ready = last, self._in_force, dict(self._staged)
            # whatever a write that is left behind does: nothing is taken for known after it
            self._last, self._told, self._in_force, self._staged = None, None, None, {}

            draft = Draft(
                self.writer, phase, route, tuple(staged), operation, seconds, ours, in_force, frozenset(ready)
            )
            announced, known = self.worker.call(partial(announce, self.share, draft, deadline), deadline)
            self._last, self._joined, self._in_force = announced, {host}, known
            self._told = (route.table, announced, time.monotonic()) if route is not None else None
            if phase is Phase.PREPARE:
                self._staged, self._prepared = {staged[0].name: staged[0]}, staged[0]
            elif phase is not Phase.SETTLE:
                self._staged = ready
            return announced

    def was_released(self, host: str, answer: Answer) -> bool:
        """Tells whether ``answer`` of ``host`` says that it followed our last announcement and let go who waited."""
        last = self._last
        return (
            last is not None
            and last.phase is Phase.APPLY
            and (answer.answers, answer.host) == (last.id, host)
            and answer.receipt.state is ReceiptState.DONE
            and answer.receipt.evidence.get(RELEASED) is True
        )

    def in_force(self, deadline: Deadline) -> Release | None:
        """Returns the release that current.json names as the route; None before the first.

        Raises ShareError when what is there cannot be believed, TimedOut when the disk hangs.
        """
        return self.worker.call(self.share.in_force, deadline)

    def told(self, table: RouteTable) -> tuple[Announcement, float] | None:
        """Returns our announcement of ``table`` and since when, by the monotonic clock, it is certainly published.

        None when that is not the last that we have published, or nobody knows whether it is.
        """
        told = self._told
        return told[1:] if told is not None and told[0] == table else None

    def latest(self, host: str, deadline: Deadline) -> Answer:
        """Returns the receipt of ``host`` as it is now. Raises ShareError and TimedOut."""
        return self.worker.call(partial(self.share.answer, host), deadline)

    def prune(self, deadline: Deadline) -> None:
        """Removes what is old. Raises ShareError and TimedOut."""
        self.worker.call(self.share.prune, deadline)

    def receipt(self, host: str, announced: Announcement, deadline: Deadline) -> Answer:
        """Returns the answer of ``host`` to ``announced``. Raises ShareError, and TimedOut with what was found."""
        return self._answer(host, Awaited(host, answers=announced.id), deadline)

    def _answer(self, host: str, awaited: Awaited, deadline: Deadline) -> Answer:
        look = partial(awaited.look, self.share, Deadline(deadline.at - _TO_TELL))
        try:
            found = self.worker.call(look, deadline)
        except TimedOut as error:
            raise TimedOut(f"{host} has not answered: {error}; on {host}: proxyroute agent status") from error
        if isinstance(found, Answer):
            return found
        raise TimedOut(f"{found}; on {host}: proxyroute agent status")

    def ask(self, host: str, deadline: Deadline, *, check: bool = False) -> Question:
        """Asks ``host`` to look at its HAProxy now. Raises ShareError and TimedOut."""
        question = Question(secrets.token_hex(8), f"{self.writer}-{host}", self._cluster, check)
        ask = partial(self.share.ask, question, lasting=check)  # a check tells how long the disk takes
        self.worker.call(ask, deadline)
        return question

    def reply(self, host: str, question: Question, deadline: Deadline) -> Answer:
        """Returns what ``host`` saw when it was asked ``question``. Raises ShareError and TimedOut."""
        return self._answer(host, Awaited(host, question=question), deadline)

    def withdraw(self, host: str, deadline: Deadline) -> None:
        """Takes the question to ``host`` away. Raises ShareError and TimedOut."""
        self.worker.call(partial(self.share.withdraw, f"{self.writer}-{host}"), deadline)


COMMON = ("key_file", "write", "read", "stats", "template", "hard_stop_after")
"""What hosts that share a folder must have in common."""


def _alike(settings: AgentsSettings) -> str:
    """Returns a text that is the same for hosts that may share a folder."""
    return repr([getattr(settings, name) for name in COMMON])


def _staged(announced: Announcement) -> tuple[str, ...]:
    return tuple(name for name in (announced.target, announced.abort) if name)
