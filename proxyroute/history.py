"""What the journals tell about operations that are over, or not: one summary each."""

from __future__ import annotations

from dataclasses import dataclass

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
    )


def result_of(op: Operation) -> Result:
    """Returns how ``op`` ended, for those who show it."""
    records = op.journal.records
    summary, proof = summarize(records), _last(records, "proof")
    done = summary.outcome == "done"
    primary = op.plan.candidate if done else op.plan.primary
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
        text=f"{primary} is the primary now" if done else f"{op.kind} {summary.outcome}; {told}",
    )


def _last(records: list[Record], kind: str) -> Record | None:
    return next((r for r in reversed(records) if r["kind"] == kind), None)
