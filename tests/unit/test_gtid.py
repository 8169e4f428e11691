"""Positions of both flavours, against models that are too simple to be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyroute.gtid import GTID, Containment, MariaDBPosition, MySQLPosition, Position, TaggedSource, from_json

YES, NO, UNKNOWN = Containment.YES, Containment.NO, Containment.UNKNOWN
A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
B = "3e11fa47-71ca-11e1-9e33-c80aa9429563"


def maria(text: str) -> MariaDBPosition:
    return MariaDBPosition.parse(text)


def mysql(text: str) -> MySQLPosition:
    return MySQLPosition.parse(text)


# -- MariaDB: reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        (" \n ", ""),
        ("0-1-5", "0-1-5"),
        (" 0-2-7 ,\n0-1-5", "0-1-5,0-2-7"),
        ("10-1-3,2-1-4", "2-1-4,10-1-3"),
        ("0-1-5,0-1-9", "0-1-9"),
        ("4294967295-4294967295-18446744073709551615", "4294967295-4294967295-18446744073709551615"),
    ],
)
def test_mariadb_texts_are_read_and_written_in_one_order(text: str, canonical: str) -> None:
    assert str(maria(text)) == canonical


@pytest.mark.parametrize(
    "text",
    ["0-1", "0-1-2-3", "a-b-c", "0-1-", ",", "0-1-5,", "0--1-5", "0-1-5;0-2-3", "4294967296-1-1", "0-1-٣", f"{A}:1-3"],
)
def test_what_is_no_mariadb_position_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a MariaDB GTID"):
        maria(text)


def test_latest_is_one_gtid_per_domain_for_the_server_to_wait_for() -> None:
    position = maria("0-1-5,0-2-9,0-3-7,1-2-3,1-1-4")
    assert position.latest_text == "0-2-9,1-1-4"
    assert position.latest() == maria("0-2-9,1-1-4")


def test_a_state_is_set_with_the_latest_of_each_domain_last() -> None:
    """What stands last is what the server tells as its position, whatever the numbers are."""
    assert maria("1-9-1,0-1-35,0-2-15").state_text == "0-2-15,0-1-35,1-9-1"


# -- MariaDB: the counter-examples ----------------------------------------------------------------------------


def test_a_sequence_number_proves_nothing_about_a_server_that_never_existed() -> None:
    # MASTER_GTID_WAIT('0-99-50') answers 0 on a server that stands here
    assert maria("0-1-100").contains(maria("0-99-50")) is UNKNOWN
    assert maria("0-1-100").equals(maria("0-99-100")) is NO


def test_a_diverged_old_primary_is_not_in_the_new_one_although_its_number_is_lower() -> None:
    new, old = maria("0-1-13230,0-2-13239"), maria("0-1-13234")
    assert new.contains(old) is NO
    assert old.minus(new) == maria("0-1-13234")
    assert old.distance(new) == 4


def test_without_the_history_of_the_server_the_diverged_one_is_unknown_and_not_clean() -> None:
    assert maria("0-2-13239").contains(maria("0-1-13234")) is UNKNOWN
    assert maria("0-1-13234").minus(maria("0-2-13239")) == maria("0-1-13234")
    assert maria("0-1-13234").distance(maria("0-2-13239")) is None


def test_beyond_everything_in_the_domain_is_certainly_not_contained() -> None:
    assert maria("0-1-100").contains(maria("0-2-101")) is NO


def test_a_missing_domain_counts_as_not_applied() -> None:
    assert maria("0-1-100").contains(maria("0-1-100,1-1-1")) is NO
    assert maria("0-1-100").equals(maria("0-1-100,1-1-1")) is NO
    assert maria("0-1-100,1-1-1").equals(maria("0-1-100")) is NO


def test_no_outweighs_unknown() -> None:
    assert maria("0-1-100").contains(maria("0-2-50,0-1-101")) is NO


def test_after_a_wait_one_transaction_less_or_more_is_not_equal() -> None:
    goal = maria("0-1-90,0-2-100")
    assert maria("0-1-90,0-2-100").equals(goal) is YES
    assert maria("0-1-90,0-2-99").equals(goal) is NO
    assert maria("0-1-90,0-2-101").equals(goal) is NO
    assert maria("0-1-101,0-2-100").equals(goal) is NO


def test_a_pair_both_know_must_agree_even_below_the_latest() -> None:
    assert maria("0-1-91,0-2-100").equals(maria("0-1-90,0-2-100")) is NO


def test_a_replica_built_from_a_copy_lacks_old_pairs_and_is_equal_all_the_same() -> None:
    assert maria("0-2-100").equals(maria("0-1-90,0-2-100")) is YES


def test_a_pair_only_the_replica_has_is_unknown_below_the_latest() -> None:
    assert maria("0-2-100,0-3-95").equals(maria("0-2-100")) is UNKNOWN


def test_distance_counts_numbers_once_however_many_servers_wrote_them() -> None:
    assert maria("0-1-103,0-2-105").distance(maria("0-1-100")) == 5
    assert maria("0-1-103,1-1-2").distance(maria("0-1-100")) == 5
    assert maria("0-1-100").distance(maria("0-1-100")) == 0


# -- MariaDB: against a model in which every transaction is known by name ---------------------------------------

servers_of_a_history = st.lists(st.integers(1, 3), max_size=12)


def state(writers: Sequence[int], upto: int | None = None, domain: int = 0) -> MariaDBPosition:
    """The binlog state of a server that has applied ``writers``, the server id of each transaction in order."""
    numbered = enumerate(writers[:upto], start=1)
    return MariaDBPosition(tuple(GTID(domain, server_id, sequence) for sequence, server_id in numbered))


@given(servers_of_a_history, st.data())
def test_within_one_history_every_answer_is_exact(writers: list[int], data: st.DataObject) -> None:
    mine, theirs = (data.draw(st.integers(0, len(writers))) for _ in range(2))
    here, there = state(writers, mine), state(writers, theirs)
    assert here.contains(there) is (YES if mine >= theirs else NO)
    assert here.equals(there) is (YES if mine == theirs else NO)
    assert here.minus(there).empty is (mine <= theirs)
    distance = here.distance(there)
    assert distance is not None
    assert distance >= mine - theirs
    assert (distance == 0) is (mine <= theirs)


@given(servers_of_a_history, st.lists(st.integers(1, 2), max_size=6), st.lists(st.just(3), max_size=6), st.data())
def test_of_two_that_parted_neither_is_ever_taken_for_contained(
    common: list[int], mine: list[int], theirs: list[int], data: st.DataObject
) -> None:
    """Each server id writes on one side only, as after a failover from a primary that lives on."""
    here, there = state(common + mine), state(common + theirs)
    assert (here.contains(there) is YES) == (not theirs)
    assert (here.equals(there) is YES) == (not theirs and not mine)
    forgetful = MariaDBPosition(
        tuple(g for g in here.entries if g in here.latest().entries or data.draw(st.booleans()))
    )
    if theirs:
        assert forgetful.contains(there) is not YES


@given(servers_of_a_history, st.data())
def test_missing_history_is_unknown_and_never_a_no(writers: list[int], data: st.DataObject) -> None:
    whole = state(writers)
    latest = whole.latest().entries
    forgetful = MariaDBPosition(tuple(g for g in whole.entries if g in latest or data.draw(st.booleans())))
    earlier = state(writers, data.draw(st.integers(0, len(writers))))
    assert forgetful.contains(earlier) is not NO
    assert forgetful.equals(whole) is YES
    assert whole.equals(forgetful) is (YES if whole == forgetful else UNKNOWN)


mariadb_positions = st.lists(st.builds(GTID, st.integers(0, 2), st.integers(1, 3), st.integers(1, 12)), max_size=8).map(
    lambda gtids: MariaDBPosition(tuple(gtids))
)
mysql_positions = st.lists(
    st.tuples(
        st.builds(TaggedSource, st.sampled_from([A, B]), st.sampled_from(["", "blue", "green"])),
        st.integers(1, 20),
        st.integers(0, 5),
    ),
    max_size=8,
).map(lambda drawn: MySQLPosition(tuple((source, ((first, first + more),)) for source, first, more in drawn)))
pairs = st.one_of(st.tuples(mariadb_positions, mariadb_positions), st.tuples(mysql_positions, mysql_positions))


@given(pairs)
def test_the_algebra_holds_in_both_flavours(pair: tuple[Position, Position]) -> None:
    one, other = pair
    both = one.merge(other)
    assert both == other.merge(one)
    assert hash(both) == hash(other.merge(one))
    assert both.contains(one) is YES
    assert both.contains(other) is YES
    assert one.merge(one) == one
    assert one.equals(one) is YES
    assert one.minus(other).empty is (other.contains(one) is YES)
    assert other.merge(one.minus(other)) == both
    assert from_json(one.to_json()) == one
    assert one.empty is (str(one) == "")


@given(mariadb_positions, mariadb_positions)
def test_equality_after_a_wait_means_that_neither_lacks_what_both_know_of(
    one: MariaDBPosition, other: MariaDBPosition
) -> None:
    if one.equals(other) is YES:
        assert one.latest() == other.latest()
        assert other.contains(one) is YES
        assert one.contains(other) is not NO


# -- MySQL ----------------------------------------------------------------------------------------------------


def transactions(position: MySQLPosition) -> frozenset[tuple[TaggedSource, int]]:
    return frozenset(
        (source, number)
        for source, intervals in position.sets
        for first, last in intervals
        for number in range(first, last + 1)
    )


@given(mysql_positions, mysql_positions)
def test_mysql_sets_behave_as_sets(one: MySQLPosition, other: MySQLPosition) -> None:
    mine, theirs = transactions(one), transactions(other)
    assert transactions(one.merge(other)) == mine | theirs
    assert transactions(one.minus(other)) == mine - theirs
    assert transactions(one.intersection(other)) == mine & theirs
    assert one.contains(other) is (YES if mine >= theirs else NO)
    assert one.equals(other) is (YES if mine == theirs else NO)
    assert (one == other) is (mine == theirs)
    assert one.distance(other) == len(mine - theirs)
    assert transactions(mysql(str(one))) == mine


@given(mysql_positions)
def test_mysql_sets_are_kept_in_as_few_intervals_as_can_be(position: MySQLPosition) -> None:
    for _, intervals in position.sets:
        assert intervals
        bounds = [bound for interval in intervals for bound in interval]
        assert bounds == list(accumulate(bounds, max))
        assert all(last + 1 < first for (_, last), (first, _) in pairwise(intervals))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        (f"{A}:1", f"{A}:1"),
        (f"{A.upper()}:1-3:4:7-9", f"{A}:1-4:7-9"),
        (f"{B}:1-2,\n{A}:5", f"{A}:5,{B}:1-2"),
        (f"{A}:5-6:Tag_1:1-2:1:b:7", f"{A}:5-6:b:7:tag_1:1-2"),
        (f"{A}:b:7, {A}:1 - 3", f"{A}:1-3:b:7"),
    ],
)
def test_mysql_texts_are_read_and_written_in_one_order(text: str, canonical: str) -> None:
    assert str(mysql(text)) == canonical


@pytest.mark.parametrize(
    "text", ["0-1-5", A, f"{A}:", f"{A}:0", f"{A}:5-3", f"{A}:tag", f"{A}:1:tag", f"{A}:1-2-3", f"{A}:9x", f"{A}:1,"]
)
def test_what_is_no_gtid_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"GTID set|interval|tag"):
        mysql(text)


def test_tags_are_sources_of_their_own() -> None:
    assert mysql(f"{A}:1-5").contains(mysql(f"{A}:blue:1")) is NO


# -- Both -----------------------------------------------------------------------------------------------------


VERBS = ["contains", "equals", "minus", "merge", "distance", "alongside", "as_far_as"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("one", "other"), [(maria("0-1-1"), mysql(f"{A}:1")), (mysql(f"{A}:1"), maria("0-1-1"))])
def test_flavours_are_never_mixed(verb: str, one: Position, other: Position) -> None:
    with pytest.raises(TypeError, match="cannot be compared with"):
        getattr(one, verb)(other)


@pytest.mark.parametrize("value", [{}, {"flavour": "mariadb"}, {"flavour": "oracle", "text": ""}])
def test_json_that_is_no_position_is_refused(value: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="position"):
        from_json(value)


def test_what_came_from_another_source_lies_in_domains_that_the_primary_lacks() -> None:
    position = MariaDBPosition.parse("0-1-7,0-2-9,7-77-3")
    assert str(position.alongside(MariaDBPosition.parse("0-1-5"))) == "0-1-7,0-2-9"
    assert position.alongside(MariaDBPosition()).empty


@pytest.mark.parametrize(
    ("mine", "theirs", "far_enough"),
    [
        ("0-1-3,0-2-9", "0-1-7,0-2-8", True),
        ("0-1-3,0-2-9", "0-1-7,0-2-10", False),
        ("0-1-9", "0-1-9,1-1-1", False),
        ("0-1-9", "", True),
    ],
)
def test_by_order_alone_a_replica_that_leaves_events_out_has_come_as_far(
    mine: str, theirs: str, far_enough: bool
) -> None:
    assert MariaDBPosition.parse(mine).as_far_as(MariaDBPosition.parse(theirs)) is far_enough
