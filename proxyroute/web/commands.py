"""Commands from the web: one at a time for each cluster, done by the same engine as that of the command line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from proxyroute.caller import Caller
from proxyroute.errors import GaveWay, ProxyRouteError, Refused
from proxyroute.journal import Listener, Record
from proxyroute.jsonable import jsonable
from proxyroute.model import Finding
from proxyroute.operation import new_id
from proxyroute.outcome import Result
from proxyroute.web.audit import Actor

ORDERS = ("maintenance", "pause", "resume", "rank", "reset_orders")
KINDS = ("switchover", "failover", "heal", "rejoin", "publish", "acknowledge", "verify", *ORDERS)
BESIDE = frozenset({"acknowledge", "verify", *ORDERS})
"""What moves nothing and is in nobody's way, and so neither waits for what does, nor keeps it waiting."""
ENDS_EARLY = ("switchover", "rejoin", "heal", "verify")
"""What may be called off: a switchover before its commit, and what can be taken up again at any time."""
_KEPT = 500
_ENDING = "the daemon is ending"


@dataclass(frozen=True)
class Command:
    """What somebody asks for. Arguments by kind:

    ``switchover``: target, primary, force, kill_long · ``failover``: target, primary, force, fenced_by, fenced_proxies,
    apply_dead_binlog · ``heal``: declare_lost · ``rejoin``: server, method · ``publish``, ``acknowledge``,
    ``resume``: none · ``maintenance``: server, on, seconds · ``pause``: seconds · ``rank``: server, rank (``prefer``,
    ``never``, ``neither`` or empty), seconds · ``verify``: server, tables (each ``schema.table``), seconds ·
    ``reset_orders``: none
    """

    kind: str
    cluster: str
    actor: Actor
    why: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    """The idempotency key: the same one asks for the same command once."""


@dataclass(frozen=True)
class Ticket:
    """A command and how far it is."""

    id: str
    """Also the id of the operation, for a switchover or failover that was not refused."""
    command: Command
    state: str = "waiting"
    """``waiting``, ``running``, then one of ``done``, ``refused``, ``aborted``, ``unfinished``, ``superseded``,
    ``unchanged`` or ``failed``; ``interrupted`` when the daemon ended first, and there is no journal that tells."""
    asked_at: float = 0.0
    began_at: float | None = None
    ended_at: float | None = None
    journals: tuple[str, ...] = ()
    """Ids of the operations whose records it has written."""
    step: str = ""
    """What it is at, or was at last."""
    text: str = ""
    """How it ended, in words with what to type next."""
    findings: tuple[Finding, ...] = ()
    results: tuple[Result, ...] = ()
    exit_code: int | None = None
    """With which the command line would have ended, when it ended with an error."""
    called_off: str = ""
    """Who does not want it any more, in words; what became of that its end tells."""
    committed: bool = False
    """A switchover that is not undone any more."""

    @property
    def stays(self) -> str:
        """Why it cannot be called off; empty: it can."""
        kind = self.command.kind
        if self.over:
            return f"{kind} {self.id} is over: {self.text or self.state}"
        if kind not in ENDS_EARLY:
            return f"a {kind} is not called off: it comes to its end as quickly as it can"
        if self.committed and kind == "switchover":
            return f"{kind} {self.id} is committed: it is finished now, not undone"
        return ""

    @property
    def over(self) -> bool:
        return self.state not in ("waiting", "running")


Perform = Callable[[Command, Caller, Listener], tuple[Result, ...]]
"""Does a command; raises ProxyRouteError as the engine does."""
Told = Callable[[Ticket, Record | None], None]
"""Is told of each change of a ticket, and of each record that it writes."""


class KeyReused(Refused):
    """An idempotency key was used for another command."""


class Desk:
    """Takes the commands of one cluster: one at a time, each in a thread of its own. A second one is refused, for
    whoever asked for it has not seen what the first one will leave behind. What is in ``BESIDE`` is done beside it."""

    def __init__(self, perform: Perform, told: Told, earlier: Sequence[Ticket] = ()) -> None:
        """``earlier`` are tickets of former runs of the daemon, oldest first: their keys count."""
        self._perform = perform
        self._told = told
        self._tickets: dict[str, Ticket] = {t.id: t for t in earlier[-_KEPT:]}
        self._keys = {(t.command.actor.name, t.command.key): t.id for t in self._tickets.values() if t.command.key}
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._closed = ""
        """Why no more is taken."""

    def ask(self, command: Command, record: Callable[[Ticket], object] = lambda _: None) -> Ticket:
        """Takes a command and returns at once. ``record`` is called before anything is done; what it raises ends it.

        Raises Refused when another one is not over, naming it, or when the daemon is ending; KeyReused.
        """
        with self._lock:
            if command.key and (known := self._keys.get((command.actor.name, command.key))):
                before = self._tickets[known]
                if not _same(before.command, command):
                    raise KeyReused(f"this idempotency key was used for another command, {known}; use a new one")
                return before
            self._refuse(command)
            ticket = Ticket(new_id(), command, asked_at=time.time())
            self._tickets[ticket.id] = ticket
            if command.key:
                self._keys[command.actor.name, command.key] = ticket.id
        try:
            record(ticket)
        except BaseException:
            with self._lock:
                del self._tickets[ticket.id]
                self._keys.pop((command.actor.name, command.key), None)
            raise
        self._told(ticket, None)
        with self._lock:
            closed = self._closed
            if not closed:
                name = f"{command.kind} {command.cluster}"
                thread = threading.Thread(target=self._do, args=(ticket.id,), name=name, daemon=True)
                self._threads[ticket.id] = thread
                thread.start()
            self._forget_old()
        if closed:
            return self._alter(ticket.id, state="refused", text=f"{closed}; nothing was touched", ended_at=time.time())
        return ticket

    def _refuse(self, command: Command) -> None:
        if self._closed:
            raise Refused(f"{self._closed}; nothing was touched")
        first = next((t for t in self._tickets.values() if not t.over and t.command.kind not in BESIDE), None)
        if first is not None and command.kind not in BESIDE:
            asked = first.command
            raise Refused(
                f"{asked.kind} {first.id}, asked for by {asked.actor}, is under way; nothing was touched: "
                f"ask again when GET /v1/operations/{first.id} says that it is over"
            )

    def call_off(self, id: str, said: str) -> Ticket:
        """Asks that a command ends early, ``said`` tells who does; returns at once. Twice does no harm.

        Raises Refused when it cannot, KeyError when there is none.
        """
        with self._lock:
            ticket = self._tickets[id]
            if why := ticket.stays:
                raise Refused(why)
            if ticket.called_off:
                return ticket
            ticket = self._tickets[id] = replace(ticket, called_off=said)
        self._told(ticket, None)
        return ticket

    def tickets(self) -> tuple[Ticket, ...]:
        """Returns the commands that are remembered, oldest first."""
        with self._lock:
            return tuple(self._tickets.values())

    def ticket(self, id: str) -> Ticket | None:
        with self._lock:
            return self._tickets.get(id)

    def refuse(self, why: str = _ENDING) -> None:
        """Takes no more from now on, ``why`` says why; what runs goes on. Returns at once."""
        with self._lock:
            self._closed = self._closed or why

    def reopen(self) -> None:
        """Takes commands again."""
        with self._lock:
            self._closed = ""

    def close(self, seconds: float) -> bool:
        """Takes no more; what runs is brought to its end. Tells whether it came to it."""
        ends = time.monotonic() + seconds
        self.refuse()
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _do(self, id: str) -> None:
        try:
            self._perform_one(id)
        finally:
            with self._lock:
                self._threads.pop(id, None)

    def _perform_one(self, id: str) -> None:
        ticket = self._alter(id, state="running", began_at=time.time())
        journals: list[str] = []

        def listen(record: Record) -> None:
            if record["kind"] == "begin" and record["operation"] not in journals:
                journals.append(record["operation"])
                self._alter(id, journals=tuple(journals))
            if record["kind"] == "commit":
                self._alter(id, committed=True)
            if record["kind"] == "step":
                with self._lock:
                    self._tickets[id] = replace(self._tickets[id], step=str(record["name"]))
            self._told(self._tickets[id], record)

        command = ticket.command
        caller = Caller(str(command.actor), command.why, id, lambda: self._tickets[id].called_off)
        try:
            if ticket.called_off:
                raise Refused(f"{ticket.called_off}; nothing was touched")
            results = self._perform(command, caller, listen)
        except ProxyRouteError as error:
            findings = error.findings if isinstance(error, Refused) else ()
            self._alter(
                id, state=_state_of(command, error), text=str(error), findings=findings, exit_code=error.exit_code,
                ended_at=time.time(),
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - a mistake of ours in one command must not end all commands
            text = f"{type(error).__name__}: {error}; please report this; 'proxyroute status' tells what is left to do"
            self._alter(id, state="failed", text=text, ended_at=time.time())
        else:
            state = next((r.outcome for r in results if r.outcome not in ("done", "unchanged")), "")
            state = state or (results[-1].outcome if results else "done")
            text = "; ".join(r.text for r in results if r.text)
            self._alter(
                id, state="unfinished" if state == "open" else state, text=text, results=results, ended_at=time.time()
            )

    def _alter(self, id: str, **values: Any) -> Ticket:
        with self._lock:
            ticket = self._tickets[id] = replace(self._tickets[id], **values)
        self._told(ticket, None)
        return ticket

    def _forget_old(self) -> None:
        over = [t.id for t in self._tickets.values() if t.over]
        for id in over[: max(0, len(self._tickets) - _KEPT)]:
            del self._tickets[id]
        self._keys = {key: id for key, id in self._keys.items() if id in self._tickets}


def _same(one: Command, other: Command) -> bool:
    return (one.kind, jsonable(one.arguments), one.why) == (other.kind, jsonable(other.arguments), other.why)


def _state_of(command: Command, error: ProxyRouteError) -> str:
    """A chore that ended early has left nothing behind, or what it has begun is on record, and is taken up again."""
    if isinstance(error, GaveWay):
        return "aborted" if command.kind == "verify" else "unfinished"
    return state_of_error(error)


def state_of_error(error: ProxyRouteError) -> str:
    """Returns the state of a command that ended with ``error``."""
    return {3: "refused", 4: "aborted", 5: "unfinished", 6: "refused"}.get(error.exit_code, "failed")


def ticket_json(ticket: Ticket) -> dict[str, Any]:
    """Returns a ticket as JSON values."""
    command = ticket.command
    return {
        "id": ticket.id,
        "kind": command.kind,
        "cluster": command.cluster,
        "by": command.actor.name,
        "from": command.actor.address,
        "reason": command.why,
        "arguments": jsonable(command.arguments),
        "state": ticket.state,
        "over": ticket.over,
        "asked_at": ticket.asked_at,
        "began_at": ticket.began_at,
        "ended_at": ticket.ended_at,
        "journals": list(ticket.journals),
        "step": ticket.step,
        "text": ticket.text,
        "exit_code": ticket.exit_code,
        "called_off": ticket.called_off,
        "findings": jsonable(ticket.findings),
        "results": [jsonable(r) | {"verdict": str(r.proof.verdict) if r.proof else None} for r in ticket.results],
    }
