"""An agent whose HAProxy takes commands and never answers: it hears, and says so, while whoever asks still waits."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute import failover
from proxyroute.agent import Agent
from proxyroute.haproxy.announce import Draft, announce
from proxyroute.haproxy.release import Announcement, Phase, Release
from proxyroute.haproxy.share import Share
from proxyroute.model import Deadline, ReceiptState
from tests.unit.test_agent_fence import config
from tests.unit.test_release import KEY, release


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Agent]:
    """The agent, which knows a route; whoever connects to HAProxy's sockets waits for ever."""
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.bind(str(tmp_path / "admin.sock"))
        runtime.listen(64)
        made = replace(
            config(tmp_path),
            runtime_socket=tmp_path / "admin.sock",
            master_socket=tmp_path / "master.sock",
            on_silence="close_writes",
        )
        say(tmp_path, Phase.SETTLE, release((1, 1), "db1"))
        agent = Agent(made)
        agent.step()
        yield agent
        agent.close()


def share(folder: Path) -> Share:
    return Share(folder / "shared", "shop", KEY)


def say(folder: Path, phase: Phase, route: Release | None = None, seconds: float = 0.0) -> Announcement:
    draft = Draft("engine", phase, route, operation="op-1" if phase is Phase.HOLD else "", seconds=seconds)
    return announce(share(folder), draft, Deadline.after(5))[0]


def test_it_answers_while_the_engine_waits_and_names_the_cause(stuck: Agent, tmp_path: Path) -> None:
    for phase, route in ((Phase.HOLD, None), (Phase.SETTLE, release((1, 2), None))):
        announced, began = say(tmp_path, phase, route, failover._HOLD), time.monotonic()
        stuck.step()
        assert time.monotonic() - began < failover._CLOSE
        answer = share(tmp_path).answer("edge1")
        assert (answer.answers, answer.receipt.state) == (announced.id, ReceiptState.FAILED)
        assert "no answer from" in answer.receipt.detail


def test_a_look_at_such_a_haproxy_does_not_keep_it_from_the_folder(stuck: Agent, tmp_path: Path) -> None:
    began = time.monotonic()
    stuck.step()
    assert time.monotonic() - began < failover._ANSWER, "it is looked at whether HAProxy has been started anew"
