"""The route that an agent has accepted: nothing leads back behind it. Also what is staged to come next."""

from __future__ import annotations

import time
from dataclasses import replace

from proxyroute.agent_folder import Folder
from proxyroute.agent_memory import Local
from proxyroute.errors import Torn
from proxyroute.haproxy.release import Announcement, Memory, Phase, Release, accept, epoch_of, refuse_outdated
from proxyroute.model import RouteTable

_FIRST_WRITES = 0.25
"""Seconds after which writes flow again: until then this disk, which may be theirs, is not made to sync."""


class AcceptedRoute:
    """``memory`` is what is remembered of the route in force, ``release`` sets HAProxy up; None before the first."""

    def __init__(self, local: Local, folder: Folder) -> None:
        """Raises ShareError when what ``local`` holds is damaged."""
        self._local = local
        self._folder = folder
        self.memory: Memory | None = None
        self.release: Release | None = None
        recalled = local.recall()
        if recalled is not None:
            self.memory, self.release = recalled
        self._staged: dict[str, Release] = {}
        self._lasting_at: float | None = None

    def knows(self, announcement: Announcement) -> bool:
        """Tells whether the route in force is ours, or older on a disk that was restored and is written anew now.

        Then what is staged is judged by itself, and what was staged may go on: a stale engine stages nothing with us.
        """
        if self.memory is None or announcement.route is None:
            return False
        anew = announcement.phase is Phase.PREPARE or bool(self._staged)
        return announcement.route == self.memory.release or (anew and epoch_of(announcement.route) < self.memory.epoch)

    def stage(self, announcement: Announcement) -> tuple[Release, RouteTable]:
        """Returns the release that is to be prepared, and the table that a reload leads to until it is applied.

        Raises ShareError when what is announced cannot be believed or may not be followed, TimedOut for a hung disk.
        """
        if announcement.target is None or announcement.abort is None:
            raise Torn("prepare names no releases")
        self._staged.clear()  # what was believed long ago may have been signed with a key that has been changed
        target, abort = self._load(announcement.target), self._load(announcement.abort)
        accept(self.memory, target, announcement.sequence)
        refuse_outdated(self.memory, abort.table.epoch)
        self._staged = {target.name: target}
        self._local.rehearse()  # it must be remembered before it is followed, and by then it is too late to refuse
        back = abort.table
        if self.memory is not None:  # a reload leads where writes go now: under the epoch they go there by
            back = replace(back, primary=self.memory.primary, epoch=self.memory.epoch)
        return target, back

    def forget_staged(self) -> None:
        """The operation is over."""
        self._staged.clear()

    def accept(self, announcement: Announcement, name: str) -> Release:
        """Takes a release for the route in force and remembers that before anything follows it."""
        refuse_outdated(self.memory, epoch_of(name))
        release = self._load(name)
        memory = accept(self.memory, release, announcement.sequence)
        if memory != self.memory:
            lasting = announcement.phase.lasting
            self._local.remember(memory, release, lasting=lasting)
            self._lasting_at = None if lasting else time.monotonic() + _FIRST_WRITES
        self.memory, self.release = memory, release
        return release

    def make_lasting(self, *, at_once: bool = False) -> bool:
        """What was accepted while writes waited is made safe from a power cut as well, now that they flow.

        Tells whether there was something to do. Raises ShareError when it cannot be done; it is tried again next time.
        """
        if self._lasting_at is None or (time.monotonic() < self._lasting_at and not at_once):
            return False
        assert self.memory is not None, "there is something to be made lasting"
        assert self.release is not None, "there is something to be made lasting"
        self._local.remember(self.memory, self.release)
        self._lasting_at = None
        return True

    def _load(self, name: str) -> Release:
        """Returns a release that is announced. Raises ShareError, and TimedOut when the disk hangs.

        One that was staged is not read again: its name says what is in it.
        """
        if name in self._staged:
            return self._staged[name]
        return self._folder.release(name)
