"""Commands from the web: one at a time for each cluster, done by the same engine as the command line's."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proxyroute.caller import Caller
from proxyroute.errors import ProxyRouteError, Refused
from proxyroute.journal import Listener, Record
from proxyroute.jsonable import jsonable
from proxyroute.model import Finding, Result
from proxyroute.operation import new_id
from proxyroute.web.audit import Actor

KINDS = ("switchover", "failover", "heal", "rejoin", "publish", "acknowledge")
_KEPT = 500
_WAITING = 16
"""So many commands of one cluster may wait; more are refused."""


@dataclass(frozen=True)
class Command:
    """What somebody asks for. Arguments by kind:

    ``switchover``: target, force, kill_long · ``failover``: target, force, fenced_by, fenced_proxies ·
    ``heal``: declare_lost · ``rejoin``: server, method · ``publish``, ``acknowledge``: none
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
    ``unchanged`` or ``failed``."""
    asked_at: float = 0.0
    began_at: float | None = None
    ended_at: float | None = None
    journals: tuple[str, ...] = ()
    """Ids of the operations whose records it has written."""
    text: str = ""
    """How it ended, in words with what to type next."""
    findings: tuple[Finding, ...] = ()
    results: tuple[Result, ...] = ()

    @property
    def over(self) -> bool:
        return self.state not in ("waiting", "running")


Perform = Callable[[Command, Caller, Listener], tuple[Result, ...]]
"""Does a command; raises ProxyRouteError as the engine does."""
Told = Callable[[Ticket, Record | None], None]
"""Is told of each change of a ticket, and of each record that it writes."""


class Desk:
    """Takes the commands of one cluster and does them one after the other, in a thread that lives while there are."""

    def __init__(self, perform: Perform, told: Told) -> None:
        self._perform = perform
        self._told = told
        self._waiting: queue.Queue[str] = queue.Queue(_WAITING)
        self._tickets: dict[str, Ticket] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, command: Command) -> Ticket:
        """Takes a command and returns at once. Raises Refused when too many wait, or when it is all over."""
        with self._lock:
            if command.key and (known := self._keys.get((command.actor.name, command.key))):
                before = self._tickets[known]
                if (before.command.kind, before.command.arguments) != (command.kind, command.arguments):
                    raise Refused("this idempotency key was used for another command; use a new one")
                return before
            if self._closed:
                raise Refused("the daemon is ending; ask again when it is back")
            ticket = Ticket(new_id(), command, asked_at=time.time())
            try:
                self._waiting.put_nowait(ticket.id)
            except queue.Full:
                raise Refused(f"{_WAITING} commands of {command.cluster} wait already; ask again later") from None
            self._tickets[ticket.id] = ticket
            if command.key:
                self._keys[command.actor.name, command.key] = ticket.id
            self._forget_old()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=f"desk {command.cluster}", daemon=True)
                self._thread.start()
        self._told(ticket, None)
        return ticket

    def tickets(self) -> tuple[Ticket, ...]:
        """Returns the commands of this run of the daemon, oldest first."""
        with self._lock:
            return tuple(self._tickets.values())

    def ticket(self, id: str) -> Ticket | None:
        with self._lock:
            return self._tickets.get(id)

    def close(self, seconds: float) -> bool:
        """Takes no more; what waits is refused, what runs is brought to its end. Tells whether it came to it."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._lock:
                try:
                    id = self._waiting.get_nowait()
                except queue.Empty:
                    self._thread = None
                    return
                closed = self._closed
            if closed:
                self._alter(id, state="refused", text="the daemon is ending; nothing was touched", ended_at=time.time())
            else:
                self._do(id)

    def _do(self, id: str) -> None:
        ticket = self._alter(id, state="running", began_at=time.time())
        journals: list[str] = []

        def listen(record: Record) -> None:
            if record["kind"] == "begin" and record["operation"] not in journals:
                journals.append(record["operation"])
                self._alter(id, journals=tuple(journals))
            self._told(self._tickets[id], record)

        command = ticket.command
        caller = Caller(str(command.actor), command.why, id)
        try:
            results = self._perform(command, caller, listen)
        except ProxyRouteError as error:
            findings = error.findings if isinstance(error, Refused) else ()
            self._alter(id, state=state_of_error(error), text=str(error), findings=findings, ended_at=time.time())
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
        "text": ticket.text,
        "findings": jsonable(ticket.findings),
        "results": [jsonable(r) | {"verdict": str(r.proof.verdict) if r.proof else None} for r in ticket.results],
    }
