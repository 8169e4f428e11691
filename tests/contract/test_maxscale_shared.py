"""Several MaxScales that share their objects (``config_sync_cluster``), and so the epochs that are kept there."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxyroute.model import ReceiptState
from proxyroute.routes import Routes
from tests.contract.maxscales import MaxScaleSubject
from tests.contract.subjects import soon, table
from tests.support.maxscale.answers import Request
from tests.support.maxscale.config_sync import ConfigSync
from tests.support.wait import until

Make = Callable[[], MaxScaleSubject]


@pytest.fixture
def shared() -> ConfigSync:
    return ConfigSync()


@pytest.fixture
def make(tmp_path: Path, shared: ConfigSync) -> Iterator[Make]:
    """Makes MaxScales that share their objects, driven beside a monitor that is stopped, and not published yet."""
    with contextlib.ExitStack() as ends:

        def made() -> MaxScaleSubject:
            subject = MaxScaleSubject(tmp_path, "driving", monitor=True, running=False, config_sync=shared)
            ends.callback(subject.close)
            subject.double.start()
            subject.edit("db1")
            for name in subject.names.values():
                subject.double.machine.change(name, "set", "running")
            return subject

        yield made


def kept(subject: MaxScaleSubject) -> list[str]:
    subject.adapter().observe(soon())
    return [name for name in subject.double.machine.servers if name.startswith("proxyroute")]


def test_each_of_two_keeps_the_epoch_and_the_older_one_goes(make: Make) -> None:
    one, two = make(), make()
    routes = Routes([one.adapter(), two.kind("edge2", "shop", two.servers, two.settings)])
    for serial, primary in ((1, "db1"), (2, "db2")):
        receipts = routes.settle(table(one.servers, (1, serial), primary), soon())
        assert [r.state for r in receipts] == ["done", "done"], receipts
    until(lambda: kept(one) == kept(two) == ["proxyroute-shop-1-2-db2"], "both to show the same", 5)


def test_an_older_epoch_that_cannot_be_removed_now_is_removed_next_time(make: Make, shared: ConfigSync) -> None:
    subject = make()
    adapter = subject.adapter()
    assert adapter.settle(table(subject.servers, (1, 1), "db1"), soon()).state == "done"

    def another_is_faster(request: Request) -> float:
        if request.method == "DELETE":
            shared.elsewhere()
        return 0

    subject.double.interfere = another_is_faster
    target = table(subject.servers, (1, 2), "db2")
    assert adapter.settle(target, soon()).state == "done"
    assert kept(subject) == ["proxyroute-shop-1-1-db1", "proxyroute-shop-1-2-db2"]
    subject.double.interfere = lambda request: 0
    until(lambda: kept(subject) and subject.double.machine.config_version == shared.version, "it to synchronise", 5)
    assert adapter.settle(target, soon()).state == "done"
    assert kept(subject) == ["proxyroute-shop-1-2-db2"]


def test_one_that_does_not_synchronise_is_told(make: Make, shared: ConfigSync) -> None:
    subject = make()
    shared.interval = 600
    shared.elsewhere()
    receipt = subject.adapter().settle(table(subject.servers, (1, 1), "db1"), soon(1.5))
    assert receipt.state is ReceiptState.FAILED
    assert "its epoch could not be kept" in receipt.detail
    assert "out of sync" in receipt.detail


def test_a_closed_route_is_closed_although_nobody_can_keep_its_epoch(make: Make) -> None:
    """They share by way of the Master, and a failover closes the route to the dead one before there is another."""
    subject = make()
    adapter = subject.adapter()
    assert adapter.settle(table(subject.servers, (1, 1), "db1"), soon()).state == "done"
    target = table(subject.servers, (1, 2), "db2")
    receipt = adapter.settle(dataclasses.replace(target, primary=None), soon())
    assert receipt.state == "done"
    assert "No valid servers" in receipt.evidence["unkept"]
    assert kept(subject) == ["proxyroute-shop-1-1-db1"]
    assert adapter.settle(target, soon()).state == "done"
    assert kept(subject) == ["proxyroute-shop-1-2-db2"]
