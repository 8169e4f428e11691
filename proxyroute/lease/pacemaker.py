"""A lease by a resource of Pacemaker: who may act is the node on which the cluster has started it.

Pacemaker starts a resource elsewhere only once its stop here has succeeded, or this node was fenced or has lost quorum.
So the resource itself is the lease; between the processes of its node there is a file lock besides. Nothing is written
into the cluster. While the lease is held a thread asks the cluster all the time, and ``check`` looks at the clock; an
answer that does not come is no answer, and takes the lease away only after its whole time. A term is the time of day
in milliseconds, above every epoch claimed in ``state_dir``, as that of the database lease is.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from proxyroute.errors import Busy, LeaseLost, Refused, TimedOut
from proxyroute.lease.claims import Claims
from proxyroute.lease.clock import now
from proxyroute.lease.local import LocalLease
from proxyroute.lease.pacemaker_cluster import ClusterSight
from proxyroute.model import Deadline, Epoch, Finding, Holding, Severity

_ASK = 5.0
"""Seconds for one answer of the cluster when there is time; a busy host starts programs slowly."""
_EVERY = 0.7
"""Seconds between two askings while the lease is held: not a moment of the blackout is spent on asking."""
_FRESH = 1.5
"""Seconds for which an answer is as good as a new one for a commit."""
_MARGIN = 0.1
_LATELY = 2.0
"""Seconds for which those who only want to know are told what was seen before."""
_HERE = frozenset({"Started", "Starting"})
_STILL_HERE = _HERE | {"Stopping"}


class Cluster(Protocol):
    """What is asked; see :class:`proxyroute.lease.pacemaker_cluster.PacemakerCluster`."""

    def sight(self, deadline: Deadline) -> ClusterSight: ...


@dataclass(frozen=True)
class _Seen:
    """One answer, or why there was none; and when it was asked for."""

    sight: ClusterSight | None
    trouble: str
    sent: float


class PacemakerLease:
    """The lease of a cluster of servers, where the cluster manager has started ``resource``."""

    distributed = True

    def __init__(self, cluster: Cluster, resource: str, folder: Path, seconds: float) -> None:
        """``folder`` has the epochs and, for each host, the lock between its processes."""
        self._cluster = cluster
        self._resource = resource
        self._seconds = seconds
        self._claims = Claims(folder / "epochs")
        self._lock = LocalLease(folder, f"lease-{socket.gethostname()}.lock")
        self._term = 0
        self._sent = 0.0
        self._lost = ""
        """Why it is not ours any more, if the cluster has said so."""
        self._end = threading.Event()
        self._keeper: threading.Thread | None = None
        self._seen: _Seen | None = None
        self._looking: threading.Thread | None = None
        self._guarding = threading.Lock()

    # -- who may act --

    @property
    def automatic(self) -> bool:
        """Without fencing a node that is cut off goes on as if it were alone."""
        sight = self._lately()
        return sight is not None and sight.fences

    @property
    def term(self) -> int:
        return self._term if self._lock.term else 0

    def acquire(self, purpose: str, deadline: Deadline) -> int:
        """Returns the new term. Raises Busy at the deadline, Refused when the cluster has not started us here."""
        if self._lock.term:
            with contextlib.suppress(LeaseLost):
                self.check()
                return self._term
        self.release()
        self._lock.acquire(purpose, deadline)
        try:
            seen = self._ask(Deadline.after(min(_ASK, self._seconds)))
            if seen.sight is None:
                raise Refused(f"the lease cannot be had: {seen.trouble}; nothing was touched")
            against = self._against(seen.sight, _HERE)
            if against:
                raise Refused(f"the lease cannot be had: {against}; nothing was touched")
        except BaseException:
            self._lock.release()
            raise
        self._hold(max(time.time_ns() // 1_000_000, self._claims.highest().term + 1), seen.sent)
        return self._term

    def _hold(self, term: int, sent: float) -> None:
        self._term, self._sent, self._lost = term, sent, ""
        self._end = threading.Event()
        self._keeper = threading.Thread(target=self._keep, args=(self._end,), name="lease", daemon=True)
        self._keeper.start()

    def _keep(self, end: threading.Event) -> None:
        """Asks until ``end``, or until the cluster says that it is not ours."""
        while not end.wait(_EVERY):
            seen = self._ask(Deadline.after(min(_ASK, self._seconds / 3)))
            if end.is_set() or not self._judged(seen):
                return

    def _judged(self, seen: _Seen) -> bool:
        """Notes what an answer means for the lease that is held; tells whether it goes on."""
        if seen.sight is None:
            return True
        against = self._against(seen.sight, _STILL_HERE)
        if against:
            self._lost = against
            return False
        self._sent = max(self._sent, seen.sent)
        return True

    def check(self) -> None:
        """Raises LeaseLost when the cluster has said so, or has said nothing for the lease's time."""
        self._lock.check()
        if self._lost:
            raise LeaseLost(f"the lease is lost: {self._lost}")
        if now() - self._sent > self._seconds * (1 - _MARGIN):
            raise LeaseLost(
                f"the lease is lost: for {self._seconds:g} s the cluster manager has not confirmed that "
                f"{self._resource} is started here"
            )

    def lost(self, deadline: Deadline) -> bool:
        if self._lost:
            return True
        return not self._judged(self._ask(deadline))

    def commit(self, decision: str, deadline: Deadline) -> None:
        """Relies on what the cluster has said a moment ago, or asks it; nothing is kept there."""
        self.check()
        if now() - self._sent <= _FRESH:
            return
        seen = self._ask(deadline)
        if seen.sight is None:
            raise TimedOut(f"nobody knows whose the lease is: {seen.trouble}")
        self._judged(seen)
        self.check()

    # -- epochs --

    def claim(self, above: Epoch, operation: str) -> Epoch:
        self.check()
        epoch = self._claims.claim(self._term, above, operation)
        self._term = epoch.term
        return epoch

    def highest(self, besides: str = "") -> Epoch:
        return self._claims.highest(besides)

    # -- handing it over --

    def ticket(self) -> str:
        """Returns the term and when it was confirmed: a resource that is being stopped is no reason to take it anew."""
        return json.dumps({"term": self._term, "sent": self._sent}) if self._lock.term and not self._lost else ""

    def adopt(self, ticket: str) -> bool:
        """Goes on under the term of a dead process of this host, unless the cluster says that we are not here."""
        told = json.loads(ticket)
        with contextlib.suppress(Busy):
            self._lock.acquire("what a dead process has begun", Deadline.after(0.5))
            self._hold(int(told["term"]), float(told["sent"]))
            self._judged(self._ask(Deadline.after(min(_ASK, self._seconds / 3))))
            with contextlib.suppress(LeaseLost):
                self.check()
                return True
            self.release()
        return False

    def release(self) -> None:
        self._end.set()
        self._keeper = None
        self._lock.release()

    # -- looking --

    def hands_off(self) -> str:
        """Returns why nothing is to be done by itself: the cluster, or the resource, is in somebody's hands."""
        sight = self._lately()
        if sight is None:
            return ""
        found = sight.resources.get(self._resource)
        if sight.maintenance:
            return "the cluster manager is in maintenance mode"
        if found is not None and not found.managed:
            return f"the cluster manager does not manage {self._resource} now (maintenance, or is-managed=false)"
        return ""

    def holding(self, deadline: Deadline) -> Holding:
        """Returns which process of this node has it, or on which other node the resource is."""
        seen = self._ask(deadline)
        if seen.sight is None:
            return Holding("pacemaker", trouble=seen.trouble)
        found = seen.sight.resources.get(self._resource)
        others = [name for name in found.nodes if name != seen.sight.here] if found is not None else []
        if others:
            return Holding("pacemaker", ", ".join(others), f"whatever there is to do: {self._resource} is there")
        local = self._lock.holding(deadline)
        return Holding("pacemaker", local.holder, local.purpose)

    def findings(self, deadline: Deadline) -> Sequence[Finding]:
        """Returns why nobody may begin anything here, that nothing fences, that nothing is done by itself."""
        seen = self._ask(deadline)
        if seen.sight is None:
            cure = "crm_mon --one-shot; start it: systemctl start pacemaker"
            return (Finding("lease.unreachable", Severity.ERROR, "lease", seen.trouble, cure),)
        found = []
        against = self._against(seen.sight, _HERE)
        if against:
            cure = f"type it on the node that has it: crm_resource --resource {self._resource} --locate"
            found.append(Finding("lease.elsewhere", Severity.ERROR, "lease", against, cure))
        if not seen.sight.fences:
            text = "nothing fences a node that is lost: one that is only cut off goes on. No failover happens by itself"
            cure = "configure a fence device and stonith-enabled=true: docs/guide/pacemaker.md"
            found.append(Finding("lease.no_fencing", Severity.WARNING, "lease", text, cure))
        idle = self.hands_off()
        if idle:
            text = f"{idle}: proxyroute serve does nothing by itself"
            cure = "end it: crm configure property maintenance-mode=false, or crm resource manage"
            found.append(Finding("lease.maintenance", Severity.WARNING, "lease", text, f"{cure} {self._resource}"))
        return tuple(found)

    # -- helpers --

    def _against(self, sight: ClusterSight, roles: frozenset[str]) -> str:
        """Returns why the lease is not ours, by what the cluster has said."""
        found = sight.resources.get(self._resource)
        if found is None:
            return f"the cluster has no resource {self._resource}"
        if not sight.quorate:
            return f"this part of the cluster, with {sight.here}, has no quorum"
        if sight.here in found.nodes and found.role in roles:
            return ""
        others = ", ".join(name for name in found.nodes if name != sight.here)
        where = f"{found.role} at {others}" if others else found.role
        return f"{self._resource} is not started here, at {sight.here}: it is {where}"

    def _ask(self, deadline: Deadline) -> _Seen:
        """Asks the cluster now. Raises nothing."""
        sent = now()
        try:
            seen = _Seen(self._cluster.sight(deadline), "", sent)
        except TimedOut as error:
            seen = _Seen(None, str(error), sent)
        with self._guarding:
            if self._seen is None or self._seen.sent <= sent:
                self._seen = seen
        return seen

    def _lately(self) -> ClusterSight | None:
        """Returns what was seen a moment ago; looks again beside whoever asks, who waits only the first time."""
        with self._guarding:
            seen, looking = self._seen, self._looking
            stale = seen is None or now() - seen.sent > _LATELY
            if stale and (looking is None or not looking.is_alive()):
                looking = self._looking = threading.Thread(
                    target=self._ask, args=(Deadline.firm(_ASK),), name="cluster", daemon=True
                )
                looking.start()
        if seen is None and looking is not None:
            looking.join(_ASK)
            with self._guarding:
                seen = self._seen
        return seen.sight if seen is not None else None
