"""A MySQL server that becomes a copy of another one by the clone plugin, in place of the data that it has.

Tried on 9.7. The statement drops the data of the applications, fetches everything from the source, and restarts the
server; where nobody restarts it, it shuts down, and is started on its host. What came of it is known to the server
itself once it is up again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from proxyroute.db.replication import quoted
from proxyroute.db.rows import parse_version
from proxyroute.db.session import Login, Session
from proxyroute.errors import LostReply, ServerError, StatementError, TimedOut
from proxyroute.model import Address, Deadline

PLUGIN = "INSTALL PLUGIN clone SONAME 'mysql_clone.so'"
NOTHING = "nothing was cloned"
_OPEN, _CLOSED = (f"SET GLOBAL super_read_only={number}" for number in (0, 1))
_NO_SUPERVISOR = 3707
_LEAST_PACKET = 2 << 20
_SERIES_SINCE = (8, 0, 37)
"""Since this version servers of one series need not be of the same version."""
_TELL_EVERY = 1.0
_SAME = ("innodb_page_size", "lower_case_table_names", "version_compile_machine", "version_compile_os")
_LOOK = (
    "SELECT @@version AS version, @@global.max_allowed_packet AS packet, "
    + ", ".join(f"@@global.{name} AS {name}" for name in _SAME)
    + ", (SELECT COUNT(*) FROM information_schema.PLUGINS"
    " WHERE PLUGIN_NAME='clone' AND PLUGIN_STATUS='ACTIVE') AS clone"
)
# times that no time zone changes: one that was set at run time is gone when the server has restarted
_NOW = "SELECT UNIX_TIMESTAMP(NOW(3)) AS now"
_STATUS = (
    "SELECT STATE AS state, UNIX_TIMESTAMP(BEGIN_TIME) AS begun, ERROR_MESSAGE AS error"
    " FROM performance_schema.clone_status"
)
_PROGRESS = "SELECT SUM(DATA) AS done FROM performance_schema.clone_progress"


@dataclass(frozen=True)
class Begun:
    """A clone whose data are there."""

    at: Decimal
    """When, by the clock of that server, in Unix time."""
    supervised: bool
    """Whether the server restarts by itself; otherwise it shuts down."""


def cannot_clone(here: Session, there: Session, deadline: Deadline) -> list[str]:
    """Returns why ``here`` could not become a copy of ``there``, in words."""
    mine, theirs = (session.one(_LOOK, deadline) for session in (here, there))
    found = []
    versions = [parse_version(str(side["version"])) for side in (mine, theirs)]
    same = versions[0] == versions[1] or (versions[0][:2] == versions[1][:2] and min(versions) >= _SERIES_SINCE)
    if not same:
        found.append(f"{here.server} is of version {mine['version']}, {there.server} of {theirs['version']}")
    for name in _SAME:
        if mine[name] != theirs[name]:
            found.append(f"{name} is {mine[name]} on {here.server} and {theirs[name]} on {there.server}")
    return [*found, *_lacks(here, mine, "CLONE_ADMIN", deadline)]


def cannot_be_cloned(there: Session, deadline: Deadline) -> list[str]:
    """Returns why no server could become a copy of ``there``, in words. Nothing is installed there: it is in use."""
    look = there.one(_LOOK, deadline)
    found = [] if int(look["clone"]) else [f"{there.server} has no clone plugin: {PLUGIN}; on it"]
    return [*found, *_lacks(there, look, "BACKUP_ADMIN", deadline)]


def _lacks(session: Session, look: dict[str, Any], privilege: str, deadline: Deadline) -> Iterator[str]:
    if int(look["packet"]) < _LEAST_PACKET:
        yield f"max_allowed_packet of {session.server} is below {_LEAST_PACKET}"
    lines = [str(line) for row in session.read("SHOW GRANTS", deadline) for line in row.values()]
    if not any(privilege in line for line in lines):
        yield f"the account of rejoin lacks {privilege} on {session.server}; see 'proxyroute grants'"


def clone(
    here: Session,
    aside: Session,
    source: Address,
    login: Login,
    watch: Callable[[int], None],
    still: Callable[[], None],
    deadline: Deadline,
) -> Begun:
    """Makes the server of ``here`` a copy of ``source``; ``aside`` is another session there, which reads how far it is.

    ``still`` is called right before its data go, while nobody can write there: super_read_only would stop the clone as
    well, so it gives way in one piece with it. Returns when the data are there and the server restarts, or shuts down.
    Raises StatementError when it cannot, and what ``still`` raises.
    """
    if not int(here.one(_LOOK, deadline)["clone"]):
        here.change_all("rejoin.clone", (_OPEN, PLUGIN, _CLOSED), deadline)
    here.change("rejoin.clone", "SET GLOBAL clone_valid_donor_list=%s", deadline, (str(source),))
    since, supervised = here.one(_NOW, deadline)["now"], True
    over = threading.Event()

    def tell() -> None:
        while not over.wait(_TELL_EVERY):
            with contextlib.suppress(ServerError, TimedOut):
                watch(int(aside.one(_PROGRESS, deadline.within(_TELL_EVERY * 5))["done"] or 0))

    teller = threading.Thread(target=tell, name=f"clone-{here.server}", daemon=True)
    teller.start()
    try:
        here.change("mariadb.refuse_writes", _CLOSED, deadline)
        still()
        whom = f"{quoted(login.user)}@{quoted(source.host)}:{source.port:d} IDENTIFIED BY {quoted(login.password)}"
        tls = " REQUIRE SSL" if login.tls else ""
        here.change_all("rejoin.clone", (_OPEN, f"CLONE INSTANCE FROM {whom}{tls}"), deadline)
    except LostReply:
        if deadline.passed:
            raise
    except StatementError as error:
        if error.errno != _NO_SUPERVISOR:
            raise
        supervised = False
    finally:
        over.set()
        teller.join()
    return Begun(since, supervised)


def outcome(session: Session, begun: Begun, deadline: Deadline) -> str:
    """Returns the state of what was ``begun``, with what was wrong; empty once it is whole and the server in use."""
    row = session.one(_STATUS, deadline)
    if not row or row["begun"] is None or row["begun"] < begun.at:
        return NOTHING
    return "" if str(row["state"]) == "Completed" else f"{row['state']} {row['error'] or ''}".strip()
