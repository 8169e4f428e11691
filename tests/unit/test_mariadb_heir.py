"""Where replication goes on at a server that was given what a dead primary had. Its session is made up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from proxyroute.db import mariadb_heir
from proxyroute.db.mariadb_heir import MariaDBHeir
from proxyroute.db.session import Login
from proxyroute.errors import StatementError
from proxyroute.gtid import MariaDBPosition
from proxyroute.model import Address, Deadline

APPLIED = MariaDBPosition.parse("0-1-103")


class Talk:
    """Answers as a server does that stands at ``slave``; each further reading is one more."""

    def __init__(self, *slave: str, log: str, applier: bool = False) -> None:
        self.slave, self.log, self.applier = list(slave), log, applier
        self.told: list[tuple[str, Sequence[Any]]] = []

    def one(self, sql: str, deadline: Deadline, args: Sequence[Any] = ()) -> dict[str, Any]:
        if "IS_USED_LOCK" in sql:
            return {"id": None}
        assert "gtid_slave_pos" in sql
        return {"slave": self.slave.pop(0) if len(self.slave) > 1 else self.slave[0], "log": self.log}

    def change(self, point: str, sql: str, deadline: Deadline, args: Sequence[Any] = ()) -> None:
        self.told.append((point, args))


def settle(talk: Talk, monkeypatch: pytest.MonkeyPatch, applied: MariaDBPosition | None = APPLIED) -> None:
    class Channel:
        applier = talk.applier

    heir = MariaDBHeir("db2", Address("127.0.0.1", 3307), Login("u", "p"), {})
    monkeypatch.setattr(heir, "_session", lambda deadline: nullcontext(talk))
    monkeypatch.setattr(mariadb_heir, "read_channels", lambda session, deadline: (Channel,))
    monkeypatch.setattr(mariadb_heir, "_LAG", 0.1)
    heir.settle_replay(Deadline.after(5), applied)


def test_a_channel_that_stands_still_begins_after_what_was_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk("0-1-100,7-7-7", log="0-1-103,5-2-9")
    settle(talk, monkeypatch)
    assert talk.told == [("salvage.set_position", ("0-1-103,5-2-9,7-7-7",))]
    settled = Talk("0-1-103", log="0-1-103")
    settle(settled, monkeypatch)
    assert settled.told == []


@pytest.mark.parametrize("applied", [APPLIED, None], ids=["known", "not-known"])
def test_an_applier_that_runs_from_before_it_is_told(
    monkeypatch: pytest.MonkeyPatch, applied: MariaDBPosition | None
) -> None:
    with pytest.raises(StatementError, match="runs from 0-1-100, and its binary log has 0-1-103 already"):
        settle(Talk("0-1-100", log="0-1-103,5-2-9", applier=True), monkeypatch, applied)
    # of a domain that is new to it
    with pytest.raises(StatementError, match="has 0-1-103 already"):
        settle(Talk("3-1-5", log="0-1-103", applier=True), monkeypatch)


def test_an_applier_that_has_gone_on_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for talk in (
        Talk("0-1-110", log="0-1-110", applier=True),
        Talk("0-1-103", log="0-1-103,5-2-9", applier=True),  # clients here write domain 5
        Talk("0-1-109", "0-1-110", log="0-1-110", applier=True),  # it was just writing
    ):
        settle(talk, monkeypatch)
        assert talk.told == []
