"""What a MySQL server that replicates from elsewhere as well has of its cluster: told by who wrote it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxyroute import conditions, topology
from proxyroute.db.mysql_replication import MySQLReplication
from proxyroute.db.replication import ReplicationLogin
from proxyroute.decided import FailoverElection
from proxyroute.errors import Diverged
from proxyroute.failover_election import elect_failover
from proxyroute.gtid import MySQLPosition
from proxyroute.known import Known
from proxyroute.model import Deadline, Peer, Source, Status
from proxyroute.policy import FailoverPolicy, Policy
from proxyroute.sight import Sightings
from tests.support.builders import address, channel, replica, server, silent, view
from tests.support.story import lost_channel

ONE, TWO, THREE, FORMER, FAR = (f"{n:08x}-0000-0000-0000-000000000000" for n in (1, 2, 3, 8, 77))
NOW = f"{FORMER}:1-5,{ONE}:1-100"


def gtids(text: str) -> MySQLPosition:
    return MySQLPosition.parse(text)


def mysql(status: Status, uuid: str, executed: str) -> Status:
    return replace(status, flavour="mysql", uuid=uuid, executed=gtids(executed))


def ours(received: str, uuid: str = ONE) -> Source:
    return replace(lost_channel(), received=gtids(received), source_uuid=uuid)


def elsewhere() -> Source:
    other = channel(9, channel="other", address=address(9), source_id=77)
    return replace(other, received=gtids(f"{FAR}:1-50"), source_uuid=FAR)


def several(executed: str, received: str = "") -> Status:
    return mysql(replica(3, ours(received or executed), elsewhere()), THREE, executed)


def plain(executed: str = NOW) -> Status:
    return mysql(replica(2, ours(executed)), TWO, executed)


# -- The set itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has", "known", "members", "left"),
    [
        (f"{ONE}:1-7,{FAR}:1-3", f"{ONE}:1-5", (), f"{ONE}:1-7"),
        (f"{ONE}:1-7,{THREE}:1,{FAR}:1-3", f"{ONE}:1-5", (THREE,), f"{ONE}:1-7,{THREE}:1"),
        (f"{ONE}:1-7:blue:1-2,{FAR}:blue:1-3", f"{ONE}:1-5", (), f"{ONE}:1-7:blue:1-2"),
        (f"{FAR}:1-3", "", (), ""),
        (f"{THREE}:1-3", "", (THREE,), f"{THREE}:1-3"),
    ],
)
def test_who_wrote_it_tells_whose_it_is(has: str, known: str, members: tuple[str, ...], left: str) -> None:
    assert gtids(has).alongside(gtids(known), members) == gtids(left)


# -- A replica beside its primary -----------------------------------------------------------------------------------


def found(status: Status) -> dict[str, str]:
    primary = mysql(server(1), ONE, NOW)
    case = conditions.Replica(view(primary, status), "db1", status, Policy())
    rules = {"errant": conditions.errant, "obscure": conditions.obscure}
    return {name: said.text for name, rule in rules.items() if (said := rule(case)) is not None}


def test_what_another_source_gave_is_not_errant_and_what_it_wrote_itself_is() -> None:
    assert found(several(f"{NOW},{FAR}:1-50")) == {}
    text = found(several(f"{NOW},{FAR}:1-50,{THREE}:1"))["errant"]
    assert f"{THREE}:1" in text
    assert FAR not in text


def test_with_one_source_nothing_came_from_elsewhere() -> None:
    assert FAR in found(plain(f"{NOW},{FAR}:1-50"))["errant"]


# -- A failover -----------------------------------------------------------------------------------------------------


def elect(*servers: Status, known: Known | None = None) -> FailoverElection:
    sightings = Sightings.of(view(silent(1), *servers), 10.0)
    return elect_failover(sightings, "db1", Policy(), FailoverPolicy(policy="most_advanced"), known)


SEEN = Known("db1", 1000.0, ("db2", "db3"), {"db1": 1}, gtids(NOW))


@pytest.mark.parametrize("known", [SEEN, None, replace(SEEN, executed=None)], ids=["seen", "unseen", "no position"])
def test_what_another_cluster_gave_a_replica_is_not_fetched(known: Known | None) -> None:
    election = elect(plain(), several(f"{NOW},{FAR}:1-50"), known=known)
    assert (election.winner, election.fetch_from, election.goal) == ("db2", None, gtids(NOW))


def test_what_only_it_received_from_the_primary_is_counted_and_told() -> None:
    more = f"{FORMER}:1-5,{ONE}:1-105"
    election = elect(plain(), several(f"{more},{FAR}:1-50"), known=SEEN)
    assert (election.winner, election.fetch_from, election.goal) == ("db2", None, gtids(NOW))
    (finding,) = (f for f in election.findings if f.code == "failover.unfetchable")
    assert f"{ONE}:101-105" in finding.text
    assert FAR not in finding.text


def test_the_first_writes_of_a_primary_that_nobody_has_seen_are_known_by_its_name() -> None:
    """Nothing known names it: it was promoted a moment ago, and only a replica of several sources has its writes."""
    before = f"{FORMER}:1-5"
    first = several(f"{before},{FAR}:1-50", received=f"{before},{ONE}:1-2")
    election = elect(plain(before), first, known=replace(SEEN, executed=gtids(before)))
    (finding,) = (f for f in election.findings if f.code == "failover.unfetchable")
    assert f"{ONE}:1-2" in finding.text


def test_a_source_from_elsewhere_is_no_member_where_nothing_leads_to_the_primary() -> None:
    """It is below another replica, and the channel from elsewhere comes first."""
    below = mysql(replica(3, elsewhere(), replace(ours(NOW, TWO), address=address(2), source_id=2)), THREE, NOW)
    election = elect(plain(), replace(below, executed=gtids(f"{NOW},{FAR}:1-50")), known=SEEN)
    assert (election.winner, election.fetch_from, election.goal) == ("db2", None, gtids(NOW))
    assert FAR not in str(election.findings)


# -- After it, when the dead primary had written something that only that replica has ------------------------------

LEFT = several(f"{FORMER}:1-5,{ONE}:1-2,{FAR}:1-50")
SUCCESSOR = mysql(server(2), TWO, f"{FORMER}:1-5,{TWO}:1")


def test_what_only_it_has_of_a_dead_primary_is_errant_beside_the_next_one() -> None:
    """The next primary has never heard of that name: the channel that led to the dead one tells whose it is."""
    case = conditions.Replica(view(silent(1), SUCCESSOR, LEFT), "db2", LEFT, Policy())
    assert case.ours == gtids(f"{FORMER}:1-5,{ONE}:1-2")
    objection = conditions.errant(case)
    assert objection is not None
    assert f"{ONE}:1-2" in objection.text


def test_it_does_not_follow_the_next_primary_with_it() -> None:
    class Channels(MySQLReplication):
        def _status(self, deadline: Deadline) -> Status:
            return LEFT

    replication = Channels(lambda _: pytest.fail("nothing is sent"), ReplicationLogin("repl", ""))
    with pytest.raises(Diverged, match=f"has executed {ONE}:1-2, which db2 does not have"):
        replication.follow(
            Peer("db2", address(2), 2), Deadline.after(5), instead_of=Peer("db1", address(1), 1),
            source_has=lambda: SUCCESSOR.executed, source_purged=None, options=None,
        )  # fmt: skip


# -- The old primary is connected to the next one as that was to it ----------------------------------------------------


def test_how_it_is_connected_to_another_cluster_is_not_passed_on() -> None:
    near, far = replace(ours(NOW), options={"ssl": True}), replace(elsewhere(), options={"ssl": False})
    both = view(server(1), mysql(replica(3, far, near), THREE, NOW))
    assert topology.options(both, both.status("db3"), "db1") == {"ssl": True}
    assert topology.options(both, both.status("db3"), "db2") == {"ssl": False}  # nothing better is known
    assert topology.options(both, None, "db1") == topology.options(both, both.status("db1"), "db1") == {}
