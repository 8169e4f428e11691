"""What a host says of itself in the shared folder: its receipt, as it is to be and as it was written last."""

from __future__ import annotations

import math
from dataclasses import replace

from proxyroute.agent_folder import Folder
from proxyroute.config_agent import AgentConfig
from proxyroute.errors import ShareError, TimedOut
from proxyroute.haproxy.release import Announcement, Answer, Phase
from proxyroute.model import ReceiptState

_SAY = 0.5
"""Seconds in which it is said that a route has been read, before it is followed."""


class Said:
    """``answer`` is what the host has to say, and ``trouble`` why the folder does not have it; empty when it does."""

    def __init__(self, config: AgentConfig, folder: Folder) -> None:
        """Nothing is read or written yet."""
        self._config = config
        self._folder = folder
        self.answer = Answer(config.host, config.cluster, closes_after=config.closes_after)
        self.trouble = ""
        self._written: Answer | None = None

    @property
    def written(self) -> bool:
        """Whether the folder has it."""
        return self.answer == self._written

    def recall(self) -> None:
        """Goes on from what an agent here said before us. Raises ShareError and TimedOut when that cannot be read."""
        self._written = self._folder.answer()
        self.answer = replace(self._written, heard="", closes_after=self._config.closes_after)

    def put(self) -> None:
        """Writes it, if the folder does not have it."""
        if not self.written:
            self._write(self.answer)

    def shows(self, announcement: Announcement | None) -> bool:
        """Tells whether the folder shows that we have read which route is to be made true, and says so there.

        A failover takes a host of which nothing shows that for a silent one, which closes by itself. So one that can
        neither follow a route nor say that it has read it is silent.
        """
        if announcement is None or announcement.phase is not Phase.SETTLE or not self._config.closes_after:
            return True
        if self.answer.answers == announcement.id and self.answer.receipt.state is ReceiptState.DONE:
            return True
        if self._written is not None and announcement.id in (self._written.answers, self._written.heard):
            return True
        return self._write(replace(self.answer, heard=announcement.id), _SAY)

    def _write(self, answer: Answer, seconds: float = math.inf) -> bool:
        try:
            self._folder.acknowledge(answer, seconds)
        except (ShareError, TimedOut) as error:
            self.trouble = f"the receipt cannot be written: {error}"
            return False
        self._written, self.trouble = answer, ""
        return True
