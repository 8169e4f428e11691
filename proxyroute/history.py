"""What the journals tell about operations that are over, or not: one summary each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxyroute import journal
from proxyroute.errors import JournalError
from proxyroute.journal import Record, first, outcome
from proxyroute.model import Evidence, Proof, Result, Verdict
from proxyroute.operation import Operation


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
        self._known: dict[Path, tuple[tuple[int, int], Summary | None]] = {}

    def summaries(self) -> tuple[Summary, ...]:
        """Returns every operation on record, oldest first; the damaged ones are left out."""
        found = {}
        for file in journal.journals(self._folder):
            with contextlib.suppress(FileNotFoundError):
                stat = file.stat()
                key = (stat.st_mtime_ns, stat.st_size)
                before = self._known.get(file)
                found[file] = before if before is not None and before[0] == key else (key, _summary(file))
        self._known = found
        return tuple(summary for _, summary in found.values() if summary is not None)

    def last_acted(self) -> Summary | None:
        """Returns the operation that ended last, of those that changed something."""
        return next((s for s in reversed(self.summaries()) if s.ended_with is not None), None)

    def readable(self) -> Iterator[tuple[Path, list[Record]]]:
        """Yields every journal that can be read and has records, oldest first."""
        for file in journal.journals(self._folder):
            if records := _records(file):
                yield file, records

    def damaged(self) -> Iterator[tuple[Path, str]]:
        """Yields every journal that cannot be read, or does not begin as one, and what is wrong with it."""
        for file in journal.journals(self._folder):
            try:
                records = journal.read(file)
            except JournalError as error:
                yield file, str(error)
                continue
            if records and records[0]["kind"] != "begin":
                yield file, f"{file} does not begin with a begin record"


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


def untouched(records: list[Record]) -> bool:
    """Tells whether an operation is not closed and has not announced any act yet."""
    return outcome(records) is None and first(records, "undo") is None and first(records, "commit") is None


def summarize(records: list[Record]) -> Summary:
    """Returns what the records of one operation tell."""
    begin, end, proof = records[0], records[-1], _last(records, "proof")
    left = Operation.leftovers_of(records)
    return Summary(
        operation=begin["operation"],
        kind=begin["operation_kind"],
        outcome=outcome(records) or ("begun" if untouched(records) else "open"),
        started=begin["t"],
        seconds=end["t"] - begin["t"],
        primary=begin["plan"]["primary"],
        candidate=begin["plan"]["candidate"],
        blackout_seconds=next((r["blackout_seconds"] for r in records if r.get("blackout_seconds")), None),
        verdict=proof["verdict"] if proof else None,
        leftovers=tuple(f"{verb} {server}: {reason}" for (verb, server), reason in left.items()),
        automatic=bool(begin.get("diagnosis", {}).get("automatic")),
        left_at=frozenset(server.partition("/")[0] for _, server in left),
        epoch=next((r["epoch"] for r in reversed(records) if r["kind"] in ("turned", "back", "begin")), ""),
        told=str(end.get("text", "")) if end["kind"] == "end" else "",
        fencing=_kept(records, "fencing"),
        fenced_by=_kept(records, "fenced_by"),
    )


def _kept(records: list[Record], name: str) -> str:
    return next((str(r["value"]) for r in reversed(records) if r["kind"] == "keep" and r["name"] == name), "")


def fenced(history: Iterable[Summary]) -> tuple[Summary, ...]:
    """Returns the last word on each server that could not rejoin and has not done so since."""
    last = {s.candidate: s for s in history if s.kind == "rejoin"}
    return tuple(s for s in last.values() if s.outcome in ("refused", "aborted"))


def result_of(op: Operation) -> Result:
    """Returns how ``op`` ended, for those who show it."""
    records = op.journal.records
    summary, proof = summarize(records), _last(records, "proof")
    done = summary.outcome == "done"
    rejoined = op.kind == "rejoin"
    primary = op.plan.candidate if done and not rejoined else op.plan.primary
    end = _last(records, "end")
    told = (end and end["text"]) or f"{primary} takes writes"
    return Result(
        operation=op.id,
        kind=op.kind,
        outcome=summary.outcome,
        primary=primary,
        proof=Proof(
            tuple(Evidence(e["subject"], e["claim"], Verdict(e["verdict"]), e["seen"]) for e in proof["evidence"]),
            summary.blackout_seconds,
        )
        if proof is not None
        else None,
        leftovers=summary.leftovers,
        text=told
        if rejoined
        else f"{primary} is the primary now{_fencing(op)}"
        if done
        else f"{op.kind} {summary.outcome}; {told}",
    )


def _fencing(op: Operation) -> str:
    """Says honestly what became of an old primary that is gone."""
    how = op.kept("fencing", "")
    if not op.gone or not how:
        return ""
    return f", {fencing_text(op.plan.primary, how, op.kept('fenced_by', ''))}"


def fencing_text(old: str, fencing: str, by: str) -> str:
    """Returns in words what keeps an old primary that is gone from taking writes."""
    return {
        "fenced": f"{old} is fenced by {by}",
        "routed away": f"{old} is not fenced, but no proxy leads to it",
    }.get(fencing, f"nothing keeps clients away from {old}")


def _last(records: list[Record], kind: str) -> Record | None:
    return next((r for r in reversed(records) if r["kind"] == kind), None)
