"""Replication channels in MySQL's words, by GTID (SOURCE_AUTO_POSITION)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from proxyroute.db.mysql_read import OF_ONE_SERVER, SOURCE_OPTIONS, read_channels, read_purged, read_status
from proxyroute.db.replication import APPLIER, CONNECT_RETRY, RECEIVER, Replication, quoted
from proxyroute.gtid import Position
from proxyroute.model import Deadline, Peer, Source, Status

_RETRY_COUNT = 86_400
"""The server's own until 8.3. From 8.4 on a receiver gives up after ten, less than a minute with our interval."""
_NUMBERS = ("zstd_level", "gtid_only")
_THREADS = {RECEIVER: "IO_THREAD", APPLIER: "SQL_THREAD"}


class MySQLReplication(Replication):
    """The channels of one MySQL server."""

    copied = tuple(key for key in SOURCE_OPTIONS if key not in OF_ONE_SERVER)
    rests_safely = True
    fresh: Mapping[str, Any] = MappingProxyType({"connect_retry": CONNECT_RETRY, "retry_count": _RETRY_COUNT})

    @property
    def unverifiable(self) -> bool:
        """Whether its source is to be verified, and no authority is named: the server takes none of its machine's."""
        return bool(self._login.options.get("ssl_verify")) and not self._login.options.get("ssl_ca")

    def _status(self, deadline: Deadline) -> Status:
        session = self._session(deadline)
        return read_status(session, session.server, session.address, deadline)

    def _channels(self, deadline: Deadline) -> tuple[Source, ...]:
        return read_channels(self._session(deadline), deadline)

    def _stop_sql(self, channel: str, thread: str = "") -> str:
        return _words("STOP REPLICA", _THREADS.get(thread, ""), channel)

    def _start_sql(self, channel: str, threads: Sequence[str] = ()) -> str:
        return _words("START REPLICA", ", ".join(_THREADS[t] for t in threads), channel)

    def _forget_sql(self, channel: str) -> str:
        return _words("RESET REPLICA ALL", "", channel)

    def _source_sql(
        self, channel: str, source: Peer, options: Mapping[str, Any], *, demoted: bool
    ) -> tuple[str, tuple[Any, ...]]:
        clauses = ["SOURCE_HOST=%s", "SOURCE_PORT=%s", "SOURCE_USER=%s", "SOURCE_PASSWORD=%s"]
        args: list[Any] = [source.address.host, source.address.port, self._login.user, self._login.password]
        wanted = dict(options)
        # the usual authentication wants TLS, or the source's public key; asking for it is the least that works
        if not wanted.get("ssl") and not wanted.get("public_key"):
            wanted["get_public_key"] = True
        given = option_clauses({key: wanted[key] for key in self.copied if wanted.get(key) is not None})
        clauses += [clause for clause, _ in given]
        args += [value for _, values in given for value in values]
        clauses.append("SOURCE_AUTO_POSITION=1")
        if wanted.get("chooses_source") is False:  # by its list it would go back to an old source that is there again
            clauses.append("SOURCE_CONNECTION_AUTO_FAILOVER=0")
        return _words(f"CHANGE REPLICATION SOURCE TO {', '.join(clauses)}", "", channel), tuple(args)

    def _prepare_position(self, status: Status, deadline: Deadline) -> bool:
        return False  # what it has executed is its position

    def _never_fetched(self, status: Status, has: Position) -> Position:
        """What it wrote itself, where its data are older than that (a copy that was put back, a disk that has lied)."""
        received = status.executed
        for channel in status.sources:
            received = received.merge(channel.received)
        return has.by(status.identity).minus(received)

    def purged(self, deadline: Deadline) -> Position:
        return read_purged(self._session(deadline), deadline)

    def _receiver_patience(self) -> tuple[str, str]:
        return "", ""


def option_clauses(options: Mapping[str, Any]) -> list[tuple[str, tuple[Any, ...]]]:
    """Returns a clause for each of ``options``, by the keys of ``SOURCE_OPTIONS``, with what goes in its place."""
    return [_clause(SOURCE_OPTIONS[key][1], key, value) for key, value in options.items()]


def _clause(name: str, key: str, value: Any) -> tuple[str, tuple[Any, ...]]:
    if key == "privileges":  # an account, told as the server quotes it
        user, _, host = str(value).rpartition("@")
        return f"{name}=%s@%s", (user.strip("'`"), host.strip("'`"))
    if key == "key_check":  # a word of the language, no text
        return f"{name}={re.sub(r'[^A-Z]', '', str(value))}", ()
    if key == "row_format":
        return f"{name}=%s", (int(value == "YES"),)
    return f"{name}=%s", (int(value) if isinstance(value, bool) or key in _NUMBERS else value,)


def _words(statement: str, rest: str, channel: str) -> str:
    """Returns a statement about one channel. Without its name STOP, START and RESET would mean all there are."""
    return " ".join(word for word in (statement, rest, f"FOR CHANNEL {quoted(channel)}") if word)
