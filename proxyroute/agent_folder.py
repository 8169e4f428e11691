"""The shared folder as one agent sees it: reached by a process that may hang in its place, and always the same disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from proxyroute.agent_memory import Local
from proxyroute.config_agent import AgentConfig
from proxyroute.errors import ShareError, Torn
from proxyroute.haproxy.mounts import file_system, on_mount
from proxyroute.haproxy.release import Announcement, Answer, Question, Release
from proxyroute.haproxy.share import Share, read_key
from proxyroute.haproxy.worker import Worker
from proxyroute.model import Deadline

T = TypeVar("T")

_APPEAR = 0.5
"""Seconds after which a release that is announced must be there: a network disk may show the one before the other."""
_FAST = 0.005


class Folder:
    """Every access raises ShareError when it fails, and TimedOut when the disk hangs."""

    def __init__(self, config: AgentConfig, local: Local, within: Callable[[float], Deadline]) -> None:
        """Nothing is read yet. ``within`` tells by when what may take so many seconds must be over."""
        self._config = config
        self._local = local
        self._within = within
        self._worker = Worker(f"the shared folder {config.folder}")
        self._mount = config.mount_point or local.mount_point(config.folder)
        self.trouble = ""
        """Why the place of the disk could not be kept; empty when it is."""

    def current(self) -> Announcement | None:
        """Returns what is announced, None before the first time. Only on the disk that the folder was always on.

        What lies under a mount that is absent may be as old as all that this host remembers, and look the same.
        """
        found, point = self._call(partial(_current, self._share(), self._config.folder, self._mount))
        if found is not None and not self._mount:
            self._mount = point
            try:
                self._local.remember_mount(self._config.folder, point)
                self.trouble = ""
            except ShareError as error:
                self.trouble = str(error)
        return found

    def release(self, name: str) -> Release:
        """Returns the release ``name``; waits a moment for one that is not there yet."""
        appears = self._within(_APPEAR)
        while True:
            try:
                return self._call(partial(self._share().release, name))
            except Torn:
                if appears.passed:
                    raise
                time.sleep(_FAST)

    def answer(self) -> Answer:
        """Returns our last receipt."""
        return self._call(partial(self._share().answer, self._config.host))

    def acknowledge(self, answer: Answer, seconds: float = math.inf) -> None:
        """Writes a receipt within ``seconds``, or never: not after whoever asked for it has given up."""
        soon = self._soon().within(seconds)
        self._worker.call(partial(self._share().acknowledge, answer, soon), soon)

    def questions(self) -> list[Question]:
        """Returns the questions that can be believed."""
        return self._call(self._share().questions)

    def kind(self) -> tuple[Path, str]:
        """Returns the folder of the cluster, and the type of the file system that it is on. Raises OSError as well."""
        folder = self._share().folder
        return folder, self._call(partial(file_system, folder))

    def _share(self) -> Share:
        return Share(self._config.folder, self._config.cluster, read_key(self._config.key_file))

    def _call(self, access: Callable[[], T]) -> T:
        return self._worker.call(access, self._soon())

    def _soon(self) -> Deadline:
        return self._within(self._config.disk_timeout)


def _current(share: Share, folder: Path, mounted: str) -> tuple[Announcement | None, str]:
    with on_mount(folder, mounted) as point:
        return share.current(), point
