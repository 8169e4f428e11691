"""Commands of former runs of the daemon, by the audit: whoever asks again with the same key gets the same answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from proxyroute.errors import Aborted, JournalError, Refused, Superseded, Unfinished
from proxyroute.history import Summary, result_from
from proxyroute.journal import Record
from proxyroute.web.audit import Actor, Entry
from proxyroute.web.commands import KINDS, Command, Ticket

LONGEST = 4_000_000
"""So many bytes of the audit are read for them."""
_ENDED = ".ended"
_CODES = {
    "refused": Refused.exit_code, "aborted": Aborted.exit_code, "unfinished": Unfinished.exit_code,
    "superseded": Superseded.exit_code,
}  # fmt: skip
"""With which the command line ends where the audit, or a journal, tells the state alone."""


def asked(ticket: Ticket) -> dict[str, Any]:
    """Returns the details that the audit keeps of a command before it is done."""
    command = ticket.command
    actor = command.actor
    return {"arguments": dict(command.arguments), "key": command.key, "how": actor.how, "scope": actor.scope}


def ended(ticket: Ticket) -> dict[str, Any]:
    """Returns the details that the audit keeps of how a command ended."""
    return {
        "state": ticket.state, "text": ticket.text, "journals": list(ticket.journals), "exit_code": ticket.exit_code,
    }  # fmt: skip


def tickets_of(entries: Iterable[Entry]) -> dict[str, list[Ticket]]:
    """Returns the tickets of each cluster, oldest first, from the entries of the audit, latest first."""
    ends: dict[str, Entry] = {}
    found: dict[str, list[Ticket]] = {}
    for entry in entries:
        if not entry.operation:
            continue
        if entry.what.endswith(_ENDED):
            ends.setdefault(entry.operation, entry)
        elif entry.what in KINDS:
            found.setdefault(entry.cluster, []).insert(0, _ticket(entry, ends.get(entry.operation)))
    return found


def _ticket(entry: Entry, end: Entry | None) -> Ticket:
    details = entry.details
    actor = Actor(entry.who, entry.address, str(details.get("scope", "")), str(details.get("how", "")))
    arguments = details.get("arguments", {})
    command = Command(
        entry.what, entry.cluster, actor, entry.why, arguments if isinstance(arguments, Mapping) else {},
        str(details.get("key", "")),
    )  # fmt: skip
    ticket = Ticket(entry.operation, command, "interrupted", asked_at=entry.at, began_at=entry.at)
    if end is None:
        return replace(ticket, text="the daemon ended before it was over; look at the history of the cluster")
    told = end.details
    state = str(told.get("state", "failed"))
    return replace(
        ticket, state=state, text=str(told.get("text", "")), journals=tuple(map(str, told.get("journals", ()))),
        exit_code=told.get("exit_code", _CODES.get(state)), ended_at=end.at,
    )  # fmt: skip


def settled(ticket: Ticket, history: Sequence[Summary]) -> Ticket:
    """Returns a ticket with what its journal says became of it, if the daemon ended before it was over."""
    if ticket.state != "interrupted":
        return ticket
    found = next((s for s in history if s.operation == ticket.id), None)
    if found is None:
        return ticket
    ends = found.started + found.seconds
    if found.outcome in ("open", "begun"):
        text = "the daemon ended in the midst of it; proxyroute heal finishes or undoes it, and so does the next daemon"
        return replace(ticket, state="unfinished", journals=(ticket.id,), text=text, exit_code=Unfinished.exit_code)
    text = found.told or f"{found.ended_with or found.primary} takes writes"
    return replace(
        ticket, state=found.outcome, journals=(ticket.id,), text=text, exit_code=_CODES.get(found.outcome),
        ended_at=ends,
    )  # fmt: skip


def with_results(ticket: Ticket, records: Callable[[str], Sequence[Record]]) -> Ticket:
    """Returns a ticket of a former run with its results, which the audit has not, by the ``records`` of its journals.

    One that ended with an error has none.
    """
    if ticket.results or ticket.exit_code is not None or not ticket.over or ticket.state == "failed":
        return ticket
    with contextlib.suppress(JournalError, Refused):  # they cannot be read, or are gone: its words are left
        return replace(ticket, results=tuple(result_from(list(records(name))) for name in ticket.journals))
    return ticket
