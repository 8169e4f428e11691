"""Notices to those who are to be told elsewhere: sent beside the work, never in its way.

Each receiver has a thread and a queue of its own: one that hangs holds up no other, and nobody who does the work.
Each attempt has a deadline, each notice a bounded number of attempts. What is not sent in the end is told, and kept in
a file with the notice itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxyroute.errors import NotSent
from proxyroute.faults import act
from proxyroute.model import Deadline
from proxyroute.notify_message import Notice, dumped, payload
from proxyroute.notify_receivers import Receiver

_WAITING = 100
"""Notices that may wait for one receiver."""
_MOST, _WITHIN = 40, 600.0
"""Notices to one receiver in so many seconds: something that comes and goes every second must not flood anybody."""
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0
_GRACE = 1.0
"""Seconds that an attempt gets beyond its own time-out, to say itself what happened."""
_LOG_SIZE = 1 << 20
_log = logging.getLogger("proxyroute.notices")


@dataclass(frozen=True)
class Delivery:
    """What became of one notice to one receiver; ``error`` is empty when it was sent."""

    receiver: str
    notice: Notice
    error: str = ""


Ended = Callable[[Delivery], None]


class Notifier:
    """Sends the notices of one cluster. ``send`` returns at once; ``close`` waits for what is under way."""

    def __init__(self, receivers: Sequence[tuple[Receiver, frozenset[str]]], log: Path, ended: Ended, attempts: int):
        """``receivers`` come with the kinds of notices that they get; ``log`` keeps what could not be sent.

        ``ended`` is called once for each notice and receiver, from any thread.
        """
        self._lines = [_Line(receiver, kinds, log, ended, attempts) for receiver, kinds in receivers]

    def send(self, notice: Notice) -> None:
        """Sends ``notice`` to all who get its kind, in the background. Raises nothing."""
        for line in self._lines:
            line.put(notice)

    def close(self, deadline: Deadline) -> None:
        """Waits until everything is sent or given up, or until ``deadline``; then what is left is told as unsent."""
        for line in self._lines:
            line.end()
        for line in self._lines:
            line.join(deadline)


class _Line:
    """The way to one receiver."""

    def __init__(self, receiver: Receiver, kinds: frozenset[str], log: Path, ended: Ended, attempts: int) -> None:
        self._receiver = receiver
        self._kinds = kinds
        self._log = log
        self._ended = ended
        self._attempts = attempts
        self._waiting: deque[Notice] = deque()
        self._open: dict[str, tuple[Notice, str]] = {}
        """Notices that nothing was told of yet, with the last error, by id."""
        self._overflow: deque[Notice] = deque(maxlen=_WAITING)
        self._sent_at: deque[float] = deque(maxlen=_MOST)
        self._changed = threading.Condition()
        self._ending = self._over = False
        self._thread: threading.Thread | None = None

    def put(self, notice: Notice) -> None:
        if notice.kind not in self._kinds:
            return
        with self._changed:
            if self._ending:
                return  # nobody would wait for it
            if len(self._waiting) >= _WAITING:
                self._overflow.append(notice)  # told by the thread: who sends must not wait for a disk
                return
            self._waiting.append(notice)
            self._open[notice.id] = (notice, "not tried in time")
            if self._thread is None:
                name = f"notices {self._receiver.label}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def join(self, deadline: Deadline) -> None:
        if self._thread is None:
            return
        self._thread.join(deadline.left)
        with self._changed:
            self._over = True
            left = list(self._open.values())
        for notice, error in left:
            self._settle(notice, error)
        self._tell_overflow()

    # -- the thread --

    def _run(self) -> None:
        while (notice := self._next()) is not None:
            try:
                self._settle(notice, self._deliver(notice))
                self._tell_overflow()
            except Exception:  # noqa: BLE001 - a mistake of ours costs one notice, and none that follows
                _log.exception("what became of a notice to %s could not be told", self._receiver.label)

    def _next(self) -> Notice | None:
        with self._changed:
            while not self._waiting:
                if self._ending:
                    return None
                self._changed.wait()
            return None if self._over else self._waiting.popleft()

    def _deliver(self, notice: Notice) -> str:
        """Returns why ``notice`` was not sent, an empty text when it was."""
        now = time.monotonic()
        if len(self._sent_at) == _MOST and now - self._sent_at[0] < _WITHIN:
            return f"it got {_MOST} in the last {_WITHIN / 60:g} minutes, and is spared more"
        self._sent_at.append(now)
        attempt, pause = 1, _FIRST_PAUSE
        while True:
            self._note(notice, "no end in time; it may have arrived all the same")
            try:
                _attempt(self._receiver, notice)
                return ""
            except NotSent as error:
                text = f"{error} (attempt {attempt} of {self._attempts})" if self._attempts > 1 else str(error)
                if not error.again or attempt == self._attempts or self._over:
                    return text
            self._note(notice, text)
            threading.Event().wait(pause)
            attempt, pause = attempt + 1, min(2 * pause, _LAST_PAUSE)

    def _note(self, notice: Notice, error: str) -> None:
        """Keeps what is to be told of ``notice`` should time be up now."""
        with self._changed:
            if notice.id in self._open:
                self._open[notice.id] = (notice, error)

    def _settle(self, notice: Notice, error: str) -> None:
        """Tells what became of ``notice``, once."""
        with self._changed:
            if self._open.pop(notice.id, None) is None:
                return
        self._told(Delivery(self._receiver.label, notice, error))

    def _tell_overflow(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                text = f"{_WAITING} others were waiting already"
                self._told(Delivery(self._receiver.label, self._overflow.popleft(), text))

    def _told(self, delivery: Delivery) -> None:
        if delivery.error:
            with contextlib.suppress(OSError):  # it is told all the same
                _keep(self._log, delivery)
        self._ended(delivery)


def _attempt(receiver: Receiver, notice: Notice) -> None:
    """One attempt, in a thread that is left behind when it does not end in time. Raises NotSent.

    A time-out of a socket is for each of its answers, and looking a name up has none at all.
    """
    errors: queue.SimpleQueue[NotSent | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            receiver.deliver(notice, Deadline.after(receiver.timeout))
        except NotSent as error:
            errors.put(error)
        except Exception as error:  # noqa: BLE001 - a mistake of ours is told, without its text: it may hold a secret
            errors.put(NotSent(f"{type(error).__name__}; please report this", again=False))
        else:
            errors.put(None)

    threading.Thread(target=run, name=f"attempt {receiver.label}", daemon=True).start()
    try:
        ended = errors.get(timeout=receiver.timeout + _GRACE)
    except queue.Empty:
        raise NotSent(f"no end within {receiver.timeout:g} s; it may have arrived all the same") from None
    if ended is not None:
        raise ended


def _keep(log: Path, delivery: Delivery) -> None:
    """Appends a line to ``log``; a log that has grown large is put aside first. Raises OSError."""
    value = {
        "at": time.time(),
        "receiver": delivery.receiver,
        "error": delivery.error,
        "notice": payload(delivery.notice),
    }
    with act("notice.log"):
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > _LOG_SIZE:
                os.replace(log, log.with_name(f"{log.name}.1"))
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, dumped(value) + b"\n")
        finally:
            os.close(descriptor)
