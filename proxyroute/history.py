"""What the journals tell about operations that are over, or not: one summary each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxyroute import journal
from proxyroute.errors import JournalError
from proxyroute.journal import Record, first, outcome
from proxyroute.model import NO_EPOCH, Epoch
from proxyroute.operation import REJOIN, Operation
from proxyroute.outcome import Evidence, Proof, Result, Verdict
from proxyroute.words import stood_still

_SHOWN = ("stepped", "commit", "note", "leftover")
_SHOWN_FIELDS = ("kind", "name", "seconds", "detail", "error", "text", "verb", "server", "reason")
"""What a report shows of the records, and of each."""


@dataclass(frozen=True)
class Summary:
    """One operation in the history."""

    operation: str
    kind: str
    outcome: str
    """How it ended; ``open`` while it waits for heal, ``begun`` before it has touched anything."""
    started: float
    """Unix time."""
    seconds: float
    primary: str
    candidate: str
    blackout_seconds: float | None
    verdict: str | None
    leftovers: tuple[str, ...] = ()
    left_at: frozenset[str] = frozenset()
    """The servers and proxies at which something is left to do."""
    automatic: bool = False
    """Nobody typed it."""
    epoch: str = ""
    """Under which its routes were published last."""
    told: str = ""
    """What its end said."""
    fencing: str = ""
    """Of a failover, what keeps the old primary from taking writes: ``fenced``, ``routed away`` or ``none``."""
    fenced_by: str = ""
    """Who has said that it is fenced."""
    method: str = ""
    """Of a rejoin, how the server comes to its data; empty before that is known."""
    stopped: bool = False
    """Of a rejoin by a copy, its server may stand still: the copy is there, and its place has not been taken yet."""
    blackout_from: str = ""
    """Of a failover, what its blackout is measured from; see ``Proof``."""

    @property
    def ended_with(self) -> str | None:
        """The server that took writes when it ended; None when it did not move them, or is not over."""
        if self.kind == "rejoin":
            return None
        return {"done": self.candidate, "aborted": self.primary}.get(self.outcome)


class Ledger:
    """All journals of a cluster. What has not changed since it was read is not read again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[object, Summary | None]] = {}

    def summaries(self) -> tuple[Summary, ...]:
        """Returns every operation on record, oldest first by its epoch; the damaged ones are left out.

        A clock that is set back, or differs between engines that share the folder, changes nothing about the order.
        """
        found = {}
        for file, stamp in journal.stamps(self._folder).items():
            before = self._known.get(file)
            found[file] = before if before is not None and before[0] == stamp else (stamp, _summary(file))
        self._known = found
        known = (summary for _, summary in found.values() if summary is not None)
        return tuple(sorted(known, key=lambda s: (Epoch.parse(s.epoch), s.operation)))

    def highest(self) -> Epoch:
        """Returns the highest epoch of any operation on record."""
        return max((Epoch.parse(s.epoch) for s in self.summaries()), default=NO_EPOCH)

    def file(self, summary: Summary) -> Path:
        """Returns where the journal of an operation is."""
        return self._folder / f"{summary.operation}.jsonl"

    def last_acted(self) -> Summary | None:
        """Returns the operation that ended last, of those that changed something."""
        return next((s for s in reversed(self.summaries()) if s.ended_with is not None), None)

    def readable(self) -> Iterator[tuple[Path, list[Record]]]:
        """Yields every journal that can be read and has records, by the time that their names begin with."""
        for file in journal.journals(self._folder):
            if records := _records(file):
                yield file, records

    def damaged(self) -> Iterator[tuple[str, str]]:
        """Yields what is wrong with every journal that cannot be read, or does not begin as one, and the cure.

        Raises JournalError when nobody can tell which there are.
        """
        for file in journal.journals(self._folder):
            aside = f"restore it; or, once you know that its operation is over: mv {file} {file}.damaged"
            try:
                records = journal.read(file)
            except JournalError as error:
                state = self._folder.parents[1]
                denied = isinstance(error.__cause__, PermissionError)
                yield str(error), f"chown -R --reference={state} {state}" if denied else aside
                continue
            if records and records[0]["kind"] != "begin":
                yield f"{file} does not begin with a begin record", aside


def _records(file: Path) -> list[Record]:
    with contextlib.suppress(JournalError):
        records = journal.read(file)
        if records and records[0]["kind"] == "begin":
            return records
    return []


def _summary(file: Path) -> Summary | None:
    records = _records(file)
    return summarize(records) if records else None


def waiting_for_heal(history: Sequence[Summary]) -> list[Summary]:
    """Returns the operations that are open, and the last one if it has left something to do."""
    moves = [s for s in history if s.kind != "rejoin"][-1:]
    return [s for s in history if s.outcome == "open" or (s in moves and s.leftovers)]


def beyond_healing(summary: Summary) -> frozenset[str]:
    """Returns the servers at which nothing is left to do but what only a rejoin can do: see ``Operation.attempt``."""
    healable = (told.partition(": ")[0] for told in summary.leftovers if REJOIN not in told)
    return summary.left_at - {what.partition(" ")[2].partition("/")[0] for what in healable}


def rebuilt(history: Iterable[Summary]) -> tuple[str, ...]:
    """Returns the servers whose data a rejoin has begun to replace or to undo, and that is not over."""
    found = (s for s in history if s.kind == "rejoin" and s.outcome == "open")
    return tuple(dict.fromkeys(s.candidate for s in found if s.method in ("reseed", "flashback")))


def untouched(records: list[Record]) -> bool:
    """Tells whether an operation is not closed and has not announced any act yet."""
    return outcome(records) is None and first(records, "undo") is None and first(records, "commit") is None


def summarize(records: list[Record]) -> Summary:
    """Returns what the records of one operation tell."""
    begin, end, proof = records[0], records[-1], _last(records, "proof")
    left = Operation.leftovers_of(records)
    blackout = next((r["blackout_seconds"] for r in records if r.get("blackout_seconds")), None)
    return Summary(
        operation=begin["operation"],
        kind=begin["operation_kind"],
        outcome=outcome(records) or ("begun" if untouched(records) else "open"),
        started=begin["t"],
        seconds=end["t"] - begin["t"],
        primary=begin["plan"]["primary"],
        candidate=begin["plan"]["candidate"],
        blackout_seconds=blackout,
        verdict=proof["verdict"] if proof else None,
        leftovers=tuple(f"{verb} {server}: {reason}" for (verb, server), reason in left.items()),
        automatic=bool(begin.get("diagnosis", {}).get("automatic")),
        left_at=frozenset(server.partition("/")[0] for _, server in left),
        epoch=next(r["epoch"] for r in reversed(records) if r["kind"] in ("turned", "back", "begin")),
        told=str(end.get("text", "")) if end["kind"] == "end" else "",
        fencing=_kept(records, "fencing"),
        fenced_by=_kept(records, "fenced_by"),
        method=_kept(records, "method") if begin["operation_kind"] == "rejoin" else "",
        stopped=begin["operation_kind"] == "rejoin" and _may_be_stopped(records),
        blackout_from=_kept(records, "blackout_from") if blackout else "",
    )


def _may_be_stopped(records: list[Record]) -> bool:
    kept = {r["name"]: r["value"] for r in records if r["kind"] == "keep"}
    return "loaded" in kept and "old_data" not in kept and kept.get("reseed", {}).get("way") == "copy"


def _kept(records: list[Record], name: str) -> str:
    return next((str(r["value"]) for r in reversed(records) if r["kind"] == "keep" and r["name"] == name), "")


def fenced(history: Iterable[Summary]) -> tuple[Summary, ...]:
    """Returns the last word on each server that could not rejoin, and has neither done so nor been the primary since.

    ``history`` is oldest first.
    """
    last: dict[str, Summary] = {}
    for summary in history:
        if summary.kind == "rejoin":
            last[summary.candidate] = summary
        elif summary.ended_with is not None:  # what is the primary has all that counts
            last.pop(summary.ended_with, None)
    return tuple(s for s in last.values() if s.outcome in ("refused", "aborted"))


def result_of(op: Operation) -> Result:
    """Returns how ``op`` ended, for those who show it."""
    return result_from(op.journal.records)


def result_from(records: list[Record]) -> Result:
    """Returns how the operation with these records ended."""
    summary, proof = summarize(records), _last(records, "proof")
    done = summary.outcome == "done"
    rejoined = summary.kind == "rejoin"
    primary = summary.candidate if done and not rejoined else summary.primary
    end = _last(records, "end")
    told = (end and end["text"]) or f"{primary} takes writes"
    moved = (
        f"{primary} is the primary now{_fencing(records)}{_salvage(records)}"
        if done
        else f"{summary.kind} {summary.outcome}; {told}"
    )
    return Result(
        operation=summary.operation,
        kind=summary.kind,
        outcome=summary.outcome,
        primary=primary,
        proof=Proof(
            tuple(Evidence(e["subject"], e["claim"], Verdict(e["verdict"]), e["seen"]) for e in proof["evidence"]),
            summary.blackout_seconds,
            summary.blackout_from,
        )
        if proof is not None
        else None,
        leftovers=summary.leftovers,
        text=told if rejoined else moved,
    )


def _fencing(records: list[Record]) -> str:
    """Says honestly what became of an old primary that is gone."""
    kept = {r["name"]: r["value"] for r in records if r["kind"] == "keep"}
    how = kept.get("fencing")
    if records[0]["operation_kind"] != "failover" or not how:
        return ""
    return f", {fencing_text(records[0]['plan']['primary'], how, kept.get('fenced_by', ''))}"


def _salvage(records: list[Record]) -> str:
    """Says what was found on the host of an old primary that is gone."""
    value = _salvaged(records)
    return f"; {value['told']}" if value else ""


def _salvaged(records: Sequence[Record]) -> dict[str, Any] | None:
    kept = [r["value"] for r in records if r["kind"] == "keep" and r["name"] == "salvage"]
    return {k: v for k, v in kept[-1].items() if k != "last"} if kept else None


def fencing_text(old: str, fencing: str, by: str) -> str:
    """Returns in words what keeps an old primary that is gone from taking writes."""
    return {
        "fenced": f"{old} is fenced by {by}",
        "routed away": f"{old} is not fenced, but no proxy leads to it",
    }.get(fencing, f"nothing keeps clients away from {old}")


def report_from(records: Sequence[Record], error: str = "") -> dict[str, Any]:
    """Returns the report of the operation with these records, JSON values only.

    ``error`` is what whoever ran it ended with, for an operation that is still open.
    """
    known = list(records)
    begin, summary, result = known[0], summarize(known), result_from(known)
    engine = begin.get("engine", {})
    open_still = summary.outcome in ("open", "begun")
    return {
        "operation": summary.operation,
        "kind": summary.kind,
        "cluster": begin["cluster"],
        "old_primary": summary.primary,
        "new_primary": summary.candidate,
        "primary": "" if open_still else result.primary,
        "outcome": "unfinished" if open_still else summary.outcome,
        "text": (error or "it is not finished") if open_still else result.text,
        "verdict": summary.verdict,
        "evidence": [
            {"subject": e.subject, "claim": e.claim, "verdict": str(e.verdict), "seen": e.seen}
            for e in (result.proof.evidence if result.proof else ())
        ],
        "by": begin.get("by", ""),
        "host": engine.get("host", ""),
        "pid": engine.get("pid"),
        "version": engine.get("version", ""),
        "force": bool(begin.get("force")),
        "reason": begin.get("reason", ""),
        "resumed_by": [r["by"] for r in known if r["kind"] == "resumed"],
        "started": summary.started,
        "seconds": summary.seconds,
        "committed": first(known, "commit") is not None,
        "blackout_seconds": summary.blackout_seconds,
        "blackout_from": summary.blackout_from,
        "clients": _clients(known, summary),
        "story": [{k: r[k] for k in _SHOWN_FIELDS if k in r} for r in known if r["kind"] in _SHOWN],
        "left_to_do": list(summary.leftovers),
        "dead_binlog": _salvaged(known),
    }


def _clients(records: Sequence[Record], summary: Summary) -> str:
    """Returns what clients may have seen of it, as far as the records tell."""
    if records[0]["operation_kind"] == "rejoin":
        return f"nothing: only {records[0]['plan']['candidate']} was changed"
    old = records[0]["plan"]["primary"]
    frozen = any(r["kind"] == "undo" and r["verb"] == "restore_writes" for r in records)
    blackout = summary.blackout_seconds
    if first(list(records), "commit") is not None:
        stood = (
            stood_still(blackout, summary.blackout_from, old)
            if blackout
            else "nobody knows how long writes stood still"
        )
        return f"{stood}; each session that was open at {old} lost its connection once"
    if frozen:
        return f"they may have waited for a while, or lost a connection to {old}; what was acknowledged stays"
    return "they saw nothing of it: writes were not blocked"


def _last(records: list[Record], kind: str) -> Record | None:
    return next((r for r in reversed(records) if r["kind"] == kind), None)
