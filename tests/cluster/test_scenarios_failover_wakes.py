"""A primary that hung wakes up in the midst of a failover, and feeds a replica whose receiver could not be stopped.

What it gives to that one may be acknowledged, and nobody else ever gets it. So the new primary has nothing of it, one
server takes writes in the end, the report claims no more than it can, and who has something of its own is seen.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.accounts import ENGINE
from tests.support.broken import ready, undone
from tests.support.death import (
    LOSSLESS,
    evidence,
    remembered,
    steps,
    table_locked,
    waits_for_acknowledgements,
)
from tests.support.engines import await_stopped, go_on, stopped_at
from tests.support.lab import CLUSTER_NAME, Lab, printed_object
from tests.support.load import create_table
from tests.support.mariadb import LocalCluster, Node
from tests.support.scene import assert_order, configured
from tests.support.wait import until

FLAVOURS = ("mysql",)
POLICY = {"prove": "2s", "settle": "4s", "undo": "4s"}
SITE = {"n": 3, "more": {"failover": {"policy": "most_advanced"}}, "policy": POLICY}
UNFORCED = ("failover", "--yes", "--json")
FORCED = (*UNFORCED, "--force")
HOLD = """#!/bin/sh
touch "{folder}/here"
until [ -e "{folder}/go" ]; do sleep 0.02; done
exit 1
"""


@dataclass
class Scene:
    """Who is who; ``late`` is what the old primary wrote when it was awake again."""

    lab: Lab
    old: Node
    new: Node
    fed: Node
    late: list[int] = field(default_factory=list)

    def wakes(self, number: int = 3) -> None:
        """Both that hung go on, and the old primary gives the replica what a client writes there directly."""
        self.fed.sigcont()
        self.old.sigcont()
        self.writes(number)

    def writes(self, number: int = 3) -> None:
        for n in range(1000, 1000 + number):
            self.old.sql("INSERT INTO app.load_rows VALUES (%s, 1, 1)", (n,))
            self.late.append(n)
        until(lambda: self.late_on(self.fed) == number, f"{self.fed.name} to get what {self.old.name} wrote")

    def late_on(self, node: Node) -> int:
        return int(node.value("(SELECT COUNT(*) FROM app.load_rows WHERE writer >= 1000)"))

    def assert_nothing_of_it_is_there(self) -> None:
        """One server takes writes, it has nothing of what came late, and who has it does not follow it."""
        assert self.lab.cluster.writable == (self.new.name,)
        assert self.late_on(self.new) == 0
        assert self.late_on(self.fed) == len(self.late), "it is kept where it is"
        assert self.fed.source() == self.old.address, "it has what the new one lacks"

    def end(self) -> None:
        """What is left to do is told; both have something of their own, and follow once that is undone."""
        for node in (self.fed, self.old):
            status, value = self.lab.json("rejoin", node.name)
            assert (status, [f["code"] for f in value["error"]["findings"]]) == (3, ["rejoin.errant"]), value
            undone(self.lab, node)
        assert self.lab.run("heal").returncode in (0, 7)
        assert_order(self.lab, self.new.name)
        assert {self.late_on(node) for node in self.lab.cluster} == {0}


def scene_of(lab: Lab) -> Scene:
    if not (lab.folder / "rejoin.password").exists():
        ready(lab, hosts=True)
    old = lab.cluster.primary
    new, fed = (node for node in lab.cluster if node is not old)
    create_table(old)
    lab.cluster.await_synced()
    remembered(lab)
    return Scene(lab, old, new, fed)


@contextlib.contextmanager
def hung(scene: Scene, *words: str, then: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """The primary hangs, a failover begins, and before receivers are stopped the other replica hangs as well."""
    scene.old.sigstop()
    try:
        command = (*words, "--to", scene.new.name)
        with stopped_at(scene.lab, "haproxy.runtime:before", command, then=then) as engine:
            scene.fed.sigstop()
            go_on(engine)
            yield engine
    finally:
        scene.fed.sigcont()
        scene.old.sigcont()


@contextlib.contextmanager
def hung_while_the_candidate_applies(
    scene: Scene, *words: str
) -> Iterator[tuple[subprocess.Popen[str], contextlib.ExitStack]]:
    """As :func:`hung`; what the candidate has received it can apply once the stack is closed: there it waits."""
    with contextlib.ExitStack() as lock:
        lock.enter_context(table_locked(scene.new))
        scene.old.sql("INSERT INTO app.load_rows VALUES (1, 1, 1)")
        goal = scene.old.gtid()
        until(lambda: scene.new.replication()["Gtid_IO_Pos"] == goal, f"{scene.new.name} to have received it")
        with hung(scene, *words) as engine:
            until(lambda: begun(scene.lab, "apply what was received"), "the failover to wait for the applier", 60)
            yield engine, lock


def ended(engine: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    said, _ = engine.communicate(timeout=100)
    text = said[said.index("{") :]  # what it warns of comes before
    return printed_object(subprocess.CompletedProcess(engine.args, engine.returncode, text, ""))


def begun(lab: Lab, step: str) -> bool:
    files = sorted((lab.folder / "state").rglob("*.jsonl"), key=lambda f: f.stat().st_mtime)
    return bool(files) and f'"name":"{step}"' in files[-1].read_text().replace('": "', '":"')


@contextlib.contextmanager
def held_before_the_commit(scene: Scene, policy: str = "most_advanced") -> Iterator[Path]:
    """For a ``with`` block a failover waits between the comparison and its commit, where it asks a host that hangs.

    Yields a folder: ``here`` is in it once it waits, ``go`` lets it go on.
    """
    folder = scene.lab.folder / "hold"
    folder.mkdir()
    script = folder / "shell"
    script.write_text(HOLD.format(folder=folder))
    script.chmod(0o755)
    servers = yaml.safe_load(scene.lab.config.read_text())["clusters"][CLUSTER_NAME]["servers"]
    name = scene.old.name
    mine = {**servers, name: {**servers[name], "host": {**servers[name]["host"], "shell": [str(script)]}}}
    failover = {"policy": policy, "dead_binlog": "apply"}
    with configured(scene.lab, servers=mine, failover=failover):
        yield folder


# -- nobody waits for acknowledgements ----------------------------------------------------------------------------


@pytest.mark.full
def test_what_it_got_before_the_comparison_is_missed_and_told(site: Lab) -> None:
    scene = scene_of(site)
    with hung_while_the_candidate_applies(scene, *FORCED) as (engine, lock):
        scene.wakes()
        lock.close()
        status, value = ended(engine)
    assert status == 7, value
    said = steps(site, value["result"]["operation"])["compare"]
    assert f"{scene.new.name} lacks {scene.old.own_gtids}" in said, said
    assert value["verdict"] != "PROVEN"
    scene.assert_nothing_of_it_is_there()
    assert any(scene.fed.name in left for left in value["result"]["leftovers"]), value["result"]
    scene.end()


@pytest.mark.full
def test_what_it_got_between_the_comparison_and_the_commit_keeps_nobody_from_opening_and_is_told(site: Lab) -> None:
    scene = scene_of(site)
    with held_before_the_commit(scene) as hold, hung(scene, *FORCED) as engine:
        until(lambda: (hold / "here").exists(), "the failover to come to what nobody received", 60)
        scene.wakes()
        (hold / "go").touch()
        status, value = ended(engine)
    assert status == 7, value
    seen = evidence(value)
    assert f"{scene.fed.name} has received {scene.old.own_gtids}" in seen, seen
    assert f"from {scene.old.name} since, and may have acknowledged it" in seen, seen
    assert value["verdict"] != "PROVEN"
    assert f"{scene.old.name} is back and was closed" in steps(site, value["result"]["operation"])["open"]
    scene.assert_nothing_of_it_is_there()
    scene.end()


@pytest.mark.full
def test_what_it_got_in_the_last_moment_before_another_one_opens_is_seen_afterwards(site: Lab) -> None:
    scene = scene_of(site)
    with hung(scene, *FORCED, then=("mariadb.accept_writes:before",)) as engine:
        await_stopped(engine, "the opening")
        scene.wakes()
        go_on(engine)
        status, value = ended(engine)
    assert status == 7, value
    assert value["verdict"] == "NOT PROVEN", value["result"]["proof"]
    assert f"NOT PROVEN has nothing that {scene.new.name} lacks" in evidence(value)
    records = site.json("show", value["result"]["operation"])[1]["records"]
    assert any("is back and was closed" in r["text"] for r in records if r["kind"] == "note"), records
    scene.assert_nothing_of_it_is_there()
    scene.end()


# -- it waits for acknowledgements --------------------------------------------------------------------------------


@contextlib.contextmanager
def waiting(servers: type[LocalCluster], *, by_all: bool = True) -> Iterator[Scene]:
    """A site on which nothing may be lost; its primary waits for acknowledgements, of the new one or ``by_all``."""
    with Lab.start(3, semi_sync=True, options=LOSSLESS, policy=POLICY, provider=servers) as lab:
        scene = scene_of(lab)
        if not by_all:
            for statement in ("STOP SLAVE", "SET GLOBAL rpl_semi_sync_slave_enabled=0", "START SLAVE"):
                scene.fed.sql(statement)
            until(lambda: scene.old.acknowledging() == 1, "one to acknowledge")
        until(lambda: waits_for_acknowledgements(lab.cluster), "somebody to acknowledge")
        remembered(lab)
        yield scene


@contextlib.contextmanager
def unstoppable(node: Node) -> Iterator[None]:
    """For a ``with`` block the engine may not stop the receiver of ``node``, which answers all the same."""
    right = f"{node.replica_privilege} ON *.* {{}} '{ENGINE.user}'@'%'"
    node.sql(f"SET STATEMENT sql_log_bin=0 FOR REVOKE {right.format('FROM')}")
    try:
        yield
    finally:
        node.sql(f"SET STATEMENT sql_log_bin=0 FOR GRANT {right.format('TO')}")


@pytest.mark.full
def test_a_replica_that_goes_on_receiving_ends_a_lossless_failover_and_the_one_that_wakes_goes_on(
    servers: type[LocalCluster],
) -> None:
    with waiting(servers) as scene:
        with unstoppable(scene.fed):
            scene.old.sigstop()
            status, value = scene.lab.json("failover", "--yes", "--to", scene.new.name)
        assert (status, value["error"]["kind"]) == (4, "Aborted"), value
        assert f"{scene.fed.name} goes on receiving" in value["error"]["text"]
        assert f"stop {scene.fed.name}, or fence {scene.old.name}" in value["error"]["text"]
        scene.old.sigcont()
        scene.writes()
        assert_order(scene.lab, scene.old.name)
        assert {scene.late_on(node) for node in scene.lab.cluster} == {3}


@pytest.mark.full
def test_what_a_replica_that_could_not_be_stopped_acknowledged_is_told_by_a_failover_that_was_forced(
    servers: type[LocalCluster],
) -> None:
    """The client was told that its row is safe. It is on a replica alone, and nobody claims that nothing is lost."""
    with waiting(servers) as scene:
        with held_before_the_commit(scene, "lossless") as hold, unstoppable(scene.fed):
            scene.old.sigstop()
            command = (*FORCED, "--to", scene.new.name)
            argv = scene.lab.command(*command)
            with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as engine:
                until(lambda: (hold / "here").exists(), "the failover to come to what nobody received", 60)
                scene.wakes()
                (hold / "go").touch()
                status, value = ended(engine)
        assert status == 7, value
        assert value["verdict"] != "PROVEN"
        assert f"{scene.fed.name} goes on receiving" in evidence(value)
        assert f"{scene.fed.name} has received {scene.old.own_gtids}" in evidence(value)
        scene.assert_nothing_of_it_is_there()
        scene.end()


@pytest.mark.full
def test_what_a_replica_got_that_acknowledges_nothing_ends_a_lossless_failover_and_the_one_that_wakes_goes_on(
    servers: type[LocalCluster],
) -> None:
    """It got more before the comparison, and the candidate lacks that; the old primary has it, and is back."""
    with waiting(servers, by_all=False) as scene:
        with hung_while_the_candidate_applies(scene, *UNFORCED) as (engine, lock), ThreadPoolExecutor(1) as pool:
            scene.fed.sigcont()
            scene.old.sigcont()
            written = pool.submit(scene.writes, 1)
            until(lambda: scene.late_on(scene.fed) == 1, f"{scene.fed.name} to get what nobody acknowledges")
            assert not written.done()
            lock.close()
            status, value = ended(engine)
            assert (status, value["error"]["kind"]) == (4, "Aborted"), value
            assert f"{scene.new.name} lacks {scene.old.own_gtids}" in value["error"]["text"]
            written.result(60)
        assert_order(scene.lab, scene.old.name)
        assert {scene.late_on(node) for node in scene.lab.cluster} == {1}
