"""What forbids an automatic failover."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxyroute.failover_limits import DAY, FINDINGS, Guarding, Past, limits
from proxyroute.policy import FailoverPolicy

AUTOMATIC = FailoverPolicy(mode="automatic", quiet_period=600.0, per_day=2)
SHARED = Guarding(distributed=True)
NOW = 1_000_000.0


def past(age: float, **changes: bool) -> Past:
    return replace(Past(f"failover-{age:g}", NOW - age, automatic=True), **changes)


def told(*before: Past, policy: FailoverPolicy = AUTOMATIC, guarding: Guarding = SHARED, servers: int = 3) -> list[str]:
    found = limits("shop", policy, guarding, servers, before, NOW)
    assert all(f.cure and f.subject == "shop" for f in found)
    return [f.code for f in found]


CASES = {
    "failover.manual": told(policy=replace(AUTOMATIC, mode="manual")),
    "failover.lease": told(guarding=Guarding(distributed=False)),
    "failover.two_servers": told(guarding=Guarding(True, counts_servers=True), servers=2),
    "failover.no_fencing": told(guarding=Guarding(True, lets_go=False)),
    "failover.unfenced": told(guarding=Guarding(True, closes=False)),
    "failover.quiet": told(past(599.0)),
    "failover.per_day": told(past(DAY - 1), past(700.0)),
    "failover.unfinished": told(past(2 * DAY, finished=False)),
}


@pytest.mark.parametrize("code", CASES)
def test_each_limit_is_told_by_its_code(code: str) -> None:
    assert CASES[code] == [code]


def test_every_limit_has_a_case_and_nothing_forbids_without_a_reason() -> None:
    assert set(CASES) == set(FINDINGS)
    assert told() == []
    assert told(policy=replace(AUTOMATIC, single_engine=True), guarding=Guarding(distributed=False)) == []
    assert told(past(600.0), past(DAY)) == []
    assert told(policy=replace(AUTOMATIC, single_engine=True), guarding=Guarding(True, lets_go=False)) == []
    assert told(policy=replace(AUTOMATIC, accept_unfenced=True), guarding=Guarding(True, closes=False)) == []


def test_what_a_person_did_or_has_seen_does_not_count() -> None:
    assert told(past(1.0, automatic=False), past(2.0, acknowledged=True)) == []


def test_a_clock_that_was_set_back_does_not_lift_a_limit() -> None:
    assert told(past(-5000.0)) == ["failover.quiet"]


def test_none_per_day_means_none() -> None:
    assert told(policy=replace(AUTOMATIC, per_day=0)) == ["failover.per_day"]
