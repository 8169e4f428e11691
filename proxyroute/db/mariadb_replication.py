"""Replication channels in MariaDB's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxyroute.db.mariadb_read import SOURCE_OPTIONS, read_channels, read_purged, read_status
from proxyroute.db.replication import APPLIER, RECEIVER, Replication, quoted
from proxyroute.gtid import MariaDBPosition
from proxyroute.model import Deadline, Peer, Source, Status

_DEMOTE_SINCE = (10, 10, 0)
_THREADS = {RECEIVER: "IO_THREAD", APPLIER: "SQL_THREAD"}


class MariaDBReplication(Replication):
    """The channels of one MariaDB server."""

    copied = tuple(key for key in SOURCE_OPTIONS if key.startswith("ssl") or key in ("connect_retry", "heartbeat"))

    def _status(self, deadline: Deadline) -> Status:
        session = self._session(deadline)
        return read_status(session, session.server, session.address, deadline)

    def _channels(self, deadline: Deadline) -> tuple[Source, ...]:
        return read_channels(self._session(deadline), deadline)

    def _stop_sql(self, channel: str, thread: str = "") -> str:
        return _words("STOP SLAVE", channel, _THREADS.get(thread, ""))

    def _start_sql(self, channel: str, threads: Sequence[str] = ()) -> str:
        return _words("START SLAVE", channel, ", ".join(_THREADS[t] for t in threads))

    def _forget_sql(self, channel: str) -> str:
        return _words("RESET SLAVE", channel, "ALL")

    def _source_sql(
        self, channel: str, source: Peer, options: Mapping[str, Any], *, demoted: bool
    ) -> tuple[str, tuple[Any, ...]]:
        clauses = ["MASTER_HOST=%s", "MASTER_PORT=%s", "MASTER_USER=%s", "MASTER_PASSWORD=%s"]
        args: list[Any] = [source.address.host, source.address.port, self._login.user, self._login.password]
        for key in self.copied:
            if options.get(key) is not None:
                clauses.append(f"{SOURCE_OPTIONS[key][1]}=%s")
                args.append(int(options[key]) if isinstance(options[key], bool) else options[key])
        clauses.append("MASTER_USE_GTID=slave_pos")
        if demoted:
            clauses.append("MASTER_DEMOTE_TO_SLAVE=1")
        return f"{_words('CHANGE MASTER', channel)} TO {', '.join(clauses)}", tuple(args)

    def _prepare_position(self, status: Status, deadline: Deadline) -> bool:
        if status.version >= _DEMOTE_SINCE:
            return True
        if isinstance(status.executed, MariaDBPosition):
            sql, text = "SET GLOBAL gtid_slave_pos=%s", status.executed.latest_text
            self._session(deadline).change("mariadb.set_position", sql, deadline, (text,))
        return False

    def purged(self, deadline: Deadline) -> MariaDBPosition | None:
        return read_purged(self._session(deadline), deadline)

    def _receiver_patience(self) -> tuple[str, str]:
        return "rpl_semi_sync_slave_enabled", "rpl_semi_sync_slave_kill_conn_timeout"


def _words(statement: str, channel: str, rest: str = "") -> str:
    """Returns a statement about a channel; the default one has no name."""
    return " ".join(word for word in (statement, quoted(channel) if channel else "", rest) if word)
