"""The demo's supervisor starts again what has ended, and says so when it cannot."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.supervisor import Service, Supervisor
from tests.support.wait import until


class Child:
    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> int:
        argv = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        self.processes.append(subprocess.Popen(argv, stdin=subprocess.PIPE))
        return self.processes[-1].pid

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def test_what_is_killed_is_started_again_each_time() -> None:
    child = Child()
    service = Service("child", child.start(), child.start, lambda: None)
    try:
        with Supervisor(service):
            for number in (1, 2):
                child.processes[-1].kill()
                until(lambda n=number: len(service.starts) == n, "the child to be started again")
                assert service.pid == child.processes[-1].pid
        assert child.processes[-1].poll() is None
    finally:
        child.end()


def test_what_cannot_be_started_again_is_raised_at_the_end() -> None:
    child = Child()
    first = child.start()

    def fail() -> int:
        raise RuntimeError("it does not start any more")

    def let_it_die() -> None:
        with Supervisor(Service("child", first, fail, lambda: None)) as supervisor:
            child.processes[-1].kill()
            until(lambda: supervisor.failed, "the supervisor to give up")

    try:
        with pytest.raises(RuntimeError, match="does not start any more"):
            let_it_die()
    finally:
        child.end()
