"""A MySQL server that rejoins: its binary log read, and new data, by a clone or a dump.

Tried on 9.7. There is no flashback. While data are replaced ``super_read_only`` gives way, for it stops whoever loads
them as well; ``read_only`` stays, and with it every ordinary account is kept from writing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxyroute.db import mysql_channels, mysql_clone, mysql_filters, mysql_grants
from proxyroute.db.grants import Version
from proxyroute.db.host_owner import start_server
from proxyroute.db.mysql_programs import READ_LOG, require_options, require_own
from proxyroute.db.mysql_read import read_position
from proxyroute.db.mysql_readers import end_long_readers, end_readers, is_stuck, long_readers
from proxyroute.db.owning import DEAD_MAN, FILL_UNLOGGED_MYSQL, LOAD, REBUILD, Permit, own
from proxyroute.db.rebuild import POLL, Rebuild
from proxyroute.db.session import Login, Session
from proxyroute.errors import LeaseLost, LostReply, ScriptFailed, ServerError, TimedOut, Unreachable
from proxyroute.faults import act
from proxyroute.gtid import MySQLPosition, Position
from proxyroute.host import Host, pump
from proxyroute.logged import MySQLGTID, empty_statements
from proxyroute.model import Address, Deadline
from proxyroute.ports_data import Rebuilder

_PURGED = re.compile(rb"SET @@GLOBAL\.GTID_PURGED='\+?([^']*)'")
_HEAD = 1 << 16
_LOCK = 2
"""Seconds for which a dump waits for its moment without writes: meanwhile everybody's writes wait as well."""
_WAITED = "(1205)"
"""In what mysqldump says when its lock was not had in time."""
_DUMP = (
    *("--single-transaction", "--quick", "--set-gtid-purged=COMMENTED", "--no-tablespaces", "--routines", "--events"),
    *("--triggers", "--hex-blob", "--skip-add-locks", "--max-allowed-packet=1G"),
    f"--init-command=SET SESSION lock_wait_timeout={_LOCK:d}",
)
"""What mysqldump is told; that of 8.0 does not know the last."""
_RESTART = 30.0
"""Seconds within which a server that restarts by itself has begun to: after that it is started on its host."""
_AGAIN = 2.0
_MUCH_LATER = 30.0
"""Seconds after which a server is told again to start, at first and at last: it may take long to recover."""
_CLONE = 3600.0
"""Seconds within which a server is up again whose data have been cloned."""
_ABSENT = '[ -d "$1" ] || exit 0; cd "$1"; shift; for file; do [ -e "$file" ] || echo "$file"; done'
"""Which of the files are not in a folder; none where that is out of sight, as within a container."""
_IDLE = 30 * 86400
"""Seconds for which the session that owns a load may be silent: as long as the load may take, and more."""


class MySQLRebuild(Rebuild):
    """One MySQL server."""

    reader = READ_LOG
    physical = "clone"

    def __init__(
        self,
        name: str,
        address: Address,
        login: Login,
        client: Mapping[str, Any],
        host: Host | None = None,
        *,
        tls: Mapping[str, str] | None = None,
        permit: Permit | None = None,
        claim: Permit | None = None,
    ) -> None:
        """``tls`` is what :func:`mysql_clone.clone` is told; the others as for :class:`Rebuild`."""
        super().__init__(name, address, login, client, host, permit=permit, claim=claim)
        self._tls = tls or {}

    # -- the binary log --

    def fetch_log(self, file: str, folder: Path, deadline: Deadline) -> Path:
        require_own(self.reader[0], deadline)
        return super().fetch_log(file, folder, deadline)

    # -- history --

    def make_empty(self, transactions: Position, deadline: Deadline) -> int:
        if not isinstance(transactions, MySQLPosition):
            raise TypeError(f"{self.name} is a MySQL server")
        with Session(self.name, self.address, self._login, self._permit).open(deadline) as session:
            todo = transactions.minus(read_position(session, deadline))
            assert isinstance(todo, MySQLPosition)
            gtids = [
                MySQLGTID(source, n) for source, spans in todo.sets for low, high in spans for n in range(low, high + 1)
            ]
            for statement in empty_statements(gtids):
                session.change("rejoin.empty", statement, deadline)
        return len(gtids)

    def begin_history(
        self,
        position: Position,
        state: Position,
        deadline: Deadline,
        channel: Mapping[str, Any] | None = None,
        *,
        still: Callable[[], None] = lambda: None,
    ) -> None:
        if not isinstance(position, MySQLPosition):
            raise TypeError(f"{self.name} is a MySQL server")
        with self._alone(deadline) as session:
            own(session, REBUILD, (DEAD_MAN,), self._claim, deadline)
            session.change("rejoin.stop_replication", "STOP REPLICA", deadline)
            # nobody writes past that, whatever his privileges
            session.change("mariadb.refuse_writes", "SET GLOBAL super_read_only=1", deadline)
            if read_position(session, deadline) != position:
                still()
                # in one piece: with data and without a position it would look like a server that has nothing
                begin = ["RESET BINARY LOGS AND GTIDS", f"SET GLOBAL gtid_purged='{position}'"]
                session.change_all("rejoin.reset", begin, deadline)
            if channel is not None:
                mysql_channels.make(session, channel, deadline)
            stands = read_position(session, deadline)
        if stands != position:
            raise ServerError(self.name, f"stands at {stands} although it was told {position}")
        if self.host is not None:
            with suppress(ScriptFailed):  # a file that stays behind means nothing
                self._copying.give_up(self.host, self.data_dir(deadline), deadline)

    # -- data --

    def filters(self, deadline: Deadline) -> list[dict[str, Any]]:
        with self._session(deadline) as session:
            return mysql_filters.read(session, deadline)

    def data_size(self, deadline: Deadline, *, physical: bool) -> int:
        with self._session(deadline) as session:
            if not physical:
                return self._logical_size(session, deadline)
            row = session.one("SELECT SUM(FILE_SIZE) AS size FROM information_schema.INNODB_TABLESPACES", deadline)
        return int(row["size"] or 0)

    def missing(self, session: Session, version: Version, grants: Sequence[str], deadline: Deadline) -> tuple[str, ...]:
        tagged = any(source.tag for source, _ in read_position(session, deadline).sets)
        return mysql_grants.missing_to_reseed(version, grants, tagged=tagged)

    def cannot_dump(self, deadline: Deadline) -> tuple[str, ...]:
        with self._session(deadline) as session:
            found = [*self._inconsistent(session, deadline), *self._lacks(session, deadline)]
            found += self._held_up(session, deadline)
        for program, options in (("mysqldump", _DUMP), ("mysql", ())):
            try:
                require_own(program, deadline)
                require_options(program, options, deadline)
            except ScriptFailed as error:
                found.append(str(error))
        return tuple(found)

    def load_from(self, source: Rebuilder, watch: Callable[[int], None], deadline: Deadline) -> Position:
        """mysqldump there, mysql here; the schemas that are here go first, for there is no room for both."""
        source = _same(source)
        with source._session(deadline) as there:
            wanted = source._schemas(there, deadline)
        position: list[MySQLPosition] = []

        def hear(head: bytes) -> bool:
            found = _PURGED.search(head)
            if found is not None:
                position.append(MySQLPosition.parse(found[1].decode().replace("\n", "")))
            elif len(head) == _HEAD:
                raise ScriptFailed(f"the dump of {source.name} does not tell its position")
            return found is not None

        with self._alone(deadline, leased=False) as here:
            own(here, REBUILD, (DEAD_MAN,), self._claim, deadline)
            self._make_way(here, deadline)
            here.change("rejoin.drop_schema", f"SET SESSION foreign_key_checks=0, wait_timeout={_IDLE:d}", deadline)
            self._drop_schemas(here, deadline)
            dump = source.program(
                "mysqldump",
                *(*_DUMP, "--databases", *wanted),
            )
            first = FILL_UNLOGGED_MYSQL.format(load=LOAD, rebuild=REBUILD, owner=here.id)
            load = self.program("mysql", "--binary-mode", "--max-allowed-packet=1G", f"--init-command={first}")
            with source._session(deadline) as there:  # it was looked at long ago
                if found := source._held_up(there, deadline):
                    raise ScriptFailed("; ".join(found))
            with self._trusting(here, deadline), source._flushed(position), act("rejoin.load"):
                pump(dump, load, deadline, watch, head=_HEAD, hear=hear)
        if not position:
            raise ScriptFailed(f"the dump of {source.name} does not tell its position")
        return position[0]

    def _held_up(self, session: Session, deadline: Deadline) -> list[str]:
        """Says so where the flush of a dump would have to wait, and after it everybody else (decision 0076)."""
        told = "a dump would keep everybody from those until that ends; try again then"
        return [f"{found}, and {told}" for found in long_readers(session, _LOCK, deadline)]

    @contextmanager
    def _flushed(self, heard: Sequence[Position]) -> Iterator[None]:
        """For a dump of this server, whose position is ``heard`` once it needs no lock any more.

        Where its flush was waited for in vain, whoever wants a table that was open before waits on, for as long as
        that statement runs. Nobody was told to wait for more than a moment: what has begun since we looked is ended.
        """
        try:
            yield
        except BaseException as error:
            brief = Deadline.firm(_AGAIN)
            if not heard:
                with suppress(ServerError, TimedOut), self._session(brief) as session:
                    if _WAITED in str(error):  # for so long have those run at least that it waited for
                        end_long_readers(session, _LOCK - 1, brief)
                    elif is_stuck(session, brief):
                        end_readers(session, brief, stuck=True)
            raise

    @contextmanager
    def _trusting(self, here: Session, deadline: Deadline) -> Iterator[None]:
        """Triggers and functions may be made although a binary log is written: theirs do not get into it."""
        name = "log_bin_trust_function_creators"
        if int(here.one(f"SELECT @@global.{name} AS now", deadline)["now"]):
            yield
            return
        here.change("rejoin.give_way", f"SET GLOBAL {name}=1", deadline)
        try:
            yield
        finally:
            brief, back = Deadline.firm(_AGAIN), f"SET GLOBAL {name}=0"
            try:
                here.change("rejoin.give_way", back, brief)
            except (LostReply, Unreachable):
                # whoever has taken the server over has ended that session, and loads under the same setting
                with suppress(LeaseLost, TimedOut, ServerError), self._alone(brief, leased=False) as session:
                    session.change("rejoin.give_way", back, brief)

    def _make_way(self, here: Session, deadline: Deadline) -> None:
        """Nothing replicates here any more, it is marked as half built, and we may write while others may not."""
        mysql_channels.forget(here, deadline)
        here.change("rejoin.give_way", "SET GLOBAL super_read_only=0", deadline)

    # -- a clone --

    def cannot_copy(self, source: Rebuilder, deadline: Deadline) -> tuple[str, ...]:
        source = _same(source)
        if self.host is None:
            return (f"{self.name} has no host: in the configuration, and nobody could start it again after a clone",)
        try:
            self.host.ask("exit 0", deadline=deadline)
        except ScriptFailed as error:
            return (f"nobody could start {self.name} again after a clone: on its host {error}",)
        with source._session(deadline) as there:
            found = [*mysql_clone.cannot_be_cloned(there, deadline), *self._inconsistent(there, deadline)]
            # one that is down is started first, and looked at then
            with suppress(Unreachable), self._session(deadline) as here:
                found += self._cannot_clone(here, there, deadline)
        # in place: what is here goes before anything comes
        return (*found, *self._no_room(source, deadline))

    def _cannot_clone(self, here: Session, there: Session, deadline: Deadline) -> list[str]:
        found = mysql_clone.cannot_clone(here, there, deadline)
        found += mysql_clone.unverified(here, self._login, self._tls, deadline)
        folder, needed = mysql_clone.libraries(here, there, deadline)
        absent = self._host().ask(_ABSENT, folder, *needed, deadline=deadline).split()
        return found + [f"{there.server} has loaded {each}, and {folder} of {self.name} lacks it" for each in absent]

    def copy_from(
        self,
        source: Rebuilder,
        watch: Callable[[int], None],
        deadline: Deadline,
        still: Callable[[], None] = lambda: None,
    ) -> Position:
        """In place: what is here goes first. Nothing else is awaited once the server restarts, which takes a moment."""
        source = _same(source)
        self._copying.take(self._host(), self.data_dir(deadline), deadline)
        self._start_if_down(source, deadline)
        with self._alone(deadline, leased=False) as here, self._session(deadline) as aside:
            own(here, REBUILD, (DEAD_MAN,), self._claim, deadline)
            mysql_clone.install(here, deadline)
            mysql_channels.forget(here, deadline)
            begun = mysql_clone.clone(here, aside, source.address, self._login, self._tls, watch, still, deadline)
        self._await_clone(begun, Deadline.firm(_CLONE))
        with self._session(deadline) as session:
            self._require_alone(session, deadline)
            # its option file may leave it open
            session.change("mariadb.refuse_writes", "SET GLOBAL super_read_only=1", deadline)
            return read_position(session, deadline)

    def _require_alone(self, session: Session, deadline: Deadline) -> None:
        """Raises LeaseLost or ScriptFailed when another rejoin has come; one that comes later ends ``session``.

        The claim does not tell: it may have ended with the server that was restarted.
        """
        took = session.change("rejoin.own", "SELECT GET_LOCK(%s, 0) AS took", deadline, (REBUILD,))
        if took[0]["took"] != 1:
            raise LeaseLost(f"another rejoin works on {self.name}")
        self.still_ours(deadline)

    def _start_if_down(self, source: MySQLRebuild, deadline: Deadline) -> None:
        """What was stopped, or what an earlier clone has left, is started: the server itself has to do it."""
        try:
            self._session(deadline).close()
            return
        except Unreachable:
            brief = Deadline.firm(_CLONE)
        pause = _AGAIN
        while True:
            start_server(self._host(), self.data_dir(brief), self._copying, brief)
            if self._answers(brief.within(pause)):
                break
            # one that still shuts down, as after a clone, takes no notice of a start
            pause = min(2 * pause, _MUCH_LATER)
            brief.require(f"{self.name} to start with what it has")
        with self._session(brief) as here, source._session(brief) as there:
            here.change("mariadb.refuse_writes", "SET GLOBAL super_read_only=1", brief)
            if found := self._cannot_clone(here, there, brief):
                raise ServerError(self.name, f"cannot be cloned: {'; '.join(found)}")

    def _answers(self, deadline: Deadline) -> bool:
        """Waits until the server lets us in; tells whether it has."""
        while not deadline.passed:
            try:
                self._session(deadline).close()
                return True
            except Unreachable:
                time.sleep(POLL)
        return False

    def _await_clone(self, begun: mysql_clone.Begun, deadline: Deadline) -> None:
        """Returns when the copy is in use. A server that does not restart by itself is started on its host.

        Nothing that is more urgent ends this midway: the server would stand still.
        """
        patience, told, pause = deadline.within(_RESTART if begun.supervised else _AGAIN), "", _AGAIN
        data_dir = self._host().data_dir or self.data_dir(deadline)
        while True:
            try:
                with self._session(deadline) as session:
                    told = mysql_clone.outcome(session, begun, deadline)
                if not told:
                    return
                # the statement got lost on its way: nobody works on it, and no restart would come
                if told.startswith("Failed") or (told == mysql_clone.NOTHING and patience.passed):
                    raise ServerError(self.name, f"could not be cloned: {told}")
            except Unreachable as error:
                told = str(error)
            deadline.require(f"{self.name} to restart as a clone ({told})")
            if patience.passed:
                start_server(self._host(), data_dir, self._copying, deadline)
                patience = deadline.within(pause)  # while it still shuts down, a start does nothing
                pause = min(2 * pause, _MUCH_LATER)
            time.sleep(POLL)

    def swap_in(self, operation: str, deadline: Deadline, still: Callable[[], None] = lambda: None) -> str:
        raise ScriptFailed("a clone takes the place of the data by itself")

    def discard_old(self, operation: str, deadline: Deadline) -> None:
        raise ScriptFailed("a clone keeps no old data")


def named(host: Host | None) -> Host | None:
    """Returns ``host`` with MySQL's service, where that of MariaDB stands because nothing is configured."""
    if host is None:
        return None
    ours = {word: ("systemctl", word, "mysql") for word in ("stop", "start")}
    usual = Host(host.server, host.shell)
    stop = ours["stop"] if host.stop == usual.stop else host.stop
    return replace(host, stop=stop, start=ours["start"] if host.start == usual.start else host.start)


def _same(server: Rebuilder) -> MySQLRebuild:
    if not isinstance(server, MySQLRebuild):
        raise TypeError("a MySQL server takes its data from a MySQL server")
    return server
