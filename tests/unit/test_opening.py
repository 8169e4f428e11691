"""What is a sign that another server was opened, and what is not: positions of both flavours."""

from __future__ import annotations

import pytest

from proxyroute.gtid import MariaDBPosition, MySQLPosition, Position
from proxyroute.inspection import WriteState
from proxyroute.opening import Standing

OLD, REPLICA = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


def closed(position: Position) -> WriteState:
    return WriteState(False, frozenset(), position)


@pytest.mark.parametrize(
    ("goal", "fed", "own", "feeder", "more"),
    [
        (MariaDBPosition.parse("0-1-9"), MariaDBPosition.parse("0-1-12"), MariaDBPosition.parse("0-1-9,0-2-10"), 1,
         "0-1-12"),
        (MySQLPosition.parse(f"{OLD}:1-9"), MySQLPosition.parse(f"{OLD}:1-12"),
         MySQLPosition.parse(f"{OLD}:1-9,{REPLICA}:1"), OLD, f"{OLD}:10-12"),
    ],
    ids=["mariadb", "mysql"],
)  # fmt: skip
def test_what_the_old_primary_still_gave_is_no_sign_and_what_a_replica_wrote_itself_is(
    goal: Position, fed: Position, own: Position, feeder: int | str, more: str
) -> None:
    standing = Standing({"fed": closed(fed), "opened": closed(own)}, {}, feeder=feeder)
    assert not standing.beyond("fed", goal)
    assert standing.beyond("opened", goal)
    assert {name: str(position) for name, position in standing.fed(goal).items()} == {"fed": more}
