"""A server taken apart and put together again, as far as both flavours go the same way: sessions, binary log, host."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from proxyroute.binlog import Table
from proxyroute.db import mariadb_copy, same_accounts
from proxyroute.db.grants import Version
from proxyroute.db.host_owner import Ownership
from proxyroute.db.log_text import decode_log
from proxyroute.db.owning import COMPARE, LOAD, REBUILD, Permit, own
from proxyroute.db.rows import parse_version
from proxyroute.db.session import Login, Session
from proxyroute.errors import ScriptFailed, ServerError, Unreachable
from proxyroute.faults import act
from proxyroute.gtid import Position
from proxyroute.host import Host, Program, option_file, output, stream
from proxyroute.model import Address, Deadline
from proxyroute.ports_data import Rebuilder

NO_UNDO = "MySQL has no flashback: nothing can turn logged rows back"
POLL = 0.02
"""Seconds between two tries to reach a server that starts."""
SYSTEM_SCHEMAS = ("mysql", "information_schema", "performance_schema", "sys")
_INDEX = """
set -e
cd "$1"
for index in *.index; do
    case "$index" in *relay*) continue ;; esac
    while IFS= read -r file; do
        [ -z "$file" ] || echo "$(wc -c <"$file") $file"
    done <"$index"
    exit 0
done
exit 1
"""
_ASK_DATA_DIR = "my_print_defaults mysqld server mariadbd mariadb | sed -n 's/^--datadir=//p' | tail -n 1"


class Rebuild(ABC):
    """One server, as :class:`proxyroute.ports_data.Rebuilder`. ``client`` is what its programs log in with."""

    reader: tuple[str, ...]
    """The program that reads a binary log, ``--no-defaults``, and what else it is told."""
    physical: str
    """How its data are copied as files: ``copy``, beside the data that are there, or ``clone``, in their place."""

    # -- what each flavour says in its own words --

    @abstractmethod
    def cannot_copy(self, source: Rebuilder, deadline: Deadline) -> tuple[str, ...]: ...

    @abstractmethod
    def data_size(self, deadline: Deadline, *, physical: bool) -> int: ...

    @abstractmethod
    def cannot_dump(self, deadline: Deadline) -> tuple[str, ...]: ...

    @abstractmethod
    def missing(self, session: Session, version: Version, grants: Sequence[str], deadline: Deadline) -> tuple[str, ...]:
        """Returns what a dump and its load take and is not in ``grants``, the lines of SHOW GRANTS there."""

    def __init__(
        self,
        name: str,
        address: Address,
        login: Login,
        client: Mapping[str, Any],
        host: Host | None = None,
        *,
        permit: Permit | None = None,
        claim: Permit | None = None,
    ) -> None:
        """``permit`` raises LeaseLost when the lease is lost, ``claim`` when that on this server is; see ``_alone``."""
        self.name = name
        self.address = address
        self.host = host
        self._login = login
        self._client = dict(client)
        self._permit = permit
        self._claim: Permit = claim or (lambda: None)
        self._copying = Ownership(self._claim)

    # -- connections --

    def _session(self, deadline: Deadline) -> Session:
        return Session(self.name, self.address, self._login).open(deadline)

    @contextmanager
    def _alone(self, deadline: Deadline, *, leased: bool = True) -> Iterator[Session]:
        """A session without binary log; whatever an earlier one of ours still does is ended first.

        Whoever gets the claim on this server next ends it, and with ``leased`` also whoever gets the lease.
        """
        with Session(self.name, self.address, self._login, self._permit if leased else None).open(deadline) as session:
            own(session, REBUILD, (LOAD, COMPARE), self._claim, deadline)
            session.change("rejoin.own", "SET SESSION sql_log_bin=0", deadline)
            yield session

    def take_over(self, deadline: Deadline) -> None:
        try:
            with self._alone(deadline):
                pass
        except Unreachable:
            pass  # a server that is down runs nothing for anybody
        if self.host is not None:
            # a host that does not answer is no reason to keep a clean server out
            with suppress(ScriptFailed):
                self._copying.take(self.host, self.data_dir(deadline), deadline)

    def program(self, name: str, *words: str) -> Program:
        """Returns a client program that logs in at this server."""
        where = {"host": self.address.host, "port": self.address.port, "protocol": "tcp"}
        return Program((name, *words), options=option_file("client", {**where, **self._client}))

    # -- the binary log --

    def logs(self, deadline: Deadline) -> dict[str, int]:
        try:
            with self._session(deadline) as session:
                rows = session.read("SHOW BINARY LOGS", deadline)
            return {str(row["Log_name"]): int(row["File_size"]) for row in rows}
        except Unreachable:
            if self.host is None:
                raise
        found: dict[str, int] = {}
        for line in self.host.ask(_INDEX, self.data_dir(deadline), deadline=deadline).splitlines():
            size, _, path = line.strip().partition(" ")
            if path:
                found[Path(path).name] = int(size)
        return found

    def data_dir(self, deadline: Deadline) -> str:
        """Returns the data folder on the host. Raises ScriptFailed when nobody knows it."""
        if self.host is None:
            raise ScriptFailed(f"{self.name} has no host: in the configuration")
        if self.host.data_dir:
            return self.host.data_dir
        try:
            with self._session(deadline) as session:
                return str(session.one("SELECT @@global.datadir AS d", deadline)["d"]).rstrip("/")
        except ServerError:
            found = self.host.ask(_ASK_DATA_DIR, deadline=deadline).strip()
            return found.rstrip("/") or "/var/lib/mysql"

    def fetch_log(self, file: str, folder: Path, deadline: Deadline) -> Path:
        target = folder / file
        try:
            with self._session(deadline):
                pass
        except Unreachable:
            if self.host is None:
                raise
            with act("archive.fetch"), target.open("wb") as copy:
                source = self.host.program("cat", f"{self.data_dir(deadline)}/{file}")
                stream(source, copy.write, deadline)
            return target
        name, _, *words = self.reader
        argv = ("--read-from-remote-server", *words, "--raw", f"--result-file={folder}/", file)
        with act("archive.fetch"):
            output(self.program(name, *argv), deadline)
        return target

    def decode(self, file: Path, start: int, end: int, sink: Callable[[bytes], object], deadline: Deadline) -> None:
        decode_log(self.reader, file, start, end, sink, deadline)

    # -- undoing, where there is nothing that undoes --

    def serves_from(self, position: Position, deadline: Deadline) -> str:
        return ""

    def cannot_undo(self, tables: Sequence[Table], deadline: Deadline) -> tuple[str, ...]:
        return (NO_UNDO,)

    def undo_statements(self, files: Sequence[Path], start: int, deadline: Deadline) -> tuple[str, ...]:
        raise ScriptFailed(NO_UNDO)

    def undo(self, operation: str, statements: Sequence[str], ready: Callable[[], None], deadline: Deadline) -> None:
        raise ScriptFailed(NO_UNDO)

    def undo_pending(self, operation: str, deadline: Deadline) -> bool:
        return False

    def commit_undo(self, operation: str, deadline: Deadline) -> None:
        raise ScriptFailed(NO_UNDO)

    def make_empty(self, transactions: Position, deadline: Deadline) -> int:
        raise ScriptFailed("only MySQL has empty transactions under a name that is given")

    # -- data --

    def filters(self, deadline: Deadline) -> list[dict[str, Any]]:
        return []

    def _schemas(self, session: Session, deadline: Deadline) -> list[str]:
        rows = session.read("SELECT SCHEMA_NAME AS name FROM information_schema.SCHEMATA", deadline)
        return [str(row["name"]) for row in rows if str(row["name"]).lower() not in SYSTEM_SCHEMAS]

    def _host(self) -> Host:
        if self.host is None:
            raise ScriptFailed(f"{self.name} has no host: in the configuration")
        return self.host

    def still_ours(self, deadline: Deadline) -> None:
        self._copying.still_ours(self._host(), self.data_dir(deadline), deadline)

    def cannot_load(self, source: Rebuilder, deadline: Deadline) -> tuple[str, ...]:
        found: list[str] = []
        with suppress(ServerError), self._session(deadline) as session:  # nobody can tell: it is tried
            found += self._lacks(session, deadline)
        return (*found, *self._no_room(source, deadline))

    def _no_room(self, source: Rebuilder, deadline: Deadline) -> list[str]:
        """Says so where the data of ``source`` do not fit here once what is here has gone; not if nobody can tell."""
        try:
            needed = source.data_size(deadline, physical=True)
            freed = self.data_size(deadline, physical=True)
            return mariadb_copy.cannot_load(self._host(), self.data_dir(deadline), needed, freed, deadline)
        except (ScriptFailed, ServerError, ValueError):
            return []

    def _lacks(self, session: Session, deadline: Deadline) -> list[str]:
        """Says so where our account may not do what a dump or its load takes: in its midst that would cost the data."""
        version = parse_version(str(session.one("SELECT @@version AS v", deadline)["v"]))
        grants = [str(line) for row in session.read("SHOW GRANTS", deadline) for line in row.values()]
        missing = ", ".join(self.missing(session, version, grants, deadline))
        told = f"the account of rejoin lacks {missing} on {self.name}; 'proxyroute grants' prints what it needs"
        return [told] if missing else []

    def unlike_accounts(self, source: Rebuilder, deadline: Deadline) -> tuple[str, ...]:
        assert isinstance(source, Rebuild)
        with self._session(deadline) as here, source._session(deadline) as there:
            return tuple(same_accounts.unlike(here, there, deadline))

    def _logical_size(self, session: Session, deadline: Deadline) -> int:
        row = session.one(
            "SELECT SUM(DATA_LENGTH) AS size FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN %s",
            deadline,
            (SYSTEM_SCHEMAS,),
        )
        return int(row["size"] or 0)

    def _inconsistent(self, session: Session, deadline: Deadline) -> list[str]:
        """Returns the tables that no consistent reading has, in words."""
        rows = session.read(
            "SELECT TABLE_SCHEMA AS s, TABLE_NAME AS t, ENGINE AS e FROM information_schema.TABLES"
            " WHERE TABLE_TYPE='BASE TABLE' AND TABLE_SCHEMA NOT IN %s AND COALESCE(ENGINE, '') <> 'InnoDB'",
            deadline,
            (SYSTEM_SCHEMAS,),
        )
        return [f"{row['s']}.{row['t']} is {row['e']}, which has no consistent reading" for row in rows]

    def _drop_schemas(self, session: Session, deadline: Deadline) -> None:
        for schema in self._schemas(session, deadline):
            quoted = schema.replace("`", "``")
            session.change("rejoin.drop_schema", f"DROP SCHEMA IF EXISTS `{quoted}`", deadline)

    def _await_start(self, what: str, deadline: Deadline) -> None:
        """Returns when the server lets us in. Raises TimedOut, naming ``what`` it was to start with."""
        while True:
            try:
                self._session(deadline).close()
                return
            except Unreachable:
                deadline.require(f"{self.name} to start with {what}")
                time.sleep(POLL)
