"""The shared folder of one cluster on disk: who writes which file, and how each is replaced whole.

::

    current.json                     what is asked of the hosts now; the engine that publishes
    releases/<epoch>-<digest>/       a route, immutable; whoever publishes it first
    epochs/<epoch>/                  what an epoch means; claimed once, by a rename that only one can win
    acks/<host>.json                 receipts; the agent of that host
    asks/<writer>.json               questions; the engine process of that name

These are plain accesses that block as long as the disk does: call them through a Worker.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from proxyroute.atomic import put, sync_folder
from proxyroute.errors import Conflict, ShareError, Torn
from proxyroute.faults import act
from proxyroute.haproxy.release import Announcement, Answer, Question, Release, epoch_of, seal, unseal
from proxyroute.haproxy.routemap import CLOSED
from proxyroute.model import Deadline, Epoch

KEPT_RELEASES = 20
_KEPT_EPOCHS = 50
_OLD_QUESTION = 3600.0
_LEAST_KEY = 16


def read_key(file: Path) -> bytes:
    """Returns the key with which files are signed. Raises ShareError, with the cure, when it cannot be used."""
    make = f"make one and copy it to every host: (umask 077; head -c 32 /dev/urandom | base64 > {file})"
    try:
        key = file.read_bytes().strip()
        mode = file.stat().st_mode
    except FileNotFoundError as error:
        raise ShareError(f"cannot read the key {file}: {error.strerror}; {make}") from None
    except OSError as error:  # the one that is there, every host has: a new one would cut them all off
        cure = f"make it readable for the user who runs this: chown {os.geteuid()} {file}"
        raise ShareError(f"cannot read the key {file}: {error.strerror}; {cure}") from None
    if len(key) < _LEAST_KEY:
        raise ShareError(f"the key {file} has only {len(key)} bytes; {make}")
    if mode & 0o007:
        raise ShareError(f"everybody on this host can use the key {file}; chmod 600 {file}")
    return key


class Share:
    """The files of ``cluster`` in ``folder``, signed with ``key``."""

    def __init__(self, folder: Path, cluster: str, key: bytes) -> None:
        self.folder = folder / cluster
        self.cluster = cluster
        self._key = key

    # The engine's side

    def make_folders(self) -> None:
        """Makes what is missing of the layout. The folder above must be there: it may be a disk not mounted."""
        if not self.folder.parent.is_dir():
            raise ShareError(f"{self.folder.parent} is not there; mount it or make it: mkdir {self.folder.parent}")
        for folder in (self.folder, *(self.folder / n for n in ("releases", "epochs", "acks", "asks"))):
            if not folder.is_dir():
                with act("share.release"):
                    folder.mkdir(exist_ok=True)

    def stage(self, release: Release) -> None:
        """Puts ``release`` into its folder; nothing when it is there and whole."""
        with contextlib.suppress(OSError, ShareError):
            if self.release(release.name) == release:
                return
        data = seal("release", release.values(), self._key)
        self._place(self.folder / "releases" / release.name, "release.json", data)

    def claim(self, release: Release) -> None:
        """Claims the epoch of ``release`` for its primary. Raises Conflict when it means another one.

        A closed route claims nothing: it may open under its epoch.
        """
        primary = release.table.primary
        if primary is None:
            return
        folder = self.folder / "epochs" / str(release.table.epoch)
        if not (folder / "primary").is_file():
            with act("share.claim"):
                _exclusive(folder, "primary", primary.encode())
        meant = (folder / "primary").read_text(encoding="utf-8")
        if meant != primary:
            raise Conflict(
                f"conflict: route {release.table.epoch} to {meant or CLOSED} is published, the same epoch cannot mean "
                f"{primary}"
            )

    def publish(self, announcement: Announcement, deadline: Deadline) -> None:
        """Makes ``announcement`` the current one; waits for the disk only where its phase asks for that.

        Raises TimedOut instead when ``deadline`` has passed: whoever asked for it has given up and has perhaps
        published something else.
        """
        data, last = seal("announcement", announcement.values(), self._key), partial(deadline.require, f"{self.folder}")
        with act("share.publish"):
            put(self.folder / "current.json", data, lasting=announcement.phase.lasting, last=last)

    def ask(self, question: Question, *, lasting: bool = False) -> None:
        """Asks. With ``lasting`` it waits for the disk, which shows how long that takes. Makes missing folders."""
        self.make_folders()
        data = seal("question", question.values(), self._key)
        with act("share.ask"):
            put(self.folder / "asks" / f"{question.writer}.json", data, lasting=lasting)

    def withdraw(self, writer: str) -> None:
        """Takes the questions of ``writer`` away."""
        with act("share.ask"):
            (self.folder / "asks" / f"{writer}.json").unlink(missing_ok=True)

    def prune(self) -> list[str]:
        """Removes old releases, claims and questions; never a release that current.json or a receipt names."""
        named: set[str] = set()
        current = self.current()
        named.update(current.named if current else ())
        for file in self._files("acks"):
            with contextlib.suppress(ShareError):
                named.add(self.answer(file.stem).release)
        releases = _by_epoch(self.folder / "releases", epoch_of)
        doomed = [folder for folder in releases[:-KEPT_RELEASES] if folder.name not in named]
        kept = {str(epoch_of(folder.name)) for folder in releases if folder not in doomed}
        claims = _by_epoch(self.folder / "epochs", Epoch.parse)[:-_KEPT_EPOCHS]
        gone = [folder.name for folder in doomed]
        doomed += [folder for folder in claims if folder.name not in kept]
        for folder in doomed:
            with act("share.prune"):
                shutil.rmtree(folder, ignore_errors=True)
        for file in self._files("asks"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > _OLD_QUESTION:
                    with act("share.prune"):
                        file.unlink()
        return gone

    def answer(self, host: str) -> Answer:
        """Returns the receipt of ``host``. Raises ShareError when there is none that can be believed."""
        return self.believe(host, self.receipt(host))

    def receipt(self, host: str) -> bytes:
        """Returns the bytes of the receipt of ``host``. Raises ShareError when there is none."""
        try:
            return (self.folder / "acks" / f"{host}.json").read_bytes()
        except FileNotFoundError:
            raise ShareError(f"there is no receipt of {host}: its agent has never run with {self.folder}") from None

    def believe(self, host: str, data: bytes) -> Answer:
        """Returns the receipt of ``host`` in ``data``. Raises ShareError when it cannot be believed."""
        found = Answer.of(unseal("receipt", data, self._key))
        if (found.host, found.cluster) != (host, self.cluster):
            raise Torn(f"the receipt of {host} is one of {found.host} for {found.cluster}")
        return found

    # The agent's side

    def acknowledge(self, answer: Answer, deadline: Deadline) -> None:
        """Writes a receipt. Whoever does not find it asks again, so it does not wait for the disk.

        Raises TimedOut instead when ``deadline`` has passed: there may be a later one.
        """
        data, last = seal("receipt", answer.values(), self._key), partial(deadline.require, f"{self.folder}")
        with act("share.receipt"):
            put(self.folder / "acks" / f"{answer.host}.json", data, lasting=False, last=last)

    def questions(self) -> list[Question]:
        """Returns the questions that can be believed."""
        found = []
        for file in self._files("asks"):
            with contextlib.suppress(ShareError, FileNotFoundError):
                question = Question.of(unseal("question", file.read_bytes(), self._key))
                if question.cluster == self.cluster and question.writer == file.stem:
                    found.append(question)
        return found

    # Both

    def current(self) -> Announcement | None:
        """Returns the current announcement, None before the first. Raises ShareError when it cannot be believed."""
        try:
            data = (self.folder / "current.json").read_bytes()
        except FileNotFoundError:
            if self.folder.parent.is_dir():
                return None
            raise
        found = Announcement.of(unseal("announcement", data, self._key))
        if found.cluster != self.cluster:
            raise Torn(f"{self.folder / 'current.json'} is about cluster {found.cluster}")
        return found

    def in_force(self) -> Release | None:
        """Returns the release that is named as the route, None before the first. Raises ShareError, and OSError."""
        current = self.current()
        return self.release(current.route) if current is not None and current.route is not None else None

    def release(self, name: str) -> Release:
        """Returns the release ``name``. Raises ShareError when it cannot be believed or is not what it is called."""
        try:
            data = (self.folder / "releases" / name / "release.json").read_bytes()
        except FileNotFoundError:
            raise Torn(f"release {name} is not there") from None
        found = Release.of(unseal("release", data, self._key))
        if found.name != name or found.table.cluster != self.cluster:
            raise Torn(f"release {name} is in truth {found.name} of cluster {found.table.cluster}")
        return found

    def _files(self, folder: str) -> list[Path]:
        return [f for f in sorted((self.folder / folder).glob("*.json")) if not f.name.startswith(".")]

    def _place(self, folder: Path, name: str, data: bytes) -> None:
        with act("share.release"):
            if not _exclusive(folder, name, data):
                put(folder / name, data)  # what is there is damaged: it was read before


def _exclusive(folder: Path, name: str, data: bytes) -> bool:
    """Makes ``folder`` appear with its one file in it; returns False when somebody else's is there already."""
    staged = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}")
    staged.mkdir()
    try:
        put(staged / name, data)
        os.rename(staged, folder)  # a folder does not replace one that has something in it
    except OSError:
        shutil.rmtree(staged, ignore_errors=True)
        if not folder.is_dir():
            raise
        return False
    sync_folder(folder.parent)
    return True


def _by_epoch(folder: Path, epoch: Callable[[str], Epoch]) -> list[Path]:
    """Returns what lies in ``folder`` under the name of an epoch, the oldest first."""
    return [entry for _, entry in sorted(_with_epochs(folder, epoch))]


def _with_epochs(folder: Path, epoch: Callable[[str], Epoch]) -> Iterator[tuple[Epoch, Path]]:
    for entry in folder.iterdir():
        with contextlib.suppress(ShareError, ValueError):
            yield epoch(entry.name), entry
