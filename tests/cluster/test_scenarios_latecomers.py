"""A server that is silent when a switchover is planned and answers in its midst keeps nobody closed."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from proxyroute.journal import read
from tests.support.death import steps
from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.scene import assert_order, configured, switched

FLAVOURS = ("mysql",)
CONT = "import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGCONT)"


def _wakes(node: Node) -> list[str]:
    """A script that lets a stopped server go on: run as address_down, right before newcomers are held."""
    assert node.process is not None
    return [sys.executable, "-c", CONT, str(node.process.pid)]


@pytest.mark.parametrize("takes_writes", [False, True])
def test_one_with_transactions_of_its_own_that_wakes_up_in_the_midst_keeps_nobody_closed(
    start_lab: Callable[..., Lab], takes_writes: bool
) -> None:
    with start_lab(3, policy={"prove": "3s", "settle": "5s"}) as lab:
        old, new, late = lab.cluster
        old.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
        lab.cluster.await_synced()
        late.sql("INSERT INTO app.t VALUES (77)")
        if takes_writes:  # an old primary, as it may come back
            late.sql("STOP SLAVE")
            late.sql("RESET SLAVE ALL")
            late.accept_writes()
        late.sigstop()
        with configured(lab, scripts={"timeout": "5s", "address_down": _wakes(late)}):
            value = switched(lab, "--to", new.name, code=7)

        assert lab.cluster.writable == (new.name,)
        assert_order(lab, new.name, aside=[late.name])
        operation = value["result"]["operation"]
        assert steps(lab, operation)["look again"] == "nobody is back"
        (file,) = (lab.folder / "state").rglob(f"{operation}.jsonl")
        told = " ".join(r["text"] for r in read(file) if r["kind"] == "note")
        assert f"{late.name} was silent when this began, and has {late.own_gtids}" in told
        assert (f"{late.name}, which was silent, came back taking writes and was closed" in told) is takes_writes
        assert f"proxyroute rejoin {late.name}" in told
        assert any(late.name in left for left in value["result"]["leftovers"])
        assert [row["id"] for row in late.sql("SELECT id FROM app.t")] == [77], "what it has stays where it is"
        assert [row["id"] for row in new.sql("SELECT id FROM app.t")] == []
