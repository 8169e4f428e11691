"""Every row of the table, and what must hold for whatever is seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyroute.decided import Action, Diagnosis
from proxyroute.diagnosis import TABLE, diagnose
from proxyroute.diagnosis_case import FINDINGS
from proxyroute.errors import Silence
from proxyroute.failover_election import reason_codes
from proxyroute.failover_limits import FINDINGS as LIMITS
from proxyroute.known import Known
from proxyroute.model import Observed, Receiver, SemiSync, Severity, Silent, Status
from proxyroute.outlook import FINDINGS as OUTLOOK
from proxyroute.policy import AGGRESSIVE, FailoverPolicy, Policy
from proxyroute.sight import Sightings, Witness, evidence
from tests.support.builders import address, channel, position, replica, server, silent
from tests.support.story import begin, dead, look, lost, lost_channel, well

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "diagnoses.md"
POLICY = FailoverPolicy(policy="most_advanced")
KNOWN = Known("db1", 1000.0, ("db2", "db3"), {"db1": 1}, position("0-1-100"))
SYNC = SemiSync(True, True, True, clients=2, wait_point="AFTER_SYNC", timeout_seconds=10.0, wait_no_replica=True)
STOPPED = channel(receiver=Receiver.STOPPED)


def judge(sightings: Sightings, now: float = 10.1, **options: object) -> Diagnosis:
    return diagnose(sightings, POLICY, now, **options)  # type: ignore[arg-type]


def restarted(executed: str = "0-1-100", received: str = "0-1-100") -> Sightings:
    """db1 was down for half a second and is back, refusing writes."""
    found = look(well(server(1, uptime_seconds=1000), replica(2), replica(3)), 5.0, silent(1), lost(2), lost(3))
    back = server(1, executed, writable=False, uptime_seconds=1)
    return look(found, 9.9, back, replica(2, channel(received=received), executed=received), replica(3))


class Row(NamedTuple):
    """What is seen, and what it must be called."""

    seen: Callable[[], Sightings]
    action: Action
    words: str
    """A part of the text."""
    options: Mapping[str, object] = MappingProxyType({})


CASES: dict[str, Row] = {
    "JustStarted": Row(lambda: look(begin(), 0.0, server(1)), Action.WAIT, "db2 and db3"),
    "CutOff": Row(
        lambda: dead(silent(2, Silence.UNREACHABLE), silent(3, Silence.UNREACHABLE), kind=Silence.UNREACHABLE),
        Action.NONE,
        "none of 3 hosts",
    ),
    "PrimaryUnknown": Row(
        lambda: look(begin(), 0.0, *(server(n, writable=False) for n in (1, 2, 3))), Action.PEOPLE, "no server"
    ),
    "OldPrimaryReturned": Row(
        lambda: look(begin(), 0.0, server(1), server(2), replica(3, channel(2))),
        Action.CLOSE,
        "db1 takes writes as well",
        {"known": Known("db2", 1000.0, ("db3",), former=("db1",))},
    ),
    "TwoWritable": Row(lambda: look(begin(), 0.0, server(1), server(2), replica(3)), Action.PEOPLE, "db1 and db2"),
    "StrayWritable": Row(lambda: dead(server(2), lost(3)), Action.PEOPLE, "db2 takes writes and nobody follows"),
    "TooManyConnections": Row(lambda: dead(lost(2), lost(3), kind=Silence.CROWDED), Action.PEOPLE, "max_connections"),
    "LoginRefused": Row(lambda: dead(lost(2), lost(3), kind=Silence.LOGIN), Action.PEOPLE, "proxyroute grants"),
    "PrimaryAnswersWithError": Row(lambda: dead(lost(2), lost(3), kind=Silence.ANSWERED), Action.PEOPLE, "it lives"),
    "UnreachablePrimaryWithLaggingReplicas": Row(
        lambda: hearing(replica(2, channel(lag_seconds=60.0))), Action.WAIT, "db2 got something"
    ),
    "UnreachablePrimary": Row(lambda: hearing(replica(2)), Action.WAIT, "db2 got something"),
    "PrimarySilent": Row(lambda: dead(lost(2), lost(3), seconds=0.0), Action.WAIT, "after 1 s and 2 looks"),
    "PrimarySilentWitnessesUndecided": Row(
        lambda: dead(replica(2), lost(3), seconds=1.0), Action.WAIT, "db2 got something"
    ),
    "DeadPrimaryWithoutReplicas": Row(
        lambda: look(look(begin(1), 0.0, server(1)), 5.0, silent(1), silent(1)), Action.PEOPLE, "restore a backup"
    ),
    "DeadPrimaryAndReplicas": Row(lambda: dead(silent(2), silent(3)), Action.PEOPLE, "and so db2 and db3 are"),
    "DeadPrimaryUnwitnessed": Row(
        lambda: dead(replica(2, STOPPED), replica(3, STOPPED)), Action.PEOPLE, "stopped by somebody"
    ),
    "HungPrimary": Row(
        lambda: dead(replica(2), replica(3), kind=Silence.HUNG),
        Action.FAILOVER,
        "although heartbeats are due every 1 s",
    ),
    "DeadPrimaryAndSomeReplicas": Row(lambda: dead(lost(2), silent(3)), Action.FAILOVER, "db3 does not answer either"),
    "DeadPrimarySiblingAhead": Row(
        lambda: dead(lost(2, "0-1-90", "0-1-90"), lost(3)),
        Action.FAILOVER,
        "db2 can take over; it must first fetch from db3",
        {"rules": Policy(never=("db3",))},
    ),
    "DeadPrimary": Row(lambda: dead(lost(2), lost(3)), Action.FAILOVER, "db2 can take over"),
    "PrimaryRestartedBehind": Row(
        lambda: restarted("0-1-99", "0-1-101"), Action.FAILOVER, "without what db2 and db3 have received"
    ),
    "PrimaryRestarted": Row(restarted, Action.REOPEN, "restarted 1 s ago"),
    "NoWritablePrimary": Row(
        lambda: look(well(server(1), replica(2), replica(3)), 9.9, server(1, writable=False, uptime_seconds=99)),
        Action.PEOPLE,
        "proxyroute heal",
    ),
    "LockedSemiSyncPrimary": Row(
        lambda: well(server(1, semi_sync=replace(SYNC, clients=0, waiting=3)), replica(2, STOPPED)),
        Action.PEOPLE,
        "(waiting: 3, for up to 10 s)",
    ),
    "PrimaryLostEvents": Row(
        lambda: well(server(1, "0-1-99"), replica(2, channel(received="0-1-99"), executed="0-1-99"), replica(3)),
        Action.PEOPLE,
        "db3 has received transactions of db1",
    ),
    "ProxyElsewhere": Row(
        lambda: well(server(1), replica(2)),
        Action.PUBLISH,
        "edge1 sends writes to db2",
        {"observed": (Observed("edge1", True, primary="db2"), Observed("edge2", False))},
    ),
    "PrimaryWithoutReplicas": Row(lambda: well(server(1)), Action.NONE, "has no replica"),
    "PrimarySingleReplicaDead": Row(lambda: well(server(1), silent(2)), Action.PEOPLE, "db2 does not answer"),
    "PrimarySingleReplicaNotReplicating": Row(
        lambda: well(server(1), replica(2, STOPPED)), Action.PEOPLE, "the receiver of db2 is stopped"
    ),
    "AllReplicasDead": Row(lambda: well(server(1), silent(2), silent(3)), Action.PEOPLE, "db3 does not answer"),
    "AllReplicasNotReplicating": Row(
        lambda: well(server(1), replica(2, STOPPED), replica(3, lost_channel())), Action.PEOPLE, "cannot connect"
    ),
    "AllReplicasNotReplicatingOrDead": Row(
        lambda: well(server(1), replica(2, STOPPED), silent(3)), Action.PEOPLE, "db3 does not answer"
    ),
    "AllAppliersStopped": Row(
        lambda: well(server(1), replica(2, channel(applier=False)), replica(3, channel(applier=False, error="1062"))),
        Action.PEOPLE,
        "the applier of db3 is stopped (1062)",
    ),
    "SemiSyncDegraded": Row(
        lambda: well(server(1, semi_sync=replace(SYNC, primary_active=False)), replica(2)),
        Action.PEOPLE,
        "without acknowledgements",
    ),
    "SomeReplicasTroubled": Row(lambda: well(server(1), replica(2), silent(3)), Action.NONE, "db3 does not answer"),
    "NoProblem": Row(lambda: well(server(1), replica(2), replica(3)), Action.NONE, "db2 and db3 follow"),
}


def hearing(witness: object) -> Sightings:
    """db1 is silent towards us, while the heartbeats of db2 go on."""
    found = well(server(1), replica(2))
    for n in range(11):
        beats = replace(witness, sources=tuple(replace(s, heartbeats=30 + n) for s in witness.sources))  # type: ignore
        found = look(found, 5.0 + n * 0.5, silent(1), beats)
    return found


@pytest.mark.parametrize("name", CASES)
def test_each_row_is_told_by_its_name_with_its_reason_and_its_action(name: str) -> None:
    row = CASES[name]
    told = judge(row.seen(), **row.options)
    assert (told.name, told.action) == (name, row.action), told
    assert row.words in told.text
    assert told.wanted is row.action


def test_every_row_has_a_case_and_the_last_row_always_fits() -> None:
    assert [row.name for row in TABLE] == list(CASES)
    assert len({row.name for row in TABLE}) == len(TABLE)


# -- Blocked --------------------------------------------------------------------------------------------------


def blocked(told: Diagnosis) -> set[str]:
    assert told.action is Action.PEOPLE, told
    assert told.wanted in (Action.FAILOVER, Action.REOPEN)
    assert all(f.cure for f in told.blockers)
    return {f.code for f in told.blockers if f.severity is Severity.ERROR}


def test_under_lossless_a_failover_that_may_lose_something_is_for_people() -> None:
    told = diagnose(dead(lost(2), lost(3)), FailoverPolicy(), 10.1)
    assert blocked(told) == {"failover.unseen"}
    assert blocked(diagnose(dead(lost(2), lost(3)), FailoverPolicy(), 10.1, known=KNOWN)) == {"failover.asynchronous"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"binlog": False, "relays_updates": False}, "writes no binary log"),
        ({"sources": (replace(lost_channel(), applier=False, error="1062"),)}, "its applier is stopped: 1062"),
        ({"sources": (replace(lost_channel(), filtered=True),)}, "through filters"),
    ],
)
def test_without_anybody_who_may_take_over_the_reason_is_shown(changes: dict[str, object], words: str) -> None:
    told = judge(dead(replace(lost(2), **changes)))  # type: ignore[arg-type]
    assert blocked(told) == {"failover.candidate"}
    assert words in told.blockers[0].text


def test_replicas_in_maintenance_neither_witness_a_death_nor_take_over() -> None:
    told = judge(dead(lost(2), lost(3)), rules=Policy(aside=("db2", "db3")))
    assert (told.name, told.action) == ("DeadPrimaryUnwitnessed", Action.PEOPLE)
    assert "db2 is in maintenance" in told.text
    told = judge(dead(lost(2), lost(3)), rules=Policy(aside=("db2",)))
    assert (told.action, "db3 can take over" in told.text) == (Action.FAILOVER, True)


def test_less_than_half_of_the_hosts_are_too_few_to_act_upon() -> None:
    far = Silence.UNREACHABLE
    told = judge(dead(lost(2), silent(3, far), kind=far))
    assert blocked(told) == {"failover.majority"}
    assert judge(dead(lost(2), silent(3), kind=far)).action is Action.FAILOVER  # db3's host answers
    assert judge(dead(lost(2), kind=far)).action is Action.FAILOVER  # one of two


def test_a_restarted_primary_is_not_reopened_while_a_replica_cannot_tell_what_it_has() -> None:
    told = judge(look(restarted(), 10.0, silent(3)))
    assert told.action is Action.REOPEN  # db3 was seen, and had nothing more

    never = Sightings.begin("shop", {f"db{n}": address(n) for n in (1, 2, 3)})
    back = server(1, writable=False, uptime_seconds=1)
    for at in (9.0, 9.9):
        never = look(never, at, back, replica(2), silent(3))
    told = judge(never, known=KNOWN, wall=1100.0)
    assert told.name == "PrimaryRestarted"
    assert blocked(told) == {"failover.unheard"}


def test_what_a_silent_replica_had_before_the_primary_came_back_tells_nothing() -> None:
    """It is silent to us alone, and went on receiving for ten minutes; then a crash took the tail from the primary."""
    found = well(server(1), replica(2), replica(3))
    for n in range(600):
        found = look(found, 5.0 + n, server(1, f"0-1-{101 + n}"), silent(3, Silence.CROWDED))
    back = server(1, "0-1-698", writable=False, uptime_seconds=3)
    found = look(found, 610.0, back, replica(2, channel(received="0-1-698"), executed="0-1-698"), silent(3))
    had = replace(KNOWN, executed=position("0-1-700"))
    told = judge(found, 610.1, known=had)
    assert (told.name, told.action) == ("PrimaryRestarted", Action.PEOPLE)
    assert blocked(told) == {"failover.uncontained"}
    assert "nobody can tell whether something received elsewhere is missing there" in told.text
    assert "which nobody who answers has received" in told.text
    assert told.blockers[0].cure.endswith("proxyroute maintenance db3 on")
    assert judge(found, 610.1, known=had, rules=Policy(aside=("db3",))).action is Action.REOPEN
    seen = replica(3, channel(received="0-1-698"), executed="0-1-698")
    assert judge(look(look(found, 611.0, seen), 612.0, silent(3)), 612.1).action is Action.REOPEN


def test_a_history_that_nobody_knows_blocks_the_reopening() -> None:
    found = look(restarted(), 10.0, replica(3, executed="0-1-100,0-7-3"))
    assert blocked(judge(found)) == {"failover.uncontained"}


def test_what_a_restarted_primary_has_lost_and_nobody_received_is_told() -> None:
    had = replace(KNOWN, executed=position("0-1-103"))
    told = judge(restarted(), known=had)
    assert told.action is Action.REOPEN, "nobody else has it either"
    assert "it has lost 0-1-103, which nobody has received" in told.text
    assert "lost" not in judge(restarted(), known=replace(had, executed=position("0-1-100"))).text
    assert "lost" not in judge(restarted(), known=replace(had, primary="db2")).text


def test_a_restart_is_told_by_what_is_on_disk_when_the_engine_itself_is_new() -> None:
    found = look(begin(), 9.9, server(1, writable=False, uptime_seconds=30), replica(2), replica(3))
    assert judge(found, known=KNOWN, wall=1100.0).name == "PrimaryRestarted"
    assert judge(found, known=KNOWN, wall=1020.0).name == "NoWritablePrimary"  # it ran when it was last seen
    assert judge(found).name == "NoWritablePrimary"


# -- Who the primary is ---------------------------------------------------------------------------------------


def test_an_engine_that_starts_after_the_death_knows_whom_the_replicas_follow() -> None:
    found = begin()
    for n in range(8):
        found = look(found, n * 0.5, silent(1), lost(2), lost(3))
    told = judge(found, 4.0)
    assert (told.name, told.primary, told.action) == ("DeadPrimary", "db1", Action.FAILOVER)
    assert "db1 is the primary because db2 and db3 follow it" in told.text


def test_a_hung_primary_is_found_by_an_engine_that_starts_later() -> None:
    found = begin()
    for n in range(5):
        found = look(found, n * 0.5, silent(1, Silence.HUNG), replica(2), replica(3))
    assert judge(found, 2.1).name == "PrimarySilentWitnessesUndecided"
    for n in range(5, 8):
        found = look(found, n * 0.5, silent(1, Silence.HUNG), replica(2), replica(3))
    assert judge(found, 4.0).name == "HungPrimary"


def test_a_stranger_that_takes_writes_beside_the_primary_is_not_closed_but_shown() -> None:
    found = look(begin(), 0.0, server(1), server(2), replica(3))
    assert judge(found, known=KNOWN).name == "TwoWritable"
    assert judge(found, known=replace(KNOWN, former=("db2",))).servers == ("db2",)


def test_a_former_primary_that_the_replicas_prefer_is_a_split_brain() -> None:
    known = replace(KNOWN, former=("db2",))
    found = look(begin(4), 0.0, server(1), server(2), replica(3, channel(2)), replica(4, channel(2)))
    assert judge(found, known=known).name == "TwoWritable"
    found = look(begin(4), 0.0, server(1), server(2), replica(3, channel(2)), replica(4))
    assert judge(found, known=known).servers == ("db2",)


def test_a_replica_that_takes_writes_by_mistake_is_not_the_primary() -> None:
    told = judge(dead(replace(lost(2), writable=True), lost(3)))
    assert (told.primary, told.name) == ("db1", "DeadPrimary")
    assert "db3 can take over" in told.text


def test_the_replicas_know_better_than_an_old_record() -> None:
    found = begin()
    for n in range(8):
        found = look(found, n * 0.5, silent(1), silent(2), replica(3, replace(lost_channel(), address=address(2))))
    assert judge(found, 4.0, known=KNOWN).primary == "db2"


def test_an_alias_and_a_remembered_server_id_are_enough_to_know_the_primary() -> None:
    alias = replace(lost_channel(), address=replace(address(1), host="db1.example"), source_id=1)
    found = Sightings.begin("shop", {f"db{n}": address(n) for n in (1, 2)}, {"db1": 1})
    for n in range(8):
        found = look(found, n * 0.5, silent(1), replica(2, alias))
    assert judge(found, 4.0).name == "DeadPrimary"


# -- Confirmation ---------------------------------------------------------------------------------------------


def test_it_takes_both_the_time_and_the_looks() -> None:
    found = look(well(server(1), replica(2), replica(3)), 5.0, silent(1), lost(2), lost(3))
    assert judge(found, 20.0).name == "PrimarySilent"  # one look, however long ago
    found = look(found, 5.1, silent(1), lost(2), lost(3))
    assert judge(found, 5.9).name == "PrimarySilent"
    assert judge(found, 6.0).name == "DeadPrimary"


def test_a_look_for_which_we_were_late_ourselves_confirms_nothing() -> None:
    found = well(server(1), replica(2), replica(3))
    for n in range(20):
        found = look(found, 5.0 + n * 0.5, silent(1, Silence.HUNG), replica(2), replica(3), doubtful=True)
    assert judge(found, 20.0).name == "PrimarySilent"


def test_a_crash_is_confirmed_sooner_by_the_aggressive_profile() -> None:
    quick = replace(POLICY, **AGGRESSIVE)
    found = well(server(1), replica(2), replica(3))
    for n in range(4):
        found = look(found, 5.0 + n * 0.05, silent(1), lost(2), lost(3))
    assert diagnose(found, quick, 5.17).action is Action.FAILOVER
    assert judge(found, 5.17).action is Action.WAIT


# -- Whatever is seen -----------------------------------------------------------------------------------------

KINDS = st.sampled_from(list(Silence))


@st.composite
def readings(draw: st.DrawFn, number: int) -> Status | Silent:
    """Any reading of db<number>: a primary, a replica in any state, or silence."""
    what = draw(st.integers(0, 5))
    at = f"0-1-{draw(st.integers(98, 102))}"
    if what == 0:
        return silent(number, draw(KINDS))
    if what == 1:
        return server(number, at, writable=draw(st.booleans()), uptime_seconds=draw(st.sampled_from([1.0, 5000.0])))
    upstream = draw(st.sampled_from([1, 1, 1, 2]))
    source = channel(
        upstream if upstream != number else 3 - upstream if number < 3 else 1,
        at,
        receiver=draw(st.sampled_from(list(Receiver))),
        applier=draw(st.booleans()),
        receiver_errno=draw(st.sampled_from([0, 2003, 1236])),
        heartbeat_seconds=draw(st.sampled_from([0.0, 1.0, 30.0])),
        heartbeats=draw(st.integers(0, 5)),
    )
    executed = draw(st.sampled_from(["0-1-97", "0-1-98", f"0-1-98,0-{number}-99", "0-1-98,0-9-5"]))
    return replica(number, source, executed=executed, binlog=draw(st.booleans()), writable=draw(st.booleans()))


@st.composite
def stories(draw: st.DrawFn) -> Sightings:
    """Anything that may be seen of three servers in a few rounds."""
    found = begin()
    at = 0.0
    for _ in range(draw(st.integers(0, 7))):
        at += draw(st.sampled_from([0.05, 0.5, 2.0]))
        found = look(found, at, *(draw(readings(n)) for n in (1, 2, 3)), doubtful=draw(st.booleans()))
    return found


policies = st.builds(
    FailoverPolicy,
    policy=st.sampled_from(["lossless", "most_advanced"]),
    confirm=st.sampled_from([0.0, 1.0]),
    looks=st.integers(2, 3),
    heartbeats=st.sampled_from([1.5, 2.5]),
)
knowns = st.none() | st.builds(Known, st.sampled_from(["db1", "db2", "gone"]), st.just(1000.0))
moments = st.sampled_from([0.0, 0.5, 3.0, 60.0])


def last_end(found: Sightings) -> float:
    return max((t.last.at for t in found.tracks.values() if t.last), default=0.0)


@given(stories(), policies, knowns, moments)
@settings(max_examples=400, deadline=None)
def test_there_is_always_one_diagnosis_and_it_never_acts_against_a_witness(
    found: Sightings, policy: FailoverPolicy, known: Known | None, later: float
) -> None:
    now = last_end(found) + later
    told = diagnose(found, policy, now, known=known, wall=1000.0 + now)
    assert told.name in {row.name for row in TABLE}
    assert told.text
    assert told == diagnose(found, policy, now, known=known, wall=1000.0 + now)
    if told.primary is None or found.tracks[told.primary].status is not None:
        return
    heard = evidence(found, told.primary, now, policy)
    if any(e.witness in (Witness.FRESH, Witness.UNDECIDED) for e in heard.values()):
        assert told.action is not Action.FAILOVER
    if told.action is Action.FAILOVER:
        assert any(e.witness.gone for e in heard.values())
        track = found.tracks[told.primary]
        assert track.silent_looks >= policy.looks
        assert track.silent
        assert not track.silent.kind.lives
        reached = [t for t in found.tracks.values() if t.status or (t.silent and t.silent.kind.host_answers)]
        assert 2 * len(reached) >= len(found.tracks)


@given(stories(), policies, knowns, st.sampled_from(["db2", "db3"]))
@settings(max_examples=300, deadline=None)
def test_more_evidence_never_turns_a_veto_into_a_failover(
    found: Sightings, policy: FailoverPolicy, known: Known | None, name: str
) -> None:
    """Whatever was decided: once one more replica has heard the primary, no failover follows."""
    at = last_end(found) + 0.1
    before = diagnose(found, policy, at, known=known)
    if before.primary is None or before.primary == name or found.tracks[before.primary].status is not None:
        return
    source = channel(int(before.primary[2:]), heartbeats=100)
    witness = replica(int(name[2:]), source)
    found = look(found, at, witness)
    found = look(found, at + 0.1, replace(witness, sources=(replace(source, heartbeats=101),)))
    after = diagnose(found, policy, at + 0.2, known=known)
    if after.primary == before.primary:
        assert after.action is not Action.FAILOVER


@given(policies, knowns, st.integers(1, 20), KINDS)
def test_an_engine_that_sees_nobody_never_acts(
    policy: FailoverPolicy, known: Known | None, rounds: int, kind: Silence
) -> None:
    found = begin()
    for n in range(rounds):
        found = look(found, n * 0.5, *(silent(number, kind) for number in (1, 2, 3)))
    assert diagnose(found, policy, rounds + 60.0, known=known).action in (Action.NONE, Action.WAIT, Action.PEOPLE)


def test_what_several_replicas_tell_alike_is_told_once_and_without_the_count_of_tries() -> None:
    chatter = "error connecting to 'repl@db1' - retry-time: 1  maximum-retries: 86400  message: refused"
    alike = [replica(n, replace(lost_channel(), error=chatter)) for n in (2, 3)]
    text = diagnose(dead(*alike), FailoverPolicy(), 10.1).text
    assert "db2 has lost the connection: error connecting to 'repl@db1' refused (and so says db3)" in text


# -- The page -------------------------------------------------------------------------------------------------


def test_the_reference_page_is_the_table() -> None:
    documented = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert documented == [(row.name, str(row.action), row.meaning) for row in TABLE]


def test_every_action_and_every_blocker_is_explained_on_the_page() -> None:
    text = PAGE.read_text()
    assert set(re.findall(r"^- \*\*(\w+)\*\*:", text, re.MULTILINE)) == {str(action) for action in Action}
    findings = (PAGE.parent / "findings.md").read_text()
    told = set(re.findall(r"^\| `((?:failover|topology)\.\w+)`", findings, re.MULTILINE))
    assert told >= {*FINDINGS, *LIMITS, *OUTLOOK}
    assert set(re.findall(r"`(candidate\.\w+)`", text)) == reason_codes()
