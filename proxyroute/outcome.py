"""How an operation ended, and what was looked at to prove it: values for those who show them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from proxyroute.model import Finding


class Verdict(StrEnum):
    PROVEN = "PROVEN"
    NOT_PROVEN = "NOT PROVEN"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Evidence:
    """One thing that was looked at after an operation."""

    subject: str
    claim: str
    verdict: Verdict
    seen: str


@dataclass(frozen=True)
class Proof:
    """What was looked at after an operation, and what follows from it."""

    evidence: tuple[Evidence, ...]
    blackout_seconds: float | None = None
    """From the moment writes were blocked until the new primary was open and routed to, as the engine saw it."""
    blackout_from: str = ""
    """Of a failover, what it was measured from: ``seen`` (the last sight of the old primary taking writes: it is the
    most that it can have been) or ``begun`` (the first step: the least)."""

    @property
    def verdict(self) -> Verdict:
        """NOT PROVEN if anything contradicts, else UNKNOWN if anything could not be looked at, else PROVEN."""
        verdicts = {e.verdict for e in self.evidence}
        for worst in (Verdict.NOT_PROVEN, Verdict.UNKNOWN):
            if worst in verdicts:
                return worst
        return Verdict.PROVEN if verdicts else Verdict.UNKNOWN


@dataclass
class Result:
    """How an operation ended, for those who show it."""

    operation: str
    kind: str
    outcome: str
    """``done``, ``refused``, ``aborted``, ``unfinished``, ``superseded`` or ``unchanged``."""
    primary: str = ""
    proof: Proof | None = None
    leftovers: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = field(default_factory=tuple)
    text: str = ""
