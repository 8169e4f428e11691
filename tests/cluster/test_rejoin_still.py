"""Somebody writes past read_only while a server rejoins: what he has been told is there is lost with no history."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator

import pymysql
import pytest

from tests.support.broken import archive_of, await_equal, diverge, ready
from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.process import is_stopped
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")
FULL = ("mariadb-11.8",)
LATE = "INSERT INTO app.u VALUES (4711, 'late', 1)"
WAITS = "SELECT id FROM information_schema.processlist WHERE info LIKE 'INSERT INTO app.u VALUES (4711%%'"


@contextlib.contextmanager
def rejoining(lab: Lab, old: Node, method: str, point: str) -> Iterator[dict[str, int]]:
    """Runs a rejoin that stands still before ``point`` for the ``with`` block; its exit status is there afterwards."""
    argv = lab.command("rejoin", old.name, "--method", method, "--yes")
    environment = {**os.environ, "PROXYROUTE_FAULT": f"engine/{point}:before:1@STOP"}
    ended: dict[str, int] = {}
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as running:
        until(lambda: is_stopped(running.pid) or running.poll() is not None, f"the rejoin to reach {point}", 60)
        assert running.poll() is None, running.communicate()
        yield ended
        os.kill(running.pid, signal.SIGCONT)
        said, _ = running.communicate(timeout=100)
        ended["status"] = running.returncode
    print(said)


@pytest.mark.parametrize(
    ("way", "point"),
    [("dump", "rejoin.drop_schema"), ("copy", {"copy": "rejoin.copy", "clone": "rejoin.set_position"})],
)
def test_what_is_written_after_the_archive_is_archived_before_it_goes(
    start_lab: Callable[..., Lab], way: str, point: str | dict[str, str]
) -> None:
    with start_lab(3, policy={"prove": "3s"}) as lab:
        ready(lab, hosts=way == "copy")
        for node in lab.cluster if way == "copy" else ():
            node.let_copy()
        point = point if isinstance(point, str) else point[lab.cluster.primary.physical]
        old, new = diverge(lab)
        with rejoining(lab, old, "reseed", point) as ended:
            old.sql(LATE)
        assert ended["status"] == 0
        await_equal(old, new)
        assert old.sql("SELECT * FROM app.u WHERE a=4711") == []
        assert "4711" in "".join(file.read_text() for file in archive_of(lab).parent.rglob("decoded.sql"))


@pytest.mark.mariadb_only("nobody writes past super_read_only: whoever tries is refused at once, and never waits")
@pytest.mark.parametrize(
    ("method", "point"), [("flashback", "rejoin.reset"), ("reseed", "rejoin.stop_server")], ids=["undo", "copy"]
)
def test_nobody_is_told_of_a_row_that_goes_with_a_history(
    method: str, point: str, start_lab: Callable[..., Lab]
) -> None:
    """From the last look to the end of a history whoever writes waits; then he is told what is true."""
    with start_lab(3, policy={"prove": "3s"}) as lab:
        ready(lab, hosts=True)
        old, _ = diverge(lab)
        told: list[bool] = []

        def write() -> None:
            try:
                old.sql(LATE)
            except pymysql.err.Error:
                told.append(False)
            else:
                told.append(True)

        writer = threading.Thread(target=write)
        with rejoining(lab, old, method, point) as ended:
            writer.start()
            until(lambda: old.sql(WAITS), "the writer to wait")
            assert told == []
        writer.join(30)
        there = old.sql("SELECT a FROM app.u WHERE a=4711") != []
        assert told == [there]
        # there it is a transaction of the new history, for everybody to see: such a server does not follow
        assert ended["status"] == (5 if there else 0)
        assert there is (method == "flashback")
