"""GTID sets of MySQL, asked of a real server: what we compute is what its own functions say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxyroute.gtid import Containment, MySQLPosition, TaggedSource
from tests.support.mariadb import Connection
from tests.support.mysql import MySQLCluster

pytestmark = pytest.mark.matrix

UUIDS = [f"{n:08x}-1111-2222-3333-444444444444" for n in range(3)]
TAGS = ["", "a", "_b9"]

intervals = st.tuples(st.integers(1, 40), st.integers(0, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))
sources = st.builds(TaggedSource, st.sampled_from(UUIDS), st.sampled_from(TAGS))
positions = st.lists(st.tuples(sources, st.lists(intervals, min_size=1, max_size=4).map(tuple)), max_size=6).map(
    lambda sets: MySQLPosition(tuple(sets))
)


@pytest.fixture(scope="module")
def ask() -> Iterator[Callable[[str, tuple[str, ...]], str]]:
    """Returns what a server says an expression is."""
    with MySQLCluster.start(1) as cluster, cluster["db1"].session() as connection:
        yield lambda expression, values: _value(connection, expression, values)


def _value(connection: Connection, expression: str, values: tuple[str, ...]) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {expression} AS value", values)
        (row,) = cursor.fetchall()
    return str(row["value"]).replace("\n", "")


thorough = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@thorough
@given(one=positions, other=positions)
def test_contains_is_the_servers_own_answer(
    ask: Callable[[str, tuple[str, ...]], str], one: MySQLPosition, other: MySQLPosition
) -> None:
    for has, asked in ((one, other), (one, one), (one.merge(other), other), (one.minus(other), one)):
        subset = ask("GTID_SUBSET(%s, %s)", (str(asked), str(has)))
        assert has.contains(asked) is (Containment.YES if subset == "1" else Containment.NO)


@thorough
@given(one=positions, other=positions)
def test_minus_is_the_servers_own_answer(
    ask: Callable[[str, tuple[str, ...]], str], one: MySQLPosition, other: MySQLPosition
) -> None:
    assert MySQLPosition.parse(ask("GTID_SUBTRACT(%s, %s)", (str(one), str(other)))) == one.minus(other)


@thorough
@given(position=positions)
def test_the_server_writes_a_set_as_we_do(ask: Callable[[str, tuple[str, ...]], str], position: MySQLPosition) -> None:
    assert ask("GTID_SUBTRACT(%s, '')", (str(position),)) == str(position)
    pieces = sum(len(numbers) for _, numbers in position.sets)
    assert pieces == 0 or ask("GTID_SUBSET(%s, %s)", (str(position), str(position))) == "1"


def test_replicas_have_what_the_primary_wrote_and_one_of_their_own_is_errant(
    start_mysql: Callable[..., MySQLCluster],
) -> None:
    cluster = start_mysql(2)
    db1, db2 = cluster["db1"], cluster["db2"]
    db1.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    with db1.session() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION gtid_next='AUTOMATIC:import'")
        cursor.execute("INSERT INTO app.t VALUES (1)")
    assert db2.await_position(db1.gtid())
    source, replica = MySQLPosition.parse(db1.gtid()), MySQLPosition.parse(db2.gtid())
    assert {written.tag for written, _ in source.sets} == {"", "import"}
    assert replica.equals(source) is Containment.YES
    db2.sql("SET GLOBAL super_read_only=0")
    db2.sql("CREATE TABLE app.errant (id INT PRIMARY KEY)")
    later = MySQLPosition.parse(db2.gtid())
    assert source.contains(later) is Containment.NO
    assert later.minus(source).distance(MySQLPosition()) == 1
    (extra,) = later.minus(source).sets
    assert extra[0].uuid == db2.value("@@server_uuid")
