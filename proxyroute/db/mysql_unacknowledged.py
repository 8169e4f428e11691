"""Commits on a MySQL server that wait for acknowledgements which nobody gives any more (tried on 9.7; decision 0100).

KILL cuts their clients off at once, so that nobody is told that such a row is safe. The sessions themselves stay until
the time-out of semi-synchronous replication, and so does what waits for them: that the server refuses writes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from proxyroute.db.freeze import REPLY
from proxyroute.db.session import NO_SUCH_THREAD, Session
from proxyroute.errors import ProxyRouteError, StatementError
from proxyroute.model import Deadline

_POLL = 0.005
_PATIENCE = 0.1
"""Seconds for a server to refuse writes before it is looked at what it waits for."""
# one of a group of commits waits for the acknowledgement, the others, and the groups after it, wait for that one
_WAITING = "LOCATE('Waiting for semi-sync ACK from', STATE) = 1"
_CUT_OFF = f"""
SELECT ID AS id FROM information_schema.PROCESSLIST WHERE COMMAND = 'Killed'
AND EXISTS (SELECT * FROM information_schema.PROCESSLIST WHERE {_WAITING})
"""
_HELD_BACK = f"""
SELECT COUNT(*) AS n FROM performance_schema.threads c WHERE c.PROCESSLIST_ID = %s
AND c.PROCESSLIST_STATE IN ('Waiting for global read lock', 'Waiting for commit lock')
AND EXISTS (SELECT * FROM information_schema.PROCESSLIST WHERE {_WAITING})
"""
_LEFT = f"SELECT COUNT(*) AS n FROM information_schema.PROCESSLIST WHERE {_WAITING}"


def cut_off(session: Session, deadline: Deadline) -> frozenset[int]:
    """Returns the sessions that were ended and cannot end, for a commit waits to be acknowledged: nobody hears them."""
    return frozenset(int(row["id"]) for row in session.read(_CUT_OFF, deadline))


@contextlib.contextmanager
def let_go(
    side: Session,
    closing: int,
    clients: Callable[[Session, Deadline], frozenset[int]],
    variable: Callable[[Session, Deadline], str],
) -> Iterator[None]:
    """For the statement of session ``closing`` by which the server refuses writes: no commit holds it back for long.

    If one that waits for an acknowledgement does, all ``clients`` are ended, while nobody can begin to write, and
    semi-synchronous replication (by its ``variable`` here) is off for as long as those commits take to come to their
    end. ``side`` is a session for this alone.
    """
    over = threading.Event()

    def watch() -> None:
        if over.wait(_PATIENCE):
            return
        with contextlib.suppress(ProxyRouteError):  # whoever closes the server tells what keeps him from it
            side.open(Deadline.after(REPLY))
            while not over.is_set():
                if int(side.one(_HELD_BACK, Deadline.after(REPLY), (closing,))["n"]):
                    _release(side, clients(side, Deadline.after(REPLY)), variable(side, Deadline.after(REPLY)))
                    return
                over.wait(_POLL)

    watcher = threading.Thread(target=watch, name=f"let-go-{closing}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        side.close()


def _release(side: Session, clients: frozenset[int], variable: str) -> None:
    deadline = Deadline.after(REPLY)
    kills = [f"KILL CONNECTION {client:d}" for client in sorted(clients)]
    if kills:
        try:
            side.change_all("mariadb.kill_client", kills, deadline)
        except StatementError as error:
            if error.errno != NO_SUCH_THREAD:
                raise
    side.change("mariadb.semi_sync", f"SET GLOBAL {variable}=0", deadline)
    try:
        while int(side.one(_LEFT, deadline)["n"]):  # who looks too late that it is off would wait on
            deadline.require("commits that waited for acknowledgements to end")
            time.sleep(_POLL)
    finally:
        side.change("mariadb.semi_sync", f"SET GLOBAL {variable}=1", Deadline.after(REPLY))
