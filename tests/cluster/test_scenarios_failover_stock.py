"""A failover among servers whose histories differ: what the election leaves out stands in nobody's way later."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proxyroute.journal import read
from tests.support.death import LOSSLESS, evidence, failed_over, remembered, steps, waits_for_acknowledgements
from tests.support.lab import Lab
from tests.support.scene import assert_order, beat, configured
from tests.support.wait import until

FLAVOURS = ("mysql",)


def test_an_errant_sibling_and_a_seeded_candidate_are_no_hindrance_to_a_lossless_failover(
    start_lab: Callable[..., Lab],
) -> None:
    """The candidate's records begin after a server that the others know, and one of these has a row of its own."""
    with start_lab(3, semi_sync=True, options=LOSSLESS, policy={"prove": "3s", "settle": "10s"}) as lab:
        old, new, errant = lab.cluster
        old.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
        another = old.write_as_another("INSERT INTO app.t VALUES (1)")
        new.forget_before(lab.cluster.await_synced())
        until(new.replicates, f"{new.name} to follow again")
        old.sql("INSERT INTO app.t VALUES (2)")
        lab.cluster.await_synced()
        assert another not in new.recorded()
        assert another in errant.recorded()
        until(lambda: waits_for_acknowledgements(lab.cluster), "acknowledgements")
        remembered(lab)
        old.kill9()
        errant.sql("INSERT INTO app.t VALUES (3)")

        value = failed_over(lab, code=7)
        assert value["plan"]["plan"]["candidate"] == new.name
        assert value["plan"]["election"]["lossless"] is True
        said = steps(lab, value["result"]["operation"])
        assert said["compare"] == "it has everything that was received"
        assert "PROVEN nothing that it acknowledged is lost" in evidence(value)
        assert beat(lab) == new.name
        assert [row["id"] for row in new.sql("SELECT id FROM app.t ORDER BY id")] == [1, 2]
        # its own row is kept where it is, for a person to decide
        assert [row["id"] for row in errant.sql("SELECT id FROM app.t ORDER BY id")] == [1, 2, 3]
        assert any(errant.name in left for left in value["result"]["leftovers"])
        (file,) = (lab.folder / "state").rglob(f"{value['result']['operation']}.jsonl")
        (commit,) = [r for r in read(file) if r["kind"] == "commit"]
        assert errant.own_gtids not in commit["goal"]["text"]


STOP = "import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGSTOP); sys.exit(3)"


@pytest.mark.full  # undoing waits for the hung one
def test_an_acknowledger_that_hangs_after_the_election_ends_a_lossless_failover(start_lab: Callable[..., Lab]) -> None:
    """It may have acknowledged what nobody else has: a hung server still acknowledged until a moment ago."""
    with start_lab(3, semi_sync=True, options=LOSSLESS, policy={"prove": "3s", "settle": "10s"}) as lab:
        old, new, hung = lab.cluster
        until(lambda: waits_for_acknowledgements(lab.cluster), "acknowledgements")
        remembered(lab)
        pid = Path(str(hung.value("@@pid_file"))).read_text().strip()
        old.kill9()
        # a fence runs between the election and the look at what was received; this one is none, and hangs db3
        fence = {"timeout": "2s", "fence": [sys.executable, "-c", STOP, pid]}
        with configured(lab, scripts=fence):
            status, value = lab.json("failover", "--yes", "--to", new.name)
        assert (status, value["error"]["kind"]) == (4, "Aborted"), value
        assert (
            f"{hung.name} may have acknowledged what nobody else has, and has fallen silent" in value["error"]["text"]
        )
        hung.sigcont()
        assert lab.cluster.writable == ()
        assert lab.run("heal").returncode == 0  # the receiver that could not be started again meanwhile
        failed_over(lab, "--to", new.name, code=7)
        assert_order(lab, new.name)
