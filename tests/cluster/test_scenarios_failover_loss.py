"""What a failover says may be lost, against what really is: the books of the clients, and the archive afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.broken import archived_rows, ready
from tests.support.death import count, evidence, failed_over, no_failover, remembered, semi_sync
from tests.support.lab import Lab
from tests.support.load import Load, Records, RowId, create_table
from tests.support.mariadb import Node
from tests.support.scene import assert_order, configured
from tests.support.wait import until

ADVANCED = {"policy": "most_advanced"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    options = {"init_rpl_role": "MASTER"}
    with Lab.start(3, semi_sync=True, options=options, policy={"prove": "3s", "settle": "10s"}) as lab:
        ready(lab)
        yield lab


@pytest.fixture
def site(shared: Lab) -> Iterator[Lab]:
    yield shared
    assert_order(shared)


def degraded(site: Lab, old: Node) -> list[Node]:
    """The primary no longer waits for acknowledgements, and nobody receives what it writes; returns the replicas."""
    replicas = [node for node in site.cluster if node is not old]
    old.sql("SET GLOBAL rpl_semi_sync_master_enabled=1")
    old.sql("SET GLOBAL rpl_semi_sync_master_timeout=100")
    for node in replicas:
        node.sql("STOP SLAVE IO_THREAD")
    old.sql("INSERT INTO app.load_rows VALUES (1000, 1, 1)")
    until(lambda: semi_sync(old)["master_status"] == "OFF", "the primary to give up waiting")
    return replicas


def die(old: Node, replicas: list[Node]) -> None:
    old.kill9()
    for node in replicas:
        node.sql("START SLAVE IO_THREAD")  # it meets a dead primary: a witness


def lost(records: Records, new: Node) -> set[RowId]:
    there = {(row["writer"], row["n"]) for row in new.sql("SELECT writer, n FROM app.load_rows")}
    return {(write.writer, write.n) for write in records.acknowledged} - there


def counted(value: dict[str, Any]) -> int:
    """Returns how many transactions the report says may be lost."""
    found = re.search(r"\((\d+) at the most\)", evidence(value))
    assert found, evidence(value)
    return int(found[1])


def assert_kept(site: Lab, old: Node, missing: set[RowId]) -> None:
    """Once the old primary is back every lost row is in the archive; undone, it follows."""
    old.start()
    assert site.run("rejoin", old.name).returncode == 3
    assert missing <= archived_rows(site), f"neither there nor kept: {sorted(missing - archived_rows(site))}"
    back = site.run("rejoin", old.name, "--method", "flashback", "--yes")
    assert back.returncode == 0, back.stdout + back.stderr
    assert count(old) == count(site.cluster.primary)


def test_degraded_it_is_refused_under_lossless_and_the_loss_is_counted_otherwise(site: Lab) -> None:
    """Nothing was written between the last sight of the primary and its death: the count is the loss."""
    old = site.cluster.primary
    create_table(old)
    site.cluster.await_synced()
    with Load.start(site.write, writers=4, rate=40) as load:
        replicas = degraded(site, old)
        load.await_more(40)
        records = load.stop()
    remembered(site)
    die(old, replicas)
    with configured(site, failover={"policy": "lossless"}):
        refusal = no_failover(site)
        assert "had given up waiting for acknowledgements" in refusal["failover.degraded"]["text"]
        assert "most_advanced" in refusal["failover.degraded"]["cure"]
        told = refusal["failover.lost"]["text"]
    with configured(site, failover=ADVANCED):
        value = failed_over(site, code=7)
    assert value["verdict"] == "UNKNOWN"
    missing = lost(records, site.cluster.primary)
    assert len(missing) >= 40
    assert counted(value) == len(missing) + 1, "and the row with which it was made to give up waiting"
    assert f"({counted(value)} at the most)" in told, "who is refused is told as much"
    assert_kept(site, old, missing)


@pytest.mark.full
def test_what_was_written_after_the_last_sight_is_said_to_come_on_top(site: Lab) -> None:
    """The count is of what was seen: nobody takes it for a bound of what went after that."""
    old = site.cluster.primary
    create_table(old)
    site.cluster.await_synced()
    with Load.start(site.write, writers=4, rate=40) as load:
        replicas = degraded(site, old)
        load.await_more(20)
        remembered(site)
        load.await_more(20)
        die(old, replicas)
        records = load.stop()
    with configured(site, failover=ADVANCED):
        value = failed_over(site, code=7)
    missing = lost(records, site.cluster.primary)
    assert 20 <= counted(value) < len(missing)
    assert "when it was last seen" in evidence(value)
    assert "what it wrote after that comes on top" in evidence(value)
    assert_kept(site, old, missing)
