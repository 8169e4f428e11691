"""All clusters of ``proxyroute serve``: which are kept, under which configuration, and how they come to an end."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from proxyroute import faults
from proxyroute.charge import Charge
from proxyroute.config_values import ClusterConfig
from proxyroute.errors import ConfigError
from proxyroute.keeper import Show
from proxyroute.model import Deadline
from proxyroute.notify_message import Notice
from proxyroute.outlet import Listener
from proxyroute.serve_lock import Lock

_SWITCH, _MOST_SWITCH = 0.005, 0.05
"""Seconds after which a thread that waits for Python's lock wakes up to ask for it."""
_FEW = 50
"""Servers for which the shortest will do."""


def interval(servers: int) -> float:
    """Returns how often waiting threads ask for the interpreter's lock.

    Each that waits wakes up that often. Hundreds of them do nothing else any more once they have to wait at all, and
    some wait for many seconds; whoever holds the lock gives it up at its next wait for a server anyhow.
    """
    return min(_MOST_SWITCH, max(_SWITCH, _SWITCH * servers / _FEW))


@dataclass(frozen=True)
class Changes:
    """What a new configuration means: names of clusters."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = (("added", self.added), ("removed", self.removed), ("changed", self.changed))
        return "; ".join(f"{word}: {', '.join(names)}" for word, names in told if names) or "nothing has changed"


@dataclass
class Prepared:
    """A new configuration that can be put in force: everything is made ready, nothing was touched."""

    changes: Changes
    charges: dict[str, Charge] = field(default_factory=dict)
    locks: dict[str, Lock] = field(default_factory=dict)


class Daemon:
    """All clusters of a configuration, each in a thread of its own."""

    def __init__(self, clusters: Mapping[str, ClusterConfig], listener: Listener, show: Show | None = None) -> None:
        """``show`` is given what is seen of each cluster, from its own thread.

        Raises ConfigError when a secret cannot be read, or a cluster is served already with the same state_dir."""
        self._listener = listener
        self._show = show
        self._lock = threading.Lock()
        self._charges: dict[str, Charge] = {}
        self._leaving: list[Charge] = []
        """Asked to end because they were removed, or have another configuration now."""
        self._ending = False
        self._first = self.prepare(clusters)

    def start(self) -> None:
        """Begins to keep every cluster. Returns at once."""
        faults.role = "serve"
        self.put_in_force(self._first)

    def prepare(self, clusters: Mapping[str, ClusterConfig]) -> Prepared:
        """Makes a new configuration ready, and touches nothing.

        Raises ConfigError when it cannot be put in force as a whole.
        """
        with self._lock:
            kept = dict(self._charges)
        changed = tuple(n for n, c in clusters.items() if n in kept and not kept[n].same_as(c))
        added = tuple(n for n in clusters if n not in kept)
        ready = Prepared(Changes(added, tuple(n for n in kept if n not in clusters), changed))
        try:
            for name in (*added, *changed):
                ready.charges[name] = Charge(clusters[name], self._listener, self._show)
            for name in added:
                if self._predecessor(name) is None:
                    ready.locks[name] = Lock(clusters[name])
        except ConfigError:
            self.discard(ready)
            raise
        return ready

    def put_in_force(self, ready: Prepared) -> None:
        """Keeps what is in ``ready`` from now on. Returns at once: what has begun comes to its end first."""
        with self._lock:
            if self._ending:
                self.discard(ready)
                return
            self._leaving = [c for c in self._leaving if not c.over]
            for name in (*ready.changes.removed, *ready.changes.changed):
                charge = self._charges.pop(name)
                charge.ask_to_end()
                self._leaving.append(charge)
            for name, charge in ready.charges.items():
                before = self._predecessor(name)
                lock = ready.locks.get(name) or (before.hand_over() if before is not None else None)
                try:
                    lock = lock or Lock(charge.config)  # the one before has just given it back
                except ConfigError as error:
                    charge.discard()
                    self._listener(Notice(name, "trouble", f"is not served: {error}", "bad", time.time()))
                    continue
                self._charges[name] = charge
                charge.start(lock, before)
            sys.setswitchinterval(interval(sum(len(c.config.servers) for c in self._charges.values())))

    def discard(self, ready: Prepared) -> None:
        """Lets go of what was made ready and is not wanted."""
        for charge in ready.charges.values():
            charge.discard()
        for lock in ready.locks.values():
            lock.release()

    def ask_to_end(self) -> None:
        """From now on nothing is begun that can wait. Returns at once."""
        with self._lock:
            self._ending = True
            charges = [*self._charges.values(), *self._leaving]
        for charge in charges:
            charge.ask_to_end()

    def join(self, deadline: Deadline) -> bool:
        """Waits until every cluster has come to its end; tells whether all have."""
        with self._lock:
            charges = [*self._charges.values(), *self._leaving]
        return all(charge.join(deadline) for charge in charges)

    @property
    def stuck(self) -> tuple[str, ...]:
        """The clusters whose loop does not go round."""
        with self._lock:
            return tuple(name for name, charge in self._charges.items() if not charge.turns)

    @property
    def line(self) -> str:
        """What there is to say of all clusters in one line, what is wrong first."""
        with self._lock:
            charges = list(self._charges.values())
        if len(charges) == 1:
            return charges[0].line
        wrong = [c for c in charges if c.level in ("bad", "warn")]
        head = f"{len(charges)} clusters, {len(wrong) or 'none'} with something the matter"
        return "; ".join([head, *(c.line for c in sorted(wrong, key=lambda c: c.level != "bad"))])

    def _predecessor(self, name: str) -> Charge | None:
        """Returns the last that kept a cluster of this name and has not come to its end."""
        return next((c for c in reversed(self._leaving) if c.config.name == name and not c.over), None)
