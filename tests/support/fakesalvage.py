"""In a world of fakes: what a dead server has left on its host, and a server that gets it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from proxyroute.binlog import Remains, read_log
from proxyroute.errors import ScriptFailed, TimedOut
from proxyroute.gtid import Position
from proxyroute.model import Deadline
from tests.support.binlogs import Writer
from tests.support.fakeworld import FakeServer, World

_FILE = "binlog.000001"


@dataclass
class FakeRemains:
    """The host of ``server``, as a ``ports_data.DeadServer``. Its log begins with its first transaction."""

    world: World
    server: FakeServer

    @property
    def name(self) -> str:
        return self.server.name

    def look(self, deadline: Deadline) -> Remains:
        if self.server.broken == "look":
            raise ScriptFailed("broken")
        return Remains("/data", {_FILE: 1}, ("process 1 (S)",) if self.server.alive else ())

    def logs(self, deadline: Deadline) -> Mapping[str, int]:
        return {_FILE: 1}

    def fetch_log(self, file: str, folder: Path, deadline: Deadline) -> Path:
        self.world.moment(f"{self.name} fetch: before")
        if self.server.broken == "fetch":
            raise ScriptFailed("broken")
        log = Writer(server_id=self.server.server_id)
        for _, server_id, last in self.server.executed.by(self.server.server_id).entries:
            for sequence in range(1, last + 1):
                log.gtid(sequence, server_id=server_id).rows().commit()
        (folder / file).write_bytes(log.data)
        self.world.moment(f"{self.name} fetch: after")
        return folder / file

    def decode(self, file: Path, start: int, end: int, sink: Callable[[bytes], object], deadline: Deadline) -> None:
        sink(b"### INSERT INTO `app`.`t`\n")


@dataclass
class FakeHeir:
    """A server that gets what was saved, as :class:`proxyroute.ports_data.Heir`."""

    world: World
    server: FakeServer

    @property
    def name(self) -> str:
        return self.server.name

    def replay(self, file: Path, start: int, end: int, deadline: Deadline) -> None:
        assert not self.server.applies, f"{self.name} still replicates"
        for transaction in read_log(file).transactions:
            if start <= transaction.start < end:
                self.world.moment(f"{self.name} replay {transaction.gtid}: before")
                self.server.executed = self.server.executed.merge(transaction.position)
                self.world.moment(f"{self.name} replay {transaction.gtid}: after")

    def settle_replay(self, deadline: Deadline, applied: Position | None = None) -> None:
        if self.server.broken == "settle":
            raise TimedOut("broken")
        assert not self.server.applies, f"{self.name} replicates from before what was applied"
        self.world.moment(f"{self.name} settle replay: before")
        self.world.moment(f"{self.name} settle replay: after")
