"""Filters that MySQL tells are said again as statements."""

from __future__ import annotations

import pytest

from proxyroute.db.mysql_filters import statement


@pytest.mark.parametrize(
    ("name", "rule", "said"),
    [
        ("REPLICATE_DO_DB", "app,q r", "REPLICATE_DO_DB = (`app`, `q r`)"),
        ("REPLICATE_IGNORE_DB", "", "REPLICATE_IGNORE_DB = ()"),
        ("REPLICATE_IGNORE_TABLE", "a-b.c`d,app.x.y", "REPLICATE_IGNORE_TABLE = (`a-b`.`c``d`, `app`.`x.y`)"),
        ("REPLICATE_WILD_DO_TABLE", "x%.y,it's%.z", "REPLICATE_WILD_DO_TABLE = ('x%.y', 'it''s%.z')"),
        ("REPLICATE_REWRITE_DB", "(a,b),(c d,e)", "REPLICATE_REWRITE_DB = ((`a`, `b`), (`c d`, `e`))"),
    ],
)
def test_each_kind_is_said_again(name: str, rule: str, said: str) -> None:
    assert statement({"name": name, "rule": rule}) == f"CHANGE REPLICATION FILTER {said}"
    told = statement({"name": name, "rule": rule, "channel": "it's"})
    assert told == f"CHANGE REPLICATION FILTER {said} FOR CHANNEL 'it''s'"
