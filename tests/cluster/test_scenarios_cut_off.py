"""The engine's host is cut off while writes are blocked: they go on within a stated time, and never on two servers."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from tests.chaos.world import await_closed
from tests.support import netns
from tests.support.accounts import APPLICATION
from tests.support.engines import stopped_at
from tests.support.lab import processes_of, run_to_end
from tests.support.mariadb import LocalCluster, Node
from tests.support.netlab import NetLab
from tests.support.process import is_stopped
from tests.support.scene import assert_order, beat, configured, other
from tests.support.wait import until

FLAVOURS = ("mysql",)
BUDGET = 2
LOCKED = BUDGET + 1
"""Seconds after which the server itself ends a lock of which it hears nothing any more."""
SLACK = 2.0
HELD = 0.25 + BUDGET + 4
"""Seconds for which a proxy holds newcomers, whatever becomes of the engine."""


@pytest.fixture(scope="module")
def net(servers: type[LocalCluster]) -> Iterator[NetLab]:
    try:
        netns.require()
    except netns.Unavailable as reason:
        pytest.skip(str(reason))
    policy = {"prove": "2s", "settle": "4s", "undo": "5s", "freeze_budget": f"{BUDGET}s"}
    with NetLab.start(3, policy=policy, proxies=1, provider=servers) as lab:
        yield lab


def takes_writes(node: Node) -> bool:
    """Asked as an ordinary account, for a session that may write everywhere is in the way of a switchover."""
    try:
        return not node.value("@@global.read_only", APPLICATION)
    except pymysql.err.OperationalError:  # its connections are limited: only a privileged one gets in
        return node.is_writable()


@contextlib.contextmanager
def never_two(cluster: LocalCluster) -> Iterator[None]:
    """For a ``with`` block: looks at every server all the time, and fails when two accept writes at once."""
    seen, end = set[tuple[str, ...]](), threading.Event()

    def look() -> None:
        while not end.is_set():
            seen.add(tuple(node.name for node in cluster if takes_writes(node)))
            time.sleep(0.005)

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield
    finally:
        end.set()
        watching.join()
    assert max(len(names) for names in seen) == 1, seen


@contextlib.contextmanager
def cut_off_at(net: NetLab, point: str, target: str) -> Iterator[float]:
    """A switchover whose engine, with its guard, is cut off from everybody at ``point``; yields when that was."""
    with stopped_at(net, point, ("switchover", "--yes", "--to", target)) as engine:
        net.cut("engine1")
        cut = time.monotonic()
        guards = [pid for pid in stopped(net) if pid != engine.pid]
        assert guards, "there is a guard, and it is cut off as well"
        for pid in (engine.pid, *guards):
            os.kill(pid, signal.SIGCONT)
        yield cut
        net.mend()


def stopped(net: NetLab) -> list[int]:
    return [pid for pid in processes_of(net.folder) if is_stopped(pid)]


def settled(net: NetLab, primary: str) -> None:
    """Everything is in order, after what was left to do was done."""
    await_closed(net, 90)
    until(lambda: run_to_end(net.command("heal")).returncode in (0, 7), "nothing to be open", 60)
    with net.inside("client1"):
        assert_order(net, primary)


def go_on(net: NetLab, cut: float, name: str) -> None:
    """Writes of somebody who was connected, and of newcomers, arrive on ``name`` in time."""
    with contextlib.closing(net.connect("client1", net.cluster[name].address)) as session:
        for statement in ("CREATE TABLE IF NOT EXISTS app.goes_on (id INT)", "INSERT INTO app.goes_on VALUES (1)"):
            session.cursor().execute(statement)
    assert time.monotonic() - cut < LOCKED + SLACK
    with net.inside("client1"):
        assert beat(net) == name
    assert time.monotonic() - cut < HELD + SLACK
    assert net.cluster.writable == (name,)


STAGES = pytest.mark.mariadb_only("BACKUP STAGE is a statement of MariaDB's: the other lock is taken instead")


@pytest.mark.parametrize(
    "policy", [{}, pytest.param({"freeze": "backup_stage"}, marks=STAGES), {"order": "read_only_first"}], ids=str
)
def test_cut_off_after_the_freeze_the_server_lets_writes_go_on_by_itself(net: NetLab, policy: dict[str, Any]) -> None:
    old, point = net.cluster.primary.name, "mariadb.block_writes:after"
    if "freeze" in policy:
        point += ":2"  # the second of its two statements
    with never_two(net.cluster):
        with configured(net, switchover=policy), cut_off_at(net, point, other(net)) as cut:
            go_on(net, cut, old)
        settled(net, old)


def test_cut_off_between_the_commit_and_the_arming_writes_go_on_and_what_arrives_late_does_nothing(
    net: NetLab,
) -> None:
    """The statement that arms waits in the engine's kernel, and is sent again when the cable is back."""
    old = net.cluster.primary.name
    with never_two(net.cluster):
        with cut_off_at(net, "mariadb.arm:before", other(net)) as cut:
            go_on(net, cut, old)
        settled(net, old)


def test_cut_off_when_it_is_armed_nobody_takes_writes_until_the_new_primary_opens(net: NetLab) -> None:
    """That is what the commit means: the old one refuses them, and it is for whoever heals to open the new one."""
    old, new = net.cluster.primary, other(net)
    with never_two(net.cluster):
        with cut_off_at(net, "mariadb.accept_writes:before", new) as cut:
            until(lambda: not old.is_writable(), f"{old.name} to refuse writes", LOCKED + SLACK)
            assert time.monotonic() - cut < LOCKED + SLACK
            assert net.cluster.writable == ()
        settled(net, new)
