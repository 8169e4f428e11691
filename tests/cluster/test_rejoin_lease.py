"""A rejoin that takes long keeps nobody from moving the primary: the lease is free while it reads, undoes and waits."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.broken import archive_of, await_equal, diverge, ready
from tests.support.death import failed_over, table_locked
from tests.support.engines import stopped_at
from tests.support.lab import Lab, printed_object
from tests.support.scene import assert_order
from tests.support.wait import until

FLAVOURS = ("mysql",)


@pytest.fixture
def lab(start_lab: Callable[..., Lab]) -> Iterator[Lab]:
    with start_lab(3) as started:
        ready(started)
        yield started


def ended(engine: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    """Lets an engine that is stopped go on; returns how it ended and what it printed."""
    os.kill(engine.pid, signal.SIGCONT)
    said, _ = engine.communicate(timeout=90)
    return printed_object(subprocess.CompletedProcess(engine.args, engine.returncode, said, ""))


def test_a_failover_is_not_kept_waiting_while_a_binary_log_is_archived(lab: Lab) -> None:
    """What was decided below the old one does not count any more; that is no refusal, for nobody has to decide."""
    old, new = diverge(lab)
    with stopped_at(lab, "archive.fetch:before", ("rejoin", old.name, "--json")) as engine:
        new.kill9()
        failed_over(lab, "--force", code=7)
        status, value = ended(engine)
    assert status == 3, value
    assert f"{lab.cluster.primary.name} has become the primary meanwhile" in value["error"]["text"]
    assert lab.json("status")[1]["not_rejoined"] == []
    status, value = lab.json("rejoin", old.name)
    assert (status, {f["code"] for f in value["error"]["findings"]}) == (3, {"rejoin.errant"}), value
    assert archive_of(lab).is_dir()


@pytest.mark.mariadb_only("rows are not undone there: there is no flashback")
def test_the_lease_is_free_while_rows_are_undone(lab: Lab) -> None:
    old, new = diverge(lab)
    words = ("rejoin", old.name, "--method", "flashback", "--yes", "--json")
    with stopped_at(lab, "rejoin.undo:before", words) as engine:
        told = lab.run("publish")
        assert told.returncode == 0, told.stdout + told.stderr
        status, value = ended(engine)
    assert (status, value["verdict"]) == (0, "PROVEN"), value
    await_equal(old, new)
    assert_order(lab, new.name)


def test_the_lease_is_free_while_new_data_catch_up(lab: Lab) -> None:
    old, new = diverge(lab)
    words = ("rejoin", old.name, "--method", "reseed", "--yes", "--json")
    with stopped_at(lab, "mariadb.change_source:before", words) as engine:
        with table_locked(old, "app.t"):
            new.sql("REPLACE INTO app.t VALUES (5000, 'waits')")
            os.kill(engine.pid, signal.SIGCONT)
            until(lambda: lab.run("publish").returncode == 0, "the lease to be free", 40)
            assert engine.poll() is None, "it still waits"
        status, value = ended(engine)
    assert (status, value["verdict"]) == (0, "PROVEN"), value
    await_equal(old, new)
    assert_order(lab, new.name)
