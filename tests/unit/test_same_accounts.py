"""Accounts of two servers compared: what they may is held against each other only where both tell it alike."""

from __future__ import annotations

from typing import Any

import pytest

from proxyroute.db.same_accounts import unlike
from proxyroute.model import Deadline

Version = tuple[int, int, int]


class Told:
    """A session to a MySQL server with some accounts, by what is told of each."""

    flavour = "mysql"

    def __init__(self, server: str, version: Version, **accounts: str) -> None:
        self.server, self.version, self.accounts = server, version, accounts

    def read(self, sql: str, deadline: Deadline) -> list[dict[str, Any]]:
        if sql.startswith("SELECT"):
            return [{"name": name, "host": "%", "role": "N"} for name in self.accounts]
        (told,) = (told for name, told in self.accounts.items() if f"'{name}'@'%'" in sql)
        return [{"told": told}]


def compared(here: Told, there: Told) -> list[str]:
    return unlike(here, there, Deadline.after(1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        (((8, 0, 26), (8, 0, 26)), True),
        (((8, 0, 26), (8, 0, 36)), False),  # the newer one has privileges that ALL means there
        (((8, 4, 1), (8, 4, 3)), True),
        (((8, 4, 1), (9, 7, 0)), False),
    ],
)
def test_privileges_are_compared_where_both_versions_know_the_same(
    versions: tuple[Version, Version], told: bool
) -> None:
    here, there = Told("db3", versions[0], admin="some"), Told("db1", versions[1], admin="more")
    expected = ["admin@% is another one (password, privileges or options)"] if told else []
    assert compared(here, there) == expected


def test_who_is_on_one_of_them_only_is_told_whatever_the_versions() -> None:
    here, there = Told("db3", (8, 0, 26), old="x"), Told("db1", (8, 0, 36), new="x")
    assert compared(here, there) == ["new@% is missing", "old@% is on db3 alone"]
