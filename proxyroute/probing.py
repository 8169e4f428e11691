"""Looks at every server again and again, each in a thread of its own, and remembers what was seen.

A server that hangs holds up nobody but its own thread, and that only until the end of its patience: what the driver
makes of a deadline does not matter, for a look that is overdue counts as silence while it still goes on. When a server
hangs up, its thread notices at once; when one falls silent, all are looked at again at once, then ever less quickly.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from proxyroute.errors import LostReply, ProxyRouteError, ServerError, Silence, StatementError, TimedOut, Unreachable
from proxyroute.model import Deadline, Silent, Status
from proxyroute.ports import Server
from proxyroute.sight import KEPT, Sighting, Sightings

FIRST_PAUSE = 0.02
QUICK = 0.1
"""Seconds between two looks while something is new; the first pause is shorter, and each next one twice as long."""
ALARM = 5.0
"""How long a new silence makes everybody be looked at quickly."""
PULSE = 0.05
LATE = 0.2
"""When a thread of ours that only counts time is later than this, we were not given the processor."""
_GRACE = 0.05
_APART = 0.003
"""Seconds between the first looks of two probes."""
_CROWDED = frozenset({1040, 1203, 1226})
_LOGIN = frozenset({1044, 1045, 1129, 1130, 1698, 1820, 1862, 4151})
_BROKEN = frozenset({1158, 1159, 1160, 1161, 1927})
_ENDING = frozenset({1053, 1077, 1079})


def kind_of(error: BaseException) -> Silence:
    """Tells from what a look raised in which way the server is silent."""
    if isinstance(error, Unreachable):
        return error.kind
    if isinstance(error, StatementError):
        for numbers, kind in (
            (_CROWDED, Silence.CROWDED),
            (_LOGIN, Silence.LOGIN),
            (_BROKEN, Silence.RESET),
            (_ENDING, Silence.ENDING),
        ):
            if error.errno in numbers:
                return kind
        return Silence.ANSWERED
    if isinstance(error, TimedOut | LostReply):
        return Silence.HUNG
    return Silence.ANSWERED if isinstance(error, ServerError) else Silence.OTHER


class Prober:
    """Probes the servers of one cluster. The ``Server`` objects are its own: nobody else may use them."""

    def __init__(
        self,
        cluster: str,
        servers: Sequence[Server],
        period: float,
        patience: float,
        server_ids: Mapping[str, int] | None = None,
    ) -> None:
        self._sightings = Sightings.begin(cluster, {s.name: s.address for s in servers}, server_ids)
        self._changed = threading.Condition()
        self._version = self._told = 0
        self._alarm_until = 0.0
        self.pulse: _Pulse | None = None
        self._watches = [_Watch(self, server, period, patience) for server in servers]

    def start(self) -> None:
        """Begins to look. Returns at once."""
        self.pulse = _Pulse.take()
        for watch in self._watches:
            watch.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Ends all looks and closes the connections; a thread that is stuck in a look does so when it comes back."""
        deadline = Deadline.after(seconds)
        for watch in self._watches:
            watch.end()
        for watch in self._watches:
            if watch.is_alive():
                watch.join(deadline.left)
        pulse, self.pulse = self.pulse, None
        if pulse is not None:
            pulse.give_back()
        with self._changed:
            self._changed.notify_all()

    def __enter__(self) -> Prober:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def sightings(self) -> Sightings:
        """Returns what has been seen so far; a look that is overdue counts as silence already."""
        with self._changed:
            found = self._sightings
        for watch in self._watches:
            for overdue in watch.overdue():
                found = found.add(overdue)
        return found

    def late_since(self, moment: float) -> bool:
        """Whether we were late at any time after ``moment``, now included; not known before we look."""
        pulse = self.pulse
        return pulse is not None and pulse.late_since(moment)

    def wait_change(self, seconds: float) -> bool:
        """Waits until something is new since the last call, ``seconds`` at the most; tells whether something is.

        New is every look while a server has just fallen silent, and whatever differs from the look before. For one
        caller.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._version != self._told, seconds)
            changed, self._told = self._version != self._told, self._version
        return changed

    def look_now(self) -> None:
        """Makes every server be looked at now, and quickly for a while."""
        with self._changed:
            self._alarm_until = time.monotonic() + ALARM
        for watch in self._watches:
            watch.wake()

    @property
    def alarmed(self) -> bool:
        """A server has fallen silent a moment ago."""
        return time.monotonic() < self._alarm_until

    def report(self, sighting: Sighting) -> None:
        """Takes one look; called by the threads."""
        with self._changed:
            before = self._sightings.tracks[sighting.seen.name].last
            self._sightings = self._sightings.add(sighting)
            # a silence that is our own doing must not make us do still more
            answered = before is None or before.doubtful or isinstance(before.seen, Status)
            fell = isinstance(sighting.seen, Silent) and not sighting.doubtful and answered
            if fell or self.alarmed or before is None or _sort(before.seen) != _sort(sighting.seen):
                self._version += 1
                self._changed.notify_all()
        if fell:
            self.look_now()


def _sort(seen: Status | Silent) -> object:
    """What makes two looks differ enough to wake somebody."""
    if isinstance(seen, Silent):
        return seen.kind
    sync = replace(seen.semi_sync, clients=min(1, seen.semi_sync.clients), waiting=0)
    channels = [(s.channel, s.address, s.receiver, s.applier, s.receiver_errno) for s in seen.sources]
    return seen.writable, seen.server_id, sync, channels


class _Watch(threading.Thread):
    """Looks at one server."""

    def __init__(self, prober: Prober, server: Server, period: float, patience: float) -> None:
        super().__init__(name=f"probe {server.name}", daemon=True)
        self._prober = prober
        self._server = server
        self._period = period
        self._patience = patience
        self._ending = False
        self._pause = period
        self._hurried = False
        self._line_lies = False
        """The line of this connection was readable although the server had not hung up."""
        self._looking_since: float | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._pipe = threading.Lock()

    def wake(self) -> None:
        with self._pipe, contextlib.suppress(OSError):
            if self._wake_write >= 0:
                os.write(self._wake_write, b"!")

    def end(self) -> None:
        self._ending = True
        self.wake()
        if not self.is_alive():
            self._clean_up()

    def overdue(self) -> list[Sighting]:
        """Returns the looks that could have been made, and failed, while the present one does not come back."""
        began, now = self._looking_since, time.monotonic()
        if began is None or now - began <= self._patience + _GRACE:
            return []
        silent = Silent(
            self._server.name,
            self._server.address,
            f"a look that began {now - began:.1f} s ago has not come back",
            Silence.OTHER,
        )
        doubtful = self._prober.late_since(began)
        times = min(KEPT, int((now - began) / self._patience))
        return [Sighting(began, now, silent, doubtful) for _ in range(max(1, times))]

    def run(self) -> None:
        try:
            by_line = False
            self._await_turn()
            while not self._ending:
                sighting = self._look()
                if isinstance(sighting.seen, Silent):
                    self._line_lies = False
                elif by_line:
                    self._line_lies = True
                self._prober.report(sighting)
                by_line = self._rest(sighting)
        finally:
            self._server.close()
            self._clean_up()

    def _await_turn(self) -> None:
        """A thousand logins at once would be late all of them, here and at a server that many of us look at."""
        ready = select.poll()
        ready.register(self._wake_read, select.POLLIN)
        ready.poll(1000 * _turn())

    def _look(self) -> Sighting:
        began = self._looking_since = time.monotonic()
        seen: Status | Silent
        try:
            seen = self._server.look(Deadline(began + self._patience))
        # a thread that ended here would leave its server unseen for ever, whatever it was that went wrong
        except Exception as error:  # noqa: BLE001
            text = str(error) if isinstance(error, ProxyRouteError) else f"{type(error).__name__}: {error}"
            text = text.removeprefix(f"{self._server.name}: ")
            seen = Silent(self._server.name, self._server.address, text, kind_of(error))
            self._server.close()
        self._looking_since = None
        by_time = isinstance(seen, Silent) and seen.kind in (Silence.HUNG, Silence.UNREACHABLE, Silence.OTHER)
        return Sighting(began, time.monotonic(), seen, by_time and self._prober.late_since(began))

    def _rest(self, sighting: Sighting) -> bool:
        """Waits for the time of the next look; tells whether it is the server that has ended the wait."""
        hurried, self._hurried = self._hurried, self._prober.alarmed
        quick = min(self._pause * 2 if hurried else FIRST_PAUSE, QUICK, self._period)
        self._pause = quick if self._hurried else self._period
        line = None if self._line_lies else self._server.line()
        ready = select.poll()
        ready.register(self._wake_read, select.POLLIN)
        if line is not None and line >= 0:
            ready.register(line, select.POLLIN | select.POLLRDHUP)
        left = max(0.0, sighting.at + self._pause - time.monotonic())
        awake = [descriptor for descriptor, _ in ready.poll(left * 1000)]
        if self._wake_read in awake:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        return line is not None and line in awake

    def _clean_up(self) -> None:
        with self._pipe:
            for descriptor in {self._wake_read, self._wake_write} - {-1}:
                os.close(descriptor)
            self._wake_read = self._wake_write = -1


_turns = threading.Lock()
_next_turn = 0.0


def _turn() -> float:
    """Returns after how many seconds the next of all probes of this process may look for the first time."""
    global _next_turn
    with _turns:
        now = time.monotonic()
        _next_turn = max(now, _next_turn + _APART)
        return _next_turn - now


class _Pulse(threading.Thread):
    """Tells whether we are given the processor: a time-out of ours means nothing while we are not.

    One for all clusters of a process: each would tell the same, and three hundred of them would wake up all the time.
    """

    _taking = threading.Lock()
    _one: _Pulse | None = None

    @classmethod
    def take(cls) -> _Pulse:
        """Returns the one of this process, which beats until everybody has given it back."""
        with cls._taking:
            if cls._one is None or not cls._one.is_alive():
                cls._one = cls()
                cls._one.start()
            cls._one._users += 1
            return cls._one

    def give_back(self) -> None:
        with self._taking:
            self._users -= 1
            if self._users:
                return
            if _Pulse._one is self:
                _Pulse._one = None
        self._over.set()
        self.join(1.0)

    def __init__(self) -> None:
        super().__init__(name="probe pulse", daemon=True)
        self._over = threading.Event()
        self._users = 0
        self._last = time.monotonic()
        self._late_at = float("-inf")

    def run(self) -> None:
        self._last = time.monotonic()
        while not self._over.wait(PULSE):
            now = time.monotonic()
            if now - self._last > PULSE + LATE:
                self._late_at = now
            self._last = now

    def late_since(self, moment: float) -> bool:
        """Whether we were late at any time after ``moment``, now included."""
        return self._late_at >= moment or (self.is_alive() and time.monotonic() - self._last > PULSE + LATE)
