"""One connection to one database server: deadlines, errors told apart, reads kept apart from changes.

Nothing reconnects by itself: a session that has lost its connection stays lost, because a lock, a temporary setting
or a lease may have lived in it. Whoever needs a new one opens a new one.
"""

from __future__ import annotations

import contextlib
import re
import select
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pymysql
from pymysql.cursors import DictCursor

from proxyroute.db.acting import TAKE_MARK
from proxyroute.db.mysql_spelling import renamed, spelled
from proxyroute.db.pipeline import ask
from proxyroute.db.rows import parse_version
from proxyroute.errors import LostReply, ServerError, Silence, StatementError, Unreachable
from proxyroute.faults import act
from proxyroute.model import Address, Deadline

_READS = re.compile(r"\s*(SELECT|SHOW|XA\s+RECOVER)\b", re.IGNORECASE)
_CLIENT_ERRORS = range(2000, 3000)
_CONNECT_SECONDS = 5.0
_GREETING_SECONDS = 2.0
"""For the greeting and the login in a chore, which cannot leave that wait: a server that hangs sends none."""
_GONE, _LOST = 2006, 2013
_WAITED = 4031
"""MySQL's word to whoever comes back to a session that it has ended for its silence: where MariaDB says nothing."""
NO_SUCH_THREAD = 1094
T = TypeVar("T")
_OURS = "SET SESSION sql_mode='', /*M! max_statement_time=0, */ /*!80000 max_execution_time=0, */ wait_timeout=600"
"""What a site sets for everybody must not change what our statements mean, nor end them or an idle lock.

The first comment is read by MariaDB alone, the second by MySQL alone: MariaDB skips those that name 5.7 to 9.x.
"""


@dataclass(frozen=True)
class Login:
    """An account of the database servers. The password never appears in a ``repr``."""

    user: str
    password: str = field(repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)


if TYPE_CHECKING:
    _Base = pymysql.Connection[DictCursor]
else:
    _Base = pymysql.Connection


class _Connection(_Base):
    """Leaves the wait for a reply when the deadline gives way: a time-out of the socket only knows the clock."""

    patience: Deadline | None = None
    """Of the statement that is being run, while its reply has not begun to come."""

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        patience, self.patience = self.patience, None
        if patience is not None and patience.gives_way:
            ready = select.poll()
            ready.register(self._sock.fileno(), select.POLLIN)  # type: ignore[attr-defined]
            while not ready.poll(patience.slice * 1000):
                if patience.passed:
                    raise TimeoutError("it is not waited for any longer")
        return super()._read_query_result(unbuffered=unbuffered)  # type: ignore[misc]


class Session:
    """One connection. Used by one thread at a time.

    ``server`` is the server's name for error texts. :meth:`read` takes only SELECT, SHOW and XA RECOVER; everything
    that changes something goes through :meth:`change`, which names its fault point. ``permit`` raises LeaseLost when
    nothing may be changed any more; it is asked once for each connection, right before its first change.
    """

    def __init__(self, server: str, address: Address, login: Login, permit: Callable[[], None] | None = None) -> None:
        self.server = server
        self.address = address
        self._login = login
        self._permit = permit
        self.mark_name = ""
        """The mark by which the next holder of the lease finds this session; empty while it has none."""
        self._connection: _Connection | None = None
        self._in_use = threading.Lock()
        self.id = 0
        """The server's id of this connection; 0 when not open."""
        self.flavour = ""
        """``mariadb`` or ``mysql``, by the greeting of the server that was last connected to."""
        self.version = (0, 0, 0)
        """Its version, by the same greeting."""

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    @property
    def descriptor(self) -> int | None:
        """The descriptor that becomes readable between two statements only when the server hangs up; None if closed."""
        connection = self._connection
        sock = getattr(connection, "_sock", None)
        return None if sock is None else int(sock.fileno())

    def open(self, deadline: Deadline) -> Session:
        """Connects. Returns itself. Raises Unreachable (nothing was sent) or StatementError (login refused)."""
        if self._connection is not None:
            return self
        left = deadline.require(f"a connection to {self.server} at {self.address}")
        try:
            connection = _Connection(
                host=self.address.host,
                port=self.address.port,
                user=self._login.user,
                password=self._login.password,
                ssl=self._login.tls,
                ssl_disabled=self._login.tls is None,
                cursorclass=DictCursor,
                autocommit=True,
                charset="utf8mb4",
                connect_timeout=min(left, _CONNECT_SECONDS),
                read_timeout=min(left, _GREETING_SECONDS) if deadline.gives_way else left,
                write_timeout=left,
                program_name="proxyroute",
                init_command=_OURS,
            )
        except pymysql.err.Error as error:
            raise self._connect_error(error) from error
        except OSError as error:
            raise Unreachable(self.server, f"cannot connect to {self.address}: {error}", _kind(error)) from error
        self._connection = connection
        self.id = connection.thread_id()  # type: ignore[no-untyped-call]
        greeting = str(connection.get_server_info())  # type: ignore[no-untyped-call]
        self.flavour, self.version = flavour_of(greeting), self._version_in(greeting)
        return self

    def _version_in(self, greeting: str) -> tuple[int, int, int]:
        try:
            return parse_version(greeting)
        except ValueError as error:
            self.close()
            raise Unreachable(self.server, f"{self.address} greets as no database server does: {error}") from error

    def _connect_error(self, error: pymysql.err.Error) -> ServerError:
        number, text = _number_and_text(error)
        if number in _CLIENT_ERRORS or number == 0:
            return Unreachable(self.server, f"cannot connect to {self.address}: {text}", _kind(error))
        return StatementError(self.server, number, f"{text} (at {self.address})")

    def read(self, sql: str, deadline: Deadline, args: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        """Returns the rows of a reading statement. Raises Unreachable when no answer came in time."""
        if not _READS.match(sql):
            raise ValueError(f"read() was given a statement that may change something: {sql}")
        return self._run(sql, args, deadline, sent_is_unknown=False)

    def read_all(self, statements: Sequence[str], deadline: Deadline) -> tuple[list[list[dict[str, Any]]], float]:
        """Returns the rows of several reading statements, sent in one piece, and the seconds to the first reply.

        Raises as :meth:`read` does. In a chore they go one after the other: that wait can be left.
        """
        if wrong := next((s for s in statements if not _READS.match(s)), ""):
            raise ValueError(f"read_all() was given a statement that may change something: {wrong}")
        if deadline.gives_way:
            began = time.monotonic()
            first = self.read(statements[0], deadline)
            seconds = time.monotonic() - began
            return [first, *(self.read(s, deadline) for s in statements[1:])], seconds
        asked = [self._spelled(s) for s in statements]
        rows, seconds = self._alone(
            lambda connection: ask(connection, asked, deadline), deadline, sent_is_unknown=False
        )
        return [self._renamed(sql, found) for sql, found in zip(statements, rows, strict=True)], seconds

    def one(self, sql: str, deadline: Deadline, args: tuple[Any, ...] = ()) -> dict[str, Any]:
        """Returns the first row of a reading statement, or an empty mapping."""
        rows = self.read(sql, deadline, args)
        return rows[0] if rows else {}

    def change(self, point: str, sql: str, deadline: Deadline, args: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        """Runs a statement that changes something, as the fault point ``point``.

        Raises StatementError when the server says no, and LostReply when no answer came: then the statement has been
        ended from a side connection if that could be done, and what it did is unknown until it is read back.
        """
        deadline.require(f"{self.server}: {sql.split(' FOR ')[-1][:60]}")
        self.mark(deadline)
        with act(point):
            return self._run(sql, args, deadline, sent_is_unknown=True)

    def change_all(self, point: str, statements: Sequence[str], deadline: Deadline) -> None:
        """Runs several statements without a result, sent in one piece, as the one fault point ``point``.

        Raises as :meth:`change` does; StatementError of the first that was refused, when the others have been run.
        """
        deadline.require(f"{self.server}: {statements[0][:60]}")
        self.mark(deadline)
        asked = [self._spelled(s) for s in statements]
        with act(point):
            self._alone(lambda connection: ask(connection, asked, deadline), deadline, sent_is_unknown=True)

    def mark(self, deadline: Deadline) -> None:
        """Makes this a session that may change something. Raises LeaseLost when that is not for us to do any more.

        The mark comes first: whoever gets the lease after the permit was given finds it, and ends this session.
        """
        if self._permit is None or self.mark_name:
            return
        with act("mariadb.mark_session"):
            rows = self._run(TAKE_MARK, (), deadline, sent_is_unknown=True)
        name = rows[0]["mark"]
        if name is None:
            raise Unreachable(self.server, "all marks for sessions are taken; look for idle ones of ours and end them")
        try:
            self._permit()
        except BaseException:
            self.close()
            raise
        self.mark_name = str(name)

    def _run(
        self, sql: str, args: tuple[Any, ...], deadline: Deadline, *, sent_is_unknown: bool
    ) -> list[dict[str, Any]]:
        def exchange(connection: _Connection) -> list[dict[str, Any]]:
            connection.patience = deadline
            with connection.cursor() as cursor:
                cursor.execute(self._spelled(sql), args or None)
                return self._renamed(sql, list(cursor.fetchall()))

        return self._alone(exchange, deadline, sent_is_unknown=sent_is_unknown)

    def _spelled(self, sql: str) -> str:
        """Returns ``sql`` in the words that the server knows: MySQL has changed some of them from series to series."""
        return spelled(sql, self.version) if self.flavour == "mysql" else sql

    def _renamed(self, sql: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return renamed(sql, rows, self.version) if self.flavour == "mysql" else rows

    def _alone(self, exchange: Callable[[_Connection], T], deadline: Deadline, *, sent_is_unknown: bool) -> T:
        """Lets ``exchange`` talk to the server, nobody else meanwhile, and tells its errors apart."""
        deadline.require(f"{self.server} to answer")
        # a thread that was left behind may still wait for its answer here
        while not self._in_use.acquire(timeout=deadline.slice):
            if not deadline.passed:
                continue
            text = "an earlier statement on this connection has not been answered yet"
            raise Unreachable(self.server, text, Silence.HUNG)
        try:
            return self._exchange(exchange, deadline, sent_is_unknown=sent_is_unknown)
        finally:
            self._in_use.release()

    def _exchange(self, exchange: Callable[[_Connection], T], deadline: Deadline, *, sent_is_unknown: bool) -> T:
        connection = self._connection
        if connection is None:
            raise Unreachable(self.server, "the connection is closed")
        left = deadline.require(f"{self.server} to answer")
        # PyMySQL has no public way to give one statement its own time-out
        connection._read_timeout = left  # type: ignore[attr-defined]
        connection._write_timeout = left  # type: ignore[attr-defined]
        try:
            return exchange(connection)
        except (pymysql.err.Error, OSError) as error:
            number, text = _number_and_text(error)
            if isinstance(error, pymysql.err.Error) and number not in _CLIENT_ERRORS and number not in (0, _WAITED):
                if number in (1053, 1927):
                    self.abandon()
                raise StatementError(self.server, number, text) from error
            stuck = self.id
            self.abandon()
            if not sent_is_unknown:
                raise Unreachable(self.server, f"no answer: {text}", _kind(error)) from error
            if deadline.passed:
                self._end_stuck(stuck)
            raise LostReply(self.server, f"no answer to a change: {text}") from error
        except BaseException:  # Ctrl-C in the middle of a reply: what comes next would be taken for another answer
            self.abandon()
            raise

    def _end_stuck(self, session: int) -> None:
        """Ends our own statement from a side connection, so that it does not take effect at some later time."""
        side = Session(self.server, self.address, self._login)
        with contextlib.suppress(ServerError):
            side.open(Deadline.firm(1.0))
            try:
                with act("mariadb.end_stuck"):
                    side._run(f"KILL /*M! HARD */ CONNECTION {session:d}", (), Deadline.firm(1.0), sent_is_unknown=True)
            finally:
                side.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def abandon(self) -> None:
        """Drops the connection without a word to the server."""
        connection, self._connection = self._connection, None
        self.id, self.mark_name = 0, ""
        if connection is not None:
            with contextlib.suppress(Exception):
                connection._force_close()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Ends the connection; never raises."""
        connection, self._connection = self._connection, None
        self.id, self.mark_name = 0, ""
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


def flavour_of(version: str) -> str:
    """Returns the flavour of a server from the version that it greets with."""
    return "mariadb" if "mariadb" in version.lower() else "mysql"


def _kind(error: BaseException) -> Silence:
    """Tells from the error of a connection in which way the server is silent."""
    connecting = getattr(error, "original_exception", None)
    if connecting is None and isinstance(error, OSError):
        connecting = error
    if isinstance(connecting, ConnectionRefusedError):
        return Silence.REFUSED
    if isinstance(connecting, ConnectionError):
        return Silence.RESET
    if connecting is not None:  # time-out of the connection itself, no route, no such name
        return Silence.UNREACHABLE
    number, _ = _number_and_text(error)
    if number not in (_GONE, _LOST, _WAITED):
        return Silence.OTHER
    return Silence.HUNG if isinstance(error.__context__, TimeoutError) else Silence.RESET


def _number_and_text(error: BaseException) -> tuple[int, str]:
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    return number, text
