"""A lease on the cluster's own servers: a named lock on a majority of *all* that are configured.

Two engines cannot have a majority each. A lock lives in a session of its own, and the server ends that session, and
with it the lock, when it has not heard from us for the lease's time; a thread speaks to each server well before that.
Nothing is written into any database: a term is the time of day in milliseconds at which the lease was had, raised above
every epoch that was claimed in ``state_dir`` and, by ``claim``, above those that proxies have seen.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from proxyroute.errors import Busy, LeaseLost, ProxyRouteError, Refused, TimedOut
from proxyroute.lease.claims import Claims
from proxyroute.lease.clock import now
from proxyroute.model import Deadline, Epoch, Finding, Holding, Severity

_CONNECT = 2.0
_GRACE = 0.3
"""Seconds for the others once we have a majority: one that hangs is often the primary that is to be replaced."""
_MARGIN = 0.1
_POLL = 0.05
_LEAVE = 0.5
S = TypeVar("S")


class Seat(Protocol):
    """One server's lock, in a session of its own. Used by one thread at a time."""

    @property
    def name(self) -> str: ...

    @property
    def is_open(self) -> bool:
        """Whether its session is there: when that ends, whoever has ended it, the lock ends with it."""

    def take(self, deadline: Deadline) -> str:
        """Takes the lock; returns an empty string, or who has it. Raises ProxyRouteError when nobody can say."""

    def holds(self, deadline: Deadline) -> bool:
        """Tells, by a round trip, whether the lock is ours.

        Raises ProxyRouteError when nobody can say; by the deadline that has ended the session.
        """

    def holder(self, deadline: Deadline) -> str:
        """Returns who has the lock, or an empty string. Raises ProxyRouteError when nobody can say."""

    def leave(self) -> None:
        """Gives the lock back. Never raises."""


@dataclass
class _Place:
    """A seat that was taken, and when we last spoke to it and got an answer."""

    seat: Seat
    sent: float
    _asking: threading.Lock = field(default_factory=threading.Lock)

    def confirm(self, patience: float) -> bool:
        """Returns whether the lock is ours, and leaves it when it is not. Raises as the seat does.

        One question at a time: whoever waits for its answer for ``patience`` seconds, and ends the session by giving
        up, has asked later than anybody who got one.
        """
        with self._asking:
            sent = now()
            held = self.seat.holds(Deadline.firm(patience))
            if held:
                self.sent = sent
            else:
                self.seat.leave()
            return held


class DatabaseLease:
    """The lease of a cluster with ``seats``, one for each configured server."""

    distributed = True

    def __init__(self, seats: Callable[[], Sequence[Seat]], servers: int, claims: Claims, seconds: float) -> None:
        """``seats`` makes new ones, not connected yet, for each time the lease is taken."""
        self._make = seats
        self._needed = servers // 2 + 1
        self._servers = servers
        self._claims = claims
        self._seconds = seconds
        self._promise = seconds * (1 - _MARGIN)
        """Seconds from a question that was answered in which we count on a seat.

        A question is waited for as long. Whoever gives up earlier ends the session, and the lock is anybody's while we
        still count on it.
        """
        self._places: list[_Place] = []
        self._term = 0
        self._end = threading.Event()
        self._keepers: list[threading.Thread] = []

    @property
    def automatic(self) -> bool:
        """With two servers the lease cannot be had once one of them is dead."""
        return self._servers > 2

    @property
    def term(self) -> int:
        return self._term if self._places else 0

    def acquire(self, purpose: str, deadline: Deadline) -> int:
        """Returns the new term. Raises Busy at the deadline, Refused when too few servers answer."""
        if self._places:
            with contextlib.suppress(LeaseLost):
                self.check()
                return self._term
        self.release()
        while True:
            taken, others, silent = self._take()
            if len(taken) >= self._needed:
                break
            for place in taken:
                place.seat.leave()
            if self._servers - len(silent) < self._needed:
                told = "; ".join(silent.values())
                raise Refused(
                    f"the lease cannot be had: it takes {self._needed} of {self._servers} servers, and these do not "
                    f"answer: {told}; nothing was touched"
                )
            if deadline.passed:
                told = "; ".join(others.values()) or "another engine is taking the lease"
                raise Busy(f"the cluster is busy: {told}; wait for it, or see 'proxyroute status'")
            time.sleep(min(random.uniform(_POLL, 3 * _POLL), deadline.left))
        self._places, self._end = taken, threading.Event()
        self._term = max(time.time_ns() // 1_000_000, self._claims.highest().term + 1)
        self._keepers = [
            threading.Thread(target=self._keep, args=(place, self._end), name="lease", daemon=True) for place in taken
        ]
        for keeper in self._keepers:
            keeper.start()
        return self._term

    def _take(self) -> tuple[list[_Place], dict[str, str], dict[str, str]]:
        """Returns the seats that could be taken, who has the others, and those that do not answer."""
        deadline = Deadline.after(_CONNECT)
        seats = {seat.name: seat for seat in self._make()}
        sent = now()
        said = _each(seats, lambda seat: seat.take(deadline), deadline, enough=self._needed, yes="", grace=_GRACE)
        taken = [_Place(seats[name], sent) for name, found in said.items() if found == ""]
        others = {name: found for name, found in said.items() if isinstance(found, str) and found}
        silent = {name: str(found) for name, found in said.items() if isinstance(found, Exception)}
        for name in seats.keys() - {place.seat.name for place in taken}:
            seats[name].leave()
        return taken, others, silent

    def _keep(self, place: _Place, end: threading.Event) -> None:
        """Speaks to one server until ``end``, and leaves it; one that is lost is not taken again in this term."""
        with contextlib.suppress(ProxyRouteError):
            while not end.wait(self._seconds / 3) and place.confirm(self._promise):
                pass
        place.seat.leave()

    def check(self) -> None:
        """Raises LeaseLost when we have spoken to too few servers lately."""
        if not self._places:
            raise LeaseLost("the lease is not held")
        since = now() - self._promise
        fresh = [place for place in self._places if place.sent > since and place.seat.is_open]
        if len(fresh) < self._needed:
            raise LeaseLost(
                f"the lease is lost: {len(fresh)} of {self._servers} servers have confirmed it in the last "
                f"{self._seconds:g} s, and it takes {self._needed}"
            )

    def lost(self, deadline: Deadline) -> bool:
        """A session that a server has ended does not answer, as one that cannot be reached does not: see holder."""
        ours, _ = self._confirmed(deadline)
        if len(ours) >= self._needed:
            return False
        others = [found for found in self._ask(deadline).values() if isinstance(found, str)]
        return len(others) >= self._needed

    def commit(self, decision: str, deadline: Deadline) -> None:
        """Asks every server whether the lock is still ours; nothing is kept there."""
        self.check()
        ours, unknown = self._confirmed(deadline)
        if len(ours) >= self._needed:
            return
        told = f"{len(ours)} of {self._servers} servers say that it is ours, and it takes {self._needed}"
        if len(ours) + len(unknown) >= self._needed:
            raise TimedOut(f"nobody knows whose the lease is: {told}; {', '.join(unknown)} did not answer")
        raise LeaseLost(f"the lease is lost: {told}")

    def _confirmed(self, deadline: Deadline) -> tuple[list[str], list[str]]:
        """Returns which servers say that the lock is ours, and which do not answer.

        One that is late is not waited for here, and keeps its session.
        """
        places = {place.seat.name: place for place in self._places}
        until = deadline.within(self._seconds / 3)
        said = _each(places, lambda place: place.confirm(self._promise), until, enough=self._needed)
        ours = [name for name, found in said.items() if found is True]
        return ours, [name for name, found in said.items() if isinstance(found, Exception)]

    def claim(self, above: Epoch, operation: str) -> Epoch:
        self.check()
        epoch = self._claims.claim(self._term, above, operation)
        self._term = epoch.term
        return epoch

    def highest(self, besides: str = "") -> Epoch:
        return self._claims.highest(besides)

    def ticket(self) -> str:
        """Nothing: the servers end the sessions of a dead process at once, and its locks with them."""
        return ""

    def adopt(self, ticket: str) -> bool:
        return False

    def holding(self, deadline: Deadline) -> Holding:
        """Returns who has the lock on most servers."""
        said = self._ask(deadline)
        silent = [str(found) for found in said.values() if isinstance(found, Exception)]
        held = [found for found in said.values() if isinstance(found, str) and found]
        if len(silent) > self._servers - self._needed:
            return Holding("database", trouble="; ".join(silent))
        if len(held) < self._needed and self._servers - len(silent) - len(held) > 0:
            return Holding("database")
        return Holding("database", held[0] if held else "", "")

    def hands_off(self) -> str:
        return ""

    def findings(self, deadline: Deadline) -> Sequence[Finding]:
        """Returns which servers do not answer, and that two are few."""
        found = []
        silent = {name: str(said) for name, said in self._ask(deadline).items() if isinstance(said, Exception)}
        if len(silent) > self._servers - self._needed:
            text = f"too few servers answer, so nobody may begin anything: {'; '.join(silent.values())}"
            found.append(Finding("lease.unreachable", Severity.ERROR, "lease", text, "start them, or reach them"))
        else:
            found += [
                Finding("lease.member", Severity.WARNING, name, f"its lock cannot be asked for: {text}", "start it")
                for name, text in silent.items()
            ]
        if not self.automatic:
            text = f"with {self._servers} servers the lease cannot be had once one is dead: no failover by itself"
            found.append(
                Finding("lease.two_servers", Severity.WARNING, "lease", text, "a third server, or lease: {type: etcd}")
            )
        return found

    def _ask(self, deadline: Deadline) -> Mapping[str, object]:
        seats = {seat.name: seat for seat in self._make()}
        try:
            return _each(seats, lambda seat: seat.holder(deadline), deadline)
        finally:
            for seat in seats.values():
                seat.leave()

    def release(self) -> None:
        """Gives every lock back; a server that hangs is not waited for, and forgets us in the lease's time."""
        keepers, self._places, self._keepers = self._keepers, [], []
        self._end.set()
        until = Deadline.firm(_LEAVE)
        for keeper in keepers:
            keeper.join(until.left)


def _each(
    seats: Mapping[str, S],
    call: Callable[[S], object],
    deadline: Deadline,
    *,
    enough: int | None = None,
    yes: object = True,
    grace: float = 0.0,
) -> dict[str, object]:
    """Returns what ``call`` returned for each seat, or its error.

    With ``enough``, once so many said ``yes``, and the others were waited for ``grace`` seconds.
    """
    said: dict[str, object] = {}
    heard = threading.Condition()

    def run(name: str, seat: S) -> None:
        answer: object
        try:
            answer = call(seat)
        except Exception as error:  # noqa: BLE001 - handed to the caller; a session may be closed in mid-answer
            answer = error
        with heard:
            said[name] = answer
            heard.notify()

    for name, seat in seats.items():
        threading.Thread(target=run, args=(name, seat), name=f"seat {name}", daemon=True).start()
    with heard:
        heard.wait_for(
            lambda: len(said) == len(seats) or (enough and list(said.values()).count(yes) >= enough), deadline.left
        )
        heard.wait_for(lambda: len(said) == len(seats), deadline.within(grace).left)
        return {name: said.get(name, TimedOut(f"{name} did not answer in time")) for name in seats}
