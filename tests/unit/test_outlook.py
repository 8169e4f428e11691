"""What would block an automatic failover if the primary died now."""

from __future__ import annotations

from dataclasses import replace

from proxyroute.known import Known, SyncSight
from proxyroute.model import FailoverPolicy, Finding, Observed, Policy, Severity, View
from proxyroute.outlook import blocks
from tests.support.builders import channel, position, replica, server, silent, view

AUTOMATIC = FailoverPolicy(mode="automatic", policy="most_advanced", single_engine=True)
LIMIT = Finding("failover.quiet", Severity.ERROR, "demo", "the last one was a moment ago", "wait")
WELL = view(server(1), replica(2), replica(3))


def told(
    seen: View = WELL,
    *proxies: Observed,
    policy: FailoverPolicy = AUTOMATIC,
    known: Known | None = None,
    limits: tuple[Finding, ...] = (),
    silences: dict[str, float | None] | None = None,
    fence: bool = False,
) -> dict[str, str]:
    found = blocks(seen, proxies, Policy(), policy, known, limits, silences or {}, fence=fence, now=10.0, wall=1000.0)
    assert all(f.cure for f in found)
    return {f.code: f.text for f in found}


def test_nothing_blocks_a_cluster_in_order_and_nothing_is_told_where_a_person_decides() -> None:
    assert told() == {}
    assert told(limits=(LIMIT,)) == {"failover.quiet": LIMIT.text}
    assert told(limits=(LIMIT,), policy=FailoverPolicy()) == {}


def test_nobody_who_could_take_over_is_told_with_the_reason() -> None:
    broken = replica(2, replace(channel(), applier=False, error="1062 duplicate entry"))
    assert "applier" in told(view(server(1), broken))["failover.candidate"]


def test_what_a_lossless_failover_lacks_is_told_but_not_that_a_living_primary_is_ahead() -> None:
    lossless = replace(AUTOMATIC, policy="lossless")
    ahead = view(server(1, "0-1-900"), replica(2))
    assert set(told(ahead, policy=lossless)) == {"failover.asynchronous"}
    assert told(ahead) == {}


def test_the_primary_that_is_gone_is_still_asked_about() -> None:
    sync = SyncSight(False, True, True, 10.0, 1, ("db2",))
    known = Known("db1", 990.0, ("db2",), {"db1": 1}, position("0-1-100"), sync)
    lone = view(silent(1), replica(2))
    assert "failover.degraded" in told(lone, policy=replace(AUTOMATIC, policy="lossless"), known=known)


def test_a_required_proxy_that_cannot_be_told_blocks_unless_something_else_makes_sure() -> None:
    lost = Observed("edge1", reachable=False, detail="no agent")
    assert "edge1" not in told(WELL, lost)
    assert "no agent" in told(WELL, lost, silences={"edge1": None})["failover.proxy"]
    assert told(WELL, lost, silences={"edge1": None}, fence=True) == {}
    assert told(WELL, lost, silences={"edge1": 10.0}) == {}
    assert told(WELL, replace(lost, reachable=True), silences={"edge1": None}) == {}
