"""Replication channels of one server, of either flavour: stopped, started, repointed, forgotten.

A replication statement that errors is *unknown*, not failed (10.11.19: a CHANGE MASTER that was killed under FLUSH
TABLES WITH READ LOCK answered 1317 and had taken effect), so every change is read back and only what is read counts.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from proxyroute.db.following import LAST, POLL, cannot_apply, channel_named, channel_of, has_all_of, require_served
from proxyroute.db.session import Session
from proxyroute.errors import Diverged, ProxyRouteError, ServerError, StatementError, TimedOut
from proxyroute.gtid import Containment, Position
from proxyroute.model import Deadline, Peer, Receiver, Source, Status

_RESTART = 1.0
"""Seconds for starting a receiver again after a wait that was in vain."""
_FALLS = 0.5
"""Seconds in which an applier that is started has met what it cannot apply, if that comes next."""
HEARTBEAT = 1.0
RECEIVER, APPLIER = "receiver", "applier"
CONNECT_RETRY = 5
"""Seconds, for a channel made anew that stands in for none: the server's own 60 keep it from a restarted source."""
_KILL_TIMEOUT = 1
"""Seconds for which a semi-synchronous receiver that is stopped tries to end its session at a source that is hung."""


@dataclass(frozen=True)
class ReplicationLogin:
    """What a channel needs to log in at its source. ``options``: TLS, by the keys of ``Source.options``."""

    user: str
    password: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)


class Replication(ABC):
    """The channels of one server. ``session`` gives the control session, opened by a deadline."""

    copied: Sequence[str] = ()
    """What a new channel takes from the one it stands in for; delays and filters belong to one replica."""

    rests_safely = False
    """Relay logs outlive the start of a channel of which nothing ran. MariaDB drops them, and fetches all anew."""

    fresh: Mapping[str, Any] = MappingProxyType({"connect_retry": CONNECT_RETRY})
    """What a channel is given that is made anew, where nothing else is said."""

    def __init__(self, session: Callable[[Deadline], Session], login: ReplicationLogin) -> None:
        self._session = session
        self._login = login

    # -- What each flavour says in its own words --

    @abstractmethod
    def _status(self, deadline: Deadline) -> Status: ...

    @abstractmethod
    def _channels(self, deadline: Deadline) -> tuple[Source, ...]: ...

    @abstractmethod
    def _stop_sql(self, channel: str, thread: str = "") -> str: ...

    @abstractmethod
    def _start_sql(self, channel: str, threads: Sequence[str] = ()) -> str: ...

    @abstractmethod
    def _forget_sql(self, channel: str) -> str: ...

    @abstractmethod
    def _source_sql(
        self, channel: str, source: Peer, options: Mapping[str, Any], *, demoted: bool
    ) -> tuple[str, tuple[Any, ...]]:
        """Returns the statement that points a channel at ``source``, and its arguments.

        ``demoted``: this server has transactions of its own, and goes on from them.
        """

    @abstractmethod
    def _prepare_position(self, status: Status, deadline: Deadline) -> bool:
        """Makes what a former primary has executed its position; tells whether ``_source_sql`` has to do that."""

    def _never_fetched(self, status: Status, has: Position) -> Position:
        """Returns what the source has, this server lacks, and its receiver would leave out without a word."""
        return has.minus(has)

    @abstractmethod
    def purged(self, deadline: Deadline) -> Position | None:
        """Returns what is not in this server's binary log any more; see :meth:`proxyroute.ports.Server.purged`."""

    @abstractmethod
    def _receiver_patience(self) -> tuple[str, str]:
        """Returns the variables that tell whether a receiver is semi-synchronous, and for how many seconds one that is
        stopped tries to end its session at a source that is hung; empty for a server that has none."""

    def _change(self, point: str, sql: str, deadline: Deadline, args: tuple[Any, ...] = ()) -> ServerError | None:
        """Runs a replication statement; its error is returned, for the reading back decides."""
        try:
            self._session(deadline).change(point, sql, deadline, args)
        except ServerError as error:
            return error
        return None

    def stop(self, source: Peer, deadline: Deadline) -> None:
        """Stops the channel that follows ``source``; nothing to do without one."""
        channel = channel_of(self._channels(deadline), source)
        if channel is not None:
            self._stop(channel, deadline)

    def _stop(self, channel: Source, deadline: Deadline) -> None:
        if channel.receiver is Receiver.STOPPED and not channel.applier:
            return
        error = self._change("mariadb.stop_replica", self._stop_sql(channel.channel), deadline)
        if error is None:
            return
        now = self._named(channel.channel, deadline)
        if now is not None and (now.receiver is not Receiver.STOPPED or now.applier):
            raise error

    def stop_receiver(self, source: Peer, deadline: Deadline) -> None:
        """Stops the receiver of the channel that follows ``source``: relay logs stay, and go on being applied."""
        channel = channel_of(self._channels(deadline), source)
        if channel is None or channel.receiver is Receiver.STOPPED:
            return
        with self._hurried(deadline):
            error = self._change("mariadb.stop_receiver", self._stop_sql(channel.channel, RECEIVER), deadline)
        now = self._named(channel.channel, deadline)
        if error is not None and now is not None and now.receiver is not Receiver.STOPPED:
            raise error

    @contextlib.contextmanager
    def _hurried(self, deadline: Deadline) -> Iterator[None]:
        """A semi-synchronous receiver connects to its source once more when it is stopped; a hung one keeps it 5 s."""
        used, variable = self._receiver_patience()
        if not variable:
            yield
            return
        row = self._session(deadline).one(f"SELECT @@global.{used} AS used, @@global.{variable} AS seconds", deadline)
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
        """Starts the receiver of the channel that follows ``source``; it connects as soon as the source is there.

        With ``applier`` the applier as well. Raises ServerError when that would drop what it has received.
        """
        status = self._status(deadline)
        channel = channel_of(status.sources, source)
        if channel is None:
            return
        threads = [RECEIVER] if channel.receiver is Receiver.STOPPED else []
        threads += [APPLIER] if applier and not channel.applier else []
        if not threads:
            return
        self._require_kept(status, channel, source)
        error = self._change("mariadb.start_replica", self._start_sql(channel.channel, threads), deadline)
        now = self._named(channel.channel, deadline)
        if now is None or now.receiver is Receiver.STOPPED or (applier and not now.applier):
            server, what = self._session(deadline).server, " and the ".join(threads)
            raise error or StatementError(server, 1201, f"the {what} of {channel.channel!r} does not start")

    def start(self, source: Peer, deadline: Deadline) -> None:
        """Starts the channel that follows ``source``, and waits until both its threads run."""
        channel = channel_of(self._channels(deadline), source)
        if channel is None:
            server = self._session(deadline).server
            raise StatementError(server, 1617, f"no replication channel follows {source.name} at {source.address}")
        self._start(channel.channel, deadline)

    def _start(self, channel: str, deadline: Deadline) -> None:
        error = self._change("mariadb.start_replica", self._start_sql(channel), deadline)
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
            if deadline.left < POLL:
                raise TimedOut(f"{server}: replication does not run yet: {trouble or 'still connecting'}")
            time.sleep(POLL)

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
        source_purged: Callable[[], Position | None] | None,
        options: Mapping[str, Any] | None,
    ) -> None:
        """Makes this server replicate from ``source``; see :meth:`proxyroute.ports.Server.follow`."""
        status = self._status(deadline)
        if status.writable:
            raise ServerError(status.name, f"takes writes: it must refuse them before it follows {source.name}")
        if status.group:
            raise ServerError(status.name, f"is a member of a replication group, and cannot follow {source.name}")
        members = status.fed_from([p.address for p in (source, instead_of) if p is not None])
        has = has_all_of(status, source, members, source_has, deadline) if source_has else None
        if has is not None and not (lost := self._never_fetched(status, has)).empty:
            raise Diverged(
                status.name,
                f"has lost {lost}, which it wrote itself and {source.name} has: MySQL leaves out what carries the "
                f"server's own id, and would follow without it; type: proxyroute rejoin {status.name} --method reseed",
            )
        channel = channel_of(status.sources, source)
        if channel is not None and channel.uses_gtid:
            if channel.running:
                return
            if channel.user and not channel.error:
                if has is None or has.contains(channel.received) is not Containment.YES:
                    self._require_kept(status, channel, source)
                self._start(channel.channel, deadline)
                return
            # with the login and the options of now: what was set once may be wrong, or not set yet after a load
            self._repoint(channel, source, has, source_purged, deadline)
            return
        channel = channel_of(status.sources, instead_of) if instead_of is not None else None
        if channel is None and len(status.sources) == 1:
            channel = status.sources[0]
        if channel is None:
            if source_purged is not None and (purged := source_purged()) is not None:
                require_served(status.name, status.executed, source, purged)
            self._create(status, source, has, options, deadline)
        else:
            self._repoint(channel, source, has, source_purged, deadline)

    def _repoint(
        self,
        channel: Source,
        source: Peer,
        source_has: Position | None,
        source_purged: Callable[[], Position | None] | None,
        deadline: Deadline,
    ) -> None:
        """Relay logs are data: only when the source can give everything received may they go with the change of source.

        A source that has purged what is in them would not even serve this server without it.
        """
        given = source_has is not None and source_has.contains(channel.received) is Containment.YES
        if source_purged is not None:
            executed, purged = self._status(deadline).executed, source_purged()
            if purged is not None:
                has = executed if self._rests(channel) else executed.merge(channel.received)
                require_served(self._session(deadline).server, has, source, purged)
            given = given and purged is not None and executed.as_far_as(purged)
        if not given:
            self._apply_received(channel, source, deadline)
            channel = self._named(channel.channel, deadline) or channel  # its applier may run only now
        self._stop(channel, deadline)
        kept: dict[str, Any] = {"heartbeat": channel.heartbeat_seconds or HEARTBEAT}
        if channel.chooses_source:
            kept["chooses_source"] = False
        self._change_source(channel.channel, source, kept, deadline)
        self._start(channel.channel, deadline)

    def _rests(self, channel: Source) -> bool:
        """Whether whoever starts ``channel`` now drops its relay logs."""
        return not self.rests_safely and channel.receiver is Receiver.STOPPED and not channel.applier

    def _require_kept(self, status: Status, channel: Source, source: Peer) -> None:
        """Raises ServerError when whoever starts ``channel`` now drops what is received and not applied."""
        if self._rests(channel) and status.executed.contains(channel.received) is not Containment.YES:
            only = channel.received.minus(status.executed)
            raise ServerError(
                status.name,
                f"has received {only}, which {source.name} may lack: it is in relay logs that go as soon as "
                "replication starts there; copy them from its host, then on it: RESET SLAVE",
            )

    def _apply_received(self, channel: Source, source: Peer, deadline: Deadline) -> None:
        status = self._status(deadline)
        # only of one that is stopped: what is received after this look would go unapplied
        if channel.receiver is Receiver.STOPPED and status.executed.contains(channel.received) is Containment.YES:
            return
        self._require_kept(status, channel, source)
        what = f"{status.name} to apply what it has received"
        if channel.delay_seconds > deadline.left and status.executed.contains(channel.received) is not Containment.YES:
            raise TimedOut(f"no time to wait for {what}: it is delayed by {channel.delay_seconds} s")
        if not channel.applier:
            # before the receiver is stopped: with neither of them running the relay logs may go (rests_safely)
            self._start_applier(status, channel, deadline)
        error = self._change("mariadb.stop_receiver", self._stop_sql(channel.channel, RECEIVER), deadline)
        try:
            self._await_received(channel.channel, what, error, deadline)
        except ProxyRouteError:
            if channel.receiver is not Receiver.STOPPED:  # it goes on where it was, until somebody tries again
                self._receive_again(channel.channel, source)
            raise

    def _receive_again(self, channel: str, source: Peer) -> None:
        """Raises ServerError when its applier has fallen meanwhile: with it stopped, to start would be to drop."""
        deadline = Deadline.firm(_RESTART)
        status = self._status(deadline)
        now = channel_named(status.sources, channel)
        if now is not None and now.receiver is Receiver.STOPPED:
            self._require_kept(status, now, source)
            self._change("mariadb.start_replica", self._start_sql(channel, (RECEIVER,)), deadline)

    def _start_applier(self, status: Status, channel: Source, deadline: Deadline) -> None:
        """Raises StatementError when it stands still again at once: then its receiver must go on."""
        error = self._change("mariadb.start_replica", self._start_sql(channel.channel, (APPLIER,)), deadline)
        falls = deadline.within(_FALLS)
        while True:
            now = self._status(deadline)
            found = channel_named(now.sources, channel.channel)
            behind = found is None or now.executed.contains(found.received) is not Containment.YES
            if behind and (found is None or not found.applier):
                raise error or cannot_apply(status.name, found)
            if not behind or now.executed != status.executed or falls.left < POLL:
                return
            time.sleep(POLL)

    def _await_received(self, channel: str, what: str, error: ServerError | None, deadline: Deadline) -> None:
        """Returns when everything is applied; ``error`` is of the statement that stopped the receiver."""
        while True:
            status = self._status(deadline)
            now = channel_named(status.sources, channel)
            if now is None or (error is not None and now.receiver is not Receiver.STOPPED):
                raise error or StatementError(status.name, 1617, f"channel {channel!r} is gone")
            if status.executed.contains(now.received) is Containment.YES:
                return
            if not now.applier:
                raise cannot_apply(status.name, now)
            if deadline.require(what) < LAST:  # a look that is cut short would tell of a server that does not answer
                raise TimedOut(f"out of time while waiting for {what}")
            time.sleep(POLL)

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
        own = status.binlog and not status.executed.empty
        demoted = self._prepare_position(status, deadline) if own else False
        given = options or {}
        copied = {**self.fresh, **{key: given[key] for key in self.copied if key in given}}
        self._change_source("", source, copied, deadline, demoted=demoted)
        self._start("", deadline)

    def _change_source(
        self, channel: str, source: Peer, options: Mapping[str, Any], deadline: Deadline, *, demoted: bool = False
    ) -> None:
        """What a channel is not given it keeps, but for the heartbeat: that falls back to half the net time-out."""
        wanted = {"heartbeat": HEARTBEAT, **options, **self._login.options}
        sql, args = self._source_sql(channel, source, wanted, demoted=demoted)
        error = self._change("mariadb.change_source", sql, deadline, args)
        now = self._named(channel, deadline)
        if now is None or now.address != source.address:
            server = self._session(deadline).server
            raise error or StatementError(server, 1201, f"does not follow {source.name} although it said so")

    def forget(self, source: Peer, deadline: Deadline) -> None:
        """Drops the channel that follows ``source``; it must be stopped already."""
        channel = channel_of(self._channels(deadline), source)
        if channel is None:
            return
        error = self._change("mariadb.forget_source", self._forget_sql(channel.channel), deadline)
        if error is not None and self._named(channel.channel, deadline) is not None:
            raise error

    def _named(self, channel: str, deadline: Deadline) -> Source | None:
        return channel_named(self._channels(deadline), channel)


def quoted(text: str) -> str:
    """Returns ``text`` as SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
