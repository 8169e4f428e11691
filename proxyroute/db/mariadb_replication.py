"""Replication channels of a MariaDB server: stopped, started, repointed, forgotten.

A replication statement that errors is *unknown*, not failed (10.11.19: a CHANGE MASTER that was killed under FLUSH
TABLES WITH READ LOCK answered 1317 and had taken effect), so every change is read back and only what is read counts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxyroute.db.mariadb_read import SOURCE_OPTIONS, read_channels, read_status
from proxyroute.db.session import Session
from proxyroute.errors import Diverged, ServerError, StatementError, TimedOut
from proxyroute.gtid import Containment, MariaDBPosition, Position
from proxyroute.model import Deadline, Peer, Receiver, Source, Status

_POLL = 0.01
_DEMOTE_SINCE = (10, 10, 0)
_HEARTBEAT = 1.0
_THREADS = {"IO_THREAD": "receiver", "SQL_THREAD": "applier"}
_CONNECT_RETRY = 5
"""Seconds, for a channel made anew that stands in for none: MariaDB's own 60 keep a replica from a restarted source."""
_KILL_TIMEOUT = 1
"""Seconds for which a semi-synchronous receiver that is stopped tries to end its session at a source that is hung."""
_COPIED = tuple(key for key in SOURCE_OPTIONS if key.startswith("ssl") or key in ("connect_retry", "heartbeat"))
"""What a new channel takes from the one it stands in for; delays and filters belong to one replica."""


@dataclass(frozen=True)
class ReplicationLogin:
    """What a channel needs to log in at its source. ``options``: TLS, by the keys of ``SOURCE_OPTIONS``."""

    user: str
    password: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)


class Replication:
    """The channels of one server. ``session`` gives the control session, opened by a deadline."""

    def __init__(self, session: Callable[[Deadline], Session], login: ReplicationLogin) -> None:
        self._session = session
        self._login = login

    def _status(self, deadline: Deadline) -> Status:
        session = self._session(deadline)
        return read_status(session, session.server, session.address, deadline)

    def _channels(self, deadline: Deadline) -> tuple[Source, ...]:
        return read_channels(self._session(deadline), deadline)

    def _change(self, point: str, sql: str, deadline: Deadline, args: tuple[Any, ...] = ()) -> ServerError | None:
        """Runs a replication statement; its error is returned, for the reading back decides."""
        try:
            self._session(deadline).change(point, sql, deadline, args)
        except ServerError as error:
            return error
        return None

    def stop(self, source: Peer, deadline: Deadline) -> None:
        """STOP SLAVE for the channel that follows ``source``; nothing to do without one."""
        channel = channel_of(self._channels(deadline), source)
        if channel is not None:
            self._stop(channel, deadline)

    def _stop(self, channel: Source, deadline: Deadline) -> None:
        if channel.receiver is Receiver.STOPPED and not channel.applier:
            return
        error = self._change("mariadb.stop_replica", f"STOP SLAVE {_quoted(channel.channel)}", deadline)
        if error is None:
            return
        now = self._named(channel.channel, deadline)
        if now is not None and (now.receiver is not Receiver.STOPPED or now.applier):
            raise error

    def stop_receiver(self, source: Peer, deadline: Deadline) -> None:
        """STOP SLAVE IO_THREAD for the channel that follows ``source``: relay logs stay, and go on being applied."""
        channel = channel_of(self._channels(deadline), source)
        if channel is None or channel.receiver is Receiver.STOPPED:
            return
        with self._hurried(deadline):
            error = self._change("mariadb.stop_receiver", f"STOP SLAVE {_quoted(channel.channel)} IO_THREAD", deadline)
        now = self._named(channel.channel, deadline)
        if error is not None and now is not None and now.receiver is not Receiver.STOPPED:
            raise error

    @contextlib.contextmanager
    def _hurried(self, deadline: Deadline) -> Iterator[None]:
        """A semi-synchronous receiver connects to its source once more when it is stopped; a hung one keeps it 5 s."""
        variable = "rpl_semi_sync_slave_kill_conn_timeout"
        sql = f"SELECT @@global.rpl_semi_sync_slave_enabled AS used, @@global.{variable} AS seconds"
        row = self._session(deadline).one(sql, deadline)
        usual = int(row["seconds"])
        if not int(row["used"]) or usual <= _KILL_TIMEOUT:
            yield
            return
        self._change("mariadb.semi_sync", f"SET GLOBAL {variable}={_KILL_TIMEOUT}", deadline)
        try:
            yield
        finally:
            self._change("mariadb.semi_sync", f"SET GLOBAL {variable}={usual}", deadline)

    def start_receiver(self, source: Peer, deadline: Deadline, *, applier: bool = False) -> None:
        """START SLAVE IO_THREAD for the channel that follows ``source``; it connects as soon as the source is there.

        With ``applier`` the SQL_THREAD as well.
        """
        channel = channel_of(self._channels(deadline), source)
        if channel is None:
            return
        threads = ["IO_THREAD"] if channel.receiver is Receiver.STOPPED else []
        threads += ["SQL_THREAD"] if applier and not channel.applier else []
        if not threads:
            return
        sql = f"START SLAVE {_quoted(channel.channel)} {', '.join(threads)}"
        error = self._change("mariadb.start_replica", sql, deadline)
        now = self._named(channel.channel, deadline)
        if now is None or now.receiver is Receiver.STOPPED or (applier and not now.applier):
            server, what = self._session(deadline).server, " and the ".join(_THREADS[t] for t in threads)
            raise error or StatementError(server, 1201, f"the {what} of {channel.channel!r} does not start")

    def start(self, source: Peer, deadline: Deadline) -> None:
        """START SLAVE for the channel that follows ``source``, and waits until both its threads run."""
        channel = channel_of(self._channels(deadline), source)
        if channel is None:
            server = self._session(deadline).server
            raise StatementError(server, 1617, f"no replication channel follows {source.name} at {source.address}")
        self._start(channel.channel, deadline)

    def _start(self, channel: str, deadline: Deadline) -> None:
        error = self._change("mariadb.start_replica", f"START SLAVE {_quoted(channel)}", deadline)
        self._await_running(channel, deadline, error)

    def _await_running(self, channel: str, deadline: Deadline, error: ServerError | None) -> None:
        server = self._session(deadline).server
        while True:
            now = self._named(channel, deadline)
            if now is not None and now.running:
                return
            trouble = (now.error if now is not None else "the channel is gone") or (str(error) if error else "")
            stopped = now is None or not now.applier or now.receiver is Receiver.STOPPED
            if trouble and stopped:
                raise StatementError(server, 1201, f"replication does not run: {trouble}")
            if deadline.left < _POLL:
                raise TimedOut(f"{server}: replication does not run yet: {trouble or 'still connecting'}")
            time.sleep(_POLL)

    def require_applying(self, server: str, deadline: Deadline) -> None:
        """Raises StatementError when no channel applies: a wait for a position would be an endless one."""
        status = self._status(deadline)
        if not any(s.applier for s in status.sources):
            errors = "; ".join(s.error for s in status.sources if s.error) or "its applier is stopped"
            raise StatementError(server, 1201, f"cannot catch up: {errors}")

    def follow(
        self,
        source: Peer,
        deadline: Deadline,
        *,
        instead_of: Peer | None,
        source_has: Callable[[], Position] | None,
        options: Mapping[str, Any] | None,
    ) -> None:
        """Makes this server replicate from ``source``; see :meth:`proxyroute.ports.Server.follow`."""
        status = self._status(deadline)
        if status.writable:
            raise ServerError(status.name, f"takes writes: it must refuse them before it follows {source.name}")
        has = source_has() if source_has is not None else None
        # a replica of several sources has more, in domains of their own
        own = status.executed.alongside(has) if has is not None and len(status.sources) > 1 else status.executed
        if has is not None and has.contains(own) is Containment.NO:
            extra = own.minus(has)
            raise Diverged(status.name, f"has executed {extra}, which {source.name} does not have")
        channel = channel_of(status.sources, source)
        if channel is not None and channel.uses_gtid:
            if channel.running:
                return
            if channel.user and not channel.error:
                self._start(channel.channel, deadline)
                return
            # with the login and the options of now: what was set once may be wrong, or not set yet after a load
            self._repoint(channel, source, has, deadline)
            return
        channel = channel_of(status.sources, instead_of) if instead_of is not None else None
        if channel is None and len(status.sources) == 1:
            channel = status.sources[0]
        if channel is None:
            self._create(status, source, has, options, deadline)
        else:
            self._repoint(channel, source, has, deadline)

    def _repoint(self, channel: Source, source: Peer, source_has: Position | None, deadline: Deadline) -> None:
        """Relay logs are data: only when the source has everything received may they go with CHANGE MASTER."""
        if source_has is None or source_has.contains(channel.received) is not Containment.YES:
            self._apply_received(channel, deadline)
        self._stop(channel, deadline)
        kept = {"heartbeat": channel.heartbeat_seconds or _HEARTBEAT}
        self._change_source(channel.channel, source, kept, "", deadline)
        self._start(channel.channel, deadline)

    def _apply_received(self, channel: Source, deadline: Deadline) -> None:
        quoted = _quoted(channel.channel)
        error = self._change("mariadb.stop_receiver", f"STOP SLAVE {quoted} IO_THREAD", deadline)
        if not channel.applier:
            error = self._change("mariadb.start_replica", f"START SLAVE {quoted} SQL_THREAD", deadline) or error
        while True:
            status = self._status(deadline)
            now = next((s for s in status.sources if s.channel == channel.channel), None)
            if now is None or (error is not None and now.receiver is not Receiver.STOPPED):
                raise error or StatementError(status.name, 1617, f"channel {channel.channel!r} is gone")
            if status.executed.contains(now.received) is Containment.YES:
                return
            if not now.applier:
                raise StatementError(status.name, 1201, f"received events cannot be applied: {now.error or 'stopped'}")
            deadline.require(f"{status.name} to apply what it has received")
            time.sleep(_POLL)

    def _create(
        self,
        status: Status,
        source: Peer,
        source_has: Position | None,
        options: Mapping[str, Any] | None,
        deadline: Deadline,
    ) -> None:
        """A former primary, or a new member: its own writes become its replication position."""
        if source_has is not None and not status.executed.empty:
            contained = source_has.contains(status.executed)
            if contained is not Containment.YES:
                raise Diverged(status.name, f"it cannot be shown that {source.name} has all of {status.executed}")
        demote = ""
        if status.binlog and not status.executed.empty:
            if status.version >= _DEMOTE_SINCE:
                demote = ", MASTER_DEMOTE_TO_SLAVE=1"
            elif isinstance(status.executed, MariaDBPosition):
                self._session(deadline).change(
                    "mariadb.set_position",
                    "SET GLOBAL gtid_slave_pos=%s",
                    deadline,
                    (status.executed.latest_text,),
                )
        given = options or {}
        copied = {"connect_retry": _CONNECT_RETRY, **{key: given[key] for key in _COPIED if key in given}}
        self._change_source("", source, copied, demote, deadline)
        self._start("", deadline)

    def _change_source(
        self, channel: str, source: Peer, options: Mapping[str, Any], demote: str, deadline: Deadline
    ) -> None:
        """CHANGE MASTER keeps what it is not given, but for the heartbeat: that falls back to slave_net_timeout / 2."""
        wanted = {"heartbeat": _HEARTBEAT, **options, **self._login.options}
        clauses = ["MASTER_HOST=%s", "MASTER_PORT=%s", "MASTER_USER=%s", "MASTER_PASSWORD=%s"]
        args: list[Any] = [source.address.host, source.address.port, self._login.user, self._login.password]
        for key in _COPIED:
            if key in wanted and wanted[key] is not None:
                clauses.append(f"{SOURCE_OPTIONS[key][1]}=%s")
                args.append(int(wanted[key]) if isinstance(wanted[key], bool) else wanted[key])
        sql = f"CHANGE MASTER {_quoted(channel)} TO {', '.join(clauses)}, MASTER_USE_GTID=slave_pos{demote}"
        error = self._change("mariadb.change_source", sql, deadline, tuple(args))
        now = self._named(channel, deadline)
        if now is None or now.address != source.address:
            server = self._session(deadline).server
            raise error or StatementError(server, 1201, f"does not follow {source.name} although it said so")

    def forget(self, source: Peer, deadline: Deadline) -> None:
        """RESET SLAVE ALL for the channel that follows ``source``; it must be stopped already."""
        channel = channel_of(self._channels(deadline), source)
        if channel is None:
            return
        error = self._change("mariadb.forget_source", f"RESET SLAVE {_quoted(channel.channel)} ALL", deadline)
        if error is not None and self._named(channel.channel, deadline) is not None:
            raise error

    def _named(self, channel: str, deadline: Deadline) -> Source | None:
        return next((s for s in self._channels(deadline) if s.channel == channel), None)


def channel_of(channels: Sequence[Source], source: Peer) -> Source | None:
    """Returns the one of ``channels`` that follows ``source``: configured with its address, or by server id.

    The address counts first: the server id is what the receiver saw at its last contact, and stays when the
    channel is repointed until the new source answers.
    """
    by_address = [s for s in channels if s.address == source.address]
    if by_address:
        return by_address[0]
    by_id = [s for s in channels if source.server_id is not None and s.source_id == source.server_id]
    return by_id[0] if by_id else None


def _quoted(channel: str) -> str:
    """Returns the connection name as SQL; nothing for the default one."""
    if not channel:
        return ""
    return "'" + channel.replace("\\", "\\\\").replace("'", "''") + "'"
