"""A program that cannot be ended, because it is another user's or hangs in the kernel, holds nobody up."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxyroute.argv import run
from proxyroute.errors import ScriptFailed
from proxyroute.hooks import Scripts
from proxyroute.model import Deadline
from tests.support.wait import until
from tests.unit import test_failover_interrupted as failovers

SLEEP = ("/bin/sleep", "60")


@pytest.fixture
def spared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Whom we may not kill here: the leaders of process groups. They are ended after the test."""
    kill, groups = os.killpg, list[int]()

    def refuse(group: int, number: int) -> None:
        groups.append(group)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", refuse)
    yield groups
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            kill(group, signal.SIGKILL)


def test_one_that_may_not_be_killed_is_told_in_time_and_waited_for_elsewhere(spared: list[int]) -> None:
    began = time.monotonic()
    with pytest.raises(ScriptFailed, match="did not end in time and cannot be killed: it is another user's"):
        run(SLEEP, {}, Deadline.after(0.2))
    assert time.monotonic() - began < 2.0
    (left,) = spared
    os.kill(left, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{left}").exists(), "somebody to take note of its end")


def test_one_that_ends_by_itself_was_not_killed_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    kill = os.killpg

    def gone(group: int, number: int) -> None:
        kill(group, number)
        raise ProcessLookupError

    monkeypatch.setattr(os, "killpg", gone)
    with pytest.raises(ScriptFailed, match="did not end in time and was killed"):
        run(SLEEP, {}, Deadline.after(0.1))


def test_a_fence_that_cannot_be_ended_is_none_and_no_hindrance(spared: list[int], tmp_path: Path) -> None:
    world, proxy = failovers.dead_world()
    plain = failovers.parts
    with pytest.MonkeyPatch.context() as patched:
        hooks = Scripts({"fence": SLEEP}, 0.2)
        patched.setattr(failovers, "parts", lambda *a, **k: replace(plain(*a, **k), hooks=hooks))
        failovers.start(world, proxy, tmp_path / "op.jsonl", [])
    failovers.assert_moved(world, proxy, "not fenced")
    assert len(spared) == 1
