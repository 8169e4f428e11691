"""The order in which a MaxScale is told, and what clients see in it, for every combination of settings. Pure."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from proxyroute.maxscale.services import Order, Service, order, outlook, queues, told

NAMES = ("delayed_retry", "transaction_replay", "master_reconnection", "master_failure_mode")
SETTINGS = [
    dict(
        zip(("delayed_retry", "transaction_replay", "master_reconnection", "master_failure_mode"), values, strict=True)
    )
    for values in product(
        (False, True), (False, True), (False, True), ("fail_instantly", "fail_on_write", "error_on_write")
    )
]


def split(name: str = "RW", **parameters: Any) -> Service:
    return Service(name, "readwritesplit", parameters, frozenset({"a", "b"}))


def connection(options: str) -> Service:
    return Service("RC", "readconnroute", {"router_options": options}, frozenset({"a", "b"}))


GOOD = split(delayed_retry=True, transaction_replay=True, master_failure_mode="fail_on_write")


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(str(v) for v in s.values()))
def test_every_combination_has_its_order_and_its_words(settings: dict[str, Any]) -> None:
    service = split(**settings)
    replay, retry = settings["transaction_replay"], settings["delayed_retry"] or settings["transaction_replay"]
    waits = replay and settings["master_failure_mode"] != "fail_instantly"
    assert order([service], driving=True, armed=True) is Order.LOCK_EARLY
    assert order([service], driving=True, armed=False) is (Order.CLEAR_FIRST if waits else Order.OVERLAP)
    for armed in (True, False):
        assert order([service], driving=False, armed=armed) is Order.MONITOR
    for each in Order:
        seen = outlook(service, each)
        assert seen is not None
        assert ("may be done twice" in seen.text) is retry, "a repeated write is said to be possible where it is"
        refused = each in (Order.OVERLAP, Order.MONITOR)
        assert ("1290" in seen.text) is refused
        assert ("without an error" in seen.text) is (replay and not refused)
        assert bool(seen.cure) is not replay
        assert seen.errors is (not replay or refused)


def test_the_setting_that_would_make_it_better_is_the_one_that_is_missing() -> None:
    def cure(**settings: Any) -> str:
        seen = outlook(split(**settings))
        assert seen is not None
        return seen.cure

    assert cure(delayed_retry=True) == "maxctrl alter service RW transaction_replay=true"
    assert cure(master_reconnection=True) == "maxctrl alter service RW delayed_retry=true transaction_replay=true"
    assert cure().startswith("maxctrl alter service RW master_reconnection=true master_failure_mode=fail_on_write")
    assert cure(transaction_replay=True) == "", "it has delayed_retry in it"


@pytest.mark.parametrize(
    ("services", "found"),
    [
        ([], False),
        ([GOOD], True),
        ([GOOD, connection("slave")], True),
        ([connection("slave")], False),
        ([GOOD, connection("master")], False),
        ([GOOD, connection("master,slave")], False),
        ([GOOD, connection("")], False),
        ([GOOD, split("more", delayed_retry=True)], False),
        ([GOOD, Service("K", "kafkacdc", {}, frozenset({"a"}))], False),
    ],
    ids=["none", "one", "reads-beside", "only-reads", "readconnroute", "both-roles", "no-role", "no-replay", "other"],
)
def test_writes_wait_only_if_they_do_in_every_service_that_has_any(services: list[Service], found: bool) -> None:
    assert queues(services) is found


def test_who_stands_in_the_way_of_clearing_first_is_named_with_the_setting() -> None:
    services = [GOOD, split("Old"), connection("master")]
    text, cure = told(order(services, driving=True, armed=False), services)
    assert "Old and RC" in text
    assert "RW" not in text
    assert "order: lock_early" in cure
    assert "maxctrl alter service Old" in cure
    for best in (Order.LOCK_EARLY, Order.CLEAR_FIRST, Order.MONITOR):
        assert told(best, services)[1] == "", "nothing better is to be had by a setting"


@pytest.mark.parametrize(
    ("found", "newcomers"),
    [
        (Order.LOCK_EARLY, "see nothing"),
        (Order.CLEAR_FIRST, "1815"),
        (Order.OVERLAP, "1290"),
        (Order.MONITOR, "until the monitor has seen"),
    ],
)
def test_newcomers_of_a_readconnroute_are_told_apart(found: Order, newcomers: str) -> None:
    seen = outlook(connection("master"), found)
    assert seen is not None
    assert newcomers in seen.text
    assert outlook(connection("slave"), found) is None, "reads see nothing"
