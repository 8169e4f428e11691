"""Readings of a MySQL server (tried on 9.7): one :class:`~proxyroute.model.Status` in one round trip.

Nothing here takes a lock that a commit may hold: a server with a hanging disk must still be readable.
"""

from __future__ import annotations

from typing import Any

from proxyroute.db.mysql_spelling import FLOOR
from proxyroute.db.rows import by_kind, is_on, options, parse_version, receiver, semi_sync
from proxyroute.db.session import Session
from proxyroute.errors import ServerError
from proxyroute.gtid import MySQLPosition
from proxyroute.model import Address, Deadline, Source, Status

_POSITION = "@@global.gtid_executed AS executed"
_CORE = (
    f"SELECT {_POSITION}, @@version AS version, @@global.server_id AS server_id, @@global.read_only AS read_only, "
    "@@global.server_uuid AS uuid, "
    "@@global.log_bin AS log_bin, @@global.log_replica_updates AS log_replica_updates, "
    "@@global.binlog_format AS binlog_format, @@global.binlog_row_image AS binlog_row_image, "
    "@@global.gtid_mode AS gtid_mode, @@global.enforce_gtid_consistency AS consistency, "
    "@@global.max_connections AS max_connections, @@global.replica_net_timeout AS replica_net_timeout, "
    "@@global.event_scheduler AS event_scheduler"
)

SETTINGS = (
    "binlog_row_image",
    "enforce_gtid_consistency",
    "gtid_mode",
    "innodb_flush_log_at_trx_commit",
    "innodb_read_only",
    "offline_mode",
    "replica_net_timeout",
    "replica_parallel_workers",
    "replica_preserve_commit_order",
    "rpl_semi_sync_master_enabled",
    "rpl_semi_sync_master_timeout",
    "rpl_semi_sync_master_wait_for_slave_count",
    "rpl_semi_sync_master_wait_no_slave",
    "rpl_semi_sync_master_wait_point",
    "rpl_semi_sync_slave_enabled",
    "rpl_semi_sync_source_enabled",
    "rpl_semi_sync_source_timeout",
    "rpl_semi_sync_source_wait_for_replica_count",
    "rpl_semi_sync_source_wait_no_replica",
    "rpl_semi_sync_source_wait_point",
    "rpl_semi_sync_replica_enabled",
    "skip_name_resolve",
    "super_read_only",
    "sync_binlog",
    "sync_relay_log",
)
"""Global variables that a reading keeps in ``Status.settings``; those a server does not have are left out."""

ROLE_FLAGS = (
    "event_scheduler",
    "offline_mode",
    "read_only",
    "rpl_semi_sync_master_enabled",
    "rpl_semi_sync_slave_enabled",
    "rpl_semi_sync_source_enabled",
    "rpl_semi_sync_replica_enabled",
    "super_read_only",
)
"""Variables that go with a server's role. SET PERSIST keeps them over a restart, whatever the role is by then."""

_COUNTERS = (
    "Rpl_semi_sync_master_clients",
    "Rpl_semi_sync_master_status",
    "Rpl_semi_sync_master_wait_sessions",
    "Rpl_semi_sync_master_yes_tx",
    "Rpl_semi_sync_slave_status",
    "Rpl_semi_sync_source_clients",
    "Rpl_semi_sync_source_status",
    "Rpl_semi_sync_source_wait_sessions",
    "Rpl_semi_sync_source_yes_tx",
    "Rpl_semi_sync_replica_status",
    "Threads_connected",
    "Uptime",
)

# all of these are there with performance_schema=OFF, too, but for what is about channels
_NAMED = (
    "SELECT 'variable' AS kind, VARIABLE_NAME AS name, VARIABLE_VALUE AS value"
    f" FROM performance_schema.global_variables WHERE VARIABLE_NAME IN {SETTINGS}"
    " UNION ALL SELECT 'counter', VARIABLE_NAME, VARIABLE_VALUE"
    f" FROM performance_schema.global_status WHERE VARIABLE_NAME IN {_COUNTERS}"
    " UNION ALL SELECT 'persisted', VARIABLE_NAME, VARIABLE_VALUE"
    f" FROM performance_schema.persisted_variables WHERE VARIABLE_NAME IN {ROLE_FLAGS}"
    " UNION ALL SELECT 'member', MEMBER_ID, MEMBER_STATE"
    " FROM performance_schema.replication_group_members WHERE MEMBER_STATE <> 'OFFLINE'"
)
_CHANNELS = "SHOW REPLICA STATUS"
# with all there is of the options: the later ones came one by one, and an older server would refuse their names
_HEARD = (
    "SELECT a.*, c.*, c.CHANNEL_NAME AS channel, c.HEARTBEAT_INTERVAL AS heartbeat,"
    " s.COUNT_RECEIVED_HEARTBEATS AS heartbeats,"
    " (SELECT MAX(w.LAST_ERROR_MESSAGE) FROM performance_schema.replication_applier_status_by_worker w"
    " WHERE w.CHANNEL_NAME = c.CHANNEL_NAME AND w.LAST_ERROR_NUMBER <> 0) AS worker_error"
    " FROM performance_schema.replication_connection_configuration c"
    " LEFT JOIN performance_schema.replication_connection_status s ON s.CHANNEL_NAME = c.CHANNEL_NAME"
    " LEFT JOIN performance_schema.replication_applier_configuration a ON a.CHANNEL_NAME = c.CHANNEL_NAME"
)

SOURCE_OPTIONS: dict[str, tuple[str, str]] = {
    "connect_retry": ("Connect_Retry", "SOURCE_CONNECT_RETRY"),
    "retry_count": ("Source_Retry_Count", "SOURCE_RETRY_COUNT"),
    "heartbeat": ("heartbeat", "SOURCE_HEARTBEAT_PERIOD"),
    "delay": ("SQL_Delay", "SOURCE_DELAY"),
    "ssl": ("Source_SSL_Allowed", "SOURCE_SSL"),
    "ssl_ca": ("Source_SSL_CA_File", "SOURCE_SSL_CA"),
    "ssl_capath": ("Source_SSL_CA_Path", "SOURCE_SSL_CAPATH"),
    "ssl_cert": ("Source_SSL_Cert", "SOURCE_SSL_CERT"),
    "ssl_key": ("Source_SSL_Key", "SOURCE_SSL_KEY"),
    "ssl_cipher": ("Source_SSL_Cipher", "SOURCE_SSL_CIPHER"),
    "ssl_verify": ("Source_SSL_Verify_Server_Cert", "SOURCE_SSL_VERIFY_SERVER_CERT"),
    "ssl_crl": ("Source_SSL_Crl", "SOURCE_SSL_CRL"),
    "ssl_crlpath": ("Source_SSL_Crlpath", "SOURCE_SSL_CRLPATH"),
    "public_key": ("Source_public_key_path", "SOURCE_PUBLIC_KEY_PATH"),
    "get_public_key": ("Get_Source_public_key", "GET_SOURCE_PUBLIC_KEY"),
    "tls_version": ("Source_TLS_Version", "SOURCE_TLS_VERSION"),
    "tls_ciphersuites": ("TLS_CIPHERSUITES", "SOURCE_TLS_CIPHERSUITES"),
    "compression": ("COMPRESSION_ALGORITHM", "SOURCE_COMPRESSION_ALGORITHMS"),
    "zstd_level": ("ZSTD_COMPRESSION_LEVEL", "SOURCE_ZSTD_COMPRESSION_LEVEL"),
    "bind": ("Source_Bind", "SOURCE_BIND"),
    "namespace": ("Network_Namespace", "NETWORK_NAMESPACE"),
    "gtid_only": ("GTID_ONLY", "GTID_ONLY"),
    "privileges": ("PRIVILEGE_CHECKS_USER", "PRIVILEGE_CHECKS_USER"),
    "row_format": ("REQUIRE_ROW_FORMAT", "REQUIRE_ROW_FORMAT"),
    "key_check": ("REQUIRE_TABLE_PRIMARY_KEY_CHECK", "REQUIRE_TABLE_PRIMARY_KEY_CHECK"),
}
"""Keys of ``Source.options``: the column each is read from and the option that sets it again."""

OF_ONE_SERVER = frozenset({"delay", "bind", "namespace", "gtid_only", "privileges", "row_format", "key_check"})
"""Those that no other server takes over: how this one applies, and from where it connects."""

_USUAL = {
    "compression": "uncompressed",
    "zstd_level": "3",
    "gtid_only": "0",
    "row_format": "NO",
    "key_check": "STREAM",
}
"""What a channel has of which nothing was said: left out, for a server may be too old to be told."""

_FLAGS = ("ssl", "ssl_verify", "get_public_key")
_FILTERS = (
    "Replicate_Ignore_Server_Ids",
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
    server does not answer by ``deadline``, StatementError when a privilege is missing (REPLICATION CLIENT), and
    ServerError when it is older than any MySQL that is known here.
    """
    if session.version < FLOOR:
        told, floor = (".".join(str(n) for n in version) for version in (session.version, FLOOR))
        raise ServerError(session.server, f"is MySQL {told}; ProxyRoute works with MySQL from {floor} on")
    found, round_trip = session.read_all((_CORE, _NAMED, _CHANNELS, _HEARD), deadline)
    (core,), named, channels, heard = found
    variables, counters, persisted, members = by_kind(named, "variable", "counter", "persisted", "member")
    if persisted:
        variables["persisted"] = ",".join(f"{k}={v}" for k, v in sorted(persisted.items()))
    executed = _position(core["executed"])
    gtid = str(core["gtid_mode"]).upper() == "ON"
    version_text = str(core["version"])
    return Status(
        name=name,
        address=address,
        flavour="mysql",
        version=parse_version(version_text),
        version_text=version_text,
        server_id=int(core["server_id"]),
        writable=not is_on(core["read_only"]),
        executed=executed,
        sources=_sources(channels, heard, executed),
        binlog=is_on(core["log_bin"]),
        relays_updates=is_on(core["log_bin"]) and is_on(core["log_replica_updates"]),
        binlog_format=str(core["binlog_format"]),
        row_image=str(core["binlog_row_image"]),
        strict=gtid and str(core["consistency"]).upper() == "ON",
        semi_sync=semi_sync(variables, counters),
        group=bool(members),
        connections=int(counters.get("threads_connected", 0)),
        connections_limit=int(core["max_connections"]),
        net_timeout_seconds=float(core["replica_net_timeout"]),
        event_scheduler=is_on(core["event_scheduler"]),
        uptime_seconds=float(counters.get("uptime", 0)),
        round_trip_seconds=round_trip,
        settings=dict(sorted(variables.items())),
        uuid=str(core["uuid"]).lower(),
    )


def read_channels(session: Session, deadline: Deadline) -> tuple[Source, ...]:
    """Returns the replication channels in one round trip; ``received`` holds only what their receivers tell."""
    (channels, heard), _ = session.read_all((_CHANNELS, _HEARD), deadline)
    return _sources(channels, heard, MySQLPosition())


def read_position(session: Session, deadline: Deadline) -> MySQLPosition:
    """Returns everything the server has executed."""
    return _position(session.one(f"SELECT {_POSITION}", deadline)["executed"])


def read_purged(session: Session, deadline: Deadline) -> MySQLPosition:
    """Returns what is not in the binary log any more."""
    return _position(session.one("SELECT @@global.gtid_purged AS purged", deadline)["purged"])


def _position(text: Any) -> MySQLPosition:
    return MySQLPosition.parse(str(text or ""))


def _sources(
    channels: list[dict[str, Any]], heard: list[dict[str, Any]], executed: MySQLPosition
) -> tuple[Source, ...]:
    more = {str(row["channel"]): row for row in heard}
    rows = ({**row, **more.get(str(row["Channel_Name"]), {})} for row in channels)
    # what only group replication has is no channel of ours, and one that was reset is none any more
    own = (r for r in rows if not str(r["Channel_Name"]).startswith("group_replication_") and r["Source_Host"])
    return tuple(_source(row, executed) for row in own)


def _source(row: dict[str, Any], executed: MySQLPosition) -> Source:
    lag = row["Seconds_Behind_Source"]
    # what stopped a worker is told by its own table; the channel's error only says to look there
    applying = row.get("worker_error") or row.get("Last_SQL_Error")
    errors = [str(error) for error in (row.get("Last_IO_Error"), applying) if error]
    return Source(
        channel=str(row["Channel_Name"]),
        address=Address(str(row["Source_Host"]), int(row["Source_Port"])),
        user=str(row["Source_User"]),
        source_id=int(row["Source_Server_Id"]) or None,
        receiver=receiver(row["Replica_IO_Running"], row["Source_Server_Id"]),
        applier=row["Replica_SQL_Running"] == "Yes",
        received=executed.merge(_position(row["Retrieved_Gtid_Set"])),
        lag_seconds=None if lag is None else float(lag),
        delay_seconds=int(row["SQL_Delay"] or 0),
        heartbeat_seconds=float(row.get("heartbeat") or 0),
        uses_gtid=bool(int(row["Auto_Position"])),
        filtered=any(row.get(column) for column in _FILTERS),
        error="; ".join(errors),
        receiver_errno=int(row.get("Last_IO_Errno") or 0),
        applier_errno=int(row.get("Last_SQL_Errno") or 0),
        receiver_state=str(row.get("Replica_IO_State") or ""),
        read_file=str(row.get("Source_Log_File") or ""),
        read_offset=int(row.get("Read_Source_Log_Pos") or 0),
        heartbeats=int(row.get("heartbeats") or 0),
        source_uuid=str(row.get("Source_UUID") or "").lower(),
        chooses_source=str(row.get("SOURCE_CONNECTION_AUTO_FAILOVER")) == "1",
        options={k: v for k, v in options(row, SOURCE_OPTIONS, flags=_FLAGS).items() if _USUAL.get(k) != v},
    )
