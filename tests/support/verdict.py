"""What a run was worth: nothing lost, nothing in two places, and how long nobody could write. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.support.load import Records, RowId, Write, longest_gap

Window = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """The books of one run, closed against the rows of every server."""

    acknowledged: int
    errors: Mapping[str, int] = field(default_factory=dict)
    """Failed writes by phase and error number."""
    refused: int = 0
    """Connections that were not let in."""
    errors_per_session: int = 0
    """The most errors any one writer has had."""
    lost: frozenset[RowId] = frozenset()
    """Acknowledged, and not on the primary."""
    ambiguous: frozenset[RowId] = frozenset()
    """Ended in an error, and there all the same."""
    unexplained: frozenset[RowId] = frozenset()
    """On a server, and neither acknowledged nor in doubt."""
    diverged: frozenset[RowId] = frozenset()
    """On one server and not on another, or differing between them."""
    overlapping: frozenset[RowId] = frozenset()
    """Written on the old primary although begun after the new one had acknowledged a write."""

    @property
    def double_primary(self) -> int:
        """Writes taken by a second primary."""
        return len(self.diverged | self.overlapping)

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing doubled, nothing ambiguous, nothing unexplained. Errors are no loss."""
        return not (self.lost or self.ambiguous or self.unexplained or self.double_primary)

    def __str__(self) -> str:
        errors = ", ".join(f"{count} × {kind}" for kind, count in sorted(self.errors.items())) or "none"
        return (
            f"{self.acknowledged} acknowledged, {len(self.lost)} lost, {len(self.ambiguous)} ambiguous,"
            f" {len(self.unexplained)} unexplained, {self.double_primary} double-primary; errors: {errors}"
        )


def judge(
    records: Records,
    rows: Mapping[str, Mapping[RowId, int]],
    primary: str,
    windows: Iterable[Window] = (),
) -> Verdict:
    """Compares what writers were told with what is there.

    ``rows`` holds, by server, the id of the server each row was written on, read when all servers had caught
    up; ``primary`` names the one whose word counts. Each window holds one change of primary.
    """
    there = rows[primary]
    told = {(w.writer, w.n) for w in records.acknowledged}
    doubtful = {(f.writer, f.n) for f in records.failed if f.phase == "statement"}
    everywhere = set().union(*rows.values())
    origin = {row: server for table in rows.values() for row, server in table.items()} | dict(there)
    by_writer = Counter(f.writer for f in records.failed)
    return Verdict(
        acknowledged=len(told),
        errors=dict(Counter(f.kind for f in records.failed)),
        refused=sum(f.phase == "connect" for f in records.failed),
        errors_per_session=max(by_writer.values(), default=0),
        lost=frozenset(told - there.keys()),
        ambiguous=frozenset(doubtful & everywhere),
        unexplained=frozenset(everywhere - told - doubtful),
        diverged=frozenset(row for row in everywhere if len({table.get(row) for table in rows.values()}) > 1),
        overlapping=frozenset(
            row for window in windows for row in _overlap(records.between(*window).acknowledged, origin)
        ),
    )


def _overlap(writes: tuple[Write, ...], origin: Mapping[RowId, int]) -> Iterable[RowId]:
    """Rows of one change of primary that the old primary took too late.

    Compared are the sending of one and the acknowledgement of the other: that order cannot be an accident of
    threads being late, so whatever is found is true. A write that was sent earlier and let through too late
    shows as a row that the servers do not share.
    """
    known = [write for write in writes if (write.writer, write.n) in origin]
    if not known:
        return
    new = origin[max(known, key=lambda w: w.sent)[:2]]
    opened = min(w.acknowledged for w in known if origin[w.writer, w.n] == new)
    for write in known:
        if origin[write.writer, write.n] != new and write.sent > opened:
            yield write.writer, write.n


def blackout(records: Records, window: Window) -> float:
    """Returns the longest part of ``window`` in which no write of any writer was acknowledged, in seconds."""
    return longest_gap((w.acknowledged for w in records.acknowledged), *window)
