"""Who may take over and who should; and what a plan moves along."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyroute import topology
from proxyroute.decided import Election
from proxyroute.election import elect, make_plan, rejections
from proxyroute.model import Receiver, SemiSync, Source, Status, View
from proxyroute.policy import Policy
from tests.support.builders import address, channel, inspection, position, replica, server, silent, view

POLICY = Policy()


def reasons(election: Election, name: str) -> str:
    return "; ".join(next(ranked.reasons for ranked in election.ranking if ranked.name == name))


def rejected(seen: View, name: str, policy: Policy = POLICY, *, named: bool = False, force: bool = False) -> list[str]:
    return [r.code for r in rejections(seen, "db1", policy, name, named=named, force=force)]


# -- Who may --------------------------------------------------------------------------------------------------

SICK: dict[str, Callable[[], Status]] = {
    "candidate.flavour": lambda: replica(2, flavour="mysql"),
    "candidate.unattached": lambda: replace(replica(2), sources=()),
    "candidate.astray": lambda: replica(2, channel(source_id=77)),
    "candidate.multi_source": lambda: replica(2, channel(), channel(9, channel="other", address=address(9))),
    "candidate.receiver": lambda: replica(2, channel(receiver=Receiver.CONNECTING, error="1045 access denied")),
    "candidate.applier": lambda: replica(2, channel(applier=False, error="1062 duplicate entry")),
    "candidate.gtid": lambda: replica(2, channel(uses_gtid=False)),
    "candidate.gtid_mode": lambda: replica(2, settings={"gtid_mode": "ON_PERMISSIVE"}),
    "candidate.errant": lambda: replica(2, executed="0-1-100,0-2-101"),
    "candidate.history": lambda: replica(2, executed="0-1-100,0-2-50"),
    "candidate.lag": lambda: replica(2, channel(lag_seconds=10.5)),
    "candidate.delay": lambda: replica(2, channel(delay_seconds=60)),
    "candidate.filters": lambda: replica(2, channel(filtered=True)),
    "candidate.binlog": lambda: replica(2, binlog=False, relays_updates=False),
    "candidate.relay": lambda: replica(2, relays_updates=False),
    "candidate.offline": lambda: replica(2, settings={"offline_mode": "ON"}),
    "candidate.format": lambda: replica(2, binlog_format="MIXED"),
    "candidate.version": lambda: replica(2, version=(10, 6, 18)),
    "candidate.writable": lambda: replica(2, writable=True),
}


@pytest.mark.parametrize("code", SICK)
def test_each_fault_alone_keeps_a_replica_from_being_elected_and_is_told(code: str) -> None:
    seen = view(server(1), SICK[code](), replica(3))
    assert rejected(seen, "db2") == [code]
    election = elect(seen, "db1", POLICY)
    assert election.winner == "db3"
    assert reasons(election, "db2") == rejections(seen, "db1", POLICY, "db2")[0].text


def test_a_replica_of_which_a_backup_is_being_made_is_passed_over() -> None:
    """MySQL stops no applier meanwhile: found out in the freeze it would undo everything."""
    saved = inspection("db2", backups=((12, "backup@10.0.0.8"),))
    seen = view(server(1), replica(2), replica(3), inspections=(saved,))
    assert elect(seen, "db1", POLICY).winner == "db3"
    (reason,) = rejections(seen, "db1", POLICY, "db2", named=True, force=True)
    assert reason.code == "candidate.backup"
    assert "session 12 of backup@10.0.0.8 holds LOCK INSTANCE FOR BACKUP" in reason.text
    assert "on db2: KILL 12;" in reason.cure


def test_every_reason_is_told_and_not_only_the_first() -> None:
    broken = replica(2, channel(lag_seconds=None, applier=False, receiver=Receiver.STOPPED), binlog=False)
    seen = view(server(1), broken)
    assert rejected(seen, "db2", Policy(never=("db2",))) == [
        "candidate.never",
        "candidate.receiver",
        "candidate.applier",
        "candidate.binlog",
    ]
    assert elect(seen, "db1", POLICY).winner is None


def test_a_silent_server_and_a_stranger_are_rejected_by_name() -> None:
    seen = view(server(1), silent(2))
    assert rejected(seen, "db2") == ["candidate.silent"]
    assert rejected(seen, "db9") == ["candidate.unknown"]
    assert elect(seen, "db1", POLICY, "db9").winner is None


def test_a_replica_of_a_replica_is_never_elected_even_when_it_is_named() -> None:
    seen = view(server(1), replica(2), replica(3, channel(2)))
    assert rejected(seen, "db3", named=True) == ["candidate.chain"]


def test_the_server_id_decides_whom_a_replica_follows_and_an_alias_is_no_fault() -> None:
    alias = replace(channel(), address=replace(address(1), host="db1.example"))
    assert rejected(view(server(1), replica(2, alias)), "db2") == []


def test_before_the_first_contact_the_address_decides() -> None:
    fresh = channel(source_id=None, receiver=Receiver.CONNECTING)
    assert rejected(view(server(1), replica(2, fresh)), "db2") == ["candidate.receiver"]


def test_an_unknown_lag_is_too_much() -> None:
    assert rejected(view(server(1), replica(2, channel(lag_seconds=None))), "db2") == ["candidate.lag"]


def test_lag_up_to_the_limit_is_allowed_and_a_wanted_delay_does_not_count_as_lag() -> None:
    assert rejected(view(server(1), replica(2, channel(lag_seconds=10.0))), "db2") == []
    delayed = replica(2, channel(lag_seconds=65.0, delay_seconds=60))
    assert rejected(view(server(1), delayed), "db2", Policy(allow_delayed=True)) == []


def test_policy_lets_filtered_replicas_pass() -> None:
    filtered = view(server(1), replica(2, channel(filtered=True)))
    assert rejected(filtered, "db2", Policy(allow_filtered=True)) == []


def test_naming_a_multi_source_replica_is_asking_for_it() -> None:
    seen = view(server(1), SICK["candidate.multi_source"]())
    assert elect(seen, "db1", POLICY).winner is None
    assert elect(seen, "db1", POLICY, "db2").winner == "db2"


@pytest.mark.parametrize("code", ["candidate.lag", "candidate.history", "candidate.offline"])
def test_force_helps_only_the_server_that_was_named(code: str) -> None:
    seen = view(server(1), SICK[code]())
    assert elect(seen, "db1", POLICY, "db2").winner is None
    assert elect(seen, "db1", POLICY, force=True).winner is None
    assert elect(seen, "db1", POLICY, "db2", force=True).winner == "db2"


def test_force_does_not_help_against_errant_transactions() -> None:
    seen = view(server(1), SICK["candidate.errant"]())
    assert elect(seen, "db1", POLICY, "db2", force=True).winner is None
    assert "0-2-101" in reasons(elect(seen, "db1", POLICY), "db2")


def test_a_server_newer_than_the_primary_may_be_elected() -> None:
    assert rejected(view(server(1), replica(2, version=(11, 4, 2))), "db2") == []


# -- Who should -----------------------------------------------------------------------------------------------


def ranking(*servers: Status, policy: Policy = POLICY) -> list[str]:
    return [r.name for r in elect(view(server(1), *servers), "db1", policy).ranking]


def test_the_preference_list_goes_before_everything_else() -> None:
    behind = replica(3, channel(received="0-1-90", lag_seconds=5.0), executed="0-1-90")
    assert ranking(replica(2), behind, replica(4), policy=Policy(prefer=("db3", "db4"))) == ["db3", "db4", "db2"]


def test_who_has_executed_most_goes_before_who_has_received_most() -> None:
    received = replica(2, channel(received="0-1-100"), executed="0-1-90")
    executed = replica(3, channel(received="0-1-95"), executed="0-1-95")
    assert ranking(received, executed) == ["db3", "db2"]


def test_who_has_received_most_goes_before_who_has_the_least_lag() -> None:
    received = replica(3, channel(received="0-1-100", lag_seconds=2.0), executed="0-1-90")
    quick = replica(2, channel(received="0-1-95", lag_seconds=0.0), executed="0-1-90")
    assert ranking(quick, received) == ["db3", "db2"]


def test_then_lag_then_the_version_of_the_primary_then_configuration_order_decide() -> None:
    assert ranking(replica(2, channel(lag_seconds=1.0)), replica(3)) == ["db3", "db2"]
    assert ranking(replica(2, version=(11, 4, 2)), replica(3)) == ["db3", "db2"]
    assert ranking(replica(3), replica(2)) == ["db3", "db2"]


def test_a_replica_built_from_a_copy_is_not_behind_for_lacking_old_history() -> None:
    primary = server(1, "0-1-100,0-9-50")
    whole, copied = replica(2, executed="0-1-99,0-9-50"), replica(3, executed="0-1-100")
    assert elect(view(primary, whole, copied), "db1", POLICY).winner == "db3"


def test_the_reasons_of_the_winner_say_what_placed_it() -> None:
    election = elect(view(server(1), replica(2)), "db1", Policy(prefer=("db2",)), "db2")
    assert election.ranking[0].qualified
    assert {"named", "number 1 of the list prefer", "0 s behind"} <= set(election.ranking[0].reasons)


# -- Properties -----------------------------------------------------------------------------------------------


@st.composite
def replicas(draw: st.DrawFn, number: int) -> Status:
    """A replica that is mostly healthy, somewhere between 0-1-95 and 0-1-100."""
    executed = draw(st.integers(95, 100))
    source = channel(
        received=f"0-1-{draw(st.integers(executed, 100))}",
        lag_seconds=draw(st.sampled_from([0.0, 0.0, 1.0, 20.0, None])),
        applier=draw(st.sampled_from([True] * 5 + [False])),
        filtered=draw(st.sampled_from([False] * 5 + [True])),
    )
    extra = draw(st.sampled_from([""] * 6 + [f",0-{number}-101", f",0-{number}-50"]))
    versions = [(10, 11, 19), (10, 11, 19), (11, 4, 2), (10, 6, 1)]
    return replica(number, source, executed=f"0-1-{executed}{extra}", version=draw(st.sampled_from(versions)))


@st.composite
def clusters(draw: st.DrawFn) -> tuple[View, Policy]:
    count = draw(st.integers(1, 5))
    members = [draw(replicas(number)) for number in range(2, count + 2)]
    names = [member.name for member in members]
    prefer = draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
    never = draw(st.lists(st.sampled_from(names), max_size=1))
    return view(server(1), *members), Policy(prefer=tuple(prefer), never=tuple(never))


@given(clusters(), st.booleans())
def test_the_winner_is_always_qualified_and_everybody_else_is_told_of(case: tuple[View, Policy], force: bool) -> None:
    seen, policy = case
    election = elect(seen, "db1", policy, force=force)
    assert sorted(r.name for r in election.ranking) == sorted(n for n in seen.servers if n != "db1")
    assert all(r.reasons for r in election.ranking)
    assert [r.qualified for r in election.ranking] == sorted((r.qualified for r in election.ranking), reverse=True)
    if election.winner is None:
        assert not any(r.qualified for r in election.ranking)
    else:
        assert election.ranking[0].name == election.winner
        assert rejections(seen, "db1", policy, election.winner) == ()


@given(clusters(), st.data(), st.booleans())
def test_a_named_target_wins_or_nobody_does(case: tuple[View, Policy], data: st.DataObject, force: bool) -> None:
    seen, policy = case
    target = data.draw(st.sampled_from([*seen.servers, "db99"]))
    against = rejections(seen, "db1", policy, target, named=True, force=force)
    assert elect(seen, "db1", policy, target, force=force).winner == (None if against else target)


@given(clusters(), st.randoms(use_true_random=False))
def test_the_order_of_the_configuration_decides_nothing_but_ties(
    case: tuple[View, Policy], shuffler: random.Random
) -> None:
    seen, policy = case
    names = list(seen.servers)
    shuffler.shuffle(names)
    shuffled = replace(seen, servers={name: seen.servers[name] for name in names})
    one, other = elect(seen, "db1", policy).winner, elect(shuffled, "db1", policy).winner
    assert (one is None) == (other is None)
    if one and other and one != other:
        assert _visible(seen, one) == _visible(seen, other)
        assert one not in policy.prefer
        assert other not in policy.prefer


def _visible(seen: View, name: str) -> tuple[object, ...]:
    found = seen.status(name)
    assert found is not None
    assert found.source is not None
    return found.executed, found.source.received, found.source.lag_seconds, found.version


@given(clusters())
def test_a_rejected_server_never_changes_who_wins(case: tuple[View, Policy]) -> None:
    seen, policy = case
    election = elect(seen, "db1", policy)
    rejects = {r.name for r in election.ranking if not r.qualified}
    without = replace(seen, servers={n: s for n, s in seen.servers.items() if n not in rejects})
    assert elect(without, "db1", policy).winner == election.winner


# -- Plans ----------------------------------------------------------------------------------------------------

BOTH = SemiSync(available=True, can_acknowledge=True)
SEMI = replace(BOTH, primary_enabled=True, primary_active=True, clients=1, timeout_seconds=10.0)


def test_nobody_elected_makes_no_plan() -> None:
    seen = view(server(1), silent(2))
    with pytest.raises(ValueError, match="nobody can take over from db1"):
        make_plan(seen, "db1", elect(seen, "db1", POLICY), POLICY)


def test_a_plan_moves_the_followers_of_the_old_primary_and_leaves_chains_attached() -> None:
    seen = view(server(1), replica(2), replica(3), replica(4, channel(3)), replica(5, channel(2)))
    plan = make_plan(seen, "db1", elect(seen, "db1", POLICY, "db2"), POLICY)
    assert (plan.cluster, plan.primary, plan.candidate, plan.replicas) == ("shop", "db1", "db2", ("db3",))
    assert (plan.semi_sync, plan.attach, plan.lock_accounts) == (False, None, ())


def test_a_plan_has_silent_servers_and_broken_followers_and_nobody_who_follows_a_stranger() -> None:
    broken = replica(4, channel(source_id=None, receiver=Receiver.STOPPED, applier=False, lag_seconds=None))
    stranger = replica(5, channel(9, address=address(9)))
    seen = view(server(1), replica(2), silent(3), broken, stranger)
    assert make_plan(seen, "db1", elect(seen, "db1", POLICY, "db2"), POLICY).replicas == ("db3", "db4")


def test_a_plan_moves_the_one_channel_of_a_multi_source_replica_that_follows_the_old_primary() -> None:
    seen = view(server(1), replica(2), replica(3, channel(9, channel="other", address=address(9)), channel()))
    assert make_plan(seen, "db1", elect(seen, "db1", POLICY, "db2"), POLICY).replicas == ("db3",)


def semi_replica(number: int, source: Source | None = None, *, enabled: bool = True) -> Status:
    return replica(number, source or channel(), semi_sync=replace(BOTH, replica_enabled=enabled))


def test_with_semi_sync_the_best_other_semi_synchronous_replica_is_attached_first() -> None:
    seen = view(
        server(1, semi_sync=SEMI),
        semi_replica(2),
        semi_replica(3, channel(lag_seconds=2.0)),
        semi_replica(4, channel(delay_seconds=60)),
        semi_replica(5, channel(applier=False)),
        semi_replica(6, channel(lag_seconds=1.0)),
        semi_replica(7, enabled=False),
        semi_replica(8, channel(3)),
    )
    plan = make_plan(seen, "db1", elect(seen, "db1", POLICY, "db2"), POLICY)
    assert plan.semi_sync
    assert plan.attach == "db6"


@pytest.mark.parametrize(("wanted", "clients", "attached"), [(2, 2, None), (2, 3, "db3"), (1, 1, None), (1, 2, "db3")])
def test_the_primary_keeps_as_many_as_have_to_acknowledge(wanted: int, clients: int, attached: str | None) -> None:
    """One that follows the candidate acknowledges to the old primary no more: its commits would stand still."""
    acknowledging = SemiSync(available=True, replica_enabled=True, replica_active=True)
    silent_ones = 0 if clients > 1 else 1  # the candidate is enabled, and does not acknowledge
    others = [replica(n, semi_sync=acknowledging) for n in range(3, clients + 2 + silent_ones)]
    seen = view(server(1, semi_sync=replace(SEMI, wanted=wanted, clients=clients)), semi_replica(2), *others)
    assert make_plan(seen, "db1", elect(seen, "db1", POLICY, "db2"), POLICY).attach == attached


def test_whom_the_candidate_could_not_serve_is_not_attached() -> None:
    late = replace(semi_replica(3), executed=position("0-1-50"))
    purged = inspection("db2", purged=position("0-1-60"))
    seen = view(server(1, semi_sync=SEMI), semi_replica(2), late, inspections=(purged,))
    assert make_plan(seen, "db1", elect(seen, "db1", POLICY, "db2"), POLICY).attach is None
    seen = view(server(1, semi_sync=SEMI), semi_replica(2), late, semi_replica(4), inspections=(purged,))
    assert make_plan(seen, "db1", elect(seen, "db1", POLICY, "db2"), POLICY).attach == "db4"


def test_who_is_being_backed_up_is_not_attached() -> None:
    copied = inspection("db3", backups=((9, "root@localhost"),))
    seen = view(server(1, semi_sync=SEMI), semi_replica(2), semi_replica(3), semi_replica(4), inspections=(copied,))
    assert make_plan(seen, "db1", elect(seen, "db1", POLICY, "db2"), POLICY).attach == "db4"


def test_without_another_semi_synchronous_replica_nothing_is_attached() -> None:
    seen = view(server(1, semi_sync=SEMI), semi_replica(2), semi_replica(3, enabled=False))
    plan = make_plan(seen, "db1", elect(seen, "db1", POLICY, "db2"), POLICY)
    assert plan.semi_sync
    assert plan.attach is None


def test_a_candidate_that_cannot_do_semi_sync_gets_none() -> None:
    seen = view(server(1, semi_sync=SEMI), replica(2), semi_replica(3))
    plan = make_plan(seen, "db1", elect(seen, "db1", POLICY, "db2"), POLICY)
    assert (plan.semi_sync, plan.attach) == (False, None)


def test_force_locks_privileged_writers_but_no_monitor_users() -> None:
    writers = ("batch@10.%", "'maxscale'@'%'", "probe@localhost")
    seen = view(server(1), replica(2), inspections=[inspection("db1", privileged_writers=writers)])
    policy = Policy(monitor_users=("maxscale", "probe@localhost"))
    election = elect(seen, "db1", policy)
    assert make_plan(seen, "db1", election, policy).lock_accounts == ()
    assert make_plan(seen, "db1", election, policy, force=True).lock_accounts == ("batch@10.%",)


# -- Topology -------------------------------------------------------------------------------------------------


def test_a_path_leads_up_to_the_top_and_a_ring_ends() -> None:
    seen = view(server(1), replica(2), replica(3, channel(2)))
    assert topology.path(seen, "db3") == ("db3", "db2", "db1")
    assert topology.ring(seen) == ()
    around = view(replica(1, channel(3)), replica(2, channel(1)), replica(3, channel(2)), replica(4, channel(1)))
    assert topology.path(around, "db4") == ("db4", "db1", "db3", "db2")
    assert set(topology.ring(around)) == {"db1", "db2", "db3"}


def test_a_stale_server_id_does_not_outweigh_the_address_of_a_stopped_channel() -> None:
    stale = channel(1, source_id=2, receiver=Receiver.STOPPED)
    assert topology.source_of(view(server(1), replica(2), replica(3, stale)), stale) == "db1"


def test_a_silent_source_is_recognised_by_its_address() -> None:
    assert topology.source_of(view(silent(1), replica(2)), channel(1)) == "db1"


def test_received_counts_executed_too() -> None:
    ahead = replica(2, channel(received=""), executed="0-1-100")
    behind = replica(3, channel(received="0-1-99"), executed="0-1-99")
    assert position("0-1-100") == ahead.executed
    assert ranking(behind, ahead) == ["db2", "db3"]
