"""The event scheduler while a dump is loaded: stopped where the account may, and put back only where it was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from proxyroute.errors import GaveWay, StatementError
from proxyroute.model import Deadline
from proxyroute.rejoin_dump import accounts, let_events, stop_events

SOON = Deadline.after(60)


class Fake:
    """A server and the record of its rejoin."""

    name = "db1"

    def __init__(self, scheduler: str, *, denied: bool = False) -> None:
        self.scheduler, self.denied = scheduler, denied
        self.told: dict[str, Any] = {}
        self.notes: list[str] = []
        self.op: Any = SimpleNamespace(kept=self.told.get, keep=self._keep, note=self.notes.append)

    def _keep(self, name: str, value: Any, *, wait: bool) -> None:
        self.told[name] = value

    def write_settings(self, deadline: Deadline) -> dict[str, Any]:
        return {"event_scheduler": self.scheduler}

    def _set(self, wanted: str) -> None:
        if self.denied:
            raise StatementError(self.name, 1227, "Access denied")
        self.scheduler = wanted

    def stop_events(self, deadline: Deadline) -> None:
        self._set("OFF")

    def start_events(self, deadline: Deadline) -> None:
        self._set("ON")


@pytest.mark.parametrize("scheduler", ["ON", "OFF", "DISABLED"])
def test_it_stands_still_and_is_as_it_was_also_for_whoever_goes_on(scheduler: str) -> None:
    server: Any = Fake(scheduler)
    for _ in range(2):
        stop_events(server, server.op, SOON)
        assert server.scheduler == ("OFF" if scheduler == "ON" else scheduler)
    let_events(server, server.op, SOON)
    assert server.scheduler == scheduler


def test_an_account_that_may_not_stop_it_says_so_and_loads_all_the_same() -> None:
    server: Any = Fake("ON", denied=True)
    stop_events(server, server.op, SOON)
    assert "may run on db1" in server.notes[0]
    let_events(server, server.op, SOON)
    assert server.scheduler == "ON"


def test_accounts_are_not_unknown_because_something_more_urgent_has_come_up() -> None:
    def gives_way(*_: object) -> None:
        raise GaveWay("db1 has fallen silent")

    server = SimpleNamespace(wait_for=gives_way, position=lambda deadline: None)
    means: Any = SimpleNamespace(parts=SimpleNamespace(site={"db1": server, "db2": server}))
    with pytest.raises(GaveWay):
        accounts(means, "db2", "db1", SOON)
