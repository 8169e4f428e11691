"""What would block an automatic failover if the primary died now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxyroute.errors import Silence
from proxyroute.known import Known, SyncSight
from proxyroute.model import Finding, Observed, Receiver, Severity, View
from proxyroute.outlook import Way, blocks
from proxyroute.policy import FailoverPolicy, Policy
from tests.support.builders import channel, position, replica, server, silent, view

AUTOMATIC = FailoverPolicy(mode="automatic", policy="most_advanced", single_engine=True)
LIMIT = Finding("failover.quiet", Severity.ERROR, "demo", "the last one was a moment ago", "wait")
RULES = Policy()
WELL = view(server(1), replica(2), replica(3))


def told(
    seen: View = WELL,
    *proxies: Observed,
    policy: FailoverPolicy = AUTOMATIC,
    known: Known | None = None,
    limits: tuple[Finding, ...] = (),
    ways: dict[str, Way] | None = None,
    fence: bool = False,
    rules: Policy = RULES,
) -> dict[str, str]:
    found = findings(seen, *proxies, policy=policy, known=known, limits=limits, ways=ways, fence=fence, rules=rules)
    return {f.code: f.text for f in found}


def findings(
    seen: View,
    *proxies: Observed,
    policy: FailoverPolicy = AUTOMATIC,
    known: Known | None = None,
    limits: tuple[Finding, ...] = (),
    ways: dict[str, Way] | None = None,
    fence: bool = False,
    rules: Policy = RULES,
) -> tuple[Finding, ...]:
    found = blocks(seen, proxies, rules, policy, known, limits, ways or {}, fence=fence, now=10.0, wall=1000.0)
    assert all(f.cure for f in found)
    return found


def test_nothing_blocks_a_cluster_in_order_and_a_person_is_not_bound_by_the_limits() -> None:
    assert told() == {}
    assert told(limits=(LIMIT,)) == {"failover.quiet": LIMIT.text}
    assert set(told(limits=(LIMIT,), policy=FailoverPolicy())) == {"failover.asynchronous"}


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


def test_a_person_is_told_what_would_refuse_the_failover_that_is_asked_for() -> None:
    broken = replica(2, replace(channel(), applier=False, error="1062 duplicate entry"))
    assert set(told(view(server(1), broken), limits=(LIMIT,), policy=FailoverPolicy(policy="most_advanced"))) == {
        "failover.candidate"
    }


@pytest.mark.parametrize("kind", ["haproxy", "haproxy-agents", "maxscale", "hook", "of somebody else"])
def test_a_required_proxy_that_cannot_be_told_blocks_unless_something_else_makes_sure(kind: str) -> None:
    lost, mute = Observed("edge1", reachable=False, detail="no agent"), {"edge1": Way(kind)}
    assert "failover.proxy" not in told(WELL, lost)
    (found,) = findings(WELL, lost, ways=mute)
    assert (found.code, "no agent" in found.text) == ("failover.proxy", True)
    assert ("on_silence" in found.cure) is (kind == "haproxy-agents"), "nobody else has that setting"
    assert "fence" in found.cure
    assert told(WELL, lost, ways=mute, fence=True) == {}
    assert told(WELL, lost, ways={"edge1": Way(kind, 10.0)}) == {}
    assert told(WELL, replace(lost, reachable=True), ways=mute) == {}


def test_replicas_that_could_not_tell_of_the_primarys_death_are_told_beforehand() -> None:
    stopped = [replica(n, replace(channel(), receiver=Receiver.STOPPED)) for n in (2, 3)]
    assert "db2 does not receive" in told(view(server(1), *stopped))["failover.diagnosis"]
    aside = told(WELL, rules=Policy(aside=("db2", "db3")))
    assert "db3 is in maintenance" in aside["failover.diagnosis"]
    assert "failover.candidate" in aside
    rebuilt = told(WELL, rules=Policy(aside=("db2", "db3"), rebuilt=("db2",)))["failover.diagnosis"]
    assert "db2 is being rebuilt, db3 is in maintenance" in rebuilt
    assert told(WELL, rules=Policy(aside=("db3",))) == {}


def test_that_too_few_hosts_would_answer_is_told_beforehand() -> None:
    assert "only 1 of 3 hosts" in told(view(server(1), replica(2), silent(3, Silence.UNREACHABLE)))["failover.majority"]
    assert told(view(server(1), replica(2), silent(3, Silence.REFUSED))) == {}, "the host answers"
    assert told(view(server(1), replica(2))) == {}


def test_a_primary_that_nobody_knows_is_told() -> None:
    lone = view(server(1, writable=False), server(2, writable=False))
    assert "nobody can tell" in told(lone)["failover.diagnosis"]
