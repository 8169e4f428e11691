"""The database lease counts on no lock that its own giving up may have given back. With seats that are no servers."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxyroute.errors import Busy, LeaseLost, Silence, TimedOut, Unreachable
from proxyroute.lease.claims import Claims
from proxyroute.lease.database import DatabaseLease
from proxyroute.model import Deadline
from tests.support.wait import until

NAMES = ("db1", "db2", "db3")


class Site:
    """Three servers: who has the lock on which, and whether an engine's packets come through."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.holders: dict[str, Seat] = {}
        self.cut_off = ""
        self.told = threading.Condition()

    def lease(self, engine: str, seconds: float) -> DatabaseLease:
        claims = Claims(self._folder / engine)
        return DatabaseLease(lambda: [Seat(self, name, engine) for name in NAMES], len(NAMES), claims, seconds)

    def cut(self, engine: str) -> None:
        with self.told:
            self.cut_off = engine
            self.told.notify_all()


class Seat:
    """As LockSeat: whoever waits in vain has ended the session; the server frees the lock once it hears that."""

    def __init__(self, site: Site, name: str, engine: str) -> None:
        self.name = name
        self.is_open = False
        self.asked = threading.Event()
        self._site = site
        self._engine = engine

    def _come_through(self, deadline: Deadline) -> bool:
        with self._site.told:
            return self._site.told.wait_for(lambda: self._site.cut_off != self._engine, deadline.left)

    def take(self, deadline: Deadline) -> str:
        if (other := self._site.holders.setdefault(self.name, self)) is not self:
            return other._engine
        self.is_open = True
        return ""

    def holds(self, deadline: Deadline) -> bool:
        self.asked.set()
        if self.is_open and not self._come_through(deadline):
            self.leave()
            raise Unreachable(self.name, "no answer", Silence.HUNG)
        if not self.is_open:
            raise Unreachable(self.name, "the connection is closed")
        return self._site.holders.get(self.name) is self

    def holder(self, deadline: Deadline) -> str:
        found = self._site.holders.get(self.name)
        return found._engine if found else ""

    def leave(self) -> None:
        self.is_open = False
        if self._site.cut_off != self._engine:
            self._free()
        else:
            threading.Thread(target=self._free_once_heard, daemon=True).start()

    def _free_once_heard(self) -> None:
        if self._come_through(Deadline.after(60)):
            self._free()

    def _free(self) -> None:
        if self._site.holders.get(self.name) is self:
            del self._site.holders[self.name]

    def end(self) -> None:
        """What the server does to a session."""
        self.is_open = False
        self._free()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@contextlib.contextmanager
def held(lease: DatabaseLease) -> Iterator[None]:
    lease.acquire("work", Deadline.after(5))
    try:
        yield
    finally:
        lease.release()


def ours(lease: DatabaseLease) -> bool:
    with contextlib.suppress(LeaseLost):
        lease.check()
        return True
    return False


def cut_while_it_asks(site: Site, engine: str) -> None:
    """Returns once the engine waits for an answer of each server."""
    seats = list(site.holders.values())
    for seat in seats:
        seat.asked.clear()
    site.cut(engine)
    for seat in seats:
        assert seat.asked.wait(20)


def test_a_session_is_not_ended_while_its_lock_counts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = site.lease("a", 0.9)
    counted: list[bool] = []
    leave = Seat.leave

    def leaves(seat: Seat) -> None:
        counted.append(ours(lease))
        leave(seat)

    with held(lease):
        cut_while_it_asks(site, "a")
        monkeypatch.setattr(Seat, "leave", leaves)
        with pytest.raises((LeaseLost, TimedOut)):
            lease.commit("op", Deadline.after(0.1))  # it gives up early, and that ends no session either
        until(lambda: not any(seat.is_open for seat in site.holders.values()), "the sessions to be given up")
    assert counted
    assert not any(counted)


def test_two_engines_never_have_it_at_once_however_long_the_network_of_one_pauses(site: Site) -> None:
    first, second = site.lease("a", 0.6), site.lease("b", 30)
    with held(first):
        cut_while_it_asks(site, "a")
        until(lambda: not any(seat.is_open for seat in site.holders.values()), "the sessions to be given up")
        site.cut("")
        with held(second):
            assert not ours(first)
            assert ours(second)


def test_a_pause_that_is_shorter_than_the_promise_costs_nothing(site: Site) -> None:
    seconds = 3.0
    first, second = site.lease("a", seconds), site.lease("b", seconds)
    with held(first):
        cut_while_it_asks(site, "a")
        time.sleep(seconds / 3 + 0.2)
        assert ours(first)
        site.cut("")
        with pytest.raises(Busy):
            second.acquire("mine", Deadline.after(0.2))
        first.commit("op", Deadline.after(5))


def freed(seat: Seat) -> None:
    """Somebody has taken the lock from the session."""
    seat._site.holders[seat.name] = Seat(seat._site, seat.name, "b")


@pytest.mark.parametrize("lose", [Seat.end, freed], ids=["session-ended", "lock-lost"])
def test_a_lock_that_a_commit_finds_gone_counts_no_more(site: Site, lose: Callable[[Seat], None]) -> None:
    lease = site.lease("a", 60)
    with held(lease):
        for seat in list(site.holders.values())[:2]:
            lose(seat)
        with pytest.raises((LeaseLost, TimedOut)):
            lease.commit("op", Deadline.after(5))
        assert not ours(lease)
