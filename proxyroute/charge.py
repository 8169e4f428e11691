"""One cluster in the keeping of ``proxyroute serve``: its thread, and everything that belongs to it."""

from __future__ import annotations

import os
import threading
import time

from proxyroute import logs
from proxyroute.config_secrets import fingerprint
from proxyroute.config_values import ClusterConfig
from proxyroute.engine import open_engine
from proxyroute.journal import Record
from proxyroute.keeper import Keeper, Show
from proxyroute.model import Deadline
from proxyroute.notify_message import Notice
from proxyroute.outlet import Listener, Outlet
from proxyroute.sentry import Sentry
from proxyroute.serve_lock import Lock

_BREATH = 0.02
"""Seconds between two steps when much is changing."""
_LAST_WORDS = 5.0
"""Seconds for notices that are not sent yet when it ends."""
STUCK = 90.0
"""Seconds without a turn, a record or a wait that asks after us: longer than each deadline of an act."""


class Charge:
    """Keeps one cluster from :meth:`start` until :meth:`ask_to_end`; what has begun comes to its end first."""

    def __init__(self, config: ClusterConfig, listener: Listener, show: Show | None = None) -> None:
        """Makes everything ready and touches nothing. Raises ConfigError when a secret cannot be read."""
        self.config = config
        self.fingerprint = fingerprint(config)
        self.line, self.level = f"{config.name}: not looked at yet", "warn"
        """What there is to say of the cluster, in one line."""
        self._listener = listener
        self._show = show
        self._end = threading.Event()
        self._engine = open_engine(config, self._recorded)
        self._sentry = Sentry(config, self._engine.hands_off)
        self._outlet = Outlet(config, self._hear)
        self._lock: Lock | None = None
        self._handing = threading.Lock()
        self._before: Charge | None = None
        self._state = self._worry = ""
        self._turned_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"keep {config.name}", daemon=True)

    def same_as(self, config: ClusterConfig) -> bool:
        """Tells whether ``config``, with the secrets and certificates it names, is what is kept. Raises nothing."""
        return self.config == config and self.fingerprint == fingerprint(config)

    def start(self, lock: Lock, before: Charge | None = None) -> None:
        """Begins, under ``lock``; after ``before``, which keeps the same cluster, has come to its end."""
        self._lock, self._before = lock, before
        self._turned_at = time.monotonic()
        self._thread.start()

    def discard(self) -> None:
        """Lets go of what was made ready and is not to be started."""
        self._sentry.close()
        self._engine.close()

    def hand_over(self) -> Lock | None:
        """Returns the lock, for the one that comes after, unless it was given back already."""
        with self._handing:
            lock, self._lock = self._lock, None
        return lock

    def ask_to_end(self) -> None:
        """Nothing is begun any more that can wait. Returns at once."""
        self._end.set()

    def join(self, deadline: Deadline) -> bool:
        """Waits for the end; tells whether it has come."""
        self._thread.join(deadline.left)
        return not self._thread.is_alive()

    @property
    def over(self) -> bool:
        """It was started, and has come to its end."""
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def turns(self) -> bool:
        """The loop goes round, or what it does goes on: a step, a record of a journal, a wait that gives way."""
        return self._thread.is_alive() and time.monotonic() - self._turned_at < STUCK

    # -- the thread --

    def _run(self) -> None:
        if self._before is not None:
            while not self._before.join(Deadline.after(1.0)):
                self._turned_at = time.monotonic()
            self._before = None
        name = self.config.name
        try:
            if not self._end.is_set():
                self._outlet(Notice(name, "serving", "serving", "good", time.time(), {"pid": os.getpid()}))
                self._keep()
        finally:
            self._sentry.close()
            self._engine.close()
            self._outlet(Notice(name, "ended", "ended; nothing was changed by that", "", time.time()))
            self._outlet.close(Deadline.after(_LAST_WORDS))
            if (lock := self.hand_over()) is not None:
                lock.release()

    def _keep(self) -> None:
        period = self.config.serve.period
        with self._sentry as sentry:
            keeper = Keeper(self.config, self._engine, sentry, self._outlet, self._asked, self._show)
            while not self._asked():
                try:
                    keeper.step()
                except Exception as error:  # noqa: BLE001 - a mistake of ours in one step must not end all keeping
                    text = f"{type(error).__name__}: {error}; please report this"
                    self._outlet(Notice(self.config.name, "trouble", text, "bad", time.time()))
                    self._end.wait(period)
                if not sentry.wait_change(period):
                    continue
                self._end.wait(_BREATH)

    def _asked(self) -> bool:
        """Whether this is to end. Whoever asks is alive: the loop, and each wait of a chore."""
        self._turned_at = time.monotonic()
        return self._end.is_set()

    def _recorded(self, record: Record) -> None:
        self._turned_at = time.monotonic()
        logs.tell_record(self.config.name, record)

    def _hear(self, notice: Notice) -> None:
        """Keeps what there is to say, and tells it on."""
        if notice.kind == "state":
            self._state = notice.text
        elif notice.kind == "diagnosis":
            self._worry = "" if notice.level == "good" else f"{notice.cluster}: {notice.text}"
        if notice.kind in ("state", "diagnosis"):
            self.line, self.level = self._worry or self._state or notice.text, notice.level
        self._listener(notice)
