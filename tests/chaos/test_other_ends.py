"""Other ways to be interrupted than SIGKILL: Ctrl-C, SIGTERM, a process that hangs, everybody dead at one moment."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from proxyroute import journal
from tests.chaos.world import assert_legal, await_closed, limits_of
from tests.support.lab import Lab
from tests.support.load import Load, create_table, read_rows
from tests.support.mariadb import LocalCluster
from tests.support.verdict import judge
from tests.support.wait import until

FLAVOURS = ("mysql",)
SETTINGS = {"freeze_budget": "1s", "settle": "3s"}
BEFORE_COMMIT = "engine/mariadb.block_writes:after"
AFTER_COMMIT = "engine/mariadb.accept_writes:after"


@pytest.fixture(scope="module")
def lab(servers: type[LocalCluster]) -> Iterator[Lab]:
    with Lab.start(3, policy=SETTINGS, provider=servers) as lab:
        create_table(lab.cluster.primary)
        lab.cluster.await_synced()
        yield lab


def _outcome(lab: Lab) -> str | None:
    files = journal.journals(lab.folder / "state" / "demo" / "journal")
    return journal.outcome(journal.read(files[-1]))


@pytest.mark.parametrize(
    ("fault", "status", "ended", "moved"),
    [
        (f"{BEFORE_COMMIT}@INT", 4, "aborted", False),
        pytest.param(f"{AFTER_COMMIT}@INT", 130, "done", True, marks=pytest.mark.full),
        pytest.param(f"{BEFORE_COMMIT}@TERM", -signal.SIGTERM, "aborted", False, marks=pytest.mark.full),
        (f"{AFTER_COMMIT}@TERM", -signal.SIGTERM, "done", True),
    ],
)
def test_signals(lab: Lab, fault: str, status: int, ended: str, moved: bool) -> None:
    limits, old = limits_of(lab), lab.cluster.primary
    # whoever runs the tests in the background has SIGINT ignored, and so would the engine have it
    argv = ["env", "--default-signal=INT", f"PROXYROUTE_FAULT={fault}", *lab.command("switchover", "--yes")]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    await_closed(lab)
    assert _outcome(lab) == ended
    assert (assert_legal(lab, limits) is not old) is moved


@pytest.mark.parametrize(
    ("point", "moved"), [(BEFORE_COMMIT, False), pytest.param(AFTER_COMMIT, True, marks=pytest.mark.full)]
)
def test_an_engine_that_hangs_is_ended_by_its_guard(lab: Lab, point: str, moved: bool) -> None:
    """SIGSTOP while writes wait: nobody is left to undo but the guard, and it may not act beside a living engine."""
    limits, old = limits_of(lab), lab.cluster.primary
    with Load.start(lab.write, writers=2, rate=25) as load:
        done = lab.run("switchover", "--yes", environment={"PROXYROUTE_FAULT": f"{point}@STOP"})
        assert done.returncode == -signal.SIGKILL
        await_closed(lab)
        load.await_more(10)
        records = load.stop()
    assert (assert_legal(lab, limits) is not old) is moved
    lab.cluster.await_synced()
    verdict = judge(records, read_rows(lab.cluster), lab.cluster.primary.name)
    assert not verdict.lost, verdict
    assert not verdict.diverged, verdict


def test_everybody_dead_between_open_and_close_and_nobody_heals_for_long(lab: Lab) -> None:
    """The old primary closes itself: its waiting writes never get through, and heal goes forward much later."""
    limits, old = limits_of(lab), lab.cluster.primary
    with Load.start(lab.write, writers=4, rate=25) as load:
        lab.run(
            "switchover",
            "--yes",
            environment={"PROXYROUTE_FAULT": f"{AFTER_COMMIT},guard/guard.take_over:before"},
        )
        await_closed(lab)
        assert len(lab.cluster.writable) == 2, "the new primary is open, and the old one holds writes back"
        until(lambda: not old.is_writable(), "the old primary to close itself")
        assert lab.run("heal").returncode == 0
        load.await_more(10)
        records = load.stop()
    assert assert_legal(lab, limits) is not old
    lab.cluster.await_synced()
    verdict = judge(records, read_rows(lab.cluster), lab.cluster.primary.name)
    assert not verdict.lost, verdict
    assert not verdict.diverged, verdict
    assert not verdict.unexplained, verdict


def test_a_second_operation_is_refused_while_one_hangs(lab: Lab) -> None:
    limits = limits_of(lab)
    first = subprocess.Popen(
        lab.command("switchover", "--yes"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PROXYROUTE_FAULT": "engine/journal:9@STOP"},
    )
    try:
        until(lambda: _state(first.pid) == "T", "the first one to stop")
        second = lab.run("switchover", "--yes")
        assert second.returncode == 6, second.stdout + second.stderr
        assert "busy" in second.stdout + second.stderr
    finally:
        first.send_signal(signal.SIGCONT)
        first.wait(30)
    await_closed(lab)
    assert_legal(lab, limits)


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0]
