"""A MySQL server that becomes a copy of another one by the clone plugin, in place of the data that it has.

Tried on 9.7. The statement drops the data of the applications, fetches everything from the source, and restarts the
server; where nobody restarts it, it shuts down, and is started on its host. What came of it is known to the server
itself once it is up again.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from proxyroute.db.replication import quoted
from proxyroute.db.rows import parse_version
from proxyroute.db.session import Login, Session
from proxyroute.errors import LostReply, PutOff, ServerError, StatementError, TimedOut
from proxyroute.model import Address, Deadline

PLUGIN = "INSTALL PLUGIN clone SONAME 'mysql_clone.so'"
NOTHING = "nothing was cloned"
_OPEN, _CLOSED = (f"SET GLOBAL super_read_only={number}" for number in (0, 1))
_NO_SUPERVISOR = 3707
_OF_SOURCE = 3862
_BUSY = frozenset({3633, 3634, 3874})
"""A table is altered, or another clone goes on, at the source or here."""
_BROKEN = frozenset({1040, 1158, 1159, 1160, 1161, 2003, 2006, 2013})
"""Its source cannot be reached, or not any more."""
_NUMBER = re.compile(r"\b(\d{4}) :")
_LEAST_PACKET = 2 << 20
_SERIES_SINCE = (8, 0, 37)
"""Since this version servers of one series need not be of the same version."""
_TELL_EVERY = 1.0
_SAME = (
    *("innodb_page_size", "lower_case_table_names", "version_compile_machine", "version_compile_os"),
    *("character_set_server", "character_set_filesystem", "collation_server"),
)
_BRIEF = 5.0
"""Seconds within which settings that were made for a clone are put back."""
_LOOK = (
    "SELECT @@version AS version, @@global.max_allowed_packet AS packet, "
    + ", ".join(f"@@global.{name} AS {name}" for name in _SAME)
    + ", (SELECT COUNT(*) FROM information_schema.PLUGINS"
    " WHERE PLUGIN_NAME='clone' AND PLUGIN_STATUS='ACTIVE') AS clone"
)
# times that no time zone changes: one that was set at run time is gone when the server has restarted
_NOW = "SELECT UNIX_TIMESTAMP(NOW(3)) AS now"
_LIBRARIES = (
    "SELECT PLUGIN_LIBRARY AS file FROM information_schema.PLUGINS"
    " WHERE PLUGIN_STATUS='ACTIVE' AND PLUGIN_LIBRARY IS NOT NULL"
)
_SETTINGS = "SHOW GLOBAL VARIABLES WHERE Variable_name LIKE 'clone_ssl%' OR Variable_name='clone_valid_donor_list'"
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
    if ":" in there.address.host:
        found.append(f"MySQL clones from no IPv6 address, as {there.server} has; from a name for it, it does")
    return [*found, *_lacks(here, mine, "CLONE_ADMIN", deadline)]


def libraries(here: Session, there: Session, deadline: Deadline) -> tuple[str, tuple[str, ...]]:
    """Returns the plugin folder of ``here``, and the files there that it needs for a copy of ``there``.

    Those of plugins that it has not loaded: it loads them when it starts with the copy.
    """
    theirs, mine = ({str(row["file"]) for row in s.read(_LIBRARIES, deadline)} for s in (there, here))
    folder = str(here.one("SELECT @@global.plugin_dir AS d", deadline)["d"])
    return folder, tuple(sorted(theirs - mine))


def unverified(here: Session, login: Login, tls: Mapping[str, str], deadline: Deadline) -> list[str]:
    """Returns why nobody would verify whom ``login`` is sent to, where that is wanted; ``tls`` as for :func:`clone`."""
    if not _verifies(login) or "clone_ssl_ca" in tls or _settings(here, deadline).get("clone_ssl_ca"):
        return []
    return [
        f"{here.server} would not verify from whom it clones: name replication.tls.ca in the configuration, a file "
        "on that server; or on it: SET PERSIST clone_ssl_ca=…"
    ]


def _verifies(login: Login) -> bool:
    return login.tls is not None and login.tls.verify_mode is not ssl.CERT_NONE


def _settings(session: Session, deadline: Deadline) -> dict[str, str]:
    """Returns what a clone is told of its source; nothing where the plugin is not loaded."""
    return {str(row["Variable_name"]): str(row["Value"]) for row in session.read(_SETTINGS, deadline)}


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


def install(here: Session, deadline: Deadline) -> None:
    """The plugin is there: while nothing is lost yet, for its file may not be. Raises StatementError."""
    if not int(here.one(_LOOK, deadline)["clone"]):
        here.change_all("rejoin.clone", (_OPEN, PLUGIN, _CLOSED), deadline)


@contextlib.contextmanager
def _told(here: Session, wanted: Mapping[str, str], deadline: Deadline) -> Iterator[None]:
    """The settings of a clone are ``wanted``; as they were, if it fails. After a clone the restart has taken them."""
    before = _settings(here, deadline)
    _set(here, wanted, deadline)
    try:
        yield
    except Exception:
        with contextlib.suppress(ServerError, TimedOut):
            _set(here, {name: before[name] for name in wanted}, Deadline.firm(_BRIEF))
        raise


def _set(here: Session, values: Mapping[str, str], deadline: Deadline) -> None:
    # an empty list of sources is what it begins with, and refused
    each = ", GLOBAL ".join(f"{name}={'%s' if value else 'DEFAULT'}" for name, value in values.items())
    here.change("rejoin.clone", f"SET GLOBAL {each}", deadline, tuple(filter(None, values.values())))


def clone(
    here: Session,
    aside: Session,
    source: Address,
    login: Login,
    tls: Mapping[str, str],
    watch: Callable[[int], None],
    still: Callable[[], None],
    deadline: Deadline,
) -> Begun:
    """Makes the server of ``here`` a copy of ``source``; ``aside`` is another session there, which reads how far it is.

    The plugin is there (:func:`install`). ``tls`` has the settings ``clone_ssl_…``, files on that server, by which it
    verifies the authority of the source; they count where ``login`` verifies. ``still`` is called right before its data
    go, while nobody can write there: super_read_only would stop the clone as well, so it gives way in one piece with
    it. Returns when the data are there and the server restarts, or shuts down. Raises StatementError when it cannot,
    and what ``still`` raises.
    """
    wanted = {"clone_valid_donor_list": str(source), **(tls if _verifies(login) else {})}
    with _told(here, wanted, deadline):
        return _clone(here, aside, source, login, watch, still, deadline)


def _clone(
    here: Session,
    aside: Session,
    source: Address,
    login: Login,
    watch: Callable[[int], None],
    still: Callable[[], None],
    deadline: Deadline,
) -> Begun:
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
        ciphered = " REQUIRE SSL" if login.tls else ""
        here.change_all("rejoin.clone", (_OPEN, f"CLONE INSTANCE FROM {whom}{ciphered}"), deadline)
    except LostReply:
        if deadline.passed:
            raise
    except StatementError as error:
        if _passes(error):
            raise PutOff(here.server, error.errno, error.text) from error
        if error.errno != _NO_SUPERVISOR:
            raise
        supervised = False
    finally:
        over.set()
        teller.join()
    return Begun(since, supervised)


def _passes(error: StatementError) -> bool:
    """Whether it may be over soon. What the source says, or who connects to it, stands in the text of 3862."""
    said = _NUMBER.search(error.text) if error.errno == _OF_SOURCE else None
    return error.errno in _BUSY or (said is not None and int(said[1]) in _BUSY | _BROKEN)


def outcome(session: Session, begun: Begun, deadline: Deadline) -> str:
    """Returns the state of what was ``begun``, with what was wrong; empty once it is whole and the server in use."""
    row = session.one(_STATUS, deadline)
    if not row or row["begun"] is None or row["begun"] < begun.at:
        return NOTHING
    return "" if str(row["state"]) == "Completed" else f"{row['state']} {row['error'] or ''}".strip()
