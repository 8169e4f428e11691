"""A lease in etcd: one for each cluster, so that any number of engines share any number of clusters.

Below ``/proxyroute/<cluster>/``::

    lease             who holds it; ends with the etcd lease that its holder keeps alive
    term              the last term; only grows
    epochs/<epoch>    by which operation it was claimed
    commits/<what>    a decision that was taken while its engine held the lease

Terms and epochs come from one place that every engine asks, so they are above everything that was ever claimed there.
Only ``acquire``, ``claim`` and ``commit`` ask etcd; ``check`` looks at the clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from proxyroute.errors import Busy, ConfigError, LeaseLost, Refused, TimedOut
from proxyroute.faults import act
from proxyroute.lease.clock import now
from proxyroute.lease.etcd_client import FOLDER, EtcdClient, NoAnswer
from proxyroute.lease.etcd_kv import compare, delete, found_in, name_of, put, read, read_all, text_of, value_of
from proxyroute.model import NO_EPOCH, Deadline, Epoch, Finding, Holding, Severity

_POLL = 0.1
_KEPT = 50
_IN_TICKET = 10
_MARGIN = 0.1
"""Part of the lease's time by which we think it ends earlier: clocks do not run equally fast everywhere."""
_MARGIN_AT_LEAST = 0.2


@dataclass
class Hold:
    """A lease that is held. Everything in it fits into a ticket."""

    id: str
    """The etcd lease."""
    revision: str
    """Of the key ``lease`` when we wrote it: as long as that is the same, it is ours."""
    term: int
    time: float
    """Seconds from one renewal until it ends, as etcd grants it."""
    sent: float
    """When the last renewal that succeeded was sent, by :mod:`proxyroute.lease.clock`."""
    claimed: list[list[str]] = field(default_factory=list)
    """Epochs, each with its operation."""
    lost: str = ""
    """Why it is not ours any more."""

    @property
    def left(self) -> float:
        """Seconds for which nobody else can have it."""
        return self.sent + self.time - max(_MARGIN * self.time, _MARGIN_AT_LEAST) - now()


class EtcdLease:
    """The lease of ``cluster``. Implements :class:`proxyroute.ports.Lease`."""

    distributed = True
    automatic = True

    def __init__(self, client: EtcdClient, cluster: str, seconds: float) -> None:
        self._client = client
        self._seconds = seconds
        self._base = f"{FOLDER}{cluster}/"
        self._hold: Hold | None = None
        self._end = threading.Event()
        self._trouble = ""

    @property
    def term(self) -> int:
        return self._hold.term if self._hold is not None else 0

    # -- taking it --

    def acquire(self, purpose: str, deadline: Deadline) -> int:
        """Returns the new term. Raises Busy at the deadline, Refused when etcd does not answer."""
        if self._hold is not None and not self._hold.lost and self._hold.left > 0:
            return self._hold.term
        self._let_go()
        while True:
            try:
                found = self._take(purpose)
            except NoAnswer as error:
                raise Refused(
                    f"the lease cannot be had: {error}; nothing was touched; look at: "
                    f"etcdctl --endpoints={','.join(self._client.endpoints)} endpoint status"
                ) from error
            if isinstance(found, Hold):
                self._keep(found)
                return found.term
            if deadline.passed:
                raise Busy(f"the cluster is busy: {found}; wait for it, or see 'proxyroute status'")
            time.sleep(min(_POLL, deadline.left))

    def _take(self, purpose: str) -> Hold | str:
        """Returns the lease, or who has it."""
        patience = self._round()
        reads = [read(self._key("lease")), read(self._key("term"))]
        reads += [read_all(self._key("epochs/")), read_all(self._key("commits/"))]
        state = self._txn([], reads, [], patience)
        lease, term, epochs, commits = (found_in(response) for response in state["responses"])
        if lease:
            return _told(lease[0])
        claimed = [[e, _owner(kv)] for kv in epochs if (e := name_of(kv)) and _epoch(e) is not None]
        number = max([0, *(int(value_of(kv)) for kv in term), *(Epoch.parse(e).term for e, _ in claimed)])
        sent = now()
        granted = self._client.call("/v3/lease/grant", {"TTL": str(round(self._seconds))}, patience)
        hold = Hold(str(granted["ID"]), "", number + 1, float(granted["TTL"]), sent, claimed)
        text = {"holder": f"{socket.gethostname()}:{os.getpid()}", "purpose": purpose, "term": hold.term}
        puts = [
            put(self._key("lease"), json.dumps(text), lease=hold.id),
            put(self._key("term"), str(hold.term)),
            *(delete(kv["key"]) for kv in _oldest(epochs, by_epoch=True) + _oldest(commits, by_epoch=False)),
        ]
        seen = term[0]["mod_revision"] if term else "0"
        compares = [
            compare(self._key("lease"), "CREATE", "create_revision", "0"),
            compare(self._key("term"), "MOD", "mod_revision", seen),
        ]
        try:
            with act("lease.take"):
                took = self._txn(compares, puts, [read(self._key("lease"))], self._round())
        except NoAnswer:
            self._revoke(hold)  # it may be ours; nobody should have to wait for its end
            raise
        if took.get("succeeded"):
            hold.revision = took["header"]["revision"]
            return hold
        found = found_in(took["responses"][0])
        if found and found[0].get("lease") == hold.id:  # our first try took it, and its answer was lost
            hold.revision = found[0]["mod_revision"]
            return hold
        self._revoke(hold)
        return _told(found[0]) if found else "somebody else took it at the same moment"

    def _keep(self, hold: Hold) -> None:
        self._hold, self._end = hold, threading.Event()
        thread = threading.Thread(target=self._keep_alive, args=(hold, self._end), name="lease", daemon=True)
        thread.start()

    def _keep_alive(self, hold: Hold, end: threading.Event) -> None:
        pause = hold.time / 3
        while not end.wait(pause) and not hold.lost:
            try:
                self._renew(hold, Deadline.after(hold.time / 3))
                pause, self._trouble = hold.time / 3, ""
            except (TimedOut, ConfigError) as error:
                pause, self._trouble = hold.time / 20, str(error)

    def _renew(self, hold: Hold, deadline: Deadline) -> None:
        """Renews it, or notes in ``hold`` that it is lost. Raises NoAnswer."""
        sent = now()
        answer = self._client.call("/v3/lease/keepalive", {"ID": hold.id}, deadline)
        if float(answer.get("result", {}).get("TTL", 0)) <= 0:
            hold.lost = "it has ended: it was not kept alive for too long"
            return
        found = self._find(read(self._key("lease")), deadline)
        if not found or found[0]["mod_revision"] != hold.revision:
            hold.lost = _told(found[0]) if found else "somebody has removed its key"
            return
        hold.sent = sent

    # -- while it is held --

    def check(self) -> None:
        """Raises LeaseLost when the last renewal was sent too long ago, or it is known to be lost."""
        if self._hold is None:
            raise LeaseLost("the lease is not held")
        if self._hold.lost:
            raise LeaseLost(f"the lease is lost: {self._hold.lost}")
        if self._hold.left <= 0:
            why = f" ({self._trouble})" if self._trouble else ""
            raise LeaseLost(f"the lease could not be kept alive in its {self._hold.time:g} s{why}")

    def lost(self, deadline: Deadline) -> bool:
        """Tries to renew it. A lease that has ended is lost, whether somebody else has it by now or not."""
        if self._hold is not None and not self._hold.lost:
            with contextlib.suppress(TimedOut, ConfigError):
                self._renew(self._hold, deadline)
        return self._hold is None or bool(self._hold.lost)

    def commit(self, decision: str, deadline: Deadline) -> None:
        """One transaction. A lost answer is settled by the same one again, which says the same if it was done."""
        self.check()
        hold = self._held()
        puts = [put(self._key(f"commits/{decision}"), json.dumps({"term": hold.term, "at": time.time()}))]
        with act("lease.commit"):
            self._while_ours(hold, [], puts, [], deadline, f"whether {decision} is committed")

    def claim(self, above: Epoch, operation: str) -> Epoch:
        """Returns a fresh epoch, higher than ``above`` and every claimed one."""
        self.check()
        hold = self._held()
        highest = max(above, self.highest())
        if highest.term > hold.term:
            # a proxy has seen a later term than etcd knows, which may have been set up anew: go above it
            hold.term = highest.term + 1
        epoch = Epoch(hold.term, highest.serial + 1 if highest.term == hold.term else 1)
        while True:
            key, owner = self._key(f"epochs/{epoch}"), json.dumps({"operation": operation, "lease": hold.id})
            puts = [put(key, owner), put(self._key("term"), str(hold.term))]
            fresh = [compare(key, "CREATE", "create_revision", "0")]
            with act("lease.claim"):
                found = self._while_ours(hold, fresh, puts, [read(key)], self._round(), f"who claimed epoch {epoch}")
            if not found or value_of(found[0]) == owner:
                hold.claimed.append([str(epoch), operation])
                return epoch
            epoch = Epoch(epoch.term, epoch.serial + 1)

    def highest(self, besides: str = "") -> Epoch:
        """Returns the highest epoch claimed; while we hold the lease nobody else claims any, so etcd is not asked."""
        claimed: Iterable[Sequence[str]]
        if self._hold is not None and not self._hold.lost and self._hold.left > 0:
            claimed = self._hold.claimed
        else:
            found = found_in(
                self._client.call("/v3/kv/range", read_all(self._key("epochs/"))["request_range"], self._round())
            )
            claimed = [[name_of(kv), _owner(kv)] for kv in found]
        epochs = [_epoch(text) for text, owner in claimed if not besides or owner not in ("", besides)]
        return max((e for e in epochs if e is not None), default=NO_EPOCH)

    def _held(self) -> Hold:
        assert self._hold is not None, "check() was called"
        return self._hold

    def _while_ours(
        self,
        hold: Hold,
        compares: list[dict[str, Any]],
        puts: list[dict[str, Any]],
        instead: list[dict[str, Any]],
        deadline: Deadline,
        what: str,
    ) -> list[dict[str, Any]]:
        """Does ``puts`` if ``compares`` hold and the lease is ours; else returns what the first of ``instead`` reads.

        May be executed twice, which must change nothing. Raises LeaseLost, and TimedOut when nobody knows ``what``.
        """
        ours = compare(self._key("lease"), "MOD", "mod_revision", hold.revision)
        while True:
            try:
                answer = self._txn([ours, *compares], puts, [read(self._key("lease")), *instead], deadline)
                break
            except NoAnswer as error:
                if deadline.left < _POLL:
                    raise TimedOut(f"nobody knows {what}: {error}") from error
                time.sleep(_POLL / 2)
        if answer.get("succeeded"):
            return []
        lease, *others = (found_in(response) for response in answer["responses"])
        if not lease or lease[0]["mod_revision"] != hold.revision:
            hold.lost = _told(lease[0]) if lease else "it has ended"
            self.check()
        return others[0] if others else []

    # -- handing it over --

    def ticket(self) -> str:
        """Returns the lease as one line of JSON."""
        if self._hold is None or self._hold.lost:
            return ""
        return json.dumps({**asdict(self._hold), "claimed": self._hold.claimed[-_IN_TICKET:]})

    def adopt(self, ticket: str) -> bool:
        """Goes on with the lease of a dead process of this host, as long as nobody else can have it."""
        hold = Hold(**json.loads(ticket))
        try:
            self._renew(hold, Deadline.after(hold.time / 3))
        except (TimedOut, ConfigError) as error:
            self._trouble = str(error)
        if hold.lost or hold.left <= 0:
            return False
        self._let_go()
        self._keep(hold)
        return True

    def release(self) -> None:
        """Gives it back. When etcd does not hear it, the lease ends by itself."""
        hold = self._let_go()
        if hold is not None and not hold.lost:
            self._revoke(hold)

    def _let_go(self) -> Hold | None:
        hold, self._hold = self._hold, None
        self._end.set()
        self._trouble = ""
        return hold

    def _revoke(self, hold: Hold) -> None:
        with contextlib.suppress(TimedOut, ConfigError), act("lease.release"):
            self._client.call("/v3/lease/revoke", {"ID": hold.id}, self._round())

    # -- looking --

    def holding(self, deadline: Deadline) -> Holding:
        """Returns who holds it, and how long it would last if its holder were dead."""
        try:
            found = self._find(read(self._key("lease")), deadline)
            if not found:
                return Holding("etcd")
            left = self._client.call("/v3/lease/timetolive", {"ID": found[0]["lease"]}, deadline).get("TTL", 0)
        except (TimedOut, ConfigError) as error:
            return Holding("etcd", trouble=str(error))
        text = text_of(found[0])
        return Holding("etcd", str(text.get("holder")), str(text.get("purpose")), max(0.0, float(left)))

    def hands_off(self) -> str:
        return ""

    def findings(self, deadline: Deadline) -> Sequence[Finding]:
        """Returns what is wrong with each member."""
        try:
            silent = {e: t for e in self._client.endpoints if (t := self._client.member_trouble(e, deadline))}
        except ConfigError as error:
            text, _, cure = str(error).partition("; ")
            return (Finding("lease.denied", Severity.ERROR, "lease", text, cure),)
        cure = "etcdctl --endpoints={} endpoint status"
        if len(silent) == len(self._client.endpoints):
            told = "; ".join(f"{endpoint}: {text}" for endpoint, text in silent.items())
            text = f"etcd does not answer, so nobody may begin anything: {told}"
            return (Finding("lease.unreachable", Severity.ERROR, "lease", text, cure.format(",".join(silent))),)
        return tuple(
            Finding("lease.member", Severity.WARNING, "lease", f"{e} does not answer: {t}", cure.format(e))
            for e, t in silent.items()
        )

    # -- etcd's words --

    def _key(self, name: str) -> str:
        return self._base + name

    def _round(self) -> Deadline:
        """Time for every member to be asked once."""
        return Deadline.firm(self._client.attempt * len(self._client.endpoints) + 0.2)

    def _find(self, request: dict[str, Any], deadline: Deadline) -> list[dict[str, Any]]:
        return found_in(self._client.call("/v3/kv/range", request["request_range"], deadline))

    def _txn(
        self,
        compare: list[dict[str, Any]],
        success: list[dict[str, Any]],
        failure: list[dict[str, Any]],
        deadline: Deadline,
    ) -> dict[str, Any]:
        body = {"compare": compare, "success": success, "failure": failure}
        return self._client.call("/v3/kv/txn", body, deadline)


def _owner(kv: dict[str, Any]) -> str:
    return str(text_of(kv).get("operation", ""))


def _told(kv: dict[str, Any]) -> str:
    text = text_of(kv)
    return f"{text.get('purpose', 'an operation')} by {text.get('holder', 'somebody')}"


def _epoch(text: str) -> Epoch | None:
    with contextlib.suppress(ValueError):
        return Epoch.parse(text)
    return None


def _oldest(kvs: list[dict[str, Any]], *, by_epoch: bool) -> list[dict[str, Any]]:
    """Returns those that nobody can meet any more; names of decisions begin with the time."""
    order = (lambda kv: _epoch(name_of(kv)) or NO_EPOCH) if by_epoch else name_of
    return sorted(kvs, key=order)[:-_KEPT]
