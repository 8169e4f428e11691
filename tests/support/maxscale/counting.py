"""The books of writers behind the double's readwritesplit: errors, what was lost, and what is there twice, and why."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.load import Load, Records, RowId, create_table, doubled, read_rows
from tests.support.maxscale.site import MaxScaleLab
from tests.support.maxscale.splitter import Repeated
from tests.support.verdict import Verdict, judge

TRANSACTIONS = 100
"""Number of the first writer whose writes are transactions."""
_ROW = re.compile(r"VALUES \((\d+), (\d+),")


@dataclass
class Count:
    """What became of all writes; filled when the ``with`` block of :func:`counting` has ended."""

    loads: tuple[Load, ...]
    records: Records = field(default_factory=Records)
    verdict: Verdict = field(default_factory=lambda: Verdict(0))
    doubled: frozenset[RowId] = frozenset()
    repeated: frozenset[RowId] = frozenset()
    """Rows whose write was sent again because its reply was lost: only these may be there twice."""
    replayed: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    def go_on(self, number: int = 20, seconds: float = 30.0) -> None:
        """Returns when every kind of writer has had ``number`` more writes acknowledged."""
        for writers in self.loads:
            writers.await_more(number, seconds)

    def errors(self, *, transactions: bool) -> Counter[str]:
        """Returns the errors of single writes, or of transactions, by phase and number."""
        return Counter(f.kind for f in self.records.failed if (f.writer >= TRANSACTIONS) is transactions)

    @property
    def unexplained(self) -> frozenset[RowId]:
        """Rows that are there twice although nobody had lost a reply."""
        return self.doubled - self.repeated

    def __str__(self) -> str:
        return (
            f"{self.verdict}; {len(self.doubled)} doubled, {len(self.unexplained)} of them unexplained; "
            f"{len(self.repeated)} repeated, {self.replayed} transactions replayed; sessions ended: {dict(self.ended)}"
        )


@contextlib.contextmanager
def counting(site: MaxScaleLab, *, writers: int = 3, transactions: int = 2, rate: float = 40) -> Iterator[Count]:
    """Single writes and transactions for a ``with`` block, into a table that takes a row twice.

    At its end all must still get through, and every running server must have the same.
    """
    create_table(site.cluster.primary, unique=False)
    site.cluster.await_synced()
    site.double.history.repeated.clear()
    with contextlib.ExitStack() as ends:
        loads = [ends.enter_context(Load.start(site.write, writers=writers, rate=rate))]
        if transactions:
            more = Load.start(site.write, writers=transactions, rate=rate, mode="transactions", first=TRANSACTIONS)
            loads.append(ends.enter_context(more))
        count = Count(tuple(loads))
        yield count
        count.go_on()
        for writing in loads:
            count.records += writing.stop()
    site.cluster.await_synced()
    primary, history = site.cluster.primary, site.double.history
    count.verdict = judge(count.records, read_rows(site.cluster), primary.name)
    count.doubled = frozenset(doubled(primary))
    count.repeated = frozenset(repeated_rows(history.repeated))
    count.replayed, count.ended = history.replayed, Counter(history.ended)


def repeated_rows(repeated: list[Repeated]) -> Iterator[RowId]:
    """Yields the rows of writes that were sent again because their reply was lost."""
    for write in repeated:
        if found := _ROW.search(write.sql):
            yield int(found[1]), int(found[2])
