"""Everything that stops a failover is told before one is needed; a place that is new here must say where it is told."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

import pytest

from proxyroute.diagnosis_case import FINDINGS as OF_DIAGNOSES
from proxyroute.errors import Silence
from proxyroute.failover_limits import FINDINGS as LIMITS
from proxyroute.known import Known, SyncSight
from proxyroute.model import Observed, Receiver, View
from proxyroute.outlook import FINDINGS as OUTLOOK
from proxyroute.outlook import Way, blocks
from proxyroute.policy import FailoverPolicy, Policy
from proxyroute.standing import FINDINGS as ORDERS
from tests.support.builders import channel, other_flavour, position, replica, server, silent, view
from tests.unit.sources import sources

LOSSLESS = FailoverPolicy(mode="automatic", single_engine=True)
SYNC = SyncSight(True, True, True, 10.0, 1, ("db2",))


def told(
    seen: View,
    *proxies: Observed,
    policy: FailoverPolicy = LOSSLESS,
    sync: SyncSight | None = SYNC,
    rules: Policy = Policy(),  # noqa: B008 - a frozen value
    known: bool = True,
) -> set[str]:
    last = Known("db1", 990.0, ("db2",), {"db1": 1}, position("0-1-100"), sync) if known else None
    ways = {p.proxy: Way("maxscale") for p in proxies}
    found = blocks(seen, proxies, rules, policy, last, (), ways, fence=False, now=10.0, wall=1000.0)
    assert all(f.cure for f in found)
    return {f.code for f in found}


GONE = view(silent(1), replica(2), replica(3))
STOPPED = replace(channel(), receiver=Receiver.STOPPED)
BROKEN = replica(3, replace(channel(received="0-1-120"), applier=False))
SITUATIONS = {
    "topology.flavours": told(view(silent(1), replica(2), other_flavour(3))),
    "failover.candidate": told(GONE, rules=Policy(never=("db2", "db3"))),
    "failover.unseen": told(GONE, known=False),
    "failover.asynchronous": told(GONE, sync=None),
    "failover.degraded": told(GONE, sync=replace(SYNC, active=False)),
    "failover.wait_point": told(GONE, sync=replace(SYNC, after_sync=False)),
    "failover.wait_no_replica": told(GONE, sync=replace(SYNC, wait_no_replica=False)),
    "failover.acknowledger": told(GONE, sync=replace(SYNC, clients=2)),
    "failover.unfetchable": told(view(silent(1), replica(2), BROKEN)),
    "failover.lost": told(view(silent(1), *(replica(n, channel(received="0-1-90"), executed="0-1-90") for n in (2, 3))),
                          sync=None),
    "failover.majority": told(view(silent(1), replica(2), *(silent(n, Silence.UNREACHABLE) for n in (3, 4, 5)))),
    "failover.diagnosis": told(view(server(1), replica(2, STOPPED))),
    "failover.proxy": told(GONE, Observed("edge1", reachable=False, detail="no answer")),
}  # fmt: skip
ONLY_THEN = {
    "failover.history": "by the positions of the day: test_failover_election.py",
    "failover.uncontained": "a primary that has restarted, which is opened again and not failed over",
    "failover.unheard": "likewise",
    "failover.dead_binlog": "only where a person asks for it; check warns beforehand",
}
"""Why the others are not told beforehand."""

STOPS = {
    "_last_look: answers and takes writes": "failover.diagnosis",
    "_last_look: does not answer any more": "failover.candidate",
    "_close_routes: nothing keeps clients away": "failover.unfenced",
    "_close_routes: may still send writes": "failover.proxy",
    "_doubt: with --force it may be lost": "failover.acknowledger",  # as soon as that one is silent
    "_compare: --force promotes it all the same": "failover.unfetchable",
}
"""Every place in ``failover.py`` that gives up, by what it says, and the finding that tells of it beforehand."""


@pytest.mark.parametrize("code", SITUATIONS)
def test_each_condition_is_told_by_status_before_the_failover_is_refused_for_it(code: str) -> None:
    assert code in SITUATIONS[code]


def test_no_finding_of_a_failover_is_without_a_place_where_it_is_told() -> None:
    literal = {
        node.value
        for source in sources()
        if source.module in {*_PATH}
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch(r"(failover|topology)\.\w+", node.value)
    }
    assert literal >= {*OF_DIAGNOSES, *OUTLOOK}
    assert literal == {*SITUATIONS, *ONLY_THEN, *LIMITS, *ORDERS}


_PATH = ("contingency", "diagnosis_case", "diagnosis_silent", "diagnosis_alive", "engine", "failover", "foretold")
_PATH += ("failover_election", "failover_limits", "keeper", "lookout", "outlook", "standing")


def test_every_place_where_a_failover_gives_up_is_told_beforehand() -> None:
    (source,) = [s for s in sources() if s.module == "failover"]
    places = [
        (function.name, ast.unparse(node))
        for function in ast.walk(source.tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Raise) and node.exc is not None
    ]
    assert len(places) == len(STOPS), "say in STOPS which finding tells of it"
    for place, code in STOPS.items():
        name, _, words = place.partition(": ")
        assert [where for where, text in places if where == name and words in text] == [name], place
        assert code in {*SITUATIONS, *LIMITS}
