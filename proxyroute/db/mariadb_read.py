"""Readings of a MariaDB server (10.5 to 11.8): one :class:`~proxyroute.model.Status` in one round trip.

Nothing here takes a lock that a commit may hold. In particular ``SHOW MASTER STATUS`` is left out: it waits for the
binary log's mutex, and a server with a hanging disk must still be readable.
"""

from __future__ import annotations

from typing import Any

from proxyroute.db.rows import UNKNOWN_VARIABLE, by_kind, is_on, options, parse_version, receiver, semi_sync
from proxyroute.db.session import Session
from proxyroute.errors import ServerError, StatementError
from proxyroute.gtid import MariaDBPosition
from proxyroute.model import Address, Deadline, Source, Status

# positions are never read from information_schema.GLOBAL_VARIABLES: it cuts values off after 2048 characters
_POSITIONS = "@@global.gtid_binlog_state AS binlog_state, @@global.gtid_slave_pos AS slave_pos"
_CORE = (
    f"SELECT {_POSITIONS}, @@version AS version, @@global.server_id AS server_id, @@global.read_only AS read_only, "
    "@@global.log_bin AS log_bin, @@global.log_slave_updates AS log_slave_updates, "
    "@@global.binlog_format AS binlog_format, @@global.binlog_row_image AS binlog_row_image, "
    "@@global.gtid_strict_mode AS gtid_strict_mode, @@global.max_connections AS max_connections, "
    "@@global.slave_net_timeout AS slave_net_timeout, @@global.event_scheduler AS event_scheduler"
)

SETTINGS = (
    "binlog_row_image",
    "extra_max_connections",
    "extra_port",
    "gtid_domain_id",
    "gtid_ignore_duplicates",
    "innodb_flush_log_at_trx_commit",
    "innodb_read_only",
    "rpl_semi_sync_master_enabled",
    "rpl_semi_sync_master_timeout",
    "rpl_semi_sync_master_wait_no_slave",
    "rpl_semi_sync_master_wait_point",
    "rpl_semi_sync_slave_enabled",
    "skip_name_resolve",
    "slave_net_timeout",
    "slave_parallel_mode",
    "slave_parallel_threads",
    "sync_binlog",
    "sync_relay_log",
    "wsrep_on",
)
"""Global variables that a reading keeps in ``Status.settings``; those a server does not have are left out."""

_COUNTERS = (
    "rpl_semi_sync_master_clients",
    "rpl_semi_sync_master_status",
    "rpl_semi_sync_master_wait_sessions",
    "rpl_semi_sync_master_yes_tx",
    "rpl_semi_sync_slave_status",
    "threads_connected",
    "uptime",
)

_NAMED = (
    "SELECT 'variable' AS kind, VARIABLE_NAME AS name, VARIABLE_VALUE AS value"
    f" FROM information_schema.GLOBAL_VARIABLES WHERE VARIABLE_NAME IN {SETTINGS}"
    " UNION ALL SELECT 'counter', VARIABLE_NAME, VARIABLE_VALUE"
    f" FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME IN {_COUNTERS}"
)
_CHANNELS = "SHOW ALL SLAVES STATUS"

SOURCE_OPTIONS: dict[str, tuple[str, str]] = {
    "connect_retry": ("Connect_Retry", "MASTER_CONNECT_RETRY"),
    "heartbeat": ("Slave_heartbeat_period", "MASTER_HEARTBEAT_PERIOD"),
    "delay": ("SQL_Delay", "MASTER_DELAY"),
    "ssl": ("Master_SSL_Allowed", "MASTER_SSL"),
    "ssl_ca": ("Master_SSL_CA_File", "MASTER_SSL_CA"),
    "ssl_capath": ("Master_SSL_CA_Path", "MASTER_SSL_CAPATH"),
    "ssl_cert": ("Master_SSL_Cert", "MASTER_SSL_CERT"),
    "ssl_key": ("Master_SSL_Key", "MASTER_SSL_KEY"),
    "ssl_cipher": ("Master_SSL_Cipher", "MASTER_SSL_CIPHER"),
    "ssl_verify": ("Master_SSL_Verify_Server_Cert", "MASTER_SSL_VERIFY_SERVER_CERT"),
    "ssl_crl": ("Master_SSL_Crl", "MASTER_SSL_CRL"),
    "ssl_crlpath": ("Master_SSL_Crlpath", "MASTER_SSL_CRLPATH"),
    "ignore_server_ids": ("Replicate_Ignore_Server_Ids", "IGNORE_SERVER_IDS"),
    "do_domain_ids": ("Replicate_Do_Domain_Ids", "DO_DOMAIN_IDS"),
    "ignore_domain_ids": ("Replicate_Ignore_Domain_Ids", "IGNORE_DOMAIN_IDS"),
}
"""Keys of ``Source.options``: the column each is read from and the CHANGE MASTER option that sets it again."""

_FLAGS = ("ssl", "ssl_verify")
_LISTS = ("ignore_server_ids", "do_domain_ids", "ignore_domain_ids")
_FILTERS = (
    *(SOURCE_OPTIONS[key][0] for key in _LISTS),
    "Replicate_Do_DB",
    "Replicate_Ignore_DB",
    "Replicate_Do_Table",
    "Replicate_Ignore_Table",
    "Replicate_Wild_Do_Table",
    "Replicate_Wild_Ignore_Table",
    "Replicate_Rewrite_DB",
)


def read_status(session: Session, name: str, address: Address, deadline: Deadline) -> Status:
    """Returns a fresh reading of the server at the other end of ``session``, under ``name`` and ``address``.

    ``Status.round_trip_seconds`` is how long the first and cheapest statement took. Raises Unreachable when the
    server does not answer by ``deadline``, StatementError when a privilege is missing (SLAVE MONITOR), and
    ServerError when it is not a MariaDB server.
    """
    ((core,), named, channels), round_trip = _read(session, deadline)
    variables, counters = by_kind(named, "variable", "counter")
    executed = _executed(core)
    sources = tuple(_source(row, executed, deadline) for row in channels)
    version_text = str(core["version"])
    return Status(
        name=name,
        address=address,
        flavour="mariadb",
        version=parse_version(version_text),
        version_text=version_text,
        server_id=int(core["server_id"]),
        writable=not is_on(core["read_only"]),
        executed=executed,
        sources=sources,
        binlog=is_on(core["log_bin"]),
        relays_updates=is_on(core["log_bin"]) and is_on(core["log_slave_updates"]),
        binlog_format=str(core["binlog_format"]),
        row_image=str(core["binlog_row_image"]),
        strict=is_on(core["gtid_strict_mode"]),
        semi_sync=semi_sync(variables, counters),
        galera=is_on(variables.get("wsrep_on")),
        connections=int(counters.get("threads_connected", 0)),
        connections_limit=int(core["max_connections"]),
        net_timeout_seconds=float(core["slave_net_timeout"]),
        event_scheduler=is_on(core["event_scheduler"]),
        uptime_seconds=float(counters.get("uptime", 0)),
        round_trip_seconds=round_trip,
        settings=dict(sorted(variables.items())),
    )


def read_channels(session: Session, deadline: Deadline) -> tuple[Source, ...]:
    """Returns the replication channels in one round trip; ``received`` holds only what their receivers tell."""
    nothing = MariaDBPosition()
    return tuple(_source(row, nothing, deadline) for row in session.read(_CHANNELS, deadline))


def read_position(session: Session, deadline: Deadline) -> MariaDBPosition:
    """Returns everything the server has executed: its binary log's state and what it applied as a replica."""
    return _executed(session.one(f"SELECT {_POSITIONS}", deadline))


def read_purged(session: Session, deadline: Deadline) -> MariaDBPosition | None:
    """Returns where the oldest binary log begins: the one without a name, at 4, after the magic number.

    None when it does not tell: there is no binary log, or the file that its index names first is not there. SHOW BINARY
    LOGS waits for the lock of the log, which commits hold for as long as those before them wait for an acknowledgement,
    maybe that of the very replica that is to follow; this only reads the index.
    """
    try:
        pos = session.one("SELECT BINLOG_GTID_POS('', 4) AS pos", deadline)["pos"]
    except StatementError:
        return None
    return None if pos is None else MariaDBPosition.parse(pos)


def _read(session: Session, deadline: Deadline) -> tuple[list[list[dict[str, Any]]], float]:
    try:
        return session.read_all((_CORE, _NAMED, _CHANNELS), deadline)
    except StatementError as error:
        if error.errno == UNKNOWN_VARIABLE:
            raise ServerError(
                session.server, f"is not a MariaDB server of 10.5 or later: it answered {error}"
            ) from error
        raise


def _executed(row: dict[str, Any]) -> MariaDBPosition:
    written = MariaDBPosition.parse(row["binlog_state"] or "")
    # a replica's filters advance its position without anything in its binary log
    return written.merge(MariaDBPosition.parse(row["slave_pos"] or ""))


def _source(row: dict[str, Any], executed: MariaDBPosition, deadline: Deadline) -> Source:
    lag = row["Seconds_Behind_Master"]
    errors = [str(row[column]) for column in ("Last_IO_Error", "Last_SQL_Error") if row.get(column)]
    return Source(
        channel=str(row["Connection_name"]),
        address=Address(str(row["Master_Host"]), int(row["Master_Port"])),
        user=str(row["Master_User"]),
        source_id=int(row["Master_Server_Id"]) or None,
        receiver=receiver(row["Slave_IO_Running"], row["Master_Server_Id"]),
        applier=row["Slave_SQL_Running"] == "Yes",
        # Gtid_IO_Pos holds one GTID per domain, and none before the first contact after a restart
        received=executed.merge(MariaDBPosition.parse(row["Gtid_IO_Pos"] or "")),
        lag_seconds=None if lag is None else float(lag),
        delay_seconds=int(row["SQL_Delay"] or 0),
        heartbeat_seconds=float(row["Slave_heartbeat_period"]),
        uses_gtid=row["Using_Gtid"] != "No",
        filtered=any(row.get(column) for column in _FILTERS),
        error="; ".join(errors),
        receiver_errno=int(row.get("Last_IO_Errno") or 0),
        applier_errno=int(row.get("Last_SQL_Errno") or 0),
        receiver_state=str(row.get("Slave_IO_State") or ""),
        read_file=str(row.get("Master_Log_File") or ""),
        read_offset=int(row.get("Read_Master_Log_Pos") or 0),
        heartbeats=int(row.get("Slave_received_heartbeats") or 0),
        options=options(row, SOURCE_OPTIONS, flags=_FLAGS, lists=_LISTS),
    )
