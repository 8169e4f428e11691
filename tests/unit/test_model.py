"""The values that do a little more than hold fields."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyroute import model
from proxyroute.errors import TimedOut
from proxyroute.model import Address, Deadline, Endpoint, Epoch, RouteTable
from proxyroute.outcome import Evidence, Proof, Verdict
from tests.support.builders import channel, replica, server, silent, view


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A monotonic clock that stands still; its one item is the time."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_deadline_has_less_left_as_time_goes_by_and_never_less_than_nothing(clock: list[float]) -> None:
    deadline = Deadline.after(3.0)
    assert deadline.left == 3.0
    clock[0] += 2.0
    assert deadline.left == 1.0
    assert not deadline.passed
    clock[0] += 5.0
    assert deadline.left == 0.0
    assert deadline.passed


def test_a_deadline_that_has_passed_says_what_was_waited_for(clock: list[float]) -> None:
    deadline = Deadline.after(1.0)
    assert deadline.require("the lock") == 1.0
    clock[0] += 1.0
    with pytest.raises(TimedOut, match="the lock"):
        deadline.require("the lock")


def test_a_part_of_a_deadline_never_goes_beyond_it(clock: list[float]) -> None:
    deadline = Deadline.after(2.0)
    assert deadline.within(0.5).left == 0.5
    assert deadline.within(10.0) == deadline


@given(st.builds(Epoch, st.integers(0, 10**6), st.integers(0, 10**6)))
def test_epochs_read_what_they_wrote(epoch: Epoch) -> None:
    assert Epoch.parse(str(epoch)) == epoch


def test_epochs_are_ordered_by_number_and_not_by_text() -> None:
    assert Epoch(2, 0) > Epoch(1, 99) > Epoch(1, 9) > model.NO_EPOCH


@pytest.mark.parametrize("text", ["", "1", "a.b", "1.", "1.2.3"])
def test_what_is_no_epoch_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        Epoch.parse(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("db1", "db1", 3306),
        ("db1.example:3307", "db1.example", 3307),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("[::1]:65535", "::1", 65535),
        ("[::1]", "::1", 3306),
        ("fe80::1", "fe80::1", 3306),
    ],
)
def test_addresses_are_read_with_and_without_port(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert address == Address(host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("text", ["", ":3306", "db1:x", "db1:0", "db1:65536", "[::1", "[::1]x", "[]:1"])
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an address|is not between"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((), Verdict.UNKNOWN),
        ((Verdict.PROVEN, Verdict.PROVEN), Verdict.PROVEN),
        ((Verdict.PROVEN, Verdict.UNKNOWN), Verdict.UNKNOWN),
        ((Verdict.UNKNOWN, Verdict.NOT_PROVEN, Verdict.PROVEN), Verdict.NOT_PROVEN),
    ],
)
def test_a_proof_is_as_good_as_its_worst_evidence(verdicts: tuple[Verdict, ...], expected: Verdict) -> None:
    assert Proof(tuple(Evidence("db1", "takes writes", verdict, "") for verdict in verdicts)).verdict is expected


def test_the_primary_is_the_one_server_that_takes_writes() -> None:
    assert view(server(1), replica(2), silent(3)).primary == server(1)
    assert view(replica(2), silent(1)).primary is None
    assert view(server(1), server(2)).primary is None


def test_a_writable_replica_beside_a_primary_is_not_the_primary() -> None:
    assert view(replica(2, writable=True), server(1)).primary == server(1)


def test_a_view_tells_those_who_answered_from_those_who_did_not() -> None:
    seen = view(server(1), silent(3), replica(2))
    assert [s.name for s in seen.seen] == ["db1", "db2"]
    assert [s.name for s in seen.silent] == ["db3"]
    assert seen.status("db3") is None
    assert seen.status("db9") is None


def test_a_channel_runs_when_both_its_threads_do() -> None:
    assert channel().running
    assert not channel(applier=False).running
    assert not channel(receiver=model.Receiver.CONNECTING).running


def test_a_route_knows_the_addresses_of_its_own_servers_only() -> None:
    table = RouteTable("shop", Epoch(1, 1), (Endpoint("db1", Address("10.0.0.1", 3306)),), "db1")
    assert table.address("db1") == Address("10.0.0.1", 3306)
    with pytest.raises(KeyError):
        table.address("db2")
