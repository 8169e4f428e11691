"""Who takes over from a primary that is gone, from whom it fetches first, and what may be lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyroute.decided import FailoverElection
from proxyroute.failover_election import elect_failover, reason_codes, rejections
from proxyroute.gtid import Containment
from proxyroute.known import Known, SyncSight
from proxyroute.model import Severity, Silent, Status
from proxyroute.moment import Moment
from proxyroute.policy import FailoverPolicy, Policy
from proxyroute.sight import Sightings
from tests.support.builders import address, channel, position, replica, server, silent, view
from tests.support.story import lost, lost_channel

POLICY = Policy()
LOSSLESS, ADVANCED = FailoverPolicy(), FailoverPolicy(policy="most_advanced")
SYNC = SyncSight(True, True, True, 10.0, 2, ("db2", "db3"))
KNOWN = Known("db1", 1000.0, ("db2", "db3"), {"db1": 1}, position("0-1-100"), SYNC, moment=Moment.now())


def seen(*servers: Status | Silent) -> Sightings:
    return Sightings.of(view(silent(1), *servers), 10.0)


def elect(
    *servers: Status | Silent,
    policy: Policy = POLICY,
    failover: FailoverPolicy = ADVANCED,
    known: Known | None = KNOWN,
    **options: object,
) -> FailoverElection:
    return elect_failover(seen(*servers), "db1", policy, failover, known, **options)  # type: ignore[arg-type]


def codes(election: FailoverElection, severity: Severity = Severity.ERROR) -> set[str]:
    assert all(f.cure for f in election.findings)
    return {f.code for f in election.findings if f.severity is severity}


def against(name: str, *servers: Status | Silent, policy: Policy = POLICY, **options: object) -> list[str]:
    found = rejections(seen(*servers), "db1", policy, name, KNOWN, **options)  # type: ignore[arg-type]
    return [r.code for r in found]


# -- Who may --------------------------------------------------------------------------------------------------

SICK: dict[str, Callable[[], Status | Silent]] = {
    "candidate.silent": lambda: silent(2),
    "candidate.unattached": lambda: replace(lost(2), sources=()),
    "candidate.astray": lambda: replica(2, channel(9, source_id=9)),
    "candidate.chain": lambda: replica(2, channel(3)),
    "candidate.multi_source": lambda: replica(2, lost_channel(), channel(9, channel="other", address=address(9))),
    "candidate.applier": lambda: replica(2, replace(lost_channel(), applier=False, error="1062 duplicate entry")),
    "candidate.gtid": lambda: replica(2, replace(lost_channel(), uses_gtid=False)),
    "candidate.gtid_mode": lambda: lost(2, settings={"gtid_mode": "OFF_PERMISSIVE"}),
    "candidate.delay": lambda: replica(2, replace(lost_channel(), delay_seconds=60)),
    "candidate.filters": lambda: replica(2, replace(lost_channel(), filtered=True)),
    "candidate.binlog": lambda: lost(2, binlog=False, relays_updates=False),
    "candidate.relay": lambda: lost(2, relays_updates=False),
    "candidate.writable": lambda: lost(2, writable=True),
    "candidate.offline": lambda: lost(2, settings={"offline_mode": "ON"}),
    "candidate.errant": lambda: lost(2, executed="0-1-100,0-2-101"),
    "candidate.history": lambda: lost(2, executed="0-1-100,0-2-50"),
}


@pytest.mark.parametrize("code", SICK)
def test_each_fault_alone_keeps_a_replica_from_being_promoted(code: str) -> None:
    assert against("db2", SICK[code](), lost(3)) == [code]
    assert elect(SICK[code](), lost(3)).winner == "db3"


def test_every_reason_is_known() -> None:
    assert against("db9", lost(2)) == ["candidate.unknown"]
    assert against("db2", lost(2), policy=Policy(never=("db2",))) == ["candidate.never"]
    assert against("db2", lost(2), policy=Policy(aside=("db2",))) == ["candidate.aside"]
    assert reason_codes() == {*SICK, "candidate.unknown", "candidate.never", "candidate.aside"}


def test_a_lost_receiver_and_a_lag_are_no_reasons() -> None:
    late = replace(lost_channel(), lag_seconds=None)
    assert against("db2", replica(2, late), lost(3)) == []


def test_policy_and_name_let_pass_what_they_may() -> None:
    many = SICK["candidate.multi_source"]()
    assert against("db2", many, lost(3), named=True) == []
    assert against("db2", SICK["candidate.delay"](), lost(3), policy=Policy(allow_delayed=True)) == []
    assert against("db2", SICK["candidate.filters"](), lost(3), policy=Policy(allow_filtered=True)) == []
    assert against("db2", SICK["candidate.history"](), lost(3), named=True, force=True) == []
    assert against("db2", SICK["candidate.offline"](), lost(3), named=True, force=True) == []
    assert against("db2", SICK["candidate.gtid_mode"](), lost(3), named=True, force=True) == []
    assert against("db2", SICK["candidate.errant"](), lost(3), named=True, force=True) == ["candidate.errant"]


def test_a_former_primary_has_events_of_its_own_that_belong_to_the_cluster() -> None:
    former = "0-2-60,0-1-100"
    known = replace(KNOWN, executed=position(former))
    found = rejections(seen(lost(2, executed=former), lost(3)), "db1", POLICY, "db2", known)
    assert found == ()
    alone = rejections(seen(lost(2, executed=former)), "db1", POLICY, "db2")  # nobody to ask: the order tells
    assert alone == ()
    assert rejections(seen(lost(2, executed="0-1-100,0-2-101")), "db1", POLICY, "db2")[0].code == "candidate.errant"


def test_nobody_wins_with_every_reason_told() -> None:
    election = elect(SICK["candidate.applier"](), silent(3))
    assert (election.winner, election.fetch_from) == (None, None)
    assert codes(election) == {"failover.candidate"}
    assert "db2 its applier is stopped: 1062" in election.findings[0].text
    assert "db3 did not answer" in election.findings[0].text


def test_a_server_that_was_named_wins_or_nobody_does() -> None:
    assert elect(lost(2, "0-1-100"), lost(3, "0-1-101"), target="db2").winner == "db2"
    election = elect(lost(2), silent(3), target="db3")
    assert (election.winner, codes(election)) == (None, {"failover.candidate"})
    assert election.findings[0].text.startswith("db3 cannot take over")
    (finding,) = elect(lost(2), lost(3), target="db1").findings
    assert finding.text == "db1 cannot take over from db1: db1 is the one that is to be replaced"
    assert finding.cure == "name one of db2, db3"


# -- Who should -----------------------------------------------------------------------------------------------


def test_received_counts_before_applied_and_before_preference() -> None:
    behind = lost(2, "0-1-100", "0-1-100")
    ahead = lost(3, "0-1-101", "0-1-50")
    election = elect(behind, ahead, policy=Policy(prefer=("db2",)))
    assert (election.winner, election.fetch_from) == ("db3", None)
    assert str(election.goal) == "0-1-101"


def test_among_equals_preference_then_what_is_applied_then_the_order_of_the_file() -> None:
    assert elect(lost(2), lost(3), policy=Policy(prefer=("db3",))).winner == "db3"
    assert elect(lost(2, "0-1-100", "0-1-90"), lost(3)).winner == "db3"
    assert elect(lost(2), lost(3)).winner == "db2"


def test_a_domain_that_is_missing_counts_as_not_received() -> None:
    election = elect(lost(2, "0-1-100", "0-1-100"), lost(3, "0-1-100,5-1-3", "0-1-100"))
    assert election.winner == "db3"
    assert str(election.goal) == "0-1-100,5-1-3"


def test_a_broken_applier_is_not_promoted_for_having_received_most_and_its_events_cannot_be_fetched() -> None:
    broken = replica(2, replace(lost_channel("0-1-105"), applier=False, error="1062"), executed="0-1-101")
    election = elect(broken, lost(3))
    assert (election.winner, election.fetch_from) == ("db3", "db2")  # what it has applied can be had
    assert str(election.goal) == "0-1-101"
    assert codes(election, Severity.WARNING) == {"failover.unfetchable"}
    assert "db2 has received 0-1-105, which db3 lacks" in election.missing[0]
    assert codes(elect(broken, lost(3), failover=LOSSLESS)) == {"failover.unfetchable"}


def test_the_most_advanced_is_excluded_by_policy_and_gives_its_events_first() -> None:
    election = elect(lost(2, "0-1-105", "0-1-90"), lost(3), policy=Policy(never=("db2",)), failover=LOSSLESS)
    assert (election.winner, election.fetch_from) == ("db3", "db2")
    assert str(election.goal) == "0-1-105"
    assert (election.missing, election.lossless, election.findings) == ((), True, ())


def test_a_server_in_maintenance_still_gives_what_it_has() -> None:
    election = elect(lost(2, "0-1-105"), lost(3), policy=replace(POLICY, aside=("db2",)))
    assert (election.winner, election.fetch_from) == ("db3", "db2")


def test_one_that_applies_with_a_delay_gives_what_it_has_applied_and_not_what_it_has_only_received() -> None:
    """The failover would wait for an hour, and for nothing: its patience is over before."""
    later = replica(3, replace(lost_channel("0-1-105"), delay_seconds=3600), executed="0-1-90")
    election = elect(lost(2), later, failover=LOSSLESS)
    assert (election.winner, election.fetch_from, str(election.goal)) == ("db2", None, "0-1-100")
    (finding,) = election.findings
    assert (finding.code, finding.subject, finding.forceable) == ("failover.unfetchable", "db3", True)
    assert finding.text.endswith("db3 applies what it receives 3600 s later")
    applied = replace(later, executed=position("0-1-103"))
    election = elect(lost(2), applied, failover=LOSSLESS)
    assert (election.fetch_from, str(election.goal)) == ("db3", "0-1-103")


def test_one_that_serves_nobody_cannot_be_fetched_from() -> None:
    election = elect(lost(2, "0-1-105", relays_updates=False), lost(3), failover=LOSSLESS)
    assert (election.winner, election.fetch_from) == ("db3", None)
    assert codes(election) == {"failover.unfetchable"}


def several(received: str, executed: str, **changes: object) -> Status:
    """A replica of db1 that replicates from another cluster as well."""
    elsewhere = channel(9, executed, channel="other", address=address(9), source_id=77)
    return replica(3, lost_channel(received), elsewhere, executed=executed, **changes)


@pytest.mark.parametrize("known", [KNOWN, None, replace(KNOWN, executed=None)], ids=["seen", "unseen", "no position"])
def test_what_another_cluster_gave_a_replica_of_several_sources_is_not_ours(known: Known | None) -> None:
    """Its receivers tell of all domains, whatever the source: what it has of others makes it ahead of nobody."""
    more = several("0-1-100,7-77-50", "0-1-100,7-77-50")
    election = elect(lost(2), more, known=known)
    assert (election.winner, election.fetch_from, str(election.goal)) == ("db2", None, "0-1-100")
    assert election.missing == elect(lost(2), lost(3), known=known).missing


def test_of_a_primary_that_had_written_nothing_everything_is_from_elsewhere() -> None:
    new = replace(KNOWN, executed=position(""))
    election = elect(lost(2, "", ""), several("7-77-50", "7-77-50"), known=new)
    assert (election.winner, election.fetch_from, str(election.goal)) == ("db2", None, "")


def test_a_replica_of_several_sources_that_is_ahead_gives_nothing_for_it_would_give_all() -> None:
    more = several("0-1-105,7-77-50", "0-1-105,7-77-50")
    election = elect(lost(2), more, failover=LOSSLESS)
    assert (election.winner, election.fetch_from, str(election.goal)) == ("db2", None, "0-1-100")
    (finding,) = election.findings
    assert (finding.code, finding.forceable) == ("failover.unfetchable", True)
    assert "db3 has received 0-1-105, which db2 lacks" in finding.text
    assert finding.cure.startswith("--to db3 promotes it")
    clean = several("0-1-105", "0-1-105")  # the other source has not given it anything
    assert elect(lost(2), clean, failover=LOSSLESS).fetch_from == "db3"


def test_two_sources_of_one_cluster_are_no_foreign_history() -> None:
    ring = replica(3, lost_channel("0-1-105,5-1-3"), channel(2, "0-1-100"), executed="0-1-105,5-1-3")
    election = elect(lost(2), ring)
    assert (election.fetch_from, str(election.goal)) == ("db3", "0-1-105,5-1-3")


def test_events_that_are_errant_are_not_fetched() -> None:
    election = elect(lost(2, executed="0-1-100,0-2-107"), lost(3))
    assert (election.winner, election.fetch_from, str(election.goal)) == ("db3", None, "0-1-100")
    assert election.missing == ()


def test_a_history_that_nobody_can_tell_blocks_and_an_old_one_that_the_primary_had_does_not() -> None:
    reseeded, old = lost(2, "0-1-101", "0-1-101"), lost(3, "0-1-100", "0-1-100,0-7-40")
    election = elect(reseeded, old)
    assert (election.winner, codes(election)) == ("db2", {"failover.history"})
    known = replace(KNOWN, executed=position("0-1-101,0-7-40"))
    assert codes(elect(reseeded, old, known=known)) == set()
    loose = replace(reseeded, strict=False)
    assert codes(elect(loose, old, known=known)) == {"failover.history"}


# -- Whether anything may be lost -----------------------------------------------------------------------------


def test_lossless_is_claimed_only_when_every_condition_held_at_the_last_sight() -> None:
    election = elect(lost(2), lost(3), failover=LOSSLESS)
    assert (election.winner, election.lossless, election.findings) == ("db2", True, ())


@pytest.mark.parametrize(
    ("code", "known"),
    [
        ("failover.unseen", None),
        ("failover.unseen", replace(KNOWN, primary="db9")),
        ("failover.asynchronous", replace(KNOWN, semi_sync=None)),
        ("failover.degraded", replace(KNOWN, semi_sync=replace(SYNC, active=False))),
        ("failover.wait_point", replace(KNOWN, semi_sync=replace(SYNC, after_sync=False))),
        ("failover.wait_no_replica", replace(KNOWN, semi_sync=replace(SYNC, wait_no_replica=False))),
        ("failover.acknowledger", replace(KNOWN, semi_sync=replace(SYNC, clients=3))),
        ("failover.acknowledger", replace(KNOWN, semi_sync=replace(SYNC, acknowledgers=("db2", "db3", "db4")))),
    ],
)
def test_each_doubt_is_an_error_under_lossless_and_a_warning_otherwise(code: str, known: Known | None) -> None:
    strict = elect(lost(2), lost(3), failover=LOSSLESS, known=known)
    assert (strict.winner, strict.lossless, codes(strict)) == ("db2", False, {code})
    assert all(f.forceable for f in strict.findings)
    loose = elect(lost(2), lost(3), known=known)
    assert (loose.lossless, codes(loose), codes(loose, Severity.WARNING)) == (False, set(), {code})


def test_an_acknowledger_that_is_silent_is_named() -> None:
    election = elect(lost(2), silent(3), failover=LOSSLESS)
    (finding,) = election.findings
    assert (finding.code, finding.subject) == ("failover.acknowledger", "db3")
    assert "db3 may have acknowledged" in finding.text
    assert finding.cure == "bring db1 back, or db3 if it has run all the time", "one that starts anew has lost it"


def test_one_that_could_acknowledge_until_its_connection_broke_is_missed_as_well() -> None:
    known = replace(KNOWN, semi_sync=replace(SYNC, clients=1, acknowledgers=("db2",), formerly=("db3",)))
    election = elect(lost(2), silent(3), failover=LOSSLESS, known=known)
    assert (election.lossless, [(f.code, f.subject) for f in election.findings]) == (
        False,
        [("failover.acknowledger", "db3")],
    )
    assert elect(lost(2), lost(3), failover=LOSSLESS, known=known).lossless, "it takes part"


def seen_before(seconds: float, sync: SyncSight = SYNC) -> Known:
    now = Moment.now()
    assert now is not None
    return replace(KNOWN, semi_sync=sync, moment=now.after(-seconds))


def test_an_acknowledger_that_has_started_anew_since_may_have_lost_what_it_acknowledged() -> None:
    """One power feed took it and the primary: its relay logs are empty now, and nobody else had what lay there."""
    restarted = replace(lost(2), uptime_seconds=3)
    known = replace(seen_before(30), executed=position("0-1-107"))
    election = elect(restarted, lost(3, "0-1-99", "0-1-99"), failover=LOSSLESS, known=known)
    assert (election.winner, election.lossless) == ("db2", False)
    assert [(f.code, f.subject) for f in election.findings] == [
        ("failover.acknowledger", "db2"),
        ("failover.lost", "db1"),
    ]
    assert "db2 has started anew since db1 was last seen taking writes" in election.findings[0].text
    assert codes(elect(restarted, lost(3), failover=LOSSLESS, known=seen_before(30))) == {"failover.acknowledger"}
    formerly = replace(SYNC, clients=1, acknowledgers=("db3",), formerly=("db2",))
    (finding,) = elect(restarted, lost(3), failover=LOSSLESS, known=seen_before(30, formerly)).findings
    assert (finding.code, finding.subject) == ("failover.acknowledger", "db2")


def test_one_that_started_anew_before_the_last_good_sight_has_got_it_all_again() -> None:
    restarted = replace(lost(2), uptime_seconds=33)
    assert elect(restarted, lost(3), failover=LOSSLESS, known=seen_before(30)).lossless
    bystander = replace(SYNC, clients=1, acknowledgers=("db3",))
    soon = replace(lost(2), uptime_seconds=3)
    assert elect(soon, lost(3), failover=LOSSLESS, known=seen_before(30, bystander)).lossless, "it acknowledged nothing"


@pytest.mark.parametrize("moment", [None, Moment("another start", 1e12)], ids=["not kept", "before a start"])
def test_whether_it_has_started_anew_nobody_can_tell_of_a_sight_whose_age_nobody_knows(moment: Moment | None) -> None:
    election = elect(lost(2), lost(3), failover=LOSSLESS, known=replace(KNOWN, moment=moment))
    assert (election.lossless, codes(election)) == (False, {"failover.acknowledger"})
    assert all(f.text.startswith("nobody can tell whether db") for f in election.findings)


def test_beside_a_primary_that_takes_writes_nobody_has_lost_anything_by_starting_anew() -> None:
    """It fetches that again; asked beforehand, in quiet times."""
    anew = replace(replica(2), uptime_seconds=0.0)
    found = Sightings.of(view(server(1), anew, replica(3)), 10.0)
    assert elect_failover(found, "db1", POLICY, LOSSLESS, replace(KNOWN, moment=None)).lossless
    found = Sightings.of(view(server(1), anew, silent(3)), 10.0)
    (finding,) = elect_failover(found, "db1", POLICY, LOSSLESS, replace(KNOWN, moment=None)).findings
    assert finding.cure == "start db3"


def test_what_the_primary_had_and_nobody_received_is_counted() -> None:
    known = replace(KNOWN, executed=position("0-1-107"), semi_sync=None)
    election = elect(lost(2), lost(3), known=known)
    assert "db1 had executed 0-1-107 (7 at the most) when it was last seen" in election.missing[0]
    assert "what it wrote after that comes on top" in election.missing[0], "the number is no bound of the loss"
    assert codes(election, Severity.WARNING) == {"failover.asynchronous", "failover.lost"}


def test_under_lossless_what_nobody_received_was_acknowledged_to_nobody() -> None:
    """A commit is in the binary log before it is acknowledged, and only then told to the client (AFTER_SYNC)."""
    known = replace(KNOWN, executed=position("0-1-107"))
    election = elect(lost(2), lost(3), known=known, failover=LOSSLESS)
    assert (election.lossless, election.missing, election.findings) == (True, (), ())


def test_a_primary_that_has_restarted_is_asked_itself() -> None:
    found = Sightings.of(view(server(1, "0-1-99", writable=False), lost(2, "0-1-101"), lost(3)), 10.0)
    election = elect_failover(found, "db1", POLICY, ADVANCED, replace(KNOWN, semi_sync=None))
    assert (election.winner, election.missing) == ("db2", ())


# -- Whatever is there ----------------------------------------------------------------------------------------


@st.composite
def replicas(draw: st.DrawFn, number: int) -> Status | Silent:
    if draw(st.integers(0, 5)) == 0:
        return silent(number)
    received = f"0-1-{draw(st.integers(98, 103))}" + draw(st.sampled_from(["", "", ",5-1-3", ",0-7-40"]))
    executed = draw(st.sampled_from(["0-1-97", "0-1-98", f"0-1-98,0-{number}-99", f"0-1-98,0-{number}-104"]))
    applier = draw(st.sampled_from([True, True, True, False]))
    source = replace(
        lost_channel(received),
        applier=applier,
        error="" if applier else "1062 duplicate entry",
        filtered=draw(st.sampled_from([False, False, True])),
        delay_seconds=draw(st.sampled_from([0, 0, 60])),
    )
    binlog = draw(st.sampled_from([True, True, False]))
    relays = binlog and draw(st.sampled_from([True, True, False]))
    return replica(number, source, executed=executed, binlog=binlog, relays_updates=relays)


@given(
    st.tuples(*(replicas(n) for n in (2, 3, 4))),
    st.sampled_from([LOSSLESS, ADVANCED]),
    st.sampled_from([KNOWN, None, replace(KNOWN, semi_sync=None)]),
    st.sampled_from([(), ("db2",), ("db2", "db3")]),
)
@settings(max_examples=500, deadline=None)
def test_nothing_that_can_be_had_is_passed_over(
    servers: tuple[Status | Silent, ...], failover: FailoverPolicy, known: Known | None, never: tuple[str, ...]
) -> None:
    policy = Policy(never=never)
    election = elect(*servers, policy=policy, failover=failover, known=known)
    there = {s.name: s for s in servers if isinstance(s, Status)}
    assert {r.name for r in election.ranking} == {"db2", "db3", "db4"}
    if election.winner is None:
        assert codes(election) == {"failover.candidate"}
        return
    winner = there[election.winner]
    source = winner.sources[0]
    assert election.goal is not None
    assert source.applier
    assert not source.error
    assert winner.binlog
    assert winner.relays_updates
    assert winner.name not in never
    mine = winner.executed.merge(source.received)
    assert election.goal.contains(mine) is not Containment.NO
    for name, other in there.items():
        own = other.executed.by(other.server_id)
        theirs = other.executed.merge(other.sources[0].received).minus(own)
        if mine.contains(theirs) is Containment.NO:
            told = any(name in text for text in election.missing)
            assert election.goal.contains(theirs) is not Containment.NO or told
            assert election.fetch_from is not None or told
    assert not (election.lossless and (election.missing or election.findings))
