"""What clients of a readwritesplit see of a switchover and of a failover, by its settings: errors, losses, duplicates.

The table takes a row twice, so that a write that MaxScale has repeated shows if it had been done already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.test_scenarios_maxscale import begin, roles
from tests.support.death import LOSSLESS, failed_over, remembered, waits_for_acknowledgements
from tests.support.maxscale.counting import Count, counting
from tests.support.maxscale.site import MaxScaleLab
from tests.support.scene import other, switched
from tests.support.wait import until

__all__ = ["begin"]
RETRY: dict[str, Any] = {"delayed_retry": True, "transaction_replay": True, "max_slave_connections": 0}
SINGLE: dict[str, Any] = {"delayed_retry": True, "max_slave_connections": 0}
RECONNECT: dict[str, Any] = {"max_slave_connections": 0}
PLAIN: dict[str, Any] = {"master_reconnection": False, "max_slave_connections": 0}
LOCK_EARLY: dict[str, Any] = {"freeze_budget": "5s"}
READ_ONLY_FIRST = {**LOCK_EARLY, "order": "read_only_first"}


def counted(site: MaxScaleLab, times: int = 2) -> Count:
    """Switches over ``times`` times, there and back, under load; asserts what must hold whatever the settings."""
    old, new = site.cluster.primary.name, other(site)
    with counting(site) as count:
        for number in range(times):
            value = switched(site, "--to", (new, old)[number % 2])
            assert value["verdict"] == "PROVEN", value
            count.go_on()
    primary = site.cluster.primary.name
    assert site.bits() == roles(site, primary)
    assert not count.verdict.lost, count
    assert not count.verdict.double_primary, count
    assert not count.verdict.unexplained, count
    assert not count.unexplained, f"there twice, though nobody had lost a reply: {count}"
    return count


def most(found: Counter[str]) -> int:
    return max(found.values(), default=0)


def per_writer(count: Count, *, transactions: bool) -> int:
    """Returns the most errors that any writer has had."""
    return most(Counter(str(f.writer) for f in count.records.failed if (f.writer >= 100) is transactions))


def test_with_retry_and_replay_a_driven_switchover_shows_no_error(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin("driving", policy=LOCK_EARLY, split=True, service_parameters=RETRY)
    count = counted(site)
    assert count.errors(transactions=False) == {}, count
    assert set(count.errors(transactions=True)) <= {"statement 2013"}, count
    assert set(count.ended) <= {"its COMMIT was under way"}, count
    assert not count.verdict.ambiguous, "sessions are ended under the lock: what was cut off is not there"
    assert count.doubled == frozenset(), "what was cut off under the lock was not done, so repeating it doubles nothing"


def test_with_delayed_retry_alone_only_transactions_break(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin("driving", policy=LOCK_EARLY, split=True, service_parameters=SINGLE)
    count = counted(site)
    assert count.errors(transactions=False) == {}, count
    assert set(count.errors(transactions=True)) <= {"statement 2013"}, count
    assert per_writer(count, transactions=True) <= 2, "once per switchover"
    assert (count.doubled, count.verdict.ambiguous) == (frozenset(), frozenset())


@pytest.mark.parametrize("service", [RECONNECT, PLAIN], ids=["reconnect", "plain"])
def test_without_retry_a_session_ends_at_most_once_and_nothing_is_repeated(
    begin: Callable[..., MaxScaleLab], service: dict[str, Any]
) -> None:
    site = begin("driving", policy=LOCK_EARLY, split=True, service_parameters=service)
    count = counted(site)
    errors = count.errors(transactions=False) + count.errors(transactions=True)
    assert set(errors) <= {"statement 2013"}, count
    for transactions in (False, True):
        assert per_writer(count, transactions=transactions) <= 2, f"once per switchover: {count}"
    assert count.repeated == frozenset()
    assert count.doubled == frozenset()
    assert not count.verdict.ambiguous, count


def test_cleared_first_nobody_meets_the_closed_primary(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin("driving", policy=READ_ONLY_FIRST, split=True, service_parameters=RETRY)
    count = counted(site)
    assert count.errors(transactions=False) == {}, count
    assert set(count.errors(transactions=True)) <= {"statement 2013"}, count
    assert count.doubled == frozenset()


def test_overlapping_the_closed_primary_may_be_met_and_nothing_worse(begin: Callable[..., MaxScaleLab]) -> None:
    site = begin("driving", policy=READ_ONLY_FIRST, split=True, service_parameters=RECONNECT)
    count = counted(site)
    errors = count.errors(transactions=False) + count.errors(transactions=True)
    assert set(errors) <= {"statement 2013", "statement 1290", "statement 1040", "connect 1040"}, count
    assert count.doubled == frozenset()


def test_followed_a_repeated_write_may_meet_the_closed_primary_and_nothing_worse(
    begin: Callable[..., MaxScaleLab],
) -> None:
    """The monitor sees the new primary only when the old one refuses writes, and until it looks that is an answer."""
    site = begin("following", policy=LOCK_EARLY, split=True, service_parameters=RETRY)
    _, plan = site.json("plan")
    (told,) = [f for f in plan["findings"] if f["code"] == "maxscale.clients"]
    assert "1290" in told["text"], "it is said beforehand"
    count = counted(site)
    errors = count.errors(transactions=False) + count.errors(transactions=True)
    assert set(errors) <= {"statement 2013", "statement 1290"}, count
    assert count.doubled == frozenset()


@pytest.mark.parametrize("service", [RETRY, RECONNECT], ids=["retry", "no-retry"])
def test_a_dead_primary_loses_nothing_and_doubles_only_what_lost_its_reply(
    begin: Callable[..., MaxScaleLab], service: dict[str, Any]
) -> None:
    """Its death takes replies along: here a repeated write may be there twice, and that is why one may choose."""
    patience = {"delayed_retry_timeout": "60s", "transaction_replay_timeout": "60s"}
    site = begin(
        "driving", policy={"settle": "10s", "prove": "3s"}, split=True, service_parameters={**service, **patience},
        semi_sync=True, options=LOSSLESS,
    )  # fmt: skip
    old = site.cluster.primary
    until(lambda: waits_for_acknowledgements(site.cluster), "somebody to acknowledge")
    remembered(site)
    with counting(site) as count:
        count.go_on()
        old.kill9()
        assert failed_over(site)["verdict"] == "PROVEN"
        count.go_on(seconds=60)
        old.start()
        assert site.run("rejoin", old.name).returncode == 0
    assert not count.verdict.lost, count
    assert not count.verdict.diverged, count
    assert not count.unexplained, f"there twice, though nobody had lost a reply: {count}"
    if service is RETRY:
        assert count.errors(transactions=False) == {}, count
    else:
        assert (count.repeated, count.doubled) == (frozenset(), frozenset())
