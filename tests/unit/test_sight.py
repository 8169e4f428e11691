"""What is remembered of each server, and what a replica tells about its primary."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from proxyroute.errors import Silence
from proxyroute.gtid import Position
from proxyroute.known import Known, SyncSight, moved, primary_of, remember
from proxyroute.model import Receiver, SemiSync, Source, Status
from proxyroute.moment import Moment
from proxyroute.policy import FailoverPolicy
from proxyroute.sight import KEPT, Evidence, Sightings, Witness, advanced, certainly_lives, evidence
from tests.support.builders import address, channel, position, replica, server, silent
from tests.support.story import TOOK, beating, begin, dead, look, lost, lost_channel, well

SYNC = SemiSync(True, True, True, clients=2, wait_point="AFTER_SYNC", timeout_seconds=10.0, wait_no_replica=True)


def tells(sightings: Sightings, name: str = "db2", now: float = 10.0) -> Evidence:
    return evidence(sightings, "db1", now, FailoverPolicy())[name]


def one(source: Source, *, silent_at: float | None = None) -> Sightings:
    """db1 and db2 are well until 5.0; then db2 is as given, and db1 silent if ``silent_at`` says when."""
    found = well(server(1), replica(2))
    if silent_at is not None:
        found = look(found, silent_at, silent(1))
    return look(found, 5.1, replica(2, source))


# -- Memory ---------------------------------------------------------------------------------------------------


def test_a_track_remembers_the_last_good_sight_and_counts_the_silent_ones() -> None:
    found = dead(lost(2), lost(3), seconds=20.0)
    track = found.tracks["db1"]
    assert (track.silent_since, track.silent_looks, len(track.recent)) == (5.0, 41, KEPT)
    assert isinstance(track.good and track.good.seen, Status)
    assert track.writable_at == 4.5 + TOOK
    assert (track.status, track.server_id) == (None, 1)
    assert found.view.status("db1") is None
    assert found.roster.status("db1") is not None

    track = look(found, 30.0, server(1, writable=False)).tracks["db1"]
    assert (track.silent_since, track.silent_looks, track.writable_at) == (None, 0, 4.5 + TOOK)


def test_a_doubtful_silence_neither_begins_one_nor_counts() -> None:
    found = look(well(server(1), replica(2)), 5.0, silent(1), doubtful=True)
    assert (found.tracks["db1"].silent_since, found.tracks["db1"].silent_looks) == (None, 0)
    found = look(look(found, 6.0, silent(1)), 7.0, silent(1), doubtful=True)
    assert (found.tracks["db1"].silent_since, found.tracks["db1"].silent_looks) == (6.0, 1)


def test_servers_are_silent_before_they_were_looked_at() -> None:
    assert not begin().complete
    assert {s.name for s in begin().view.silent} == {"db1", "db2", "db3"}


# -- What advances --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, False),
        ({"heartbeats": 8}, True),
        ({"heartbeats": 1}, False),
        ({"read_offset": 501}, True),
        ({"read_offset": 4}, False),
        ({"read_file": "binlog.000003", "read_offset": 4}, True),
        ({"read_file": "", "read_offset": 4}, False),
        ({"received": position("0-1-999")}, False),
    ],
)
def test_bytes_and_heartbeats_advance_and_a_fresh_start_does_not(changes: dict[str, object], answer: bool) -> None:
    before = channel(heartbeats=7, read_file="binlog.000002", read_offset=500)
    assert advanced(before, replace(before, **changes)) is answer  # type: ignore[arg-type]


def test_file_numbers_that_grow_longer_still_advance() -> None:
    before = channel(read_file="binlog.999999", read_offset=500)
    assert advanced(before, replace(before, read_file="binlog.1000000", read_offset=4))


def test_what_another_source_sent_is_no_evidence() -> None:
    found = well(server(1), replica(2, channel(9, source_id=9)))
    found = look(found, 5.1, replica(2, channel(heartbeats=99)))
    assert tells(found, now=5.2).witness is Witness.UNDECIDED


# -- Witnesses ------------------------------------------------------------------------------------------------


def test_a_replica_that_hears_is_fresh_and_says_for_how_long_it_has_not() -> None:
    told = tells(one(channel(heartbeats=20)), now=6.0)
    assert (told.witness, round(told.seconds or 0, 2)) == (Witness.FRESH, 0.89)
    assert not told.heard_since_silence
    assert tells(one(channel(heartbeats=20), silent_at=4.4), now=6.0).heard_since_silence
    assert not tells(one(channel(heartbeats=20), silent_at=5.0), now=6.0).heard_since_silence  # may have been before


def test_the_state_of_the_threads_is_no_evidence() -> None:
    """Twelve seconds after SIGSTOP of the primary both threads of a replica still read Yes."""
    told = tells(dead(replica(2), kind=Silence.HUNG, seconds=12.0), now=17.1)
    assert told.witness is Witness.STALE
    assert "has heard nothing for 12.5 s" in told.text


def test_silence_of_a_replica_is_measured_by_looks_and_not_by_the_clock() -> None:
    assert tells(dead(replica(2), seconds=1.0), now=1000.0).witness is Witness.FRESH


@pytest.mark.parametrize(
    ("changes", "seconds", "witness"),
    [
        ({"heartbeat_seconds": 30.0}, 60.0, Witness.FRESH),
        ({"heartbeat_seconds": 30.0}, 80.0, Witness.STALE),
        ({"heartbeat_seconds": 0.0}, 3.0, Witness.FRESH),
        ({"heartbeat_seconds": 0.0}, 5.0, Witness.STALE),  # slave_net_timeout is 4 s
    ],
)
def test_the_bound_is_the_heartbeat_or_the_servers_own(
    changes: dict[str, object], seconds: float, witness: Witness
) -> None:
    source = channel(**changes)
    found = dead(replica(2, source), before=(replica(2, source),), seconds=seconds)
    assert tells(found, now=5.0 + seconds).witness is witness


@pytest.mark.parametrize(
    ("source", "witness"),
    [
        (lost_channel(), Witness.LOST),
        (channel(receiver=Receiver.CONNECTING), Witness.LOST),
        (channel(receiver=Receiver.STOPPED), Witness.NONE),
        (channel(receiver=Receiver.STOPPED, receiver_errno=2003), Witness.LOST),
        (channel(receiver=Receiver.STOPPED, receiver_errno=1236), Witness.NONE),
        (channel(receiver=Receiver.CONNECTING, receiver_errno=1045), Witness.NONE),  # it has answered
        (channel(receiver_state="Waiting for the slave SQL thread to free enough relay log space"), Witness.NONE),
        (channel(2), Witness.NONE),
    ],
)
def test_a_receiver_that_does_not_hear_says_why(source: Source, witness: Witness) -> None:
    assert tells(one(source, silent_at=5.0), now=6.0).witness is witness


def test_what_was_seen_before_the_silence_tells_nothing_about_it() -> None:
    assert tells(one(lost_channel(), silent_at=5.2), now=6.0).witness is Witness.UNDECIDED
    assert tells(well(server(1), replica(2)), now=100.0).witness is Witness.FRESH


def test_a_silent_replica_tells_nothing() -> None:
    assert tells(dead(silent(2)), now=10.0).witness is Witness.NONE
    assert tells(begin(2)).witness is Witness.NONE


# -- What is kept on disk -------------------------------------------------------------------------------------


def known_of(sightings: Sightings, before: Known | None = None) -> Known:
    found = remember(sightings, before, 10.0, 1000.0)
    assert found is not None
    return found


def test_what_is_remembered_survives_the_disk() -> None:
    sync = replace(SYNC, replica_enabled=True)
    found = well(server(1, semi_sync=sync), replica(2, semi_sync=sync), replica(3))
    known = known_of(found)
    assert known == Known(
        "db1",
        1000.0 - (10.0 - 4.5 - TOOK),
        ("db2", "db3"),
        {"db1": 1, "db2": 2, "db3": 3},
        position("0-1-100"),
        SyncSight(True, True, True, 10.0, 2, ("db2",)),
    )
    assert Known.from_json(json.loads(json.dumps(known.to_json()))) == known
    sure = remember(found, None, 10.0, 1000.0, Moment("this", 50.0))
    assert sure is not None
    assert sure.moment == Moment("this", 50.0 - (10.0 - 4.5 - TOOK))
    assert sure.semi_sync is not None
    assert sure.semi_sync.since == Moment("this", 50.0 - (10.0 - 4.5)), "nobody waited when it was begun to be read"
    assert replace(sure, moment=None, semi_sync=sure.semi_sync.same_order()) == known
    assert Known.from_json(json.loads(json.dumps(sure.to_json()))) == sure
    bare = Known("db1", 1.0)
    assert Known.from_json(json.loads(json.dumps(bare.to_json()))) == bare
    before = {k: v for k, v in known.to_json().items() if k not in ("moment", "event_scheduler")}
    assert Known.from_json(before) == known, "an earlier version wrote neither"
    for broken in ({}, {**before, "moment": 5}, {"primary": "db1"}, {**known.to_json(), "semi_sync": {"active": True}}):
        with pytest.raises(ValueError, match="no record of a known topology"):
            Known.from_json(broken)


@pytest.mark.parametrize(
    ("waiting", "acknowledged", "since"),
    [
        (0, 500, 2.0),  # nobody waits now: at this sight
        (8, 507, 1.0),  # all who waited at the sight before have gone on: they began after that one
        (8, 506, 0.5),  # one of them may wait still, and when it gives up the primary goes on alone
        (8, 500, 0.5),
        (8, 0, 0.5),  # it has restarted, and counts anew
    ],
)
def test_since_when_somebody_may_have_waited(waiting: int, acknowledged: int, since: float) -> None:
    """Replicas that are cut off are counted, and the primary says that it waits, until the first wait is over."""

    def seen(before: Known | None, at: float, waiting: int, acknowledged: int) -> Known:
        sync = replace(SYNC, replica_enabled=True, waiting=waiting, acknowledged=acknowledged)
        found = well(server(1, semi_sync=sync), replica(2, semi_sync=sync), replica(3))
        known = remember(found, before, 10.0, 1000.0, Moment("this", at + (10.0 - 4.5)))
        assert known is not None
        return known

    before = seen(seen(None, 0.5, 0, 480), 1.0, 7, 500)
    known = seen(before, 2.0, waiting, acknowledged)
    assert known.semi_sync is not None
    assert known.semi_sync.since == Moment("this", since)
    assert known.same_order(before)
    unknown = seen(None, 1.0, 7, 500)
    assert unknown.semi_sync is not None
    assert unknown.semi_sync.since is None, "nobody can tell by one sight for how long they have waited"


def test_that_scheduled_events_run_is_remembered_also_of_the_next_primary() -> None:
    for runs in (True, False):
        known = known_of(well(server(1, event_scheduler=runs), replica(2), replica(3)))
        assert Known.from_json(json.loads(json.dumps(known.to_json()))).event_scheduler is runs
        after = moved(known, "db2", 2000.0)
        assert after is not None
        assert after.event_scheduler is runs


def test_only_what_decides_something_is_worth_saving_at_once() -> None:
    known = Known("db1", 1.0, ("db2",), executed=position("0-1-1"))
    assert known.same_order(replace(known, at=2.0, executed=position("0-1-2")))
    assert known.same_order(replace(known, at=2.0, moment=Moment("this", 1.0)))
    assert not known.same_order(replace(known, replicas=()))
    assert not known.same_order(None)


def test_nothing_is_learnt_while_no_primary_or_more_than_one_takes_writes() -> None:
    known = Known("db1", 1.0, ("db2",))
    assert remember(dead(lost(2), lost(3)), known, 10.0, 1000.0) is known
    assert remember(look(begin(2), 0.0, server(1), server(2)), known, 10.0, 1000.0) is known
    assert remember(look(begin(2), 0.0, server(1, writable=False), replica(2)), None, 10.0, 1000.0) is None


def test_a_replica_that_falls_silent_is_still_one_and_may_still_acknowledge() -> None:
    sync = replace(SYNC, replica_enabled=True)
    found = well(server(1, semi_sync=sync), replica(2, semi_sync=sync), replica(3))
    before = known_of(found)
    after = known_of(look(found, 6.0, silent(2)), before)
    assert after.replicas == ("db2", "db3")
    assert after.semi_sync
    assert after.semi_sync.acknowledgers == ("db2",)


def test_one_that_has_lost_its_connection_may_have_acknowledged_what_nobody_else_has() -> None:
    """db3 is slow: what db2 has acknowledged last has not reached it when db2 loses the primary."""
    sync = replace(SYNC, replica_enabled=True)

    def follower(number: int, received: str, **changes: object) -> Status:
        return replica(number, channel(received=received), executed="0-1-90", semi_sync=sync, **changes)

    before = known_of(well(server(1, semi_sync=sync), follower(2, "0-1-100"), follower(3, "0-1-98")))
    cut_off = replica(2, lost_channel("0-1-100"), executed="0-1-90", semi_sync=sync)
    found = well(server(1, semi_sync=sync), cut_off, follower(3, "0-1-98"))
    after = known_of(found, before)
    assert after.semi_sync is not None
    assert (after.semi_sync.acknowledgers, after.semi_sync.formerly) == (("db3",), ("db2",))
    assert Known.from_json(json.loads(json.dumps(after.to_json()))) == after
    gone = known_of(look(found, 6.0, silent(2)), after)
    assert gone.semi_sync is not None
    assert (gone.semi_sync.acknowledgers, gone.semi_sync.formerly) == (("db3",), ("db2",)), "nor does it come back"

    caught_up = known_of(well(server(1, semi_sync=sync), cut_off, follower(3, "0-1-100")), after)
    assert caught_up.semi_sync is not None
    assert (caught_up.semi_sync.acknowledgers, caught_up.semi_sync.formerly) == (("db3",), ()), "db3 has all of it"
    again = known_of(well(server(1, semi_sync=sync), follower(2, "0-1-100"), follower(3, "0-1-98")), after)
    assert again.semi_sync is not None
    assert (again.semi_sync.acknowledgers, again.semi_sync.formerly) == (("db2", "db3"), ())


def test_former_primaries_are_remembered_until_they_are_primary_again() -> None:
    first = known_of(well(server(1), replica(2)))
    second = known_of(look(begin(2), 9.0, silent(1), server(2)), first)
    assert (second.primary, second.former) == ("db2", ("db1",))
    third = known_of(well(server(1), replica(2)), second)
    assert (third.primary, third.former) == ("db1", ("db2",))


def test_who_the_primary_is() -> None:
    elsewhere: Position = position("0-1-1")
    assert primary_of(begin()) is None
    assert primary_of(begin(), Known("db2", 1.0, executed=elsewhere)) == "db2"
    assert primary_of(begin(), Known("gone", 1.0)) is None
    split = look(begin(4), 0.0, silent(1), silent(2), replica(3), replica(4, channel(2)))
    assert primary_of(split) is None
    assert primary_of(split, Known("db1", 1.0)) == "db1"
    assert primary_of(split, Known("db3", 1.0)) is None  # it follows another now
    chain = look(begin(3), 0.0, silent(1), replica(2), replica(3, channel(2)))
    assert primary_of(chain) == "db1"
    stranger = replica(3, replace(lost_channel(), address=address(9), source_id=9))
    assert primary_of(look(begin(3), 0.0, silent(1), lost(2), stranger)) == "db1"


def test_what_an_operation_has_done_is_known_before_anybody_was_looked_at_again() -> None:
    known = Known("db1", 5.0, ("db2", "db3"), {"db1": 1}, position("0-1-1"))
    after = moved(known, "db2", 6.0)
    assert after == Known("db2", 6.0, ("db3", "db1"), {"db1": 1}, former=("db1",))
    both = look(begin(3), 0.0, server(1), server(2), replica(3))
    assert primary_of(both, known) == "db1"
    assert primary_of(both, after) == "db2"
    assert moved(after, "db2", 9.0) is after
    assert moved(known, "db2", 4.0) is known, "what was seen later counts more"
    assert moved(None, "db2", 4.0) is None


# -- It lives, and looking on will not tell otherwise ------------------------------------------------------------


def test_a_primary_that_a_replica_goes_on_hearing_lives_and_its_last_word_proves_nothing() -> None:
    policy = FailoverPolicy(patience=1.0)
    found, clear_at = well(server(1), replica(2)), []
    for n in range(12):
        at = 5.0 + n * 0.5
        found = look(found, at, silent(1), beating(replica(2), 20 + n))
        if certainly_lives(found, "db1", at + TOOK, policy):
            clear_at.append(at)
    assert clear_at[0] == pytest.approx(6.5), "what it heard must be a whole look later than the silence"
    mute = look(well(server(1), replica(2)), 5.0, silent(1), beating(replica(2), 20))
    for n in range(1, 12):
        mute = look(mute, 5.0 + n * 0.5, silent(1), beating(replica(2), 20))
        assert not certainly_lives(mute, "db1", 5.0 + n * 0.5, policy)
    assert not certainly_lives(well(server(1), replica(2)), "db1", 5.0, policy), "it answers"
