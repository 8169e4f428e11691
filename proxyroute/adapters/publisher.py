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
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from proxyroute.errors import ConfigError, ShareError, Tampered, TimedOut, Torn
from proxyroute.haproxy import settings as haproxy_settings
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
    accept,
    refuse_outdated,
)
from proxyroute.haproxy.render import render
from proxyroute.haproxy.share import Share, read_key
from proxyroute.haproxy.worker import Worker
from proxyroute.model import Address, Deadline, ReceiptState, RouteTable

_LOOK_PAUSE = 0.001
_LATER_PAUSE = 0.02
_LATER = 1.0


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
            self._last, self._in_force, self._staged = None, None, {}

            def write() -> tuple[Announcement, Memory | None]:
                share = self.share
                return _write(share, self.writer, phase, route, staged, operation, seconds, ours, in_force, ready)

            announced, known = self.worker.call(write, deadline)
            self._last, self._joined, self._in_force = announced, {host}, known
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

        def read() -> Release | None:
            share = self.share
            current = share.current()
            return share.release(current.route) if current is not None and current.route is not None else None

        return self.worker.call(read, deadline)

    def closes_after(self, host: str, deadline: Deadline) -> float:
        """Returns after how much silence, in seconds, ``host`` closes its writes. Raises ShareError and TimedOut."""
        return self.worker.call(lambda: self.share.answer(host).closes_after, deadline)

    def prune(self, deadline: Deadline) -> None:
        """Removes what is old. Raises ShareError and TimedOut."""
        self.worker.call(lambda: self.share.prune(), deadline)

    def answer(self, host: str, good: Callable[[Answer], bool], deadline: Deadline) -> Answer:
        """Returns the receipt of ``host`` once it is ``good``. Raises TimedOut, saying what was found instead."""
        seen = [f"{host} has not answered"]
        given_up = threading.Event()

        def look() -> Answer | None:
            share, began, last = self.share, time.monotonic(), b""
            while not given_up.is_set():
                try:
                    data = share.receipt(host)
                    if data != last:  # what is known already need not be read again: the host has work to do
                        last, found = data, share.believe(host, data)
                        if good(found):
                            return found
                        seen[0] = f"{host} has not answered yet; it last answered {found.phase or 'nothing'}"
                except (OSError, ShareError) as error:
                    seen[0] = str(error)
                time.sleep(_LOOK_PAUSE if time.monotonic() - began < _LATER else _LATER_PAUSE)
            return None

        try:
            found = self.worker.call(look, deadline)
        except TimedOut as error:
            given_up.set()
            raise TimedOut(f"{seen[0]}; on {host}: proxyroute agent status") from error
        assert found is not None, "only given up after the deadline"
        return found

    def ask(self, host: str, deadline: Deadline, *, check: bool = False) -> Question:
        """Asks ``host`` to look at its HAProxy now. Raises ShareError and TimedOut."""
        question = Question(secrets.token_hex(8), f"{self.writer}-{host}", self._cluster, check)

        def write() -> None:
            share = self.share
            share.make_folders()
            share.ask(question, lasting=check)  # a check tells how long the disk takes

        self.worker.call(write, deadline)
        return question

    def reply(self, host: str, question: Question, deadline: Deadline) -> Answer:
        """Returns what ``host`` saw when it was asked ``question``. Raises ShareError and TimedOut."""
        return self.answer(host, lambda a: a.asked.get(question.writer) == question.id, deadline)

    def withdraw(self, host: str, deadline: Deadline) -> None:
        """Takes the question to ``host`` away. Raises ShareError and TimedOut."""
        self.worker.call(lambda: self.share.withdraw(f"{self.writer}-{host}"), deadline)


COMMON = ("key_file", "write", "read", "stats", "template", "hard_stop_after")
"""What hosts that share a folder must have in common."""


def _alike(settings: AgentsSettings) -> str:
    """Returns a text that is the same for hosts that may share a folder."""
    return repr([getattr(settings, name) for name in COMMON])


def _staged(announced: Announcement) -> tuple[str, ...]:
    return tuple(name for name in (announced.target, announced.abort) if name)


def _write(
    share: Share,
    writer: str,
    phase: Phase,
    route: Release | None,
    staged: Sequence[Release],
    operation: str,
    seconds: float,
    ours: Announcement | None,
    in_force: Memory | None,
    ready: Collection[str],
) -> tuple[Announcement, Memory | None]:
    """Publishes one announcement above the current one; returns it, and what is in force then.

    ``in_force`` is what was in force after ``ours``, and counts while that is the current one; releases that are
    ``ready`` lie in the folder. Only then no more than one file is read and one written: writes may wait for it.
    """
    quick = not phase.lasting and ours is not None
    if not quick:
        share.make_folders()
    current, known = _found(share, ours if quick else None, in_force)
    # By the clock as well: it goes on above what was there when current.json has been damaged.
    sequence = max(current.sequence + 1 if current else 1, time.time_ns() // 1_000_000)
    for release in (route, *staged[:1]):
        if release is not None:
            accepted = accept(known, release, sequence)
            if not (quick and release.name in ready):
                share.claim(release)
            known = accepted if release is route else known
    if len(staged) > 1:
        refuse_outdated(known, staged[1].table.epoch)
    for release in (*staged, *([route] if route else [])):
        if not (quick and release.name in ready):
            share.stage(release)
    announced = Announcement(
        id=secrets.token_hex(8),
        sequence=sequence,
        cluster=share.cluster,
        phase=phase,
        writer=writer,
        operation=operation,
        route=route.name if route else (current.route if current else None),
        target=staged[0].name if staged else None,
        abort=staged[1].name if len(staged) > 1 else None,
        seconds=seconds,
    )
    share.publish(announced)
    return announced, known


def _found(
    share: Share, ours: Announcement | None, in_force: Memory | None
) -> tuple[Announcement | None, Memory | None]:
    """Returns what is announced, and the route by which the next is judged: ``in_force`` while ``ours`` is current.

    A damaged file is written anew: the agents have a memory of their own. One of another version is not (OtherFormat).
    """
    try:
        current = share.current()
        if current is not None and current == ours:
            return current, in_force
        if current is None or current.route is None:
            return current, None
        return current, Memory.of(share.release(current.route), current.sequence)
    except (Torn, Tampered):
        return None, None
