"""The process that writes: threads that insert numbered rows at a steady rate and remember their fate.

Run as ``python -m tests.support.writers``, driven over standard input by :class:`tests.support.load.Load`. It
has an interpreter of its own, so that it shares none with the engine it measures, and it ends when its
standard input does.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pymysql

_RETRY_PAUSE = 0.002
_CONNECT_SECONDS = 15
PATIENCE = 60.0

Acknowledged = tuple[int, int, float, float]
"""writer, number, sent, acknowledged"""
Failed = tuple[int, int, float, float, str, int, str]
"""writer, number, begun, ended, phase (``connect``, ``statement`` or ``value``), error number, text"""


@dataclass(frozen=True)
class Orders:
    """What the writers are to do; ``rate`` is per writer and second, ``first`` the first writer's number.

    The writers are at home at the ``places`` (host and port) in turn. One that is not let in there goes to the next.
    After ``patience`` seconds without an answer a client gives its connection up.
    """

    places: Sequence[tuple[str, int]]
    user: str
    password: str
    table: str
    writers: int
    rate: float
    mode: str
    first: int = 0
    patience: float = PATIENCE

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Writer(threading.Thread):
    """One client. ``pooled`` keeps its session until an error, ``fresh`` connects for each write.

    ``transactions`` keeps its session as well, and each write is a transaction of its own: BEGIN, INSERT, COMMIT.
    ``values`` updates a value of its own in such a transaction, and reads it before and after that. It must be what
    was acknowledged last, or what has been in doubt since; anything else is a failure of the phase ``value``.
    """

    def __init__(self, number: int, orders: Orders, phase: float, stop: threading.Event) -> None:
        super().__init__(name=f"writer {number}", daemon=True)
        self.number = number
        self.acknowledged: list[Acknowledged] = []
        self.failed: list[Failed] = []
        self.sessions = 0
        self._orders = orders
        self._phase = phase
        self._stop_asked = stop
        self._insert = f"INSERT INTO {orders.table} (writer, n, server) VALUES (%s, %s, @@server_id)"
        self._update = f"INSERT INTO {orders.table}_values VALUES (%s, %s) ON DUPLICATE KEY UPDATE n=%s"
        self._read = f"SELECT n FROM {orders.table}_values WHERE writer=%s"
        self._value = 0
        """What was acknowledged last."""
        self._in_doubt: set[int] = set()
        self._connection: pymysql.Connection[pymysql.cursors.Cursor] | None = None
        home = (number - orders.first) % len(orders.places)
        self._places = (*orders.places[home:], *orders.places[:home])

    def run(self) -> None:
        period = 1 / self._orders.rate
        due = time.monotonic() + self._phase
        n = 0
        while not self._stop_asked.is_set():
            now = time.monotonic()
            if now < due:
                time.sleep(due - now)
            else:
                due = now  # writes that fell into a gap are not made up for
            due += period
            n += 1
            self._write(n)
            if self._orders.mode == "fresh":
                self._drop()
        self._drop()

    def _write(self, n: int) -> None:
        connection = self._connection or self._connect_somewhere(n)
        if connection is None:
            time.sleep(_RETRY_PAUSE)
            return
        sent = time.monotonic()
        try:
            with connection.cursor() as cursor:
                if self._orders.mode == "values":
                    self._check(cursor, n, sent)
                    self._in_doubt.add(n)
                if self._orders.mode in ("transactions", "values"):
                    cursor.execute("BEGIN")
                cursor.execute(self._insert, (self.number, n))
                if self._orders.mode == "values":
                    cursor.execute(self._update, (self.number, n, n))
                if self._orders.mode in ("transactions", "values"):
                    cursor.execute("COMMIT")
                self.acknowledged.append((self.number, n, sent, time.monotonic()))
                if self._orders.mode == "values":
                    self._value = n
                    self._in_doubt.clear()  # whatever of them was done has been done before: they wait for one row
                    self._check(cursor, n, sent)
        except (pymysql.err.Error, OSError) as error:
            self._fail(n, sent, "statement", error)
            self._drop()

    def _check(self, cursor: pymysql.cursors.Cursor, n: int, sent: float) -> None:
        cursor.execute(self._read, (self.number,))
        row = cursor.fetchone()
        value = row[0] if row else 0
        if value not in (self._value, *self._in_doubt):
            wanted = " or ".join(map(str, sorted({self._value, *self._in_doubt})))
            self._fail(n, sent, "value", ValueError(f"read {value}, not {wanted}"))

    def _connect_somewhere(self, n: int) -> pymysql.Connection[pymysql.cursors.Cursor] | None:
        """Tries one place after the other, at home first; every place that does not let us in is a failure."""
        for host, port in self._places:
            begun = time.monotonic()
            try:
                self._connection = self._connect(host, port)
                self.sessions += 1
                return self._connection
            except (pymysql.err.Error, OSError) as error:
                self._fail(n, begun, "connect", error)
        return None

    def _fail(self, n: int, begun: float, phase: str, error: Exception) -> None:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        self.failed.append((self.number, n, begun, time.monotonic(), phase, number, str(error)))

    def _connect(self, host: str, port: int) -> pymysql.Connection[pymysql.cursors.Cursor]:
        # without ssl_disabled each connection would cost a TLS context: tens of milliseconds of computing
        return pymysql.connect(
            host=host,
            port=port,
            user=self._orders.user,
            password=self._orders.password,
            ssl_disabled=True,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=self._orders.patience,
            write_timeout=self._orders.patience,
        )

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(pymysql.err.Error):
                connection.close()


def main() -> None:
    """Reads the orders, then commands (``count``, ``stop``), and answers each with a line of JSON."""
    orders = Orders(**json.loads(sys.stdin.readline()))
    gc.disable()  # a collection over the growing records would show as a gap
    sys.setswitchinterval(0.0005)
    stop = threading.Event()
    step = 1 / orders.rate / orders.writers
    writers = [Writer(orders.first + i, orders, i * step, stop) for i in range(orders.writers)]
    for writer in writers:
        writer.start()
    for line in sys.stdin:
        if line.strip() != "count":
            break
        counts = [len(writer.acknowledged) for writer in writers]
        failed = sum(len(writer.failed) for writer in writers)
        print(json.dumps({"acknowledged": sum(counts), "least": min(counts), "failed": failed}), flush=True)
    stop.set()
    for writer in writers:
        writer.join(PATIENCE)
    alive = [writer.name for writer in writers if writer.is_alive()]
    answer = {
        "stuck": alive,
        "acknowledged": [record for writer in writers for record in writer.acknowledged],
        "failed": [record for writer in writers for record in writer.failed],
        "sessions": {writer.number: writer.sessions for writer in writers},
    }
    try:
        print(json.dumps(answer), flush=True)
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
