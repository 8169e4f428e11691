"""A cluster in which MariaDB and MySQL are mixed: positions that nobody can compare are refused, and end nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxyroute import topology
from proxyroute.contingency import Contingency, foresee
from proxyroute.db.following import has_all_of
from proxyroute.decided import Action
from proxyroute.diagnosis import diagnose
from proxyroute.election import elect, make_plan
from proxyroute.errors import Diverged, Refused
from proxyroute.known import Known, SyncSight, lost_since, primary_of, remember
from proxyroute.model import Deadline, Peer, SemiSync, Silent, Status
from proxyroute.policy import FailoverPolicy, Policy
from proxyroute.preflight import survey
from proxyroute.rejoin_look import Means, find_primary
from proxyroute.sight import Sightings
from tests.support.builders import (
    NOW,
    channel,
    inspection,
    other_flavour,
    position,
    replica,
    server,
    silent,
    view,
)
from tests.support.fakeworld import make_world
from tests.support.story import dead, look, lost, lost_channel, well
from tests.unit.test_interrupted import _start

POLICY = FailoverPolicy(policy="most_advanced")
SYNC = SyncSight(True, True, True, 10.0, 2, ("db2", "db3"))
KNOWN = Known("db1", 1000.0, ("db2", "db3"), {"db1": 1}, position(NOW), SYNC)
OTHER = other_flavour(3)
CUT_OFF = replace(OTHER, sources=(replace(lost_channel(), received=OTHER.executed),))
SEMI = SemiSync(True, True, True, replica_enabled=True, clients=2)


def failover(sightings: Sightings, known: Known | None = KNOWN, **options: Any) -> Contingency:
    diagnosis = diagnose(sightings, POLICY, 10.1, known=known)
    return foresee(sightings, diagnosis, Policy(), POLICY, known, **options)


@pytest.mark.parametrize("options", [{}, {"force": True}, {"target": "db2", "force": True}, {"fenced_by": "me"}])
def test_a_failover_is_refused_with_a_plain_text_and_by_nothing_to_be_forced(options: dict[str, Any]) -> None:
    seen = failover(dead(lost(2), CUT_OFF, before=(replica(2), OTHER)), **options)
    (found,) = [f for f in seen.findings if f.code == "topology.flavours"]
    assert not seen.go
    assert "db2 is mariadb, db3 is mysql" in found.text
    assert found.cure == topology.ONE_FLAVOUR
    assert not found.forceable


def test_what_is_remembered_of_a_primary_of_the_other_flavour_is_compared_with_nobody() -> None:
    known = replace(KNOWN, executed=OTHER.executed)
    seen = failover(dead(lost(2), lost(3)), known)
    assert "db1 is mysql, db2 is mariadb, db3 is mariadb" in [f.text for f in seen.findings]
    assert lost_since(known, server(1)) is None


def test_serve_calls_the_primary_dead_and_says_what_blocks_a_failover() -> None:
    sightings = dead(lost(2), CUT_OFF, before=(replica(2), OTHER))
    found = diagnose(sightings, POLICY, 10.1, known=KNOWN)
    assert (found.name, found.action, found.wanted) == ("DeadPrimary", Action.PEOPLE, Action.FAILOVER)
    assert [f.code for f in found.blockers] == ["topology.flavours"]


def test_a_primary_that_takes_writes_is_judged_and_remembered_beside_a_replica_of_the_other_flavour() -> None:
    top = server(1, semi_sync=SEMI)
    sightings = well(top, replica(2, semi_sync=SEMI), OTHER)
    assert diagnose(sightings, POLICY, 5.1, known=KNOWN).name == "NoProblem"
    known = remember(sightings, KNOWN, 5.1, 1005.0)
    assert known is not None
    assert known.semi_sync is not None
    assert (known.semi_sync.acknowledgers, known.semi_sync.formerly) == (("db2",), ())
    written = replace(OTHER, executed=type(OTHER.executed).parse(f"{OTHER.uuid}:1"))
    assert remember(well(top, replica(2, semi_sync=SEMI), written), KNOWN, 5.1, 1005.0) is not None
    assert written.behind(top) is None
    assert replica(2, executed="0-1-97").behind(top) == 3


def test_a_primary_that_has_restarted_beside_one_is_opened_by_nobody_but_a_person() -> None:
    sightings = look(well(server(1), replica(2), OTHER), 5.0, silent(1), lost(2), OTHER)
    sightings = look(sightings, 9.9, server(1, writable=False, uptime_seconds=1), replica(2), OTHER)
    found = diagnose(sightings, POLICY, 10.1)
    assert (found.name, found.action) == ("PrimaryRestarted", Action.PEOPLE)
    assert [f.subject for f in found.blockers] == ["db3"]


def test_a_switchover_is_judged_whoever_is_named_and_whoever_acknowledges() -> None:
    """Candidates that have purged something were compared with the primary, and acknowledgers with the candidate."""
    semi = replica(2, semi_sync=SEMI)
    third = replace(OTHER, semi_sync=SEMI)
    purged = (inspection("db2", purged=position(NOW)), inspection("db3", purged=OTHER.executed))
    seen = view(server(1, semi_sync=SEMI), semi, third, inspections=purged)
    assert {"topology.flavours", "candidate.flavour"} <= {f.code for f in survey(seen, Policy(), "db3")}
    assert make_plan(seen, "db1", elect(seen, "db1", Policy()), Policy()).attach is None


def test_a_server_of_the_other_flavour_does_not_rejoin_and_is_not_touched() -> None:
    """Its proxies and data are not even asked for: there is nothing here that could tell."""
    seen = view(server(1), replica(2), replace(OTHER, sources=(), writable=False))
    nobody = cast(Means, SimpleNamespace())
    with pytest.raises(Refused, match="db3 is mysql, db1 is mariadb"):
        find_primary(nobody, seen, "db3")
    assert find_primary(nobody, seen, "db2") == "db1"


def test_nor_does_one_follow_a_source_of_the_other_flavour() -> None:
    peer = view(server(1), OTHER).peer("db1")
    with pytest.raises(Diverged, match="is mysql, db1 is mariadb"):
        has_all_of(OTHER, peer, (), lambda: position(NOW), Deadline.after(1))


def test_a_whole_cluster_of_one_flavour_is_not_called_mixed() -> None:
    seen: tuple[Status | Silent, ...] = (server(1), replica(2), silent(3))
    assert topology.mixed({s.name: s.flavour for s in view(*seen).seen}) == ""
    assert primary_of(well(server(1), replica(2, channel()))) == "db1"


def test_who_comes_back_as_a_server_of_the_other_flavour_in_the_midst_holds_nobody_up(tmp_path: Path) -> None:
    """It was silent when it began, and is looked at again only when the new primary is opened."""
    world, proxy = make_world()
    late, new = world.servers["db3"], world.servers["db2"]
    late.alive = False
    detach, plain = new.detach, late.write_state

    def comes_back(source: Peer, deadline: Deadline) -> None:
        detach(source, deadline)
        late.alive = True

    new.detach = comes_back  # type: ignore[method-assign]
    late.write_state = lambda *asked: replace(plain(*asked), position=OTHER.executed)  # type: ignore[method-assign]
    _start(world, proxy, tmp_path / "op.jsonl", [])
    assert new.writable
    assert late.alive
