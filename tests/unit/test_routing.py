"""Where reads and writes go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyroute.model import Epoch, Reader, Receiver, RouteTable, Silent, Source, Status, View
from proxyroute.policy import Policy
from proxyroute.routing import route, weight
from tests.support.builders import channel, endpoints, replica, server, silent, view
from tests.unit.test_election import clusters

EPOCH = Epoch(3, 1)


def routed(seen: View, primary: str | None = "db1", policy: Policy | None = None) -> RouteTable:
    return route(seen, primary, policy or Policy(), EPOCH, endpoints(seen))


def readers(*servers: Status | Silent, primary: str | None = "db1") -> list[str]:
    return [reader.name for reader in routed(view(*servers), primary).readers]


def test_writes_go_to_the_primary_and_reads_to_its_replicas() -> None:
    seen = view(server(1), replica(2), replica(3))
    table = routed(seen)
    assert table == RouteTable("shop", EPOCH, endpoints(seen), "db1", readers=(Reader("db2", 100), Reader("db3", 100)))


def test_without_a_usable_replica_the_primary_serves_reads() -> None:
    assert readers(server(1), silent(2), replica(3, channel(applier=False))) == ["db1"]
    assert readers(server(1)) == ["db1"]


@pytest.mark.parametrize(
    "source",
    [
        channel(lag_seconds=30.5),
        channel(lag_seconds=None),
        channel(applier=False),
        channel(receiver=Receiver.CONNECTING),
        channel(source_id=77),
    ],
    ids=["too far behind", "lag unknown", "applier stopped", "receiver not connected", "follows somebody else"],
)
def test_a_replica_that_cannot_be_trusted_gets_no_reads(source: Source) -> None:
    assert readers(server(1), replace(replica(2), sources=(source,)), replica(3)) == ["db3"]


def test_a_replica_of_a_replica_serves_reads_while_the_whole_chain_runs() -> None:
    below = replica(3, channel(2, lag_seconds=1.0))
    assert readers(server(1), replica(2), below) == ["db2", "db3"]
    assert readers(server(1), replica(2, channel(applier=False)), below) == ["db1"]
    assert readers(server(1), silent(2), below) == ["db1"]


def test_a_chain_is_as_far_behind_as_its_worst_link() -> None:
    seen = view(server(1), replica(2, channel(lag_seconds=20.0)), replica(3, channel(2, lag_seconds=0.0)))
    assert routed(seen).readers == (Reader("db2", 25), Reader("db3", 25))


def test_before_a_switchover_the_route_of_the_candidate_has_the_other_replicas() -> None:
    seen = view(server(1), replica(2), replica(3), replica(4, channel(3)))
    assert readers(*seen.seen, primary="db2") == ["db3", "db4"]
    assert readers(server(1), replica(2), primary="db2") == ["db2"]


def test_a_replica_that_still_follows_the_old_primary_gets_no_reads_after_the_switchover() -> None:
    assert readers(server(1, writable=False), server(2), replica(3, channel(1)), primary="db2") == ["db2"]


def test_a_closed_write_route_leaves_the_running_replicas_to_readers() -> None:
    seen = view(server(1), replica(2), replica(3, channel(applier=False)))
    table = routed(seen, None)
    assert table.primary is None
    assert [reader.name for reader in table.readers] == ["db2"]


def test_readers_come_in_the_order_of_the_configuration() -> None:
    assert readers(replica(3), replica(2), server(1)) == ["db3", "db2"]


@given(st.floats(0, 100), st.floats(0, 100))
def test_more_lag_never_gives_more_weight(one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert 100 >= weight(less) >= weight(more) >= 1


def test_the_usual_ups_and_downs_of_lag_change_nothing() -> None:
    assert len({weight(tenths / 10) for tenths in range(1000)}) <= 5


@given(clusters(), st.data())
def test_a_route_always_has_readers_with_weights_and_names_its_primary(
    case: tuple[View, Policy], data: st.DataObject
) -> None:
    seen, policy = case
    primary = data.draw(st.sampled_from(list(seen.servers)))
    table = routed(seen, primary, policy)
    assert table.primary == primary
    assert table.readers
    assert all(1 <= reader.weight <= 100 for reader in table.readers)
    names = [reader.name for reader in table.readers]
    assert len(set(names)) == len(names)
    assert set(names) <= set(seen.servers)
    assert primary not in names or names == [primary]
    assert table == routed(seen, primary, policy)
