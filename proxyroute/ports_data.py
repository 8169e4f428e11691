"""What is needed of a server's files and data, as protocols: its binary log, what a dead one has left, a rebuild.

What :mod:`proxyroute.ports` says of verbs and deadlines holds here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from proxyroute.binlog import Remains, Table
from proxyroute.gtid import Position
from proxyroute.model import Deadline


class LogSource(Protocol):
    """Gives the files of one server's binary log."""

    @property
    def name(self) -> str: ...

    def logs(self, deadline: Deadline) -> Mapping[str, int]:
        """Returns the files of the binary log, oldest first, with their bytes; 0: nobody knows how many.

        Raises ProxyRouteError when nobody can tell which there are.
        """

    def fetch_log(self, file: str, folder: Path, deadline: Deadline) -> Path:
        """Copies one file of the binary log, decrypted, into ``folder``; returns where it is. Raises ScriptFailed."""

    def decode(self, file: Path, start: int, end: int, sink: Callable[[bytes], object], deadline: Deadline) -> None:
        """Gives ``sink``, in pieces, the part of a copied file from ``start`` to ``end`` as text that people read.

        The text may be larger than memory. Raises ScriptFailed, and what ``sink`` raises.
        """


class DeadServer(LogSource, Protocol):
    """What a server that does not answer has left on its host. Nothing is changed there, and it is not connected to."""

    def look(self, deadline: Deadline) -> Remains:
        """Returns what is there, and whether the server runs after all. Raises ScriptFailed, also for no log."""


class Heir(Protocol):
    """A server that follows nobody and gets what a dead primary had, by an account that may write it as it was."""

    @property
    def name(self) -> str: ...

    def replay(self, file: Path, start: int, end: int, deadline: Deadline) -> None:
        """Applies everything in ``file`` from offset ``start`` to ``end``, as the transactions they were.

        They get into the binary log here, under their own names. Stops at the first error. Raises ScriptFailed; what
        was sent by then may still be on its way: ``settle_replay`` ends that.
        """

    def settle_replay(self, deadline: Deadline, applied: Position | None = None) -> None:
        """Nothing of a ``replay`` goes on here; a source would be asked for what comes after what was applied.

        ``applied`` is what was to be applied, None when that is not known. Raises StatementError when replication runs
        here already, and began before what was applied.
        """


class Rebuilder(LogSource, Protocol):
    """Takes one server apart and puts it together again: its binary log, its history, its data.

    By an account that may do more than the engine's. Where the server is down, its host is asked, if it can be reached.
    Everything is written on this server only, and never to its binary log.
    """

    @property
    def physical(self) -> str:
        """How ``copy_from`` does it: ``copy``, beside the data that are there, or ``clone``, in their place."""

    # Reading

    def serves_from(self, position: Position, deadline: Deadline) -> str:
        """Returns why a replica at ``position`` could not go on from here, or nothing."""

    def cannot_undo(self, tables: Sequence[Table], deadline: Deadline) -> Sequence[str]:
        """Returns why logged changes to rows of ``tables`` could not be undone on this server, in words."""

    def undo_statements(self, files: Sequence[Path], start: int, deadline: Deadline) -> Sequence[str]:
        """Returns the statements that undo everything in ``files`` from offset ``start`` of the first one on."""

    def data_size(self, deadline: Deadline, *, physical: bool) -> int:
        """Returns about how many bytes a dump has, or a ``physical`` copy: indexes and free pages as well."""

    def cannot_dump(self, deadline: Deadline) -> Sequence[str]:
        """Returns why no consistent dump can be taken here, in words."""

    def cannot_load(self, source: Rebuilder, deadline: Deadline) -> Sequence[str]:
        """Returns why a dump of ``source`` would not fit in here, in words; nothing when nobody can tell."""

    def unlike_accounts(self, source: Rebuilder, deadline: Deadline) -> Sequence[str]:
        """Returns which accounts are not here as they are on ``source``, in words, with no hash. Raises ServerError."""

    # Changing

    def take_over(self, deadline: Deadline) -> None:
        """Ends whatever another process of ours still does to this server and its data, and all that it may yet try.

        Raises ServerError when nobody can tell; a server that is down is passed over.
        """

    def undo(self, operation: str, statements: Sequence[str], ready: Callable[[], None], deadline: Deadline) -> None:
        """Runs ``statements`` as one transaction that outlives us once it is whole.

        ``ready`` is called between *whole and certain to be committed* and the commit: what it writes down is true.
        When this raises before that, nothing has happened.
        """

    def undo_pending(self, operation: str, deadline: Deadline) -> bool:
        """Ends whatever an earlier process of ours still runs here; tells whether an undo waits for its commit."""

    def commit_undo(self, operation: str, deadline: Deadline) -> None:
        """Commits the undo that waits."""

    def make_empty(self, transactions: Position, deadline: Deadline) -> int:
        """Makes an empty transaction for each of those that are not here, in the binary log as well; returns how many.

        The one change to a server that is the primary, and only ever asked for by name.
        """

    def begin_history(
        self,
        position: Position,
        state: Position,
        deadline: Deadline,
        channel: Mapping[str, Any] | None = None,
        *,
        still: Callable[[], None] = lambda: None,
    ) -> None:
        """Replication stands still, and this server is at ``position`` with the history ``state``, whatever it was.

        Its binary log begins anew. ``still`` is called right before it goes, while nobody can write here whatever his
        privileges; what it raises leaves the log as it is. A ``channel`` that ``load_from`` has forgotten is made
        again, and not started, with the ``filters`` that were there.
        """

    def filters(self, deadline: Deadline) -> Sequence[Mapping[str, Any]]:
        """Returns the replication filters that new data would take along, for ``begin_history`` to set them again."""

    def load_from(self, source: Rebuilder, watch: Callable[[int], None], deadline: Deadline) -> Position:
        """Replaces the data of the applications by a consistent dump of ``source``; returns the dump's position.

        Its channels are forgotten first, and until ``begin_history`` its position is one that nobody else contains.
        """

    def copy_from(
        self,
        source: Rebuilder,
        watch: Callable[[int], None],
        deadline: Deadline,
        still: Callable[[], None] = lambda: None,
    ) -> Position:
        """Makes a physical copy of ``source``; returns its position. Whatever an earlier try left is thrown away.

        A ``copy`` lies beside the data of this server, which goes on, and waits for ``swap_in``. A ``clone`` has taken
        their place, with a server that has restarted: its channels were forgotten first, and its position was one that
        nobody else contains; ``still`` was called right before its data went, while nobody could write here.
        """

    def cannot_copy(self, source: Rebuilder, deadline: Deadline) -> Sequence[str]:
        """Returns why ``copy_from`` could not work, in words."""

    def swap_in(self, operation: str, deadline: Deadline, still: Callable[[], None] = lambda: None) -> str:
        """Stops the server, puts the copy in place of its data, starts it; returns where the old data are kept.

        ``still`` is called right before, while nobody can write here whatever his privileges, and nobody can until the
        server has stopped; what it raises leaves it as it is. It is not called for a server that is down.
        """

    def still_ours(self, deadline: Deadline) -> None:
        """Returns when nobody else has worked on the data on the host since we began. Raises ScriptFailed otherwise."""

    def discard_old(self, operation: str, deadline: Deadline) -> None:
        """Removes the data that ``swap_in`` kept."""
