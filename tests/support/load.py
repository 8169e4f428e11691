"""Load on a cluster: starts the writers, and hands out what became of each of their writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from proxyroute.model import Address
from tests.support.accounts import APPLICATION, APPLICATION_SCHEMA, Account
from tests.support.mariadb import LocalCluster, Node
from tests.support.wait import until
from tests.support.writers import PATIENCE, Orders

TABLE = f"{APPLICATION_SCHEMA}.load_rows"
ROOT_FOLDER = Path(__file__).resolve().parents[2]

RowId = tuple[int, int]
"""Writer, and the number of the write."""


class Write(NamedTuple):
    """A write that was acknowledged. Times are of the monotonic clock, which all processes share."""

    writer: int
    n: int
    sent: float
    acknowledged: float


class Failure(NamedTuple):
    """A write that ended in an error; its row is in doubt when that was in the phase ``statement``."""

    writer: int
    n: int
    begun: float
    ended: float
    phase: str
    errno: int
    text: str

    @property
    def kind(self) -> str:
        """Phase and error number, e.g. ``statement 2013``."""
        return f"{self.phase} {self.errno}"


@dataclass(frozen=True)
class Records:
    """Everything a load has done."""

    acknowledged: tuple[Write, ...] = ()
    failed: tuple[Failure, ...] = ()

    def __add__(self, other: Records) -> Records:
        return Records(self.acknowledged + other.acknowledged, self.failed + other.failed)

    @property
    def misread(self) -> tuple[str, ...]:
        """What was read and was not what had been written, in words; by writers in the mode ``values``."""
        return tuple(f"writer {f.writer}, write {f.n}: {f.text}" for f in self.failed if f.phase == "value")

    def between(self, begin: float, end: float) -> Records:
        """Returns the writes that ended within ``begin`` … ``end``."""
        return Records(
            tuple(w for w in self.acknowledged if begin <= w.acknowledged <= end),
            tuple(f for f in self.failed if begin <= f.ended <= end),
        )


def create_table(primary: Node, *, unique: bool = True) -> None:
    """Makes an empty table for the writers; its column ``server`` tells where a row was written.

    Unless ``unique``, a row that is written twice is there twice.
    """
    key = "PRIMARY KEY (writer, n)" if unique else "KEY (writer, n)"
    primary.sql(f"DROP TABLE IF EXISTS {TABLE}")
    primary.sql(f"CREATE TABLE {TABLE} (writer INT NOT NULL, n INT NOT NULL, server INT NOT NULL, {key}) ENGINE=InnoDB")


def create_values(primary: Node) -> None:
    """Makes the empty table of the values that writers in the mode ``values`` update; after ``create_table``."""
    primary.sql(f"CREATE OR REPLACE TABLE {TABLE}_values (writer INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB")


def wrong_values(records: Records, node: Node) -> list[str]:
    """Returns which values on a server are not what their writers wrote last, or have no row of the same write."""
    told = {w: max((a.n for a in records.acknowledged if a.writer == w), default=0) for w in _writers(records)}
    values = {row["writer"]: row["n"] for row in node.sql(f"SELECT writer, n FROM {TABLE}_values")}
    written = {(row["writer"], row["n"]) for row in node.sql(f"SELECT writer, n FROM {TABLE}")}
    wrong = []
    for writer, value in values.items():
        in_doubt = {f.n for f in records.failed if f.writer == writer and f.n > told[writer] and f.phase == "statement"}
        if value != told[writer] and value not in in_doubt:
            wrong.append(f"the value of writer {writer} is {value}; {told[writer]} was acknowledged last")
        if (writer, value) not in written:
            wrong.append(f"writer {writer} has the value {value}, and not its row: half a transaction")
    return wrong


def _writers(records: Records) -> set[int]:
    return {write.writer for write in records.acknowledged} | {failure.writer for failure in records.failed}


def doubled(node: Node) -> dict[RowId, int]:
    """Returns the rows that are on a server more than once, with how often; see ``create_table``."""
    rows = node.sql(f"SELECT writer, n, COUNT(*) AS times FROM {TABLE} GROUP BY writer, n HAVING times > 1")
    return {(row["writer"], row["n"]): row["times"] for row in rows}


def read_rows(cluster: LocalCluster) -> dict[str, dict[RowId, int]]:
    """Returns the rows of each running server, with the id of the server each was written on."""
    found: dict[str, dict[RowId, int]] = {}
    for node in cluster:
        if node.running:
            rows = node.sql(f"SELECT writer, n, server FROM {TABLE}")
            found[node.name] = {(row["writer"], row["n"]): row["server"] for row in rows}
    return found


class Load:
    """Writers at work. Use in a ``with`` statement; :meth:`stop` ends them and returns their records."""

    def __init__(self, orders: Orders, launcher: Sequence[str] = ()) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT_FOLDER)}
        self._child = subprocess.Popen(
            [*launcher, sys.executable, "-m", "tests.support.writers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self._say(orders.to_json())

    @classmethod
    def start(
        cls,
        address: Address | Sequence[Address],
        *,
        writers: int = 4,
        rate: float = 50,
        mode: str = "pooled",
        first: int = 0,
        account: Account = APPLICATION,
        patience: float = PATIENCE,
        launcher: Sequence[str] = (),
    ) -> Load:
        """Starts ``writers`` clients at ``address``; returns when each has had a write acknowledged.

        Of several addresses each writer has one as its home, in turn, and goes to the next when that does not let it
        in. A failure to connect counts even when the next place takes the write.

        ``rate`` is in writes per second and writer; ``mode`` is ``pooled``, ``fresh``, ``transactions`` or ``values``
        (after ``create_values``). A second load at the same time needs another ``first`` writer number. The table must
        exist. After ``patience`` seconds without an answer a client gives its connection up. A ``launcher`` is an argv
        that becomes the program after it.
        """
        places = [(a.host, a.port) for a in ([address] if isinstance(address, Address) else address)]
        to = (places, account.user, account.password, TABLE)
        load = cls(Orders(*to, writers, rate, mode, first, patience), launcher)
        try:
            until(lambda: load.count()["least"] > 0, f"all writers to get a write through {address}")
        except BaseException:
            load.close()
            raise
        return load

    def _say(self, line: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def _ask(self, command: str) -> dict[str, Any]:
        self._say(command)
        assert self._child.stdout is not None
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError(f"the writers have ended with status {self._child.wait()}")
        told: dict[str, Any] = json.loads(answer)
        return told

    def count(self) -> dict[str, int]:
        """Returns the writes ``acknowledged`` and ``failed``, and the ``least`` that any one writer has."""
        return self._ask("count")

    def await_more(self, number: int = 50, seconds: float = 20.0) -> None:
        """Returns when ``number`` more writes have been acknowledged."""
        goal = self.count()["acknowledged"] + number
        until(lambda: self.count()["acknowledged"] >= goal, f"{number} more writes", seconds)

    def stop(self) -> Records:
        """Ends the writers and returns what they did. Raises RuntimeError when one does not come back."""
        told = self._ask("stop")
        self.close()
        if told["stuck"]:
            raise RuntimeError(f"still waiting for an answer: {', '.join(told['stuck'])}")
        return Records(tuple(map(Write._make, told["acknowledged"])), tuple(map(Failure._make, told["failed"])))

    def close(self) -> None:
        """Ends the writers, whatever they do."""
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
        self._child.kill()
        self._child.wait()

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def longest_gap(moments: Iterable[float], begin: float, end: float) -> float:
    """Returns the longest interval of ``begin`` … ``end`` that holds none of ``moments``, in seconds."""
    inside = sorted(m for m in moments if begin <= m <= end)
    edges = [begin, *inside, end]
    return max(later - earlier for earlier, later in pairwise(edges))


def now() -> float:
    """The clock all times here are of."""
    return time.monotonic()
