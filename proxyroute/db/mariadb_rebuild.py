"""A MariaDB server that rejoins: its binary log read, rows undone, its history begun anew, a dump loaded.

Tried on 10.11.19. An undo is an XA transaction without binary log: once prepared it survives the death of its session,
of our process and of the server, so that it is never applied twice and never half.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from proxyroute.binlog import Table
from proxyroute.db import mariadb_channels, mariadb_copy, mariadb_flashback, mariadb_grants, mariadb_still
from proxyroute.db.grants import Version
from proxyroute.db.mariadb_read import read_channels
from proxyroute.db.mariadb_remains import READ_LOG
from proxyroute.db.owning import DEAD_MAN, FILL_UNLOGGED, LOAD, REBUILD, own
from proxyroute.db.rebuild import Rebuild
from proxyroute.db.rows import parse_version
from proxyroute.db.session import Session
from proxyroute.errors import LeaseLost, ScriptFailed, ServerError, StatementError, Unreachable
from proxyroute.faults import act
from proxyroute.gtid import MariaDBPosition, Position
from proxyroute.host import Program, option_file, output, pump, stream
from proxyroute.model import Deadline
from proxyroute.ports_data import Rebuilder

_HEAD = 1 << 16
_IDLE = 30 * 86400
"""Seconds for which the session that owns a load may be silent: as long as the load may take, and more."""
_START = re.compile(rb"MASTER_LOG_FILE='([^']+)', MASTER_LOG_POS=(\d+)\D")


class MariaDBRebuild(Rebuild):
    """One MariaDB server."""

    reader = READ_LOG
    physical = "copy"

    def serves_from(self, position: Position, deadline: Deadline) -> str:
        if not isinstance(position, MariaDBPosition) or position.empty:
            return ""
        oldest = next(iter(self.logs(deadline)))
        start = f"--start-position={position.latest_text}"
        program = self.program("mariadb-binlog", "--read-from-remote-server", "--to-last-log", start, oldest)
        try:
            _first(program, deadline)
        except ScriptFailed as error:
            return str(error)
        return ""

    def cannot_undo(self, tables: Sequence[Table], deadline: Deadline) -> tuple[str, ...]:
        with self._session(deadline) as session:
            return mariadb_flashback.cannot_undo(session, tables, deadline)

    def undo_statements(self, files: Sequence[Path], start: int, deadline: Deadline) -> tuple[str, ...]:
        return mariadb_flashback.undo_statements(files, start, deadline)

    # -- undoing --

    def undo(self, operation: str, statements: Sequence[str], ready: Callable[[], None], deadline: Deadline) -> None:
        xid = _xid(operation)
        with self._alone(deadline, leased=False) as session:
            session.change("rejoin.begin_undo", statements[0], deadline)
            session.change("rejoin.begin_undo", f"XA START {xid}", deadline)
            try:
                for statement in statements[1:]:
                    session.change("rejoin.undo", statement, deadline)
            except StatementError:
                session.abandon()  # what was not prepared goes with its session
                raise
            session.change("rejoin.prepare_undo", f"XA END {xid}", deadline)
            session.change("rejoin.prepare_undo", f"XA PREPARE {xid}", deadline)
            ready()
            session.change("rejoin.commit_undo", f"XA COMMIT {xid}", deadline)

    def undo_pending(self, operation: str, deadline: Deadline) -> bool:
        with self._alone(deadline, leased=False) as session:
            rows = session.read("XA RECOVER", deadline)
        data = [row["data"] for row in rows]
        return _name(operation) in [d.decode() if isinstance(d, bytes) else d for d in data]

    def commit_undo(self, operation: str, deadline: Deadline) -> None:
        with self._alone(deadline, leased=False) as session:
            session.change("rejoin.commit_undo", f"XA COMMIT {_xid(operation)}", deadline)

    # -- history --

    def begin_history(
        self,
        position: Position,
        state: Position,
        deadline: Deadline,
        channel: Mapping[str, Any] | None = None,
        *,
        still: Callable[[], None] = lambda: None,
    ) -> None:
        if not isinstance(position, MariaDBPosition) or not isinstance(state, MariaDBPosition):
            raise TypeError(f"{self.name} is a MariaDB server")
        with self._alone(deadline) as session:
            own(session, REBUILD, (DEAD_MAN,), self._claim, deadline)  # it would start an applier in the midst
            session.change("rejoin.stop_replication", "STOP ALL SLAVES", deadline)
            for old in read_channels(session, deadline):
                # what it has received is of the old history
                name = old.channel.replace("\\", "\\\\").replace("'", "''")
                session.change("rejoin.stop_replication", f"RESET SLAVE '{name}'", deadline)
            if int(session.one("SELECT @@global.log_bin AS log", deadline)["log"]):
                with mariadb_still.held(session, deadline):
                    still()
                    session.change("rejoin.reset", "RESET MASTER", deadline)
                    log = (state.state_text,)
                    session.change("rejoin.set_state", "SET GLOBAL gtid_binlog_state=%s", deadline, log)
            session.change("rejoin.set_position", "SET GLOBAL gtid_slave_pos=%s", deadline, (position.latest_text,))
            row = session.one("SELECT @@global.gtid_slave_pos AS pos", deadline)
            if channel is not None:
                mariadb_channels.make(session, channel, deadline)
        if MariaDBPosition.parse(row["pos"] or "") != position.latest():
            raise ServerError(self.name, f"stands at {row['pos']!r} although it was told {position}")

    # -- data --

    def data_size(self, deadline: Deadline, *, physical: bool) -> int:
        with self._session(deadline) as session:
            if physical:  # what is copied are files
                row = session.one(
                    "SELECT SUM(FILE_SIZE) AS size FROM information_schema.INNODB_SYS_TABLESPACES", deadline
                )
                return int(row["size"] or 0)
            return self._logical_size(session, deadline)

    def missing(self, session: Session, version: Version, grants: Sequence[str], deadline: Deadline) -> tuple[str, ...]:
        return mariadb_grants.missing_to_reseed(version, grants)

    def cannot_dump(self, deadline: Deadline) -> tuple[str, ...]:
        with self._session(deadline) as session:
            found = [*self._inconsistent(session, deadline), *self._lacks(session, deadline)]
        for program in ("mariadb-dump", "mariadb"):
            try:
                output(Program((program, "--no-defaults", "--version")), deadline)
            except ScriptFailed as error:
                found.append(f"{error}; the package mariadb-client has it")
        return tuple(found)

    def load_from(self, source: Rebuilder, watch: Callable[[int], None], deadline: Deadline) -> Position:
        """mariadb-dump there, mariadb here; the schemas that are here go first, for there is no room for both."""
        source = _same(source)
        with source._session(deadline) as there:
            wanted = source._schemas(there, deadline)
        with self._alone(deadline, leased=False) as here:
            # what it would still apply belongs to the old data, or is in the dump already
            own(here, REBUILD, (DEAD_MAN,), self._claim, deadline)
            mariadb_channels.forget(here, deadline)
            here.change("rejoin.drop_schema", f"SET SESSION foreign_key_checks=0, wait_timeout={_IDLE:d}", deadline)
            self._drop_schemas(here, deadline)
            dump = source.program(
                "mariadb-dump",
                *("--single-transaction", "--quick", "--master-data=2", "--routines", "--events", "--triggers"),
                *("--hex-blob", "--skip-add-locks", "--max-allowed-packet=1G", "--databases", *wanted),
            )
            first = FILL_UNLOGGED.format(load=LOAD, rebuild=REBUILD, owner=here.id)
            load = self.program("mariadb", "--binary-mode", "--max-allowed-packet=1G", f"--init-command={first}")
            position: list[MariaDBPosition] = []

            def hear(head: bytes) -> bool:
                # at once: when all is loaded, hours later, the source may have purged that file
                found = _START.search(head)
                if found is not None:
                    position.append(source._position_at(found[1].decode(), int(found[2]), deadline))
                elif len(head) == _HEAD:
                    raise ScriptFailed(f"the dump of {source.name} does not tell its position")
                return found is not None

            with act("rejoin.load"):
                pump(dump, load, deadline, watch, head=_HEAD, hear=hear)
        if not position:
            raise ScriptFailed(f"the dump of {source.name} does not tell its position")
        return position[0]

    # -- a physical copy --

    def cannot_copy(self, source: Rebuilder, deadline: Deadline) -> tuple[str, ...]:
        source = _same(source)
        try:
            with self._session(deadline) as here, source._session(deadline) as there:
                sql = "SELECT @@version AS v"
                mine, theirs = (parse_version(s.one(sql, deadline)["v"])[:2] for s in (here, there))
                if mine != theirs:
                    return (f"{self.name} is of version {mine}, {source.name} of {theirs}",)
                if any(channel.delay_seconds for channel in read_channels(here, deadline)):
                    return (f"{self.name} is delayed on purpose, and a copy would lose that",)
        except Unreachable:
            pass  # a server that is down can be built anew all the same
        try:
            places = (source._host(), source.data_dir(deadline), self._host(), self.data_dir(deadline))
        except ScriptFailed as error:
            return (str(error),)
        return tuple(mariadb_copy.cannot_copy(*places, deadline))

    def copy_from(
        self,
        source: Rebuilder,
        watch: Callable[[int], None],
        deadline: Deadline,
        still: Callable[[], None] = lambda: None,
    ) -> Position:
        source = _same(source)
        where = {"host": source.address.host, "port": source.address.port, "protocol": "tcp"}
        options = option_file("mariabackup", {**where, **source._client})
        places = (self._host(), self.data_dir(deadline))
        origin = (source._host(), source.data_dir(deadline), options)
        try:
            file, offset = mariadb_copy.copy(*origin, *places, self._copying, watch, deadline)
            position = source._position_at(file, offset, deadline)
            mariadb_copy.prepare(*places, self._copying, deadline)
        except (ScriptFailed, ServerError):
            # half a copy may have filled the disk on which the server itself still runs
            with suppress(ScriptFailed, LeaseLost):
                mariadb_copy.clear(*places, self._copying)
            raise
        return position

    def swap_in(self, operation: str, deadline: Deadline, still: Callable[[], None] = lambda: None) -> str:
        folder = self.data_dir(deadline)
        with self._held(still, deadline):
            kept = mariadb_copy.swap(self._host(), folder, self._copying, operation, deadline)
        self._await_start("the copy", deadline)
        return kept

    @contextmanager
    def _held(self, still: Callable[[], None], deadline: Deadline) -> Iterator[None]:
        """Nobody writes here for the ``with`` block; a server that is down is one where nobody does."""
        with ExitStack() as ends:
            try:
                session = ends.enter_context(self._alone(deadline))
            except Unreachable:
                yield
                return
            session.change("rejoin.stop_replication", "STOP ALL SLAVES", deadline)
            with mariadb_still.held(session, deadline):
                still()
                yield

    def discard_old(self, operation: str, deadline: Deadline) -> None:
        mariadb_copy.discard(self._host(), self.data_dir(deadline), self._copying, operation, deadline)

    def _position_at(self, file: str, offset: int, deadline: Deadline) -> MariaDBPosition:
        """Returns the position at a place in the binary log here."""
        with self._session(deadline) as session:
            row = session.one("SELECT BINLOG_GTID_POS(%s, %s) AS pos", deadline, (file, offset))
        if row["pos"] is None:
            raise ServerError(self.name, f"no longer has {file}, where the data were taken")
        return MariaDBPosition.parse(row["pos"])


def _same(server: Rebuilder) -> MariaDBRebuild:
    if not isinstance(server, MariaDBRebuild):
        raise TypeError("a MariaDB server takes its data from a MariaDB server")
    return server


def _first(program: Program, deadline: Deadline) -> None:
    """Returns when the program has begun to write events, or has ended well."""

    class Enough(Exception):
        pass

    seen = 0

    def look(part: bytes) -> None:
        nonlocal seen
        seen += part.count(b"\n# at ")
        if seen > 1:
            raise Enough

    try:
        stream(program, look, deadline)
    except Enough:
        return


def _name(operation: str) -> str:
    return f"proxyroute-{operation}"


def _xid(operation: str) -> str:
    return f"'{_name(operation)}'"
