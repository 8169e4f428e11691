"""Servers whose option file says ``read_only=1`` and no more: who restarts is closed to everybody, not to most only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.accounts import Account
from tests.support.death import brought_back, failed_over, remembered
from tests.support.engines import go_on, stopped_at
from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.scene import assert_order, books, other, switched

pytestmark = pytest.mark.matrix
FLAVOURS = ("mysql",)
SITE = {"n": 3, "more": {"failover": {"policy": "most_advanced"}}, "policy": {"prove": "2s", "settle": "10s"}}
BATCH = Account("batch", "lab-batch")


@pytest.fixture(autouse=True)
def half_closed_by_their_files(site: Lab) -> Iterator[None]:
    primary = site.cluster.primary
    for node in site.cluster:
        node.options.pop("super-read-only", None)
        node.options["read-only"] = 1
        node.set_options({})
    primary.sql("CREATE USER IF NOT EXISTS batch@'%' IDENTIFIED BY 'lab-batch'")
    primary.sql("GRANT CONNECTION_ADMIN ON *.* TO batch@'%'")
    site.cluster.await_synced()
    yield
    assert all(node.refuses_everybody() for node in site.cluster if node is not site.cluster.primary)


def told(site: Lab, node: Node) -> str:
    findings = site.json("plan")[1]["findings"]
    return "".join(f["text"] for f in findings if (f["code"], f["subject"]) == ("server.super_read_only", node.name))


def test_a_primary_that_is_back_after_a_failover_is_told_with_who_may_write_and_closed_by_its_rejoin(site: Lab) -> None:
    old, new = site.cluster.primary, other(site)
    remembered(site)
    old.kill9()
    failed_over(site, "--to", new, code=7)
    old.start()
    assert not old.is_writable()
    assert not old.refuses_everybody()
    with old.session(BATCH):
        assert "batch@%, connected now, may write there" in told(site, old)
    brought_back(site, old)
    assert old.refuses_everybody()
    assert told(site, old) == ""
    assert_order(site, new)


def test_a_primary_that_is_back_in_the_midst_of_its_failover_is_closed_by_it(site: Lab) -> None:
    old, new = site.cluster.primary, other(site)
    remembered(site)
    old.kill9()
    with stopped_at(site, "mariadb.change_source:before", ("failover", "--yes", "--to", new)) as engine:
        old.start()
        assert not old.refuses_everybody()
        go_on(engine)
        assert engine.wait(90) in (0, 7)
    assert old.refuses_everybody()
    brought_back(site, old)
    assert_order(site, new)


def test_a_replica_that_was_restarted_is_closed_by_the_next_switchover(site: Lab) -> None:
    new, third = other(site), site.cluster[other(site, other(site))]
    third.restart()
    assert not third.refuses_everybody()
    with books(site):
        switched(site, "--to", new)
    assert third.refuses_everybody()
    assert told(site, third) == ""
    assert_order(site, new)
