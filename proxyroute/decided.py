"""What is decided: who wins an election, what is the matter with a cluster, and the plan of a move. Frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from proxyroute.gtid import Position
from proxyroute.model import Finding
from proxyroute.policy import Policy


@dataclass(frozen=True)
class Ranked:
    """One server's place in an election."""

    name: str
    qualified: bool
    reasons: tuple[str, ...]
    """For a rejected server every reason; for a qualified one what placed it."""


@dataclass(frozen=True)
class Election:
    """Result of an election: the winner, or None, and everybody with reasons, best first."""

    winner: str | None
    ranking: tuple[Ranked, ...]


class Action(StrEnum):
    """What a diagnosis allows to be done."""

    NONE = "none"
    WAIT = "wait"
    """Look again: the next looks will tell."""
    FAILOVER = "failover"
    REOPEN = "reopen"
    """The primary has restarted and refuses writes; it has everything and may take them again."""
    CLOSE = "close"
    """A former primary takes writes; it is to refuse them, and its clients are to be cut."""
    PUBLISH = "publish"
    """A proxy goes elsewhere; the routes are to be published again."""
    PEOPLE = "people"
    """A person must decide, or act first."""


@dataclass(frozen=True)
class Diagnosis:
    """What is the matter with a cluster, by name; every row of the table is in docs/reference/diagnoses.md."""

    name: str
    text: str
    """Why it is believed, naming the servers."""
    action: Action
    """What may be done now: that of the row, or ``people`` while something blocks it."""
    primary: str | None = None
    """Who is, or was, the primary."""
    servers: tuple[str, ...] = ()
    """Whom the action is about, when that is not the primary: those to be closed."""
    since: float | None = None
    """On the monotonic clock; None when nobody can tell."""
    wanted: Action = Action.NONE
    """What would be done if nothing blocked it."""
    blockers: tuple[Finding, ...] = ()
    """What blocks it (errors), and what will be worse than it could be (warnings), each with its cure."""


@dataclass(frozen=True)
class FailoverElection:
    """Who takes over from a primary that is gone, and what may be lost by it."""

    winner: str | None
    fetch_from: str | None
    """A server that may not be promoted and has received more than the winner: its events are fetched first."""
    ranking: tuple[Ranked, ...]
    goal: Position | None = None
    """What the winner must have executed before it is opened, fetched events included."""
    missing: tuple[str, ...] = ()
    """What may be lost, in words; empty when there is no sign of any."""
    lossless: bool = False
    """Every possible acknowledger of the last in-sync sight takes part, AFTER_SYNC, nobody degraded. The caller must
    add that the primary was fenced, or all write paths closed, within the semi-sync time-out of that sight."""
    findings: tuple[Finding, ...] = ()
    """What stands in the way, each with its cure."""


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan as shown to people."""

    name: str
    what: str
    acts: tuple[str, ...] = ()
    """The SQL statements, commands and file changes it will make."""


@dataclass(frozen=True)
class Plan:
    """Which server takes over from which, and how. Made by election, judged by preflight."""

    cluster: str
    primary: str
    candidate: str
    replicas: tuple[str, ...]
    """Servers to repoint to the candidate after the first writes flow, without primary and candidate."""
    attach: str | None = None
    """The semi-synchronous replica that is moved below the candidate before the freeze."""
    semi_sync: bool = False
    """The new primary gets semi-synchronous replication enabled before it opens."""
    lock_accounts: tuple[str, ...] = ()
    """Privileged direct writers locked before the freeze (``--force``)."""
    policy: Policy = field(default_factory=Policy)

    @property
    def unacknowledged(self) -> bool:
        """Whether every commit on the new primary waits, until somebody has been repointed who acknowledges it."""
        return self.semi_sync and self.attach is None


@dataclass(frozen=True)
class Undo:
    """How to take one act back: data, written to the journal before the act."""

    verb: str
    server: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
