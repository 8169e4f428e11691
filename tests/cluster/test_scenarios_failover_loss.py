"""What a failover says may be lost, against what really is: the books of the clients, and the archive afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxyroute.config import load
from proxyroute.contingency import _in_sync_until
from proxyroute.known import Known
from proxyroute.moment import Moment
from proxyroute.sentry import Sentry
from tests.support.broken import archived_rows, ready, undone
from tests.support.death import count, evidence, failed_over, no_failover, remembered, semi_sync
from tests.support.lab import Lab
from tests.support.load import Load, Records, RowId, create_table
from tests.support.mariadb import LocalCluster, Node
from tests.support.scene import assert_order, configured
from tests.support.wait import until

FLAVOURS = ("mysql",)
ADVANCED = {"policy": "most_advanced"}


@pytest.fixture(scope="module")
def shared(servers: type[LocalCluster]) -> Iterator[Lab]:
    options = {"init_rpl_role": "MASTER"}
    policy = {"prove": "3s", "settle": "10s"}
    with Lab.start(3, semi_sync=True, options=options, policy=policy, provider=servers) as lab:
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
    undone(site, old)
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


def test_a_primary_goes_on_alone_no_earlier_than_it_is_counted_on_whoever_waited_when_it_was_seen_last(
    site: Lab,
) -> None:
    """Its replicas hang: they are counted, and it is seen waiting, until the first commit has waited for too long."""
    old, timeout = site.cluster.primary, 6.0
    replicas = [node for node in site.cluster if node is not old]
    create_table(old)
    site.cluster.await_synced()
    usual = old.value("@@global.rpl_semi_sync_master_timeout")
    old.sql("SET GLOBAL rpl_semi_sync_master_enabled=1")
    old.sql(f"SET GLOBAL rpl_semi_sync_master_timeout={timeout * 1000:.0f}")
    until(lambda: semi_sync(old)["master_status"] == "ON", "the primary to wait")

    def commit() -> Moment | None:
        old.sql("INSERT INTO app.load_rows VALUES (1000, 1, 1)")
        return Moment.now()

    with Sentry(load(site.config).cluster(None)) as sentry, ThreadPoolExecutor(1) as pool:
        until(lambda: _seen(sentry, timeout, waiting=0), "the primary to be seen with nobody waiting")
        for node in replicas:
            node.sigstop()
        try:
            began, alone = Moment.now(), pool.submit(commit)
            until(lambda: _seen(sentry, timeout, waiting=1, after=began), "it to be seen again, one waiting", timeout)
            known = sentry.known
            assert known is not None
            assert not alone.done()
            gone = alone.result(60)
        finally:
            for node in replicas:
                node.sigcont()
    counted_on = _in_sync_until(known)
    assert gone is not None
    assert known.moment is not None
    assert counted_on is not None
    assert semi_sync(old)["master_no_tx"] != "0", "nobody acknowledged it"
    assert known.moment.after(timeout).seconds > gone.seconds, "by its last sight alone it would be counted on too long"
    assert counted_on.seconds <= gone.seconds
    old.sql(f"SET GLOBAL rpl_semi_sync_master_timeout={usual}")
    site.cluster.await_synced()
    until(lambda: semi_sync(old)["master_status"] == "ON", "the primary to wait again")


def _seen(sentry: Sentry, timeout: float, *, waiting: int, after: Moment | None = None) -> Known | None:
    """Remembers what is seen; returns it once the primary waits, for so many, and half a second after ``after``."""
    sentry.remember(sentry.sightings(), None)
    known = sentry.known
    sync = known.semi_sync if known is not None else None
    if known is None or sync is None or known.moment is None or not sync.active or sync.timeout_seconds != timeout:
        return None
    late = after is None or known.moment.seconds > after.seconds + 0.5
    return known if sync.waiting == waiting and late else None
