"""An operation: steps that are shown and recorded, undos that are on disk before the act, one commit record.

Also :func:`each`, the one place where work fans out over servers and proxies.
"""

from __future__ import annotations

import contextvars
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from proxyroute.deadline import give_way, more_urgent
from proxyroute.decided import Plan, Undo
from proxyroute.errors import Diverged, LeaseLost, ProxyRouteError, Refused, TimedOut
from proxyroute.gtid import Position, from_json
from proxyroute.journal import Journal, Record, first, last_term, outcome, read
from proxyroute.model import Deadline, Epoch
from proxyroute.outcome import Proof
from proxyroute.policy import Policy
from proxyroute.ports import Lease

T = TypeVar("T")

_COMMIT = 2.0
"""Seconds for the lease to say that it is ours, where nothing else bounds that."""

REJOIN = "proxyroute rejoin"
"""The command that a leftover names when no further try can help."""

_UNDO_URGENCY = (
    "restore_writes",
    "restore_limit",
    "release_routes",
    "unlock_account",
    "address_up",
    "start_events",
    "semi_sync",
    "settle_replay",
    "start_receiver",
    "follow",
    "semi_sync_back",
)
"""By urgency, not last in first out: writes first, and what may become a leftover last."""


def new_id() -> str:
    """Returns an id that sorts by time: ``20261123T031500-4f2a9c``."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


@dataclass
class Outcome(Generic[T]):
    """What became of one piece of fanned-out work: a value, or the error it raised."""

    value: T | None = None
    error: BaseException | None = None

    def get(self) -> T:
        """Returns the value. Raises the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # set whenever there is no error


class Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


def each(
    items: Iterable[N],
    call: Callable[[N], T],
    deadline: Deadline,
    *,
    spared: Collection[str] = (),
    grace: float = 0.0,
) -> dict[str, Outcome[T]]:
    """Calls ``call`` for each item in a thread of its own and returns what became of it, by the item's name.

    Whatever does not return by ``deadline`` is left behind, as TimedOut: file I/O on a dead network disk can hang for
    ever and must not block the caller. Those in ``spared`` are waited for only ``grace`` seconds longer than the others
    take.
    """
    outcomes: dict[str, Outcome[T]] = {}

    def run(item: N) -> None:
        try:
            outcome = Outcome(value=call(item))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, who decides
            outcome = Outcome(error=error)
        outcomes[item.name] = outcome

    threads = {
        # the context says whether this is a chore, which gives way
        i.name: threading.Thread(
            target=contextvars.copy_context().run, args=(run, i), name=f"each-{i.name}", daemon=True
        )
        for i in items
    }
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        if name not in spared:
            _join(thread, deadline)
    soon = deadline.within(grace)
    for name in threads.keys() & set(spared):
        _join(threads[name], soon)
    return {n: outcomes.get(n, Outcome(error=TimedOut(f"{n} did not answer in time"))) for n in threads}


def _join(thread: threading.Thread, deadline: Deadline) -> None:
    while left := deadline.slice:
        thread.join(left)
        if not thread.is_alive():
            return


class Operation:
    """One switchover or failover, on disk. ``resume`` makes one from a journal that another process left open."""

    def __init__(self, journal: Journal, lease: Lease) -> None:
        begin = first(journal.records, "begin")
        if begin is None:
            raise ProxyRouteError(f"{journal.path} has no begin record; nothing was touched by it, delete it")
        self.journal = journal
        self.lease = lease
        self.id: str = begin["operation"]
        self.kind: str = begin["operation_kind"]
        self.cluster: str = begin["cluster"]
        self.epoch = Epoch.parse(begin["epoch"])
        self.plan = plan_from_json(begin["plan"])
        self.begin = begin
        self.marks: dict[str, float] = {}
        """Moments on the monotonic clock, by name: the blackout is measured between two of them."""
        self.called_off: Callable[[], str] = lambda: ""
        """Says who does not want it any more; heeded in what is ``revocable`` only."""
        self._revocable = False

    @classmethod
    def create(
        cls, journal: Journal, lease: Lease, operation: str, kind: str, epoch: Epoch, plan: Plan, **more: Any
    ) -> Operation:
        """Writes the begin record and returns the operation."""
        journal.write(
            "begin",
            operation=operation,
            operation_kind=kind,
            cluster=plan.cluster,
            epoch=str(epoch),
            plan=plan_to_json(plan),
            term=lease.term if lease.distributed else 0,
            **more,
        )
        return cls(journal, lease)

    # -- what is on disk --

    @property
    def committed(self) -> bool:
        """Whether the way is forward: committed, and not turned around since."""
        decisions = [r["kind"] for r in self.journal.records if r["kind"] in ("commit", "turned")]
        return bool(decisions) and decisions[-1] == "commit"

    @property
    def gone(self) -> frozenset[str]:
        """The old primary of a failover: it is neither asked nor waited for."""
        return frozenset({self.plan.primary} if self.kind == "failover" else ())

    @property
    def route_epoch(self) -> Epoch:
        """The epoch under which routes are published: the operation's own, or that of its way back."""
        for record in reversed(self.journal.records):
            if record["kind"] in ("turned", "back"):
                return Epoch.parse(record["epoch"])
        return self.epoch

    @property
    def outcome(self) -> str | None:
        return outcome(self.journal.records)

    @property
    def undos(self) -> list[Undo]:
        """The registered undos, most urgent first; the same one registered twice counts once."""
        found: dict[tuple[str, str], Undo] = {}
        for record in self.journal.records:
            if record["kind"] == "undo":
                undo = Undo(record["verb"], record["server"], record["arguments"])
                key = undo.server + str(undo.arguments.get("account", ""))
                found.setdefault((undo.verb, key), undo)
        return sorted(found.values(), key=lambda u: _UNDO_URGENCY.index(u.verb))

    def kept(self, name: str, default: Any = None) -> Any:
        """Returns the last value kept under ``name``."""
        for record in reversed(self.journal.records):
            if record["kind"] == "keep" and record["name"] == name:
                return record["value"]
        return default

    def has_done(self, step: str) -> bool:
        """Tells whether the step named ``step`` has ended without an error, in this process or an earlier one."""
        return any(r["kind"] == "stepped" and r["name"] == step and "error" not in r for r in self.journal.records)

    @property
    def goal(self) -> Position | None:
        """The frozen position, once it is known."""
        commit = first(self.journal.records, "commit")
        value = commit["goal"] if commit else self.kept("goal")
        return from_json(value) if value else None

    # -- what is done --

    @contextmanager
    def step(self, name: str) -> Iterator[StepNote]:
        """Shows and records one step with its duration; the body may set ``detail`` on what it gets.

        Raises GaveWay before it begins when this is a chore and something more urgent has come up, Refused when it was
        called off where that is heeded.
        """
        give_way()
        self.heed()
        note = StepNote()
        self.journal.write("step", name=name, wait=False)
        started = time.monotonic()
        try:
            yield note
        except BaseException as error:
            seconds = round(time.monotonic() - started, 6)
            text = str(error) or type(error).__name__
            if (said := more_urgent()) and said not in text:
                text = f"{said}: {text}"  # a wait that was cut short knows only that nobody answered
            self.journal.write("stepped", name=name, seconds=seconds, detail=note.detail, error=text, wait=False)
            raise
        seconds = round(time.monotonic() - started, 6)
        self.journal.write("stepped", name=name, seconds=seconds, detail=note.detail, wait=False)

    @contextmanager
    def revocable(self) -> Iterator[None]:
        """For a ``with`` block, all of which can be undone: whoever asked for it may call it off."""
        self._revocable = True
        try:
            yield
        finally:
            self._revocable = False

    def heed(self) -> None:
        """Raises Refused when it was called off, in what is ``revocable``; what was begun is undone as after an error.

        Asked before each step, and by what waits for long while writes flow.
        """
        if self._revocable and (said := self.called_off()):
            raise Refused(said)

    def patience(self, seconds: float) -> Deadline:
        """Returns the deadline of a wait that also ends once it was called off: then call :meth:`heed`."""
        return Deadline(time.monotonic() + seconds, self.called_off if self._revocable else None)

    def on_abort(self, undo: Undo) -> None:
        """Registers ``undo``; it is on disk when this returns, before the act that it takes back."""
        self.lease.check()
        self.journal.write("undo", verb=undo.verb, server=undo.server, arguments=dict(undo.arguments))

    def keep(self, name: str, value: Any, *, wait: bool = False) -> None:
        """Keeps a JSON value for those who may have to go on."""
        self.journal.write("keep", name=name, value=value, wait=wait)

    def commit(self, goal: Position, deadline: Deadline | None = None) -> None:
        """The point of no return, if the lease is still ours. When this fails the outcome is unknown.

        First where the lease is kept, then in the journal, which is the one that decides: between the two nothing has
        been opened, so whoever heals goes back, as if we had died a moment earlier.
        """
        self.lease.commit(self.id, deadline or Deadline.after(_COMMIT))
        self.journal.write("commit", goal=goal.to_json())

    def still_ours(self) -> None:
        """Raises LeaseLost when the lease has surely ended: then it is for the next holder to go on.

        When nobody can say, what has begun is brought to its end: nobody else could begin anything either, or it has
        ended our connections.
        """
        try:
            self.lease.check()
        except LeaseLost:
            if self.lease.lost(Deadline.after(_COMMIT)):
                raise

    def opening(self) -> None:
        """The candidate is about to be told to open. Without this record it never was, by this operation."""
        self.journal.write("opening", wait=False)

    @property
    def may_have_opened(self) -> bool:
        return first(self.journal.records, "opening") is not None

    def turn(self, epoch: Epoch, reason: str) -> None:
        """The second point of no return: the way is back to the old primary from now on, under a higher epoch.

        Only for those who have just seen that the candidate never opened, or that it is fenced.
        """
        self.lease.commit(f"{self.id}.turned", Deadline.after(_COMMIT))
        self.journal.write("turned", epoch=str(epoch), reason=reason)

    def back(self, epoch: Epoch) -> None:
        """Routes to the old primary are published under ``epoch``, because proxies have seen ours already."""
        self.journal.write("back", epoch=str(epoch))

    def mark(self, name: str, ago: float = 0.0) -> None:
        """Remembers that ``name`` was ``ago`` seconds before now; the first time counts."""
        self.marks.setdefault(name, time.monotonic() - ago)

    def note(self, text: str) -> None:
        self.journal.write("note", text=text, wait=False)

    @contextmanager
    def attempt(self, verb: str, server: str) -> Iterator[None]:
        """Marks work whose failure becomes a leftover: heal picks it up, and nothing else waits for it."""
        try:
            yield
        except (ProxyRouteError, OSError) as error:
            if isinstance(error, LeaseLost):
                self.still_ours()
            cure = f"; type: {REJOIN} {server}" if isinstance(error, Diverged) and REJOIN not in str(error) else ""
            self.leftover(verb, server, f"{error}{cure}")
        else:
            if (verb, server) in self.leftovers:
                self.journal.write("leftover", verb=verb, server=server, reason="", wait=False)

    def leftover(self, verb: str, server: str, reason: str) -> None:
        """Records work that is left to do; with an empty ``reason`` it is done after all."""
        self.journal.write("leftover", verb=verb, server=server, reason=reason, wait=False)

    @property
    def leftovers(self) -> dict[tuple[str, str], str]:
        return self.leftovers_of(self.journal.records)

    @property
    def unrestored(self) -> bool:
        """Whether the old primary's writes are left to restore: it has died, and nobody was opened in its place."""
        return ("restore_writes", self.plan.primary) in self.leftovers

    @staticmethod
    def leftovers_of(records: Iterable[Record]) -> dict[tuple[str, str], str]:
        """Returns what is left to do, with the last reason, by verb and server."""
        left: dict[tuple[str, str], str] = {}
        for record in records:
            if record["kind"] == "leftover":
                key = (record["verb"], record["server"])
                left.pop(key, None)
                if record["reason"]:
                    left[key] = record["reason"]
        return left

    def prove(self, proof: Proof) -> None:
        self.journal.write(
            "proof",
            verdict=str(proof.verdict),
            blackout_seconds=proof.blackout_seconds,
            evidence=[
                {"subject": e.subject, "claim": e.claim, "verdict": str(e.verdict), "seen": e.seen}
                for e in proof.evidence
            ],
        )

    def end(self, result: str, text: str = "") -> None:
        """Closes the operation: ``done``, ``refused``, ``aborted`` or ``superseded``."""
        self.journal.write("end", outcome=result, text=text)


def resume(
    file: Path, lease: Lease, by: str, *, open_journal: Callable[[Path, int], Journal] | None = None
) -> Operation | None:
    """Returns the operation that ``file`` records, to go on with; None when it is closed and nothing is left to do.

    ``lease`` must be held: two processes never go on with the same operation. ``open_journal`` is given the file and
    the term of a distributed lease, in which a part of our own is begun.
    """
    lease.check()
    records = read(file)
    ended = outcome(records)
    if ended not in (None, "done", "aborted") or (ended is not None and not Operation.leftovers_of(records)):
        return None
    if lease.distributed and (before := last_term(file)) > lease.term:
        # what keeps the lease was set up anew and counts from one again; the claim says that it is ours all the same
        lease.claim(Epoch(before, 0), records[0]["operation"])
    term = lease.term if lease.distributed else 0
    journal = open_journal(file, term) if open_journal is not None else Journal(file, term=term)
    op = Operation(journal, lease)
    journal.write("resumed", by=by, host=socket.gethostname(), pid=os.getpid())
    return op


@dataclass
class StepNote:
    """What a step says of itself once it is over."""

    detail: str = ""


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Returns the plan as JSON values."""
    return {**_fields(plan), "policy": _fields(plan.policy)}


def plan_from_json(value: Mapping[str, Any]) -> Plan:
    """Reads what :func:`plan_to_json` returned, or what JSON made of it."""
    policy = Policy(**_with_tuples(value["policy"]))
    return Plan(**{**_with_tuples(value), "policy": policy})


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in type(value).__dataclass_fields__}


def _with_tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
