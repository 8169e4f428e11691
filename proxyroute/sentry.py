"""Watches the servers of one cluster: probes them, remembers what it was like in order, names what is the matter.

What is remembered is kept on this host's disk, so that an engine that starts after the primary has died knows it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from proxyroute.assembly import build_servers, cluster_folder, journal_folder, standing_file
from proxyroute.atomic import put
from proxyroute.config_values import ClusterConfig
from proxyroute.decided import Action, Diagnosis
from proxyroute.diagnosis import diagnose
from proxyroute.history import Ledger, rebuilt
from proxyroute.inspection import Event
from proxyroute.known import Known, moved
from proxyroute.known import remember as known_after
from proxyroute.model import Deadline, Observed
from proxyroute.moment import Moment
from proxyroute.policy import Policy
from proxyroute.probing import Prober
from proxyroute.sight import Sightings, certainly_lives
from proxyroute.standing import Book, Standing

_FORMAT = 1
_SAVE_EVERY = 5.0
"""Seconds between two writings of what only moves on; what changes is written at once."""
_PAUSE = 0.1
_STANDING = 0.25
"""Seconds for which the standing orders are not read again."""


class Sentry:
    """The eyes of one cluster. Use it in a ``with`` statement; any thread may ask it."""

    def __init__(self, config: ClusterConfig, withheld: Callable[[], str] = str) -> None:
        """``withheld`` tells why nothing is to be done by itself now.

        Raises ConfigError when a secret cannot be read."""
        self._withheld = withheld
        self._config = config
        self._policy = config.failover
        self._file = cluster_folder(config) / "known.json"
        self.known, self.events = recall(self._file)
        ids = dict(self.known.server_ids) if self.known is not None else {}
        servers = list(build_servers(config).values())
        self._prober = Prober(config.name, servers, self._policy.probe_period, self._policy.patience, ids)
        self._saved: Known | None = self.known
        self._saved_at = 0.0
        self._remembering = threading.Lock()
        self._book = Book(standing_file(config))
        self._ledger = Ledger(journal_folder(config))
        self._standing: tuple[float, Standing, tuple[str, ...]] = (float("-inf"), Standing(), ())

    def __enter__(self) -> Sentry:
        self._prober.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._prober.stop()

    def close(self) -> None:
        """Ends all looking, and lets go of what it holds even if it was never begun. Twice does no harm."""
        self._prober.stop()

    def sightings(self) -> Sightings:
        """Returns what has been seen of every server so far."""
        return self._prober.sightings()

    @property
    def standing(self) -> Standing:
        """The standing orders, as they were read at most a moment ago."""
        return self._ordered()[0]

    @property
    def rules(self) -> Policy:
        """The configured policy with the standing orders in it, and what is being rebuilt."""
        standing, being_rebuilt = self._ordered()
        return standing.policy(self._config.policy, being_rebuilt)

    def _ordered(self) -> tuple[Standing, tuple[str, ...]]:
        at, *_ = self._standing
        if time.monotonic() - at > _STANDING:
            found = replace(self._book.read(), withheld=self._withheld()), rebuilt(self._ledger.summaries())
            self._standing = (time.monotonic(), *found)
        _, standing, being_rebuilt = self._standing
        return standing, being_rebuilt

    def wait_change(self, seconds: float) -> bool:
        """Waits until something has changed, ``seconds`` at the most; tells whether it has."""
        return self._prober.wait_change(seconds)

    def diagnose(self, sightings: Sightings, observed: Sequence[Observed] = ()) -> Diagnosis:
        """Returns what is the matter, by ``sightings`` and what the proxies do."""
        return diagnose(
            sightings,
            self._policy,
            time.monotonic(),
            rules=self.rules,
            known=self.known,
            wall=time.time(),
            observed=observed,
        )

    def settled(self, deadline: Deadline) -> tuple[Sightings, Diagnosis]:
        """Returns what is the matter once looking again will not tell more, or at the deadline.

        A primary that we do not reach and that a replica goes on hearing lives: that is clear before the deadline.
        """
        while True:
            sightings = self.sightings()
            found = self.diagnose(sightings)
            lives = found.primary is not None and certainly_lives(
                sightings, found.primary, time.monotonic(), self._policy
            )
            if found.action is not Action.WAIT or lives or deadline.passed:
                return sightings, found
            self._prober.wait_change(min(_PAUSE, deadline.left))

    def remember(self, sightings: Sightings, events: Sequence[Event] | None = None) -> None:
        """Keeps the order that ``sightings`` show, if they show one. A disk that takes nothing is no hindrance."""
        with self._remembering:
            self.known = known_after(sightings, self.known, time.monotonic(), time.time(), Moment.now())
            self._keep(events)

    def follow(self, primary: str, at: float) -> None:
        """Knows from now on that an operation has made ``primary`` the primary, at the Unix time ``at``."""
        with self._remembering:
            known = moved(self.known, primary, at)
            if known is not self.known:
                self.known = known
                self._keep(None)

    def _keep(self, events: Sequence[Event] | None) -> None:
        if events is not None:
            self.events = tuple(events)
        if self.known is None or self.known is self._saved:
            return
        same = self.known.same_order(self._saved) and events is None
        if same and time.monotonic() - self._saved_at < _SAVE_EVERY:
            return
        values = {"format": _FORMAT, "known": self.known.to_json(), "events": [vars(e) for e in self.events]}
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            put(self._file, json.dumps(values).encode(), lasting=not same)
            self._saved, self._saved_at = self.known, time.monotonic()


def recall(file: Path) -> tuple[Known | None, tuple[Event, ...]]:
    """Returns what ``file`` keeps; nothing when there is no file, or it cannot be understood."""
    try:
        found = json.loads(file.read_bytes())
        if found["format"] != _FORMAT:
            return None, ()
        return Known.from_json(found["known"]), tuple(Event(**event) for event in found["events"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, ()
