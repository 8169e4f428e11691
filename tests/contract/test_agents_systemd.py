"""What an agent tells systemd."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.contract.agents import AgentsSubject
from tests.contract.subjects import soon
from tests.support.process import is_stopped
from tests.support.systemd import Systemd
from tests.support.wait import until


def test_an_agent_tells_that_it_is_up_alive_and_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Systemd(str(tmp_path / "notify")) as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
        monkeypatch.setenv("WATCHDOG_USEC", "300000")
        subject = AgentsSubject(tmp_path)
        try:
            subject.host.start_agent()
            assert subject.host.agent is not None
            systemd.await_told("READY=1")
            assert systemd.await_told("STATUS=").startswith("STATUS=shop: no route yet; ")
            for _ in range(3):
                systemd.await_told("WATCHDOG=1")
            subject.host.agent.send(signal.SIGSTOP)
            until(lambda: is_stopped(subject.host.agent.pid), "it to stand still")
            systemd.heard()
            time.sleep(0.5)  # signs that do not come: five times as long as between two of them
            assert systemd.heard() == [], "one that stands still gives no sign of life"
            subject.host.agent.send(signal.SIGCONT)
            subject.adapter().settle(subject.table((1, 1), "db1"), soon())
            systemd.await_told("STATUS=shop: writes go to db1, epoch 1.1")
            subject.host.agent.send(signal.SIGTERM)
            systemd.await_told("STOPPING=1")
        finally:
            subject.close()
