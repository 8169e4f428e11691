"""The probes themselves, with servers that behave as badly as is wanted."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from proxyroute.errors import LostReply, ProxyRouteError, ServerError, Silence, StatementError, TimedOut, Unreachable
from proxyroute.model import Address, Deadline, Status
from proxyroute.ports import Server
from proxyroute.probing import Prober, kind_of
from proxyroute.sight import Track
from tests.support.builders import address, server
from tests.support.wait import until

PERIOD, PATIENCE = 30.0, 0.2
"""So long a period that whatever happens sooner has another reason."""


class Fake:
    """A server whose looks do what ``answer`` does."""

    def __init__(self, number: int = 1) -> None:
        self.name = f"db{number}"
        self.address: Address = address(number)
        self.answer: Callable[[], Status] = lambda: server(number)
        self.looks = 0
        self.closed = 0
        self.asked_for_line = 0
        self.descriptor: int | None = None

    def look(self, deadline: Deadline) -> Status:
        assert deadline.left <= PATIENCE
        self.looks += 1
        return self.answer()

    def line(self) -> int | None:
        self.asked_for_line += 1
        return self.descriptor

    def close(self) -> None:
        self.closed += 1

    def fail(self, error: BaseException) -> None:
        def answer() -> Status:
            raise error

        self.answer = answer


@contextlib.contextmanager
def probing(*servers: Fake, period: float = PERIOD) -> Iterator[Prober]:
    before = set(threading.enumerate())
    descriptors = len(os.listdir("/proc/self/fd"))
    with Prober("shop", [cast(Server, s) for s in servers], period, PATIENCE) as prober:
        until(lambda: prober.sightings().complete, "a first look at everybody")
        yield prober
    assert set(threading.enumerate()) <= before
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert all(s.closed for s in servers)


def track(prober: Prober, number: int = 1) -> Track:
    return prober.sightings().tracks[f"db{number}"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unreachable("db1", "refused", Silence.REFUSED), Silence.REFUSED),
        (StatementError("db1", 1040, "x"), Silence.CROWDED),
        (StatementError("db1", 1045, "x"), Silence.LOGIN),
        (StatementError("db1", 1053, "x"), Silence.ENDING),
        (StatementError("db1", 1927, "x"), Silence.RESET),
        (StatementError("db1", 1227, "x"), Silence.ANSWERED),
        (ServerError("db1", "is no MariaDB"), Silence.ANSWERED),
        (TimedOut("too late"), Silence.HUNG),
        (LostReply("db1", "x"), Silence.HUNG),
        (ProxyRouteError("x"), Silence.OTHER),
        (ValueError("x"), Silence.OTHER),
    ],
)
def test_each_failure_has_its_kind_and_ends_no_thread(error: Exception, kind: Silence) -> None:
    assert kind_of(error) is kind
    one = Fake()
    one.fail(error)
    with probing(one) as prober:
        silent = track(prober).silent
        assert silent
        assert silent.kind is kind
        assert not silent.reason.startswith("db1: ")
        one.answer = lambda: server(1)
        prober.look_now()
        until(lambda: track(prober).status, "db1 to be seen again")


def test_a_look_that_ignores_its_deadline_counts_as_silence_and_holds_up_nobody() -> None:
    stuck, other = Fake(1), Fake(2)
    over = threading.Event()
    with probing(stuck, other) as prober:

        def hang() -> Status:
            over.wait(20.0)
            return server(1)

        stuck.answer = hang
        looks = other.looks
        prober.look_now()
        until(lambda: track(prober).silent_looks >= 2, "two overdue looks")
        silent = track(prober).silent
        assert silent
        assert (silent.kind, "has not come back" in silent.reason) == (Silence.OTHER, True)
        assert other.looks > looks
        over.set()
        until(lambda: track(prober).status, "db1 to be seen again")
        assert track(prober).silent_looks == 0


def test_a_thread_that_is_stuck_does_not_keep_the_end_waiting_and_cleans_up_later() -> None:
    one, over = Fake(), threading.Event()
    prober = Prober("shop", [cast(Server, one)], PERIOD, PATIENCE)

    def hang() -> Status:
        over.wait(20.0)
        return server(1)

    one.answer = hang
    prober.start()
    until(lambda: one.looks, "the look to begin")
    prober.stop(seconds=0.1)
    assert one.closed == 0
    over.set()
    until(lambda: one.closed, "the connection to be closed")


def test_a_hang_up_is_noticed_at_once_and_everybody_is_looked_at() -> None:
    one, other = Fake(1), Fake(2)
    here, there = socket.socketpair()
    one.descriptor = here.fileno()
    with here, probing(one, other) as prober:
        prober.wait_change(1.0)
        looks = other.looks
        one.fail(Unreachable("db1", "reset", Silence.RESET))
        one.descriptor = None
        there.close()
        assert prober.wait_change(5.0)
        until(lambda: track(prober).silent_looks >= 3, "db1 to be looked at again and again")
        assert other.looks > looks
        assert track(prober).silent_since is not None


def test_a_line_that_is_readable_without_a_hang_up_is_not_trusted_twice() -> None:
    one = Fake()
    here, there = socket.socketpair()
    there.send(b"a session ticket, say")
    one.descriptor = here.fileno()
    with here, there, probing(one) as prober:
        until(lambda: one.looks >= 2, "the second look")
        prober.look_now()
        until(lambda: one.looks >= 3, "the third look")
        assert one.asked_for_line == 1


def test_only_what_is_new_wakes_the_one_who_waits() -> None:
    one = Fake()
    with probing(one, period=0.02) as prober:
        until(lambda: not prober.wait_change(0.0), "what is new to have been told")
        looks = one.looks
        until(lambda: one.looks > looks + 3, "some more looks")
        assert not prober.wait_change(0.0)
        one.answer = lambda: server(1, writable=False)
        assert prober.wait_change(5.0)


def test_a_time_out_is_doubtful_while_we_are_not_given_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyroute.probing._Pulse.late_since", lambda *_: True)
    slow, gone = Fake(1), Fake(2)
    slow.fail(TimedOut("too late"))
    gone.fail(Unreachable("db2", "refused", Silence.REFUSED))
    with probing(slow, gone) as prober:
        until(lambda: track(prober, 2).silent_looks >= 2, "db2 to be silent")
        assert (track(prober, 1).silent_looks, track(prober, 1).silent_since) == (0, None)


def test_the_pulse_tells_when_we_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxyroute.probing import _Pulse

    pulse = _Pulse()
    pulse.start()
    began = time.monotonic()
    assert not pulse.late_since(began)
    clock = time.monotonic
    monkeypatch.setattr("proxyroute.probing.time.monotonic", lambda: clock() + 10.0)
    until(lambda: pulse.late_since(began), "the pulse to be late")
    pulse._users = 1
    pulse.give_back()
    pulse.join(5.0)
